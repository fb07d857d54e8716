//! `postern serve`: builds a server from its settings and its data directory, and runs it.

use super::Named;
use super::directory::{hold_or_make, identity, label, random, recovery};
use crate::host::{self, Host, Setup};
use crate::ids::{DiskId, Index, ServerId};
use crate::limits::{DESCRIPTORS_RESERVED, DIGEST_ENTRIES, PROGRESS_TIME, SPACE_RESERVED};
use crate::mailbox::Mailboxes;
use crate::node;
use crate::options;
use crate::replica::Quarantine;
use crate::server::{self, EventLoop, Parts, boot_time};
use crate::settings::Settings;
use crate::store::disk::Disk;
use crate::store::{OpenError, Opened, Opening, Progress, Quarantined, ServerDisk, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use socket2::SockRef;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Maximum number of connections that the kernel queues between two turns. All clients of a
/// primary may reconnect at once when it dies; a client that finds no place retries a second
/// later. The kernel has its own bound, too (`net.core.somaxconn`).
const BACKLOG: i32 = 8192;

/// Settings that make glibc's allocator return the 19 MiB of a password hash to the system. An
/// allocation larger than the threshold is mapped by itself and unmapped when it is freed; one
/// arena serves both threads. (dlmalloc returns memory only while no lasting allocation lies
/// after it.)
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_ARENA_MAX", "1")];

/// Restarts this process with the allocator's settings in its environment, where glibc reads them
/// before `main`. Another C library ignores them. Returns the error if the restart fails, which
/// costs nothing but memory.
pub fn give_memory_back() -> Option<io::Error> {
    let missing = ALLOCATOR.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return None;
    }
    let restart = |binary| {
        let mut again = std::process::Command::new(binary);
        again.args(std::env::args_os().skip(1)).envs(missing).exec()
    };
    Some(std::env::current_exe().map_or_else(|error| error, restart))
}

/// Runs a server until a signal ends it.
///
/// # Errors
/// Returns a one-line message that states why the server cannot start or continue.
pub fn run(options: &options::Serve) -> Result<ExitCode, String> {
    super::stderr::log_panics();
    forbid_core_files();
    let settings = Settings::read(&options.config)?;
    let servers = settings.shared.servers;
    let Some(id) = ServerId::new(options.id).filter(|id| id.number() <= servers) else {
        let (config, count) = (options.config.display(), super::servers(servers.into()));
        return Err(format!("{config}: lists {count}, there is no id {}", options.id));
    };
    let listeners = super::listen::bind_all(&settings, id)?;
    let data = options.data.clone().unwrap_or_else(|| settings.data.clone());
    let _lock = hold_or_make(&data)?;
    // Between two incarnations, nothing else handles signals.
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stopped)).named("signals")?;
    }
    // With a handler, a write beyond the limit of the file size fails instead of ending the
    // process.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).named("signals")?;
    let stop_with_stdin = options.stop_with_stdin;
    let recovery = recovery(&options.config, &data);
    let shell = Shell { settings, id, data, recovery, listeners, stop_with_stdin, stopped };
    let mut quarantine = shell.live(None)?;
    while quarantine.is_some() {
        quarantine = shell.live(quarantine)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a server keeps when it quarantines its directory and starts again.
struct Shell {
    settings: Settings,
    id: ServerId,
    data: PathBuf,
    /// The command with which an operator continues with this server alone.
    recovery: String,
    /// Bound from the beginning, and listening from the first incarnation on: a refused
    /// connection means a dead server.
    listeners: Vec<TcpListener>,
    stop_with_stdin: bool,
    stopped: Arc<AtomicBool>,
}

impl Shell {
    /// Runs one incarnation. First quarantines what the previous one reported in `quarantine`.
    /// Returns what the next one must quarantine, or `None` when the server was asked to stop.
    fn live(&self, quarantine: Option<Quarantine>) -> Result<Option<Quarantine>, String> {
        let shown = self.data.display();
        let began = boot_time();
        let whole = match quarantine {
            Some(Quarantine::Everything) => {
                Some(("old-copy", "is an old copy, or of another epoch"))
            }
            Some(Quarantine::Diverged) => {
                Some(("diverged", "gave another state than those of the others"))
            }
            _ => None,
        };
        if let Some((kind, why)) = whole {
            self.quarantine(kind, why).named(&shown)?;
        }
        let mut opened = self.open()?;
        if let Some(Quarantine::Tail(last)) = quarantine {
            self.leave_tail(opened, last).named(&shown)?;
            opened = self.open()?;
        }
        let host = Host::build(opened, self.setup()?);
        for listener in &self.listeners {
            SockRef::from(listener).listen(BACKLOG).named("can't listen")?;
        }
        let settings = &self.settings;
        let listeners = self.listeners.iter().map(TcpListener::try_clone);
        let setup = server::Setup {
            names: settings.servers.clone(),
            listens: self.listens().collect(),
            group: settings.shared.group,
            secret: settings.secret.clone(),
            max_clients: clients_max(settings.max_clients),
        };
        let parts = Parts {
            listeners: listeners.collect::<Result<_, _>>().named("poll")?,
            setup,
            stop_with_stdin: self.stop_with_stdin,
            began,
        };
        let server = EventLoop::new(parts, host).named("poll")?;
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.announce();
        server.run().named(shown)
    }

    fn listens(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok())
    }

    /// Logs the addresses on which the server listens, since names may resolve to others than
    /// expected.
    fn announce(&self) {
        let (id, count) = (self.id, self.settings.servers.len());
        let listens: Vec<String> = self.listens().map(|address| address.to_string()).collect();
        let (name, data) = (&self.settings.servers[id.slot()], self.data.display());
        let listens = listens.join(" and ");
        log::info!("server {id} of {count}, {name}, listens on {listens}; its data is in {data}");
    }

    fn open(&self) -> Result<Opened<ServerDisk>, String> {
        let settings = &self.settings;
        let shown = self.data.display();
        let disk = ServerDisk::open(&self.data).named(&shown)?;
        let expected = identity(&settings.shared, self.id, DiskId(random()?))?;
        let (label, empty) = (label(), Mailboxes::new(&settings.secret));
        let opening = Opening { expected: &expected, label: &label, empty: &empty };
        let mut last = Instant::now();
        let mut watch = |Progress { segment, segments }| {
            if last.elapsed() >= PROGRESS_TIME && segment < segments {
                log::info!("{shown}: {segment} of {segments} files of the log are read");
                last = Instant::now();
            }
        };
        let mut opened = Store::open(disk, &opening, &mut watch);
        if let Err(OpenError::Io(error)) = &opened
            && error.kind() == io::ErrorKind::StorageFull
            && let Ok(disk) = ServerDisk::open(&self.data)
            && let Ok(true) = Store::release_reserve(&disk)
        {
            log::warn!("{shown}: the disk is full ({error}): the reserve is used to start");
            opened = Store::open(disk, &opening, &mut watch);
        }
        let opened = opened.map_err(|error| match error {
        OpenError::Damaged(_) => format!(
            "{shown}: {error}; verify it with `postern check --data {shown}`, continue with it by \
             `{}`",
            self.recovery
        ),
        error => format!("{shown}: {error}"),
    })?;
        let free = opened.store.disk().free_bytes().unwrap_or(0);
        if free > SPACE_RESERVED
            && let Err(error) = opened.store.keep_reserve()
        {
            log::warn!("{shown}: no room is kept for a start on a full disk: {error}");
        }
        if let Some(Quarantined { folder, why }) = &opened.quarantined {
            log::warn!(
                "{shown}: damaged: {why}; what can't be trusted must not vote: all of it is in \
             {folder} now, and this server begins empty, to be filled by the others"
            );
        }
        if let Some(torn) = &opened.torn {
            let (file, bytes, at, why) = (&torn.file, torn.bytes, torn.at, torn.why);
            log::warn!(
                "{shown}/{file}: a torn tail of {bytes} bytes at byte {at} is cut ({why}): nothing \
                 of it was acknowledged"
            );
        }
        if opened.store.last() == Index::ZERO {
            for (folder, last) in host::in_use(&opened.former) {
                log::warn!(
                    "{shown}: the log is empty, and {folder} holds one up to entry {last}: this \
                     server forms no group; it joins one, or a person goes on with `{} --from \
                     {folder}`",
                    self.recovery
                );
            }
        }
        Ok(opened)
    }

    fn setup(&self) -> Result<Setup, String> {
        let settings = &self.settings;
        let node = node::Setup {
            addresses: settings.servers.clone(),
            login_timeout: settings.login_timeout,
            accounts_open: settings.accounts_open,
            secret: settings.secret.clone(),
            recovery: self.recovery.clone(),
            former: Vec::new(),
            digest_entries: DIGEST_ENTRIES,
            settings: settings.compared(),
            retention: settings.retention,
        };
        let (shared, takeover) = (settings.shared, settings.takeover);
        Ok(Setup { shared, takeover, seed: random()? as u64, scrub: settings.scrub, node })
    }

    /// Quarantines the whole directory, as one of this kind, and says why.
    fn quarantine(&self, kind: &str, why: &str) -> io::Result<()> {
        let folder = Store::quarantine(&ServerDisk::open(&self.data)?, kind, &label())?;
        let shown = self.data.display();
        log::warn!(
            "{shown}: it {why}: all of it is in {folder} now, and this server begins empty, to be \
             filled by the others"
        );
        Ok(())
    }

    /// Quarantines the entries after `last`; or all of them, if the messages of earlier ones may be
    /// emptied by what the later ones say: the epoch that this server follows may keep them.
    fn leave_tail(&self, mut opened: Opened<ServerDisk>, last: Index) -> io::Result<()> {
        if opened.store.has_emptied(last) {
            drop(opened);
            let why = "is of another epoch, and may lack messages that this one keeps";
            return self.quarantine("old-copy", why);
        }
        if let Some(folder) = opened.store.quarantine_tail(last, &label())? {
            let shown = self.data.display();
            log::warn!(
                "{shown}: the entries after {last} are not in the epoch that this server \
                 follows: they are in {folder} now"
            );
        }
        Ok(())
    }
}

/// Disables core files: one could hold the secret, or what clients typed.
fn forbid_core_files() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Every process may lower its limits.
    let _ = setrlimit(Resource::Core, none);
}

/// Raises the limit of open files as far as allowed. Returns the maximum number of clients, which
/// leaves a reserve of descriptors for peers and files.
fn clients_max(wanted: u32) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit = getrlimit(Resource::Nofile);
    }
    let allowed = limit.current.unwrap_or(1 << 20).saturating_sub(DESCRIPTORS_RESERVED).max(1);
    let wanted = if wanted == 0 { allowed } else { u64::from(wanted) };
    if wanted > allowed {
        log::warn!("max_clients {wanted} is more than the file limit allows: {allowed}");
    }
    usize::try_from(wanted.min(allowed)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Position, Term};
    use crate::record::{self, Kind};
    use crate::time::WallTime;
    use std::path::Path;

    /// Returns a server that is asked to stop before each of its incarnations starts.
    fn shell(folder: &Path) -> Shell {
        let config = folder.join("postern.toml");
        let servers = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(str::to_owned);
        Settings::init(&config, &servers, false).unwrap();
        Shell {
            settings: Settings::read(&config).unwrap(),
            id: ServerId::new(1).unwrap(),
            data: folder.join("data"),
            recovery: String::new(),
            listeners: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
            stop_with_stdin: false,
            stopped: Arc::new(AtomicBool::new(true)),
        }
    }

    fn live(shell: &Shell, quarantine: Option<Quarantine>) {
        assert_eq!(shell.live(quarantine).unwrap(), None);
    }

    fn opened(shell: &Shell) -> Store<ServerDisk> {
        shell.open().unwrap().store
    }

    /// Opens the directory, and appends five entries, the second one of this kind.
    fn filled(shell: &Shell, second: Kind) -> Store<ServerDisk> {
        let mut store = opened(shell);
        store.persist(crate::ids::Vote { term: Term(1), ..Default::default() }).unwrap();
        for index in 1..=5 {
            let at = Position { index: Index(index), term: Term(1) };
            let kind = if index == 2 { second } else { Kind::MESSAGE };
            let mut entry = Vec::new();
            record::write(&mut entry, at, WallTime(0), kind, |_| {});
            store.append(&entry).unwrap();
        }
        store.flush().unwrap();
        store
    }

    fn quarantine(shell: &Shell, kind: &str) -> PathBuf {
        let folders = std::fs::read_dir(shell.data.join("quarantine")).unwrap();
        let mut folders = folders.map(|folder| folder.unwrap().path());
        folders.find(|path| path.display().to_string().contains(kind)).unwrap()
    }

    #[test]
    fn who_is_reading_its_log_refuses_connections() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = shell(folder.path());
        let listener = super::super::listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        shell.listeners = vec![listener];
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        live(&shell, None);
        std::net::TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_life_begins_with_the_quarantine_of_what_the_one_before_left() {
        let folder = tempfile::tempdir().unwrap();
        let shell = shell(folder.path());
        live(&shell, None);
        let store = filled(&shell, Kind::MESSAGE);
        let disk = store.identity().disk;
        drop(store);

        live(&shell, Some(Quarantine::Tail(Index(3))));
        let store = opened(&shell);
        assert_eq!((store.last(), store.identity().disk), (Index(3), disk));
        assert!(quarantine(&shell, "epoch-0-").join("00000000000000000004.log").exists());
        drop(store);

        live(&shell, Some(Quarantine::Everything));
        let store = opened(&shell);
        assert_eq!(store.last(), Index::ZERO);
        assert_ne!(store.identity().disk, disk, "it is somebody else");
        assert!(quarantine(&shell, "old-copy-").join("identity").exists());
    }

    /// A message may be emptied because of an entry that is not in the epoch that a server follows
    /// now. The others fill it again, with the message.
    #[test]
    fn who_leaves_a_tail_keeps_no_emptied_messages() {
        for (kind, left) in [(Kind::EMPTIED, 0), (Kind::MESSAGE, 3)] {
            let folder = tempfile::tempdir().unwrap();
            let shell = shell(folder.path());
            live(&shell, None);
            drop(filled(&shell, kind));
            live(&shell, Some(Quarantine::Tail(Index(3))));
            assert_eq!(opened(&shell).last(), Index(left), "{kind:?}");
        }
    }
}
