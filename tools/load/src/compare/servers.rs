//! Servers of other systems as child processes, which end with this process.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Until a system accepts requests.
const SETTLE_TIME: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_MAX: usize = 1 << 20;
/// Lines of each log in an error.
const LOG_LINES: usize = 8;
/// Folders of servers that may not be in `PATH`.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// The processes of one system, and the folder with all that they write.
pub(crate) struct Servers {
    processes: Vec<Process>,
    /// Addresses for clients, of the first processes in their order.
    addresses: Vec<SocketAddr>,
    /// The index of the server that clients use.
    pub(crate) leader: usize,
    folder: TempDir,
}

struct Process {
    name: String,
    child: Child,
}

impl Servers {
    /// Creates a system without processes.
    pub(crate) fn new(folder: TempDir, addresses: &[SocketAddr]) -> Servers {
        Servers { processes: Vec::new(), addresses: addresses.to_vec(), leader: 0, folder }
    }

    /// Creates a data folder.
    pub(crate) fn make_folder(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Writes a configuration file.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Starts a process with a log.
    pub(crate) fn start(
        &mut self,
        name: &str,
        program: &Path,
        arguments: &[String],
    ) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", program.display());
        let log = File::create(self.log(name)).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let child = command_for(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        self.processes.push(Process { name: name.to_owned(), child });
        Ok(())
    }

    /// Calls `look` until it returns a value.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let end = Instant::now() + SETTLE_TIME;
        loop {
            let last = match look() {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => "not yet".to_owned(),
                Err(why) => why,
            };
            self.check_all_run()?;
            if Instant::now() > end {
                let seconds = SETTLE_TIME.as_secs();
                return Err(format!("{what}: not after {seconds} s: {last}"));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Returns the leader's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[self.leader]
    }

    /// Returns the addresses of the other servers.
    pub(crate) fn other_addresses(&self) -> Vec<SocketAddr> {
        let others = self.addresses.iter().enumerate().filter(|(at, _)| *at != self.leader);
        others.map(|(_, address)| *address).collect()
    }

    /// Returns names and ids of all processes.
    pub(crate) fn processes(&self) -> Vec<(String, u32)> {
        self.processes.iter().map(|one| (one.name.clone(), one.child.id())).collect()
    }

    /// Kills the leader with SIGKILL.
    pub(crate) fn kill_leader(&mut self) -> Result<(), String> {
        let mut leader = self.processes.remove(self.leader);
        leader.child.kill().map_err(|error| format!("kill: {error}"))?;
        leader.child.wait().map(|_| ()).map_err(|error| format!("wait: {error}"))
    }

    /// Fails if a process has ended.
    pub(crate) fn check_all_run(&mut self) -> Result<(), String> {
        for Process { name, child } in &mut self.processes {
            let ended = child.try_wait().map_err(|error| format!("wait: {error}"))?;
            if let Some(status) = ended {
                return Err(format!("{name} ended by itself: {status}"));
            }
        }
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Returns the ends of all logs.
    pub(crate) fn last_lines(&self) -> String {
        let mut lines_of_all = String::new();
        for Process { name, .. } in &self.processes {
            let text = fs::read(self.log(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                lines_of_all += &format!("\n{name}: {line}");
            }
        }
        lines_of_all
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for Process { child, .. } in &mut self.processes {
            // It may have ended already.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// Returns the path of a program, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Creates a command whose process the kernel kills when this process dies, if `setpriv` is
/// installed.
fn command_for(program: &Path) -> Command {
    let Some(setpriv) = find("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Sends a request and returns what `whole` finds in the answer so far.
pub(crate) fn fetch<T>(
    server: SocketAddr,
    question: &[u8],
    mut whole: impl FnMut(&[u8]) -> Result<Option<T>, String>,
) -> Result<T, String> {
    let failed = |error| format!("{server}: {error}");
    let end = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(POLL_INTERVAL)).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream.write_all(question).map_err(failed)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(found) = whole(&answer)? {
            return Ok(found);
        }
        if Instant::now() > end || answer.len() > ANSWER_MAX {
            return Err(format!("{server}: no complete answer, only {} bytes", answer.len()));
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(format!("{server}: closed without an answer")),
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_server_ends_with_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut servers = Servers::new(folder, &[]);
        let shell = find("sh").expect("every system has a shell");
        let arguments = ["-c", "echo last words; exec sleep 600"].map(str::to_owned);
        servers.start("sleeper", &shell, &arguments).expect("it starts");
        let log = servers.log("sleeper");
        let said = || Ok(fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n')));
        servers.wait_for("words", said).expect("it speaks");
        assert_eq!(servers.last_lines(), "\nsleeper: last words");
        let process = PathBuf::from(format!("/proc/{}", servers.processes()[0].1));
        assert!(process.exists());
        drop(servers);
        assert!(!process.exists());
    }

    #[test]
    fn a_server_that_ended_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut servers = Servers::new(folder, &[]);
        let shell = find("sh").expect("every system has a shell");
        servers.start("brief", &shell, &["-c".into(), "exit 3".into()]).expect("it starts");
        let why = servers.wait_for::<()>("nothing", || Ok(None)).unwrap_err();
        assert_eq!(why, "brief ended by itself: exit status: 3");
    }

    #[test]
    fn a_server_that_closes_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("its address");
        let closer = thread::spawn(move || drop(listener.accept()));
        let why = fetch::<()>(server, b"", |_| Ok(None)).unwrap_err();
        // A close may also be reported as a reset.
        assert!(why.starts_with(&server.to_string()), "{why}");
        closer.join().expect("it ends");
    }
}
