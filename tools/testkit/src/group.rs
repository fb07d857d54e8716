//! A group of three real servers, as child processes, with addresses and data directories of
//! their own. Functions number the servers from 0; messages number them from 1, as `--id` does.

use crate::network::command_in;
use crate::run;
use postern::commands::{Answer, ask_status, is};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The number of servers in a group.
pub const SERVERS: usize = 3;
/// Linux gives the ports from here on to outgoing connections.
const PORTS_END: u16 = 32_768;
const PORTS_BEGIN: u16 = 10_000;
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Maximum time for the answer to one STATUS.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum time until the group reaches an expected state. Longer than the primary makes a server
/// wait that it has dropped repeatedly.
const SETTLE_TIME: Duration = Duration::from_secs(60);
/// The number of lines of each log in [`Group::last_words`].
const LAST_LINES: usize = 12;

/// Where one server runs.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The address on which it listens.
    pub address: SocketAddr,
    /// Its network namespace; `None` means that of this process.
    pub namespace: Option<String>,
    /// Its data directory.
    pub data: PathBuf,
    /// The file with the disk faults that it injects, in debug builds.
    pub disk_faults: Option<PathBuf>,
}

/// A group of servers. Dropping it kills them and removes their data.
pub struct Group {
    postern: PathBuf,
    placements: [Placement; SERVERS],
    children: [Option<Child>; SERVERS],
    /// Shared with owners of volumes that are mounted in it.
    folder: Arc<TempDir>,
}

impl Group {
    /// Starts a new group, with `last_survivor` set to "auto" or "ask", and waits until all
    /// servers are members.
    pub fn start(postern: &Path, survivor_auto: bool) -> Result<Group, String> {
        Group::start_in(folder("figures")?, postern, survivor_auto)
    }

    /// The same as [`Group::start`], with its data in `folder`.
    pub fn start_in(folder: TempDir, postern: &Path, survivor_auto: bool) -> Result<Group, String> {
        let folder = Arc::new(folder);
        let placements = loopback_placements(folder.path())?;
        let survivor = if survivor_auto { "auto" } else { "ask" };
        let settings = format!("last_survivor = \"{survivor}\"\n");
        let mut group = Group::create(postern, folder, placements, &settings)?;
        group.start_all()?;
        Ok(group)
    }

    /// Creates the config of a group, and appends `settings` to it. Starts no server.
    pub fn create(
        postern: &Path,
        folder: Arc<TempDir>,
        placements: [Placement; SERVERS],
        settings: &str,
    ) -> Result<Group, String> {
        let list = placements.each_ref().map(|place| place.address.to_string()).join(",");
        let config = folder.path().join("postern.toml");
        run(Command::new(postern).args(["init", "--servers", &list, "--out"]).arg(&config))?;
        let file = File::options().append(true).open(&config);
        let appended = file.and_then(|mut file| file.write_all(settings.as_bytes()));
        appended.map_err(|error| format!("{}: {error}", config.display()))?;
        let children = [const { None }; SERVERS];
        Ok(Group { postern: postern.to_owned(), placements, children, folder })
    }

    /// Starts all servers and waits until all are members.
    pub fn start_all(&mut self) -> Result<(), String> {
        (0..SERVERS).try_for_each(|at| self.start_server(at))?;
        self.settle().map(drop).map_err(|why| format!("{why}\n{}", self.last_words()))
    }

    /// Starts a server that does not run.
    pub fn start_server(&mut self, at: usize) -> Result<(), String> {
        let failed = |error| format!("server {}: {error}", at + 1);
        let log = File::options().create(true).append(true).open(self.log(at)).map_err(failed)?;
        let place = &self.placements[at];
        let mut command = match &place.namespace {
            None => Command::new(&self.postern),
            Some(name) => command_in(name, &self.postern),
        };
        if let Some(faults) = &place.disk_faults {
            command.env("POSTERN_DISK_FAULTS", faults);
        }
        command.args(["serve", "--stop-with-stdin", "--config"]).arg(self.config());
        command.args(["--id", &(at + 1).to_string(), "--data"]).arg(&place.data);
        // The pipe closes when this process ends, even by SIGKILL. A process group of its own
        // keeps the server from receiving the SIGINT of Ctrl+C.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.children[at] = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Sends SIGKILL to a server, and does not wait until it has ended.
    pub fn kill(&mut self, at: usize) -> Result<(), String> {
        let child = self.children[at].as_mut().ok_or_else(|| not_running(at))?;
        child.kill().map_err(|error| format!("kill: {error}"))
    }

    /// Sends SIGTERM to a server.
    pub fn terminate(&self, at: usize) -> Result<(), String> {
        self.signal(at, Signal::TERM)
    }

    /// Sends a signal to a server.
    pub fn signal(&self, at: usize, signal: Signal) -> Result<(), String> {
        let child = self.children[at].as_ref().ok_or_else(|| not_running(at))?;
        kill_process(Pid::from_child(child), signal).map_err(|error| format!("kill: {error}"))
    }

    /// Returns whether a server was started and its end was not yet noticed.
    pub fn is_running(&self, at: usize) -> bool {
        self.children[at].is_some()
    }

    /// Returns the exit status of a server, once, after it has ended.
    pub fn try_wait(&mut self, at: usize) -> Result<Option<ExitStatus>, String> {
        let Some(child) = &mut self.children[at] else { return Ok(None) };
        let status = child.try_wait().map_err(|error| format!("wait: {error}"))?;
        if status.is_some() {
            self.children[at] = None;
        }
        Ok(status)
    }

    /// Waits until a server has ended.
    pub fn reap(&mut self, at: usize) -> Result<(), String> {
        let mut child = self.children[at].take().ok_or_else(|| not_running(at))?;
        child.wait().map(drop).map_err(|error| format!("wait: {error}"))
    }

    /// The process id of a server.
    pub fn pid(&self, at: usize) -> Result<u32, String> {
        self.children[at].as_ref().map(Child::id).ok_or_else(|| not_running(at))
    }

    /// The address on which a server listens.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.placements[at].address
    }

    /// Returns a server's STATUS; `None` if it does not answer in time.
    pub fn status(&self, at: usize) -> Option<Answer> {
        ask_status(&self.address(at).to_string(), STATUS_TIMEOUT).ok()
    }

    /// The path of the `postern` binary.
    pub fn binary(&self) -> &Path {
        &self.postern
    }

    /// The data directory of a server.
    pub fn data(&self, at: usize) -> &Path {
        &self.placements[at].data
    }

    /// The path of the config that all servers share.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("postern.toml")
    }

    /// The folder that contains the config, the logs and, by default, the data directories.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until all servers are members and the gate is open. Returns the primary.
    pub fn settle(&mut self) -> Result<usize, String> {
        self.poll(|group| {
            let states: Vec<Option<Answer>> = (0..SERVERS).map(|at| group.status(at)).collect();
            healthy_primary(&states)
                .ok_or_else(|| format!("not all servers are members: {}", describe(&states)))
        })
    }

    /// Waits until one of the servers in `among` is primary and the others are its only backups.
    /// Returns the primary. A server that was killed must be reaped before.
    pub fn wait_primary(&mut self, among: &[usize]) -> Result<usize, String> {
        let is_primary = |state: &Answer| leads(state) && member_count(state) == among.len();
        self.poll(|group| {
            let mut servers = among.iter().copied();
            servers
                .find(|at| group.status(*at).as_ref().is_some_and(is_primary))
                .ok_or_else(|| format!("no primary of {} members", among.len()))
        })
    }

    /// Waits until a server's STATUS has this value of `key`.
    pub fn wait_for(&mut self, at: usize, key: &str, value: &str) -> Result<(), String> {
        self.poll(|group| match group.status(at) {
            Some(state) if is(&state, key, value) => Ok(()),
            _ => Err(format!("server {}: {key} is not {value}", at + 1)),
        })
    }

    /// Lets `time` pass without a request to the servers. Fails if one of them ends.
    pub fn leave_alone(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check_all_run()?;
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Repeats `attempt` until it succeeds. After [`SETTLE_TIME`], returns its last error. Fails
    /// earlier if a server ends.
    fn poll<T>(&mut self, attempt: impl Fn(&Group) -> Result<T, String>) -> Result<T, String> {
        let end = Instant::now() + SETTLE_TIME;
        loop {
            match attempt(self) {
                Err(why) if Instant::now() > end => {
                    return Err(format!("{why} (after {} s)", SETTLE_TIME.as_secs()));
                }
                Err(_) => {}
                done => return done,
            }
            self.check_all_run()?;
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn check_all_run(&mut self) -> Result<(), String> {
        for at in 0..SERVERS {
            if let Some(status) = self.try_wait(at)? {
                return Err(format!("server {} ended unexpectedly: {status}", at + 1));
            }
        }
        Ok(())
    }

    fn log(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("server{}.log", at + 1))
    }

    /// Returns the lines of a server's log, each after "server N: ".
    pub fn log_lines(&self, at: usize) -> Vec<String> {
        let text = fs::read_to_string(self.log(at)).unwrap_or_default();
        text.lines().map(|line| format!("server {}: {line}", at + 1)).collect()
    }

    /// Returns the last lines of all logs, for an error report.
    pub fn last_words(&self) -> String {
        let ends = (0..SERVERS).flat_map(|at| {
            let mut lines = self.log_lines(at);
            lines.split_off(lines.len().saturating_sub(LAST_LINES))
        });
        ends.collect::<Vec<_>>().join("\n")
    }

    /// Returns the warnings and errors in all logs.
    pub fn warnings(&self) -> Vec<String> {
        let lines = (0..SERVERS).flat_map(|at| self.log_lines(at));
        let bad = |line: &String| ["WARN", "ERROR", "panicked"].iter().any(|w| line.contains(w));
        lines.filter(bad).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // Fails if it has ended already.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn not_running(at: usize) -> String {
    format!("server {} is not running", at + 1)
}

fn member_count(state: &Answer) -> usize {
    state.get("members").map_or(0, |members| members.split(',').count())
}

/// Returns the primary if the group is healthy: every server answers, knows three members, and is
/// the primary or a backup.
pub fn healthy_primary(states: &[Option<Answer>]) -> Option<usize> {
    let mut primary = None;
    for (at, state) in states.iter().enumerate() {
        let state = state.as_ref()?;
        if member_count(state) != SERVERS
            || !is(state, "missing", "-")
            || !is(state, "gate", "open")
        {
            return None;
        }
        if leads(state) {
            primary = Some(at);
        } else if !is(state, "role", "backup") || is(state, "primary", "-") {
            return None;
        }
    }
    primary
}

/// Returns whether a server is primary and accepts changes.
pub fn leads(state: &Answer) -> bool {
    is(state, "role", "primary") && is(state, "waiting", "-")
}

/// Describes the STATUS of each server, for an error report.
pub fn describe(states: &[Option<Answer>]) -> String {
    let one = |(at, state): (usize, &Option<Answer>)| {
        let facts = state.as_ref().map(|state| {
            ["role", "members", "gate", "waiting"]
                .map(|key| format!("{key}={}", state.get(key).map_or("?", String::as_str)))
                .join(" ")
        });
        format!("server {}: {}", at + 1, facts.unwrap_or("no answer".to_owned()))
    };
    states.iter().enumerate().map(one).collect::<Vec<_>>().join("; ")
}

/// Draws addresses in 127.0.0.0/8, so that runs at the same time do not collide.
pub fn draw_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT], String> {
    let mut found = [SocketAddr::from(([0, 0, 0, 0], 0)); COUNT];
    for (at, address) in found.iter_mut().enumerate() {
        // The keys of a hasher are the only random numbers in the standard library.
        let [x, y, z, _, low, high, ..] = RandomState::new().hash_one(at).to_le_bytes();
        let ip = Ipv4Addr::new(127, x, y, z.clamp(1, 254));
        let port = PORTS_BEGIN + u16::from_le_bytes([low, high]) % (PORTS_END - PORTS_BEGIN);
        *address = SocketAddr::from((ip, port));
        TcpListener::bind(*address).map_err(|error| format!("{address}: {error}"))?;
    }
    Ok(found)
}

/// Places three servers on loopback addresses, with data directories in `folder`.
pub fn loopback_placements(folder: &Path) -> Result<[Placement; SERVERS], String> {
    let mut n = 0;
    Ok(draw_addresses()?.map(|address| {
        n += 1;
        let data = folder.join(format!("data{n}"));
        Placement { address, namespace: None, data, disk_faults: None }
    }))
}

/// Creates a temporary folder in `target`, or else in the current folder: `/tmp` may be in memory,
/// where a sync costs nothing.
pub fn folder(purpose: &str) -> Result<TempDir, String> {
    let target = Path::new("target");
    folder_in(if target.is_dir() { target } else { Path::new(".") }, purpose)
}

/// Creates a temporary folder in memory, where a sync costs nothing.
pub fn memory_folder(purpose: &str) -> Result<TempDir, String> {
    folder_in(Path::new("/dev/shm"), purpose)
}

fn folder_in(base: &Path, purpose: &str) -> Result<TempDir, String> {
    let prefix = format!("postern-{purpose}-");
    let made = base
        .canonicalize()
        .and_then(|base| tempfile::Builder::new().prefix(&prefix).tempdir_in(base));
    made.map_err(|error| format!("{}: {error}", base.display()))
}

/// Returns the `postern` binary in the folder of this program; an error if the folder has none.
pub fn binary_beside_this() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let postern = this.with_file_name("postern");
    if postern.exists() {
        return Ok(postern);
    }
    let shown = postern.display();
    Err(format!("{shown}: no such file; run `cargo build --workspace`, or use `--postern PATH`"))
}

/// Builds the `postern` binary with the profile of this test, and returns its path.
///
/// # Panics
/// Panics if the build fails.
#[must_use]
pub fn build_binary() -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--locked", "--profile", profile])
        .args(["--package", "postern", "--bin", "postern"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "postern is built");
    // A test is `deps/name-hash` in the folder of binaries.
    let this = std::env::current_exe().expect("this test has a file");
    let folder = this.parent().and_then(Path::parent).expect("it is in a folder");
    folder.join("postern")
}
