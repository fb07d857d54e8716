//! Servers of other systems as child processes, which end with whoever started them.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a system may take until it serves.
const SETTLE_TIME: Duration = Duration::from_secs(60);
/// How often one that does not yet serve is asked.
const LOOK_TIME: Duration = Duration::from_millis(50);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer to one question is shorter.
const ANSWER_MAX: usize = 1 << 20;
/// Lines of each log that are shown when something fails.
const LAST_WORDS: usize = 8;
/// Where distributions put servers that are not for every user's `PATH`.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// The processes of one system, and the folder with all that they write.
pub(crate) struct Servers {
    processes: Vec<Process>,
    /// Where clients are served, by the first processes in their order.
    addresses: Vec<SocketAddr>,
    leader: usize,
    folder: TempDir,
}

struct Process {
    name: String,
    child: Child,
}

impl Servers {
    /// None yet, in a new folder, for these addresses.
    pub(crate) fn new(folder: TempDir, addresses: &[SocketAddr]) -> Servers {
        Servers { processes: Vec::new(), addresses: addresses.to_vec(), leader: 0, folder }
    }

    /// Makes a folder for a server's data.
    pub(crate) fn make_folder(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Writes a server's settings.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Starts a server; what it says goes to a log with its name.
    pub(crate) fn start(
        &mut self,
        name: &str,
        program: &Path,
        arguments: &[String],
    ) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", program.display());
        let log = File::create(self.log(name)).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let child = bound_to_this(program)
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

    /// Waits until `look` finds what it looks for.
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
            thread::sleep(LOOK_TIME);
        }
    }

    /// Says who leads.
    pub(crate) fn set_leader(&mut self, at: usize) {
        self.leader = at;
    }

    /// Where the leader serves clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[self.leader]
    }

    /// Where the others do.
    pub(crate) fn other_addresses(&self) -> Vec<SocketAddr> {
        let others = self.addresses.iter().enumerate().filter(|(at, _)| *at != self.leader);
        others.map(|(_, address)| *address).collect()
    }

    /// All processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.child.id()).collect()
    }

    /// Ends the leader with SIGKILL.
    pub(crate) fn kill_leader(&mut self) -> Result<(), String> {
        let mut leader = self.processes.remove(self.leader);
        leader.child.kill().map_err(|error| format!("kill: {error}"))?;
        leader.child.wait().map(|_| ()).map_err(|error| format!("wait: {error}"))
    }

    /// Fails when a server has ended.
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

    /// The ends of all logs.
    pub(crate) fn last_words(&self) -> String {
        let mut words = String::new();
        for Process { name, .. } in &self.processes {
            let text = fs::read(self.log(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
                words += &format!("\n{name}: {line}");
            }
        }
        words
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for Process { child, .. } in &mut self.processes {
            // One that has ended already needs no end.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A command whose process the kernel ends when this one dies without ending it; where the tool
/// for that is missing, one that only this process ends.
fn bound_to_this(program: &Path) -> Command {
    let Some(setpriv) = find("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Asks a server one question; `whole` finds the answer in what has come so far.
pub(crate) fn fetch<T>(
    server: SocketAddr,
    question: &[u8],
    mut whole: impl FnMut(&[u8]) -> Result<Option<T>, String>,
) -> Result<T, String> {
    let failed = |error| format!("{server}: {error}");
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(LOOK_TIME)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(question).map_err(failed)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(found) = whole(&answer)? {
            return Ok(found);
        }
        if Instant::now() > end || answer.len() > ANSWER_MAX {
            return Err(format!("{server}: no answer, but {} bytes", answer.len()));
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
        assert_eq!(servers.last_words(), "\nsleeper: last words");
        let process = PathBuf::from(format!("/proc/{}", servers.pids()[0]));
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
        // A close may be seen as a reset.
        assert!(why.starts_with(&server.to_string()), "{why}");
        closer.join().expect("it ends");
    }
}
