//! Three servers as child processes, on addresses and in folders that nobody else uses.

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

/// The size of a group.
pub const SERVERS: usize = 3;
/// Ports from here on are given to outgoing connections.
const PORTS_END: u16 = 32_768;
const PORTS_BEGIN: u16 = 10_000;
/// How often states are looked at while one is waited for.
const LOOK_TIME: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_millis(500);
/// More than a server that was dropped too often is made to wait.
const SETTLE_TIME: Duration = Duration::from_secs(60);
/// Lines of each log that are shown when a part fails.
const LAST_WORDS: usize = 12;

/// Where a server is, and on what.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where it listens.
    pub address: SocketAddr,
    /// The network namespace it is in, if it has its own.
    pub namespace: Option<String>,
    /// Its data directory.
    pub data: PathBuf,
    /// What its disk does wrong, in a binary that can be told so.
    pub disk_faults: Option<PathBuf>,
}

/// The group; what it started ends with it.
pub struct Group {
    postern: PathBuf,
    sites: [Site; SERVERS],
    children: [Option<Child>; SERVERS],
    /// Shared with what lies in it and must be gone before.
    folder: Arc<TempDir>,
}

impl Group {
    /// Makes a new group, whose last survivor goes on by itself or not, starts its servers and
    /// waits until all are members.
    pub fn start(postern: &Path, survivor_auto: bool) -> Result<Group, String> {
        Group::start_in(folder("figures")?, postern, survivor_auto)
    }

    /// The same with its data in this folder, which is gone when the group is.
    pub fn start_in(folder: TempDir, postern: &Path, survivor_auto: bool) -> Result<Group, String> {
        let folder = Arc::new(folder);
        let sites = draw_sites(folder.path())?;
        let survivor = if survivor_auto { "auto" } else { "ask" };
        let settings = format!("last_survivor = \"{survivor}\"\n");
        let mut group = Group::found(postern, folder, sites, &settings)?;
        group.start_all()?;
        Ok(group)
    }

    /// Makes a new group of which no server runs, with these lines behind its settings.
    pub fn found(
        postern: &Path,
        folder: Arc<TempDir>,
        sites: [Site; SERVERS],
        settings: &str,
    ) -> Result<Group, String> {
        let list = sites.each_ref().map(|site| site.address.to_string()).join(",");
        let config = folder.path().join("postern.toml");
        let made = Command::new(postern)
            .args(["init", "--servers", &list, "--out"])
            .arg(&config)
            .output()
            .map_err(|error| format!("{}: {error}", postern.display()))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim_end().to_owned());
        }
        let added = File::options().append(true).open(&config);
        let added = added.and_then(|mut file| file.write_all(settings.as_bytes()));
        added.map_err(|error| format!("{}: {error}", config.display()))?;
        let children = [const { None }; SERVERS];
        Ok(Group { postern: postern.to_owned(), sites, children, folder })
    }

    /// Starts all servers and waits until all are members.
    pub fn start_all(&mut self) -> Result<(), String> {
        for at in 0..SERVERS {
            self.start_server(at)?;
        }
        self.settle().map_err(|why| format!("{why}\n{}", self.last_words()))?;
        Ok(())
    }

    /// Starts a server that does not run.
    pub fn start_server(&mut self, at: usize) -> Result<(), String> {
        let failed = |error| format!("server {}: {error}", at + 1);
        let log = File::options().create(true).append(true).open(self.log(at)).map_err(failed)?;
        let site = &self.sites[at];
        let mut command = match &site.namespace {
            None => Command::new(&self.postern),
            Some(name) => {
                // It becomes what it runs: the child is the server.
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", name]).arg(&self.postern);
                ip
            }
        };
        if let Some(rules) = &site.disk_faults {
            command.env("POSTERN_DISK_FAULTS", rules);
        }
        command.args(["serve", "--stop-with-stdin", "--config"]).arg(self.config());
        command.args(["--id", &(at + 1).to_string(), "--data"]).arg(&site.data);
        // The pipe ends with this process, however that ends; Ctrl+C is for this process alone.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.children[at] = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Ends a server with SIGKILL, without waiting until it is gone.
    pub fn kill(&mut self, at: usize) -> Result<(), String> {
        let child = self.children[at].as_mut().ok_or_else(|| not_running(at))?;
        child.kill().map_err(|error| format!("kill: {error}"))
    }

    /// Asks a server to stop, as `kill` does.
    pub fn terminate(&self, at: usize) -> Result<(), String> {
        self.signal(at, Signal::TERM)
    }

    /// Sends a signal to a server.
    pub fn signal(&self, at: usize, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.pid(at)?).map_err(|error| error.to_string())?;
        let pid = Pid::from_raw(pid).ok_or("no process has the id 0")?;
        kill_process(pid, signal).map_err(|error| format!("kill: {error}"))
    }

    /// Whether a server was started and not seen to end.
    pub fn is_running(&self, at: usize) -> bool {
        self.children[at].is_some()
    }

    /// How a server has ended, once it has.
    pub fn ended(&mut self, at: usize) -> Result<Option<ExitStatus>, String> {
        let Some(child) = &mut self.children[at] else { return Ok(None) };
        let ended = child.try_wait().map_err(|error| format!("wait: {error}"))?;
        if ended.is_some() {
            self.children[at] = None;
        }
        Ok(ended)
    }

    /// Waits until a killed server is gone.
    pub fn reap(&mut self, at: usize) -> Result<(), String> {
        let mut child = self.children[at].take().ok_or_else(|| not_running(at))?;
        child.wait().map(|_| ()).map_err(|error| format!("wait: {error}"))
    }

    /// The process of a server.
    pub fn pid(&self, at: usize) -> Result<u32, String> {
        self.children[at].as_ref().map(Child::id).ok_or_else(|| not_running(at))
    }

    /// Where a server listens.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.sites[at].address
    }

    /// What a server says of itself.
    pub fn status(&self, at: usize) -> Option<Answer> {
        ask_status(&self.sites[at].address.to_string(), PATIENCE).ok()
    }

    /// The `postern` binary.
    pub fn binary(&self) -> &Path {
        &self.postern
    }

    /// The data directory of a server.
    pub fn data(&self, at: usize) -> &Path {
        &self.sites[at].data
    }

    /// The settings of all servers.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("postern.toml")
    }

    /// A folder beside the data, on the same disk.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until all servers are members of an open group, and says which one is primary.
    pub fn settle(&mut self) -> Result<usize, String> {
        let end = Instant::now() + SETTLE_TIME;
        loop {
            let states: Vec<Option<Answer>> = (0..SERVERS).map(|at| self.status(at)).collect();
            if let Some(primary) = settled(&states) {
                return Ok(primary);
            }
            self.check_all_run()?;
            if Instant::now() > end {
                let seconds = SETTLE_TIME.as_secs();
                return Err(format!("not three members after {seconds} s: {}", shown(&states)));
            }
            thread::sleep(LOOK_TIME);
        }
    }

    /// Waits until one of these servers is primary, with the others of them as its backups.
    pub fn wait_primary(&mut self, among: &[usize]) -> Result<usize, String> {
        let end = Instant::now() + SETTLE_TIME;
        loop {
            for at in among {
                let is_found = self.status(*at).is_some_and(|state| {
                    let members = state.get("members").map_or(0, |m| m.split(',').count());
                    leads(&state) && members == among.len()
                });
                if is_found {
                    return Ok(*at);
                }
            }
            if Instant::now() > end {
                return Err(format!("none of {} servers leads the others", among.len()));
            }
            thread::sleep(LOOK_TIME);
        }
    }

    /// Waits until a value in a server's `STATUS` is what is wanted.
    pub fn wait_for(&mut self, at: usize, key: &str, value: &str) -> Result<(), String> {
        let end = Instant::now() + SETTLE_TIME;
        while !self.status(at).is_some_and(|state| is(&state, key, value)) {
            self.check_all_run()?;
            if Instant::now() > end {
                return Err(format!("server {}: {key} does not become {value}", at + 1));
            }
            thread::sleep(LOOK_TIME);
        }
        Ok(())
    }

    /// Lets time pass in which nobody asks the servers for anything; they must outlive it.
    pub fn leave_alone(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check_all_run()?;
            thread::sleep(LOOK_TIME);
        }
        Ok(())
    }

    fn check_all_run(&mut self) -> Result<(), String> {
        for at in 0..SERVERS {
            if let Some(status) = self.ended(at)? {
                return Err(format!("server {} ended by itself: {status}", at + 1));
            }
        }
        Ok(())
    }

    fn log(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("server{}.log", at + 1))
    }

    /// What a server has said until now.
    pub fn log_lines(&self, at: usize) -> Vec<String> {
        let text = fs::read_to_string(self.log(at)).unwrap_or_default();
        text.lines().map(|line| format!("server {}: {line}", at + 1)).collect()
    }

    /// The ends of all logs.
    pub fn last_words(&self) -> String {
        let ends = (0..SERVERS).flat_map(|at| {
            let mut lines = self.log_lines(at);
            lines.split_off(lines.len().saturating_sub(LAST_WORDS))
        });
        ends.collect::<Vec<_>>().join("\n")
    }

    /// What the servers complained about.
    pub fn warnings(&self) -> Vec<String> {
        let lines = (0..SERVERS).flat_map(|at| self.log_lines(at));
        let bad = |line: &String| ["WARN", "ERROR", "panicked"].iter().any(|w| line.contains(w));
        lines.filter(bad).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // One that has ended already needs no end.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn not_running(at: usize) -> String {
    format!("server {} does not run", at + 1)
}

/// The primary, when every server answers and knows all three members.
pub fn settled(states: &[Option<Answer>]) -> Option<usize> {
    let mut primary = None;
    for (at, state) in states.iter().enumerate() {
        let state = state.as_ref()?;
        let members = state.get("members")?.split(',').count();
        if members != SERVERS || !is(state, "missing", "-") || !is(state, "gate", "open") {
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

/// A primary that waits for nobody.
pub fn leads(state: &Answer) -> bool {
    is(state, "role", "primary") && is(state, "waiting", "-")
}

/// States, for a person.
pub fn shown(states: &[Option<Answer>]) -> String {
    let of = |state: &Option<Answer>| match state {
        None => "does not answer".to_owned(),
        Some(state) => ["role", "members", "gate", "waiting"]
            .map(|key| format!("{key} {}", state.get(key).map_or("?", String::as_str)))
            .join(", "),
    };
    states.iter().map(of).collect::<Vec<_>>().join("; ")
}

/// Addresses of 127.0.0.0/8, so that runs beside each other do not meet.
pub fn draw_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT], String> {
    let mut found = [SocketAddr::from(([0, 0, 0, 0], 0)); COUNT];
    for (at, address) in found.iter_mut().enumerate() {
        // The keys of a hasher are the randomness that the standard library has.
        let [x, y, z, _, low, high, ..] = RandomState::new().hash_one(at).to_le_bytes();
        let ip = Ipv4Addr::new(127, x, y, z.clamp(1, 254));
        let port = PORTS_BEGIN + u16::from_le_bytes([low, high]) % (PORTS_END - PORTS_BEGIN);
        *address = SocketAddr::from((ip, port));
        TcpListener::bind(*address).map_err(|error| format!("{address}: {error}"))?;
    }
    Ok(found)
}

/// Loopback addresses, and folders below this one.
pub fn draw_sites(folder: &Path) -> Result<[Site; SERVERS], String> {
    let mut number = 0;
    Ok(draw_addresses()?.map(|address| {
        number += 1;
        let data = folder.join(format!("data{number}"));
        Site { address, namespace: None, data, disk_faults: None }
    }))
}

/// A folder where builds go rather than where temporary files go, which may be memory and not a
/// disk.
pub fn folder(purpose: &str) -> Result<TempDir, String> {
    let target = Path::new("target");
    folder_in(if target.is_dir() { target } else { Path::new(".") }, purpose)
}

/// A folder in memory, where a sync costs nothing.
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

/// Returns the `postern` binary in the folder of this program.
///
/// # Errors
/// The folder has none.
pub fn binary_beside_this() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let postern = this.with_file_name("postern");
    if postern.exists() {
        return Ok(postern);
    }
    let shown = postern.display();
    Err(format!("{shown}: is not there; build it with `cargo build --release`, or name another"))
}

/// Builds the `postern` binary with the profile of this test, and returns its path.
///
/// # Panics
/// It can't be built.
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
