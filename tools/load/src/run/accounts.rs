//! Accounts of a run, and the clients that use them.

use super::connection::MakeDialect;
use super::parts::{Load, Part};
use super::plan::Clients;
use super::postern::{Accounts, Postern};
use super::receiver::{Pace, Receiver};
use postern::commands::{ask_status, is};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

/// The password of all accounts of all runs.
const PASSWORD: &str = "correct-horse";
/// Making an account takes the server 30 ms; it may have much else to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests in one go; the server takes 64.
const PIECE: usize = 16;
/// A server that does not say who it is in this time is not asked on.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at all of them.
const LOOK_TIME: Duration = Duration::from_millis(20);

/// The names that a run uses; `run` tells them from those of other runs.
pub(crate) fn accounts(run: &str, clients: &[Clients]) -> Vec<Rc<Accounts>> {
    let of = |(at, clients): (usize, &Clients)| {
        let mailboxes = (0..clients.mailboxes).map(|n| format!("load-{run}-{at}-{n}"));
        Rc::new(Accounts {
            sender: format!("load-{run}-{at}"),
            mailboxes: mailboxes.collect(),
            password: PASSWORD.to_owned(),
            once: clients.once,
        })
    };
    clients.iter().enumerate().map(of).collect()
}

/// Waits until one of these servers takes requests.
pub(crate) fn find_primary(servers: &[SocketAddr]) -> Result<SocketAddr, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        for server in servers {
            let state = ask_status(&server.to_string(), LOOK_PATIENCE).ok();
            let leads = |state| is(state, "role", "primary") && is(state, "waiting", "-");
            if state.as_ref().is_some_and(leads) {
                return Ok(*server);
            }
        }
        if Instant::now() > end {
            return Err("none of the servers is a primary that takes requests".to_owned());
        }
        thread::sleep(LOOK_TIME);
    }
}

/// Makes all these accounts, and logs in once as each of those that many will log in as at once:
/// only the first time a server hashes a password.
pub(crate) fn create(
    primary: SocketAddr,
    clients: &[Clients],
    accounts: &[Rc<Accounts>],
) -> Result<(), String> {
    let create = |name: &String| format!("CREATE {name} {PASSWORD}\n");
    let log_in = |name: &String| format!("LOGIN {name} {PASSWORD} end\nLOGOUT\n");
    let mut lines: Vec<String> = names(accounts).map(create).collect();
    for (clients, accounts) in clients.iter().zip(accounts) {
        let readers = clients.receivers + clients.slow;
        let read = accounts.mailboxes.iter().take(readers);
        lines.extend(read.chain([&accounts.sender]).map(log_in));
    }
    let mut reader = connect(primary)?;
    for piece in lines.chunks(PIECE) {
        ask(&mut reader, piece).map_err(|why| format!("{primary}: {why}"))?;
    }
    Ok(())
}

/// Deletes all these accounts, and what their mailboxes hold.
pub(crate) fn delete(primary: SocketAddr, accounts: &[Rc<Accounts>]) -> Result<(), String> {
    for name in names(accounts) {
        // Who deletes himself is disconnected.
        let mut reader = connect(primary)?;
        let lines = ["LOGIN", "DELETE"].map(|command| {
            let end = if command == "LOGIN" { " end" } else { "" };
            format!("{command} {name} {PASSWORD}{end}\n")
        });
        ask(&mut reader, &lines).map_err(|why| format!("{primary}: {why}"))?;
    }
    Ok(())
}

fn names(accounts: &[Rc<Accounts>]) -> impl Iterator<Item = &String> {
    accounts.iter().flat_map(|one| one.mailboxes.iter().chain([&one.sender]))
}

fn connect(primary: SocketAddr) -> Result<BufReader<TcpStream>, String> {
    let lost = |error: std::io::Error| format!("{primary}: {error}");
    let stream = TcpStream::connect_timeout(&primary, PATIENCE).map_err(lost)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
    Ok(BufReader::new(stream))
}

/// Asks for what must be granted, all at once.
fn ask(reader: &mut BufReader<TcpStream>, lines: &[String]) -> Result<(), String> {
    let lost = |error: std::io::Error| error.to_string();
    let lines = lines.concat();
    reader.get_mut().write_all(lines.as_bytes()).map_err(lost)?;
    for line in lines.lines() {
        let mut answer = String::new();
        reader.read_line(&mut answer).map_err(lost)?;
        if !answer.starts_with("OK") {
            return Err(format!("{}: {}", line, answer.trim_end()));
        }
    }
    Ok(())
}

/// The load that these clients make with their accounts.
pub(crate) fn load(
    clients: &[Clients],
    accounts: &[Rc<Accounts>],
    [warm_up, measured, patience]: [Duration; 3],
) -> Load {
    let parts = clients.iter().zip(accounts).map(|(clients, accounts)| part(clients, accounts));
    Load { warm_up, measured, patience, parts: parts.collect() }
}

/// The part of it that these clients make.
pub(crate) fn part(clients: &Clients, accounts: &Rc<Accounts>) -> Part {
    let own = accounts.clone();
    let dialect: MakeDialect = Rc::new(move || Box::new(Postern::new(own.clone())));
    let slow = (0..clients.slow).map(|_| Pace::Slow(clients.slow_bytes));
    let paces = (0..clients.receivers).map(|_| Pace::Live).chain(slow);
    let receivers =
        paces.enumerate().map(|(at, pace)| receiver(accounts, at % clients.mailboxes.max(1), pace));
    let own = accounts.clone();
    Part {
        dialect,
        senders: clients.connections,
        depth: clients.outstanding,
        sizes: clients.bytes,
        rate: clients.rate,
        mailboxes: clients.mailboxes,
        repeats: clients.once,
        idle: clients.idle,
        receivers: receivers.collect(),
        storm: clients.storm_time(),
        read_back: Some(Box::new(move |mailbox| receiver(&own, mailbox, Pace::Once))),
    }
}

fn receiver(accounts: &Accounts, mailbox: usize, pace: Pace) -> Receiver {
    let name = &accounts.mailboxes[mailbox];
    Receiver::new(mailbox, pace, [name, &accounts.password, &accounts.sender])
}
