//! Real servers on loopback and real sockets. Tests wait for states, never for time.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use postern_testkit::network::command_in;
use postern_testkit::volume::Volume;
use rustix::process::{Pid, Signal};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Maximum time for any state to be reached on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The time between two looks for a state.
const LOOK_TIME: Duration = Duration::from_millis(2);

/// Returns what `look` finds as soon as it finds something. Panics with the words of `missing` at
/// the deadline.
pub fn wait_for<T>(mut look: impl FnMut() -> Option<T>, missing: impl Fn() -> String) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{}", missing());
        std::thread::sleep(LOOK_TIME);
    }
}

/// Waits until a child process ends by itself, and returns its exit status.
pub fn wait_child(child: &mut Child, missing: impl Fn() -> String) -> ExitStatus {
    wait_for(|| child.try_wait().expect("it is our child"), missing)
}

pub fn postern() -> Command {
    Command::new(env!("CARGO_BIN_EXE_postern"))
}

/// Returns a loopback address that only this test uses, so that fixed ports below those of
/// outgoing connections are free on it.
fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mixed = (std::process::id().wrapping_mul(64) + n).wrapping_mul(2_654_435_761);
    let [a, b, c, _] = mixed.to_be_bytes();
    format!("127.{}.{}.{}", 1 + a % 250, b, 1 + c % 250)
}

/// The servers of one group. Dropping it kills all of them.
pub struct Group {
    pub dir: TempDir,
    pub servers: Vec<String>,
    /// The network namespace of each server, if they have their own.
    pub namespaces: Vec<String>,
    /// Whether servers inject the disk faults named in their files [`Group::faults`].
    pub is_faulty: bool,
    children: Vec<Option<Child>>,
}

pub type Status = BTreeMap<String, String>;

impl Group {
    /// Creates the config for `count` servers; none runs.
    pub fn new(count: usize) -> Group {
        let address = own_address();
        Group::at((1..=count).map(|n| format!("{address}:{}", 5000 + n)).collect())
    }

    /// Creates the config for servers at these addresses; none runs.
    pub fn at(servers: Vec<String>) -> Group {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = dir.path().join("postern.toml");
        let mut init = postern();
        init.args(["init", "--servers", &servers.join(",")]).arg("--out").arg(config);
        assert!(run(init).status.success());
        let children = servers.iter().map(|_| None).collect();
        Group { dir, servers, namespaces: Vec::new(), is_faulty: false, children }
    }

    /// Starts a group of one server.
    pub fn alone() -> Group {
        let mut group = Group::new(1);
        group.start(1);
        group.wait_members(1);
        group
    }

    /// Starts a group of three, and waits until the gate is open.
    pub fn open() -> Group {
        let mut group = Group::new(3);
        (1..=3).for_each(|n| group.start(n));
        group.wait_members(3);
        group
    }

    /// Starts a group of three whose segments are small, which only debug builds can make.
    pub fn with_small_segments() -> Group {
        let mut group = Group::new(3);
        group.is_faulty = true;
        for n in 1..=3 {
            std::fs::write(group.faults(n), "segments 20000").expect("a file is written");
            group.start(n);
        }
        group.wait_members(3);
        group
    }

    /// Returns the files of a server's log with this ending, oldest first.
    pub fn log_files(&self, n: usize, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data(n).join("log")).expect("a server has a log");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(ending));
        files.sort();
        files
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("postern.toml")
    }

    pub fn data(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("data{n}"))
    }

    /// Returns the path of the file that makes a server's disk fail, in debug builds.
    pub fn faults(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("faults{n}"))
    }

    pub fn serve(&self, n: usize) -> Command {
        let mut command = match self.namespaces.get(n - 1) {
            None => postern(),
            Some(name) => command_in(name, postern().get_program()),
        };
        command.args(["serve", "--id", &n.to_string(), "--config"]).arg(self.config());
        command.arg("--data").arg(self.data(n)).stdin(Stdio::null());
        if self.is_faulty {
            command.env("POSTERN_DISK_FAULTS", self.faults(n));
        }
        command
    }

    pub fn start(&mut self, n: usize) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path(n));
        self.start_with_stderr(n, log.expect("a log file"));
    }

    pub fn start_with_stderr(&mut self, n: usize, stderr: impl Into<Stdio>) {
        let mut command = self.serve(n);
        command.stderr(stderr);
        self.start_as(n, command);
    }

    /// Starts a server by a command that replaces itself by the server.
    pub fn start_as(&mut self, n: usize, mut command: Command) {
        self.children[n - 1] = Some(command.spawn().expect("postern runs"));
        self.wait(n, "it answers", |_| true);
    }

    fn log_path(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("log{n}"))
    }

    pub fn log(&self, n: usize) -> String {
        std::fs::read_to_string(self.log_path(n)).unwrap_or_default()
    }

    /// Waits until a line of a server's log contains `words`, and returns that line.
    pub fn wait_line(&self, n: usize, words: &str) -> String {
        let find = || self.log(n).lines().find(|line| line.contains(words)).map(str::to_owned);
        wait_for(find, || format!("{words}: {}", self.log(n)))
    }

    /// Kills a server with SIGKILL.
    pub fn kill(&mut self, n: usize) {
        let mut child = self.children[n - 1].take().expect("it runs");
        child.kill().and_then(|()| child.wait()).expect("it was ours to kill");
    }

    /// Kills all servers, none of which notices that another one has ended: it would change the
    /// config.
    pub fn kill_all(&mut self) {
        for n in 1..=3 {
            self.signal(n, Signal::STOP);
        }
        (1..=3).for_each(|n| self.kill(n));
    }

    pub fn pid(&self, n: usize) -> Pid {
        Pid::from_child(self.children[n - 1].as_ref().expect("it runs"))
    }

    pub fn signal(&self, n: usize, signal: Signal) {
        rustix::process::kill_process(self.pid(n), signal).expect("it runs");
    }

    /// Ends a server with SIGTERM, and returns its exit code.
    pub fn terminate(&mut self, n: usize) -> Option<i32> {
        self.signal(n, Signal::TERM);
        self.wait_end(n)
    }

    /// Waits until a server has ended, and returns its exit code.
    pub fn wait_end(&mut self, n: usize) -> Option<i32> {
        let mut child = self.children[n - 1].take().expect("it runs");
        wait_child(&mut child, || format!("server {n} does not end: {}", self.log(n))).code()
    }

    pub fn is_running(&self, n: usize) -> bool {
        self.children[n - 1].is_some()
    }

    pub fn status(&self, n: usize) -> Option<Status> {
        Client::try_connect(&self.servers[n - 1])?.try_status()
    }

    /// Mounts a small disk for a server. Returns `None`, with a message, where that is
    /// impossible.
    pub fn small_disk(&self, n: usize) -> Option<Volume> {
        let volume = Volume::in_memory(&self.data(n), 80);
        volume.map_err(|why| eprintln!("skipped: no small file system here: {why}")).ok()
    }

    /// Waits until a server's STATUS satisfies `done`.
    pub fn wait(&self, n: usize, what: &str, done: impl Fn(&Status) -> bool) -> Status {
        let missing = || format!("server {n}: not {what}: {:?}\n{}", self.status(n), self.log(n));
        wait_for(|| self.status(n).filter(|status| done(status)), missing)
    }

    /// Waits for a primary that has `count` members and accepts changes. Returns its id.
    pub fn wait_members(&self, count: usize) -> usize {
        let states = || -> Vec<_> {
            let running = (1..=self.servers.len()).filter(|n| self.is_running(*n));
            running.map(|n| (n, self.status(n))).collect()
        };
        let leads = |status: &Status| {
            status["role"] == "primary"
                && status["waiting"] == "-"
                && status["members"].split(',').count() == count
                && status["acknowledged_index"] == status["last_index"]
        };
        let find = || {
            let found = states().into_iter().find(|(_, status)| status.as_ref().is_some_and(leads));
            found.map(|(n, _)| n)
        };
        wait_for(find, || format!("no primary of {count} members: {:?}", states()))
    }

    pub fn connect(&self, n: usize) -> Client {
        Client::try_connect(&self.servers[n - 1]).expect("the server listens")
    }

    /// Returns a client that is logged in at the primary. Creates the account if it is missing.
    pub fn client(&self, primary: usize, user: &str) -> Client {
        let mut client = self.connect(primary);
        let made = client.ask(&format!("CREATE {user} correct-horse"));
        assert!(made.starts_with("OK") || made.starts_with("ERR exists"), "{made}");
        let answer = client.ask(&format!("LOGIN {user} correct-horse end"));
        assert!(answer.starts_with("OK"), "{answer}");
        client
    }

    /// Fills a mailbox with more than the kernel's buffers hold, 4 MB by default.
    pub fn fill(&self, primary: usize, user: &str, messages: usize) {
        let mut sender = self.client(primary, "sender");
        let text = "x".repeat(3800);
        for first in (0..messages).step_by(50) {
            for _ in 0..50 {
                sender.send(&format!("SEND {user} {text}"));
            }
            for n in first + 1..=first + 50 {
                assert_eq!(sender.answer(), format!("OK {n}"));
            }
        }
    }

    /// Returns the texts of the whole mailbox, and checks that the numbers have no gap.
    pub fn mailbox(&self, primary: usize, user: &str) -> Vec<String> {
        self.messages(primary, user).into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the senders and texts of the whole mailbox, with the same check.
    pub fn messages(&self, primary: usize, user: &str) -> Vec<(String, String)> {
        let mut client = self.connect(primary);
        client.send(&format!("LOGIN {user} correct-horse"));
        let mut messages = Vec::new();
        loop {
            let line = client.line();
            if let Some(rest) = line.strip_prefix("MSG ") {
                let parts: Vec<&str> = rest.splitn(4, ' ').collect();
                assert_eq!(parts[0], (messages.len() + 1).to_string(), "numbers have no gap");
                messages.push((parts[2].to_owned(), parts[3].to_owned()));
            } else {
                assert_eq!(line, format!("OK {user} {}", messages.len()));
                return messages;
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        if std::thread::panicking() {
            for n in 1..=self.servers.len() {
                eprintln!("--- server {n}\n{}", self.log(n));
            }
        }
    }
}

/// A server in addition to the group's own, with one change in its config file. Dropping it kills
/// the server.
pub struct Twin(Child);

impl Twin {
    pub fn start(
        group: &Group,
        id: usize,
        data: &Path,
        listen: &str,
        (from, to): (&str, &str),
    ) -> Twin {
        let config = group.dir.path().join("twin.toml");
        let text = std::fs::read_to_string(group.config()).unwrap().replace(from, to);
        std::fs::write(&config, format!("listen = \"{listen}\"\n{text}")).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        let log = std::fs::File::create(group.dir.path().join("twin.log")).unwrap();
        let mut command = postern();
        command.args(["serve", "--id", &id.to_string(), "--config"]).arg(&config);
        command.arg("--data").arg(data);
        Twin(command.stdin(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A text client with deadlines.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn try_connect(server: &str) -> Option<Client> {
        Client::over(TcpStream::connect(server).ok()?)
    }

    pub fn over(stream: TcpStream) -> Option<Client> {
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream.set_write_timeout(Some(DEADLINE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let reader = BufReader::new(stream.try_clone().ok()?);
        Some(Client { stream, reader })
    }

    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends `count` messages to `user`, whose mailbox is empty, and returns their texts.
    pub fn send_first(&mut self, user: &str, count: usize) -> Vec<String> {
        let texts: Vec<String> = (1..=count).map(|n| format!("message {n}")).collect();
        for (at, text) in texts.iter().enumerate() {
            assert_eq!(self.ask(&format!("SEND {user} {text}")), format!("OK {}", at + 1));
        }
        texts
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // If the server has closed the connection, the next read reports it.
        let _ = self.stream.write_all(bytes);
    }

    /// Returns the next line; `None` at the end.
    pub fn try_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line within {DEADLINE:?}: {error}"),
        }
    }

    pub fn try_status(&mut self) -> Option<Status> {
        self.send("STATUS");
        let mut status = Status::new();
        loop {
            let line = self.try_line()?;
            if line == "OK" {
                return Some(status);
            }
            let (key, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            status.insert(key.to_owned(), value.to_owned());
        }
    }

    pub fn line(&mut self) -> String {
        self.try_line().expect("a line, not the end")
    }

    /// Sends a request and returns the last line of its answer. Skips pushed messages and data
    /// lines.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.answer()
    }

    pub fn answer(&mut self) -> String {
        loop {
            let line = self.line();
            if line.starts_with("OK") || line.starts_with("ERR") {
                return line;
            }
        }
    }

    pub fn end_input(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Returns all lines up to the end.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.try_line()).collect()
    }
}

/// Opens a connection with a small receive buffer.
pub fn connect_small(server: &str) -> TcpStream {
    let address: SocketAddr = server.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&SockAddr::from(address)).unwrap();
    socket.into()
}

/// Waits until no more bytes arrive in a socket that nobody reads.
pub fn wait_full(stream: &TcpStream) {
    let mut buffer = [0; 16 * 1024];
    let (mut before, end) = (0, Instant::now() + DEADLINE);
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let here = stream.peek(&mut buffer).unwrap();
        if here > 0 && here == before {
            return;
        }
        before = here;
        assert!(Instant::now() < end, "nothing comes");
    }
}

/// Returns `command` as run by `outer`, which executes its arguments. Keeps the environment that
/// `command` sets.
pub fn run_by(mut outer: Command, command: &Command) -> Command {
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Returns the command with default signal handling, as a shell starts it: the parent of these
/// tests may ignore some signals.
pub fn with_signals(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal");
    run_by(env, command)
}

/// Runs a command that must end without input.
pub fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().expect("postern runs")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Copies a folder with its subfolders.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Returns all files of a folder and its subfolders.
pub fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            files.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    files
}
