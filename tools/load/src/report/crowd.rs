//! A crowd of clients that comes back at once when the primary dies.

use super::takeover::others;
use crate::stats::{ms, verdict, worst};
use postern_testkit::client::{self, Client, is_ok};
use postern_testkit::group::Group;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 5000;
/// Clients share accounts: each account's first login of all costs a hash of 30 ms.
const ACCOUNTS: usize = 250;
/// Each thread has a part of the clients, and lets all of them ask before it reads an answer.
const THREADS: usize = 8;
const ROUNDS: usize = 3;
const TARGET: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries of clients that were not let in.
const RETRY_TIME: Duration = Duration::from_millis(10);

/// Kills the primary of all, and waits until all are logged in elsewhere.
pub(crate) fn measure(group: &mut Group) -> Result<String, String> {
    let mut primary = group.settle()?;
    let server = group.address(primary);
    let mut maker = Client::connect(server)?;
    for n in 0..ACCOUNTS {
        maker.must(&format!("CREATE user{n} {}", client::PASSWORD))?;
    }
    let mut crowd = come(&[server])?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        group.kill(primary)?;
        let began = Instant::now();
        drop(crowd);
        let backups: Vec<_> = others(&[primary]).iter().map(|at| group.address(*at)).collect();
        crowd = come(&backups)?;
        times.push(began.elapsed());
        group.reap(primary)?;
        group.start_server(primary)?;
        primary = group.settle()?;
    }
    let each: Vec<String> = times.iter().map(|time| ms(*time)).collect();
    Ok(format!(
        "  {CLIENTS} clients of {ACCOUNTS} accounts, kill -9 to the last LOGIN answered: {} ({}); \
         target: at most {}\n",
        each.join(", "),
        verdict(worst(&times) <= TARGET),
        ms(TARGET),
    ))
}

/// All clients, logged in at one of these servers.
fn come(servers: &[SocketAddr]) -> Result<Vec<TcpStream>, String> {
    let parts: Vec<Result<Vec<TcpStream>, String>> = thread::scope(|scope| {
        let part = |thread: usize| {
            scope.spawn(move || {
                let mine = (0..CLIENTS).filter(|n| n % THREADS == thread).collect();
                come_together(servers, mine)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(part).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    parts
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map(|parts| parts.into_iter().flatten().collect())
}

/// These clients; who is not let in tries the next server.
fn come_together(
    servers: &[SocketAddr],
    mut waiting: Vec<usize>,
) -> Result<Vec<TcpStream>, String> {
    let end = Instant::now() + PATIENCE;
    let mut inside = Vec::with_capacity(waiting.len());
    for turn in 0.. {
        let server = servers[turn % servers.len()];
        let asked: Vec<_> = waiting.iter().map(|n| (*n, ask(server, *n))).collect();
        waiting.clear();
        let mut why = String::new();
        for (n, stream) in asked {
            match stream.and_then(hear) {
                Ok((stream, answer)) if is_ok(&answer) => inside.push(stream),
                Ok((_, answer)) => {
                    why = answer;
                    waiting.push(n);
                }
                Err(error) => {
                    why = error.to_string();
                    waiting.push(n);
                }
            }
        }
        if waiting.is_empty() {
            break;
        }
        if Instant::now() > end {
            return Err(format!("{} clients are not let in: {why}", waiting.len()));
        }
        thread::sleep(RETRY_TIME);
    }
    Ok(inside)
}

fn ask(server: SocketAddr, n: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let account = n % ACCOUNTS;
    stream.write_all(format!("LOGIN user{account} {} end\n", client::PASSWORD).as_bytes())?;
    Ok(stream)
}

fn hear(stream: TcpStream) -> std::io::Result<(TcpStream, String)> {
    let mut reader = BufReader::with_capacity(256, stream);
    let mut answer = String::new();
    reader.read_line(&mut answer)?;
    Ok((reader.into_inner(), answer.trim_end().to_owned()))
}
