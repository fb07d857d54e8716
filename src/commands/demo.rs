//! `postern demo`: runs three servers on this machine, to watch a failover.

use super::ask::takes_changes;
use super::directory::random;
use super::{Answer, Named, ask_status, status};
use crate::options;
use crate::settings::Settings;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const SERVERS: usize = 3;
/// How often the servers are asked for their status.
const LOOK_TIME: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_millis(300);
/// How long to wait for a takeover.
const TAKEOVER_TIME: Duration = Duration::from_secs(1);
/// When a group has had no primary for this time, the demo says which server to start.
const OUTAGE_TIME: Duration = Duration::from_millis(700);
/// How long the servers may take to stop.
const STOP_TIME: Duration = Duration::from_secs(5);

const HELP: &str = "\
Type here:  kill 1    kill -9 of server 1 (or 2, 3)
            start 1   starts it again
            status    shows all servers
            quit      stops everything, as Ctrl+C and Ctrl+D do
";

/// Runs the servers until the user quits.
///
/// # Errors
/// Returns a one-line message that states why the servers cannot be started.
#[cold]
pub fn run(options: &options::Demo) -> Result<ExitCode, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).named("signals")?;
    }
    let mut group = Group::start(options)?;
    let lines = read_lines();
    let typed = io::stdin().is_terminal();
    let mut seen = Seen::default();
    say(&format!("Three servers start; their data and logs are in {}\n", group.dir.display()));
    while !stop.load(Ordering::Relaxed) {
        match lines.recv_timeout(LOOK_TIME) {
            Ok(line) => {
                if !group.obey(&line)? {
                    break;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // Ctrl+D. Without a terminal, the demo continues until a signal ends it.
            Err(RecvTimeoutError::Disconnected) if typed => break,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_TIME),
        }
        let states = group.look()?;
        say(&seen.news(&group, &states));
    }
    say("Stopping all servers.\n");
    group.stop();
    Ok(ExitCode::SUCCESS)
}

/// Prints to stdout. Ignores errors, since nobody may be reading.
fn say(text: &str) {
    let _ = super::print(text);
}

fn read_lines() -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut lines = io::stdin().lines().map_while(Result::ok);
        // The receiver is gone when the demo ends.
        let _ = lines.try_for_each(|line| sender.send(line));
    });
    lines
}

/// The three child processes.
struct Group {
    dir: PathBuf,
    temporary: bool,
    servers: Vec<String>,
    children: [Option<Child>; SERVERS],
}

impl Group {
    fn start(options: &options::Demo) -> Result<Group, String> {
        let ports = (0..SERVERS as u16).map(|n| options.port + n);
        let servers: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        let (dir, temporary) = match &options.dir {
            Some(dir) => (dir.clone(), false),
            None => (temporary_folder()?, true),
        };
        fs::create_dir_all(&dir).named(dir.display())?;
        let config = dir.join("postern.toml");
        if !config.exists() {
            // All three share one loopback interface, so a refused connection means a dead
            // server.
            Settings::init(&config, &servers, true)?;
        }
        let found = Settings::read(&config)?.servers;
        if found != servers {
            let (config, port) = (config.display(), &found[0]);
            return Err(format!("{config}: was made for other ports, beginning with {port}"));
        }
        let mut group = Group { dir, temporary, servers, children: Default::default() };
        for at in 0..SERVERS {
            group.start_server(at)?;
        }
        Ok(group)
    }

    fn start_server(&mut self, at: usize) -> Result<(), String> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log(at));
        let log = log.named(self.dir.display())?;
        let binary = std::env::current_exe().named("postern")?;
        let child = Command::new(binary)
            .args(["serve", "--stop-with-stdin", "--config"])
            .arg(self.dir.join("postern.toml"))
            .args(["--id", &(at + 1).to_string(), "--data"])
            .arg(self.data(at))
            // The pipe closes when this process ends, for whatever reason. Ctrl+C reaches only
            // this process.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn();
        self.children[at] = Some(child.named(format_args!("server {}", at + 1))?);
        Ok(())
    }

    fn log(&self, at: usize) -> PathBuf {
        self.dir.join(format!("server{}.log", at + 1))
    }

    fn data(&self, at: usize) -> PathBuf {
        self.dir.join(format!("data{}", at + 1))
    }

    /// Executes a typed command. Returns false for `quit`.
    fn obey(&mut self, line: &str) -> Result<bool, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.get(1).and_then(|word| word.parse::<usize>().ok());
        let at = number.filter(|n| (1..=SERVERS).contains(n)).map(|n| n - 1);
        match (words.first().copied(), at) {
            (None, _) => {}
            (Some("quit" | "exit"), _) => return Ok(false),
            (Some("status"), _) => say(&status::table(&status::ask(self.servers.clone()))),
            (Some("kill"), Some(at)) => match self.children[at].take() {
                Some(mut child) => {
                    let led = self.is_ready(at);
                    let killed = Instant::now();
                    let _ = child.kill().and_then(|()| child.wait());
                    say(&format!("server {} is killed\n", at + 1));
                    if led && let Some(heir) = self.wait_takeover() {
                        let time = killed.elapsed().as_millis();
                        say(&format!("Server {} took over after {time} ms.\n", heir + 1));
                    }
                }
                None => say(&format!("server {} does not run\n", at + 1)),
            },
            (Some("start"), Some(at)) if self.children[at].is_none() => self.start_server(at)?,
            (Some("start"), Some(at)) => say(&format!("server {} runs already\n", at + 1)),
            _ => say(HELP),
        }
        Ok(true)
    }

    /// Waits up to `TAKEOVER_TIME` until a running server accepts changes. Returns its place in
    /// the list.
    fn wait_takeover(&self) -> Option<usize> {
        let end = Instant::now() + TAKEOVER_TIME;
        while Instant::now() < end {
            let heir = (0..SERVERS).find(|at| self.children[*at].is_some() && self.is_ready(*at));
            if heir.is_some() {
                return heir;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    fn is_ready(&self, at: usize) -> bool {
        ask_status(&self.servers[at], PATIENCE).is_ok_and(|state| takes_changes(&state))
    }

    /// Returns the states of all servers. A server that has ended by itself is an error only if
    /// it has no identity yet, since then it never ran.
    fn look(&mut self) -> Result<Vec<Option<Answer>>, String> {
        for at in 0..SERVERS {
            if let Some(child) = &mut self.children[at]
                && let Ok(Some(_)) = child.try_wait()
            {
                self.children[at] = None;
                let text = fs::read_to_string(self.log(at)).unwrap_or_default();
                let last = text.lines().last().unwrap_or("it ended").to_owned();
                if !self.data(at).join("identity").exists() {
                    self.stop();
                    return Err(last.trim_start_matches("postern: ").to_owned());
                }
                say(&format!("server {} ended: {last}\n", at + 1));
            }
        }
        let ask = |(server, child): (&String, &Option<Child>)| {
            child.as_ref().and_then(|_| ask_status(server, PATIENCE).ok())
        };
        Ok(self.servers.iter().zip(&self.children).map(ask).collect())
    }

    fn stop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            drop(child.stdin.take());
        }
        let end = Instant::now() + STOP_TIME;
        for child in self.children.iter_mut().flatten() {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill().and_then(|()| child.wait());
        }
        if std::mem::take(&mut self.temporary) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
    }
}

fn temporary_folder() -> Result<PathBuf, String> {
    let name = format!("postern-demo-{:016x}", random()? as u64);
    let dir = std::env::temp_dir().join(name);
    fs::create_dir(&dir).named(dir.display())?;
    Ok(dir)
}

/// What was last reported of the servers.
#[derive(Default)]
struct Seen {
    roles: String,
    /// The last primary.
    primary: Option<usize>,
    asked_for: Option<String>,
    /// When the group lost its primary, if it has none.
    outage: Option<Instant>,
}

impl Seen {
    /// Returns what has changed since the last call, as lines.
    fn news(&mut self, group: &Group, states: &[Option<Answer>]) -> String {
        let primary = states.iter().position(|state| state.as_ref().is_some_and(takes_changes));
        let members = primary.and_then(|at| states[at].as_ref()?.get("members"));
        let members = members.map_or("", String::as_str);
        let role = |at: usize| format!("{}: {}", at + 1, describe(at + 1, &states[at], members));
        let roles = [0, 1, 2].map(role).join("   ");
        let mut text = String::new();
        if roles != self.roles {
            text += &format!("servers   {roles}\n");
            self.roles = roles;
        }
        if let Some(at) = primary
            && (self.primary != primary || self.asked_for.is_some())
        {
            let (host, port) = group.servers[at].split_once(':').unwrap_or(("127.0.0.1", "5001"));
            text += &format!(
                "Server {} is the primary. In another terminal:  nc {host} {port}\n",
                at + 1
            );
            if self.primary.is_none() {
                text += "  then type:  CREATE ann correct-horse\n";
                text += "              LOGIN ann correct-horse\n";
                text += "              SEND ann a note to myself\n";
                // As the user has typed it, or as `cargo run` did.
                let postern = std::env::args().next().unwrap_or_else(|| "postern".to_owned());
                let servers = group.servers.join(",");
                text += &format!("  or chat:    {postern} chat --create --servers {servers} bob\n");
                text += HELP;
            }
            self.asked_for = None;
            self.primary = primary;
        }
        match primary {
            Some(_) => self.outage = None,
            None if self.primary.is_some() => text += &self.whom_to_start(group, states),
            None => {}
        }
        text
    }

    /// Names the servers that can restore a group that has had no primary for `OUTAGE_TIME`, as
    /// reported by the others. Returns an empty text if they were named already.
    fn whom_to_start(&mut self, group: &Group, states: &[Option<Answer>]) -> String {
        let since = *self.outage.get_or_insert_with(Instant::now);
        let awaited = |id: usize| {
            let named =
                |state: &Answer| state["waiting_for"].split(',').any(|n| n == id.to_string());
            group.children[id - 1].is_none() && states.iter().flatten().any(named)
        };
        let missing: Vec<String> =
            (1..=SERVERS).filter(|id| awaited(*id)).map(|id| format!("start {id}")).collect();
        let words = missing.join(" or ");
        let is_known = self.asked_for.as_ref() == Some(&words);
        if missing.is_empty() || is_known || since.elapsed() < OUTAGE_TIME {
            return String::new();
        }
        self.asked_for = Some(words.clone());
        format!("The group has stopped: too few of its last members are left. Type:  {words}\n")
    }
}

/// Returns the state of a server. `members` lists the members as the primary reports them;
/// without a primary it is empty, and the server's own report counts.
fn describe(id: usize, state: &Option<Answer>, members: &str) -> &'static str {
    let Some(state) = state else { return "down" };
    let id = format!("{id}/");
    let is_member = members.split(',').any(|member| member.starts_with(&id));
    match &state["role"][..] {
        _ if state["gate"] == "closed" => "joining",
        "primary" => "primary",
        _ if is_member => "member",
        _ if members.is_empty() => "waiting",
        _ => "joining",
    }
}
