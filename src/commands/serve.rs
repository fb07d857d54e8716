//! `postern serve`: puts a server together from its settings and its data directory, and runs it.

use crate::limits::DESCRIPTORS_RESERVED;
use crate::moment::Moment;
use crate::names::{DiskId, Member, ProcessId, ServerId};
use crate::node::{self, Node};
use crate::options;
use crate::replica::{self, Replica, Shape, Shared};
use crate::server::{Ending, Parts, Server};
use crate::settings::Settings;
use crate::store::disk::RealDisk;
use crate::store::{Identity, Opened, Store};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::fs::{File, TryLockError};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Connections that the kernel may hold for us between two turns.
const BACKLOG: i32 = 1024;

/// What keeps glibc's allocator from keeping the 19 MiB of a password hash: what is larger than
/// this is mapped by itself and unmapped when it is freed; and one arena serves both threads.
/// (dlmalloc gives them back only while no lasting allocation lies behind them.)
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_ARENA_MAX", "1")];

/// Begins this process anew with the allocator's settings, which it reads from the environment
/// before `main`. Another C library ignores them; where it can't be done, nothing is lost but
/// memory.
pub fn give_memory_back() {
    let missing = ALLOCATOR.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    let missing: Vec<_> = missing.collect();
    if let (false, Ok(binary)) = (missing.is_empty(), std::env::current_exe()) {
        let mut again = std::process::Command::new(binary);
        again.args(std::env::args_os().skip(1)).envs(missing.into_iter().copied());
        let error = again.exec();
        log::warn!("the allocator keeps its defaults: {error}");
    }
}

/// Runs a server until a signal ends it.
///
/// # Errors
/// One line that says why it can't start or go on.
pub fn run(options: &options::Serve) -> Result<ExitCode, String> {
    let began = Instant::now();
    let settings = Settings::read(&options.config)?;
    let servers = settings.servers.len() as u8;
    let id = ServerId::new(options.id).filter(|id| id.number() <= servers);
    let id = id.ok_or_else(|| {
        format!(
            "{}: lists {servers} server, there is no id {}",
            options.config.display(),
            options.id
        )
    })?;
    let own = &settings.addresses[id.slot()];
    let wanted = settings.listen.map_or_else(|| own.clone(), |listen| vec![listen]);
    let listeners: Vec<TcpListener> =
        wanted.iter().map(|address| listen(*address)).collect::<Result<_, _>>()?;
    let data = options.data.as_ref().unwrap_or(&settings.data);
    let _lock = lock(data)?;
    let (opened, shape) = open(data, &settings, id)?;
    let vote = opened.vote;
    let node = node(&settings, &opened, shape)?;
    let parts = Parts {
        listeners,
        addresses: settings.addresses.clone(),
        names: settings.servers.clone(),
        group: settings.group,
        secret: settings.secret.clone(),
        store: opened.store,
        max_clients: clients_max(settings.max_clients),
        stop_with_stdin: options.stop_with_stdin,
        began,
    };
    let server = Server::new(parts, node, vote).map_err(|error| format!("poll: {error}"))?;
    log::info!("server {id} listens on {}", settings.servers[id.slot()]);
    match server.run().map_err(|fail| format!("{}: {fail}", data.display()))? {
        Ending::Stopped => Ok(ExitCode::SUCCESS),
        Ending::Left(aside) => Err(format!("{}: must be put aside: {aside:?}", data.display())),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None);
    let listener = socket.and_then(|socket| {
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    listener.map_err(|error| format!("{address}: can't listen: {error}"))
}

/// Holds the directory for this process, as long as the file is open.
fn lock(data: &Path) -> Result<File, String> {
    let shown = data.display();
    RealDisk::open(data).map_err(|error| format!("{shown}: {error}"))?;
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(data.join("lock")).map_err(|error| format!("{shown}/lock: {error}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!("{shown}: another server runs on it")),
        Err(TryLockError::Error(error)) => Err(format!("{shown}/lock: {error}")),
    }
}

fn open(
    data: &Path,
    settings: &Settings,
    id: ServerId,
) -> Result<(Opened<RealDisk>, Shape), String> {
    let shown = data.display();
    let disk = RealDisk::open(data).map_err(|error| format!("{shown}: {error}"))?;
    let new = DiskId(random()?);
    let expected = Identity::new(settings.group, settings.servers.len() as u8, id, new);
    let mut shape = Shape::default();
    let opened = Store::open(disk, &expected, |record| shape.push(record));
    let opened = opened.map_err(|error| format!("{shown}: {error}"))?;
    if let Some(torn) = &opened.torn {
        log::warn!(
            "{shown}/{}: a torn tail of {} bytes at byte {} is cut ({}): nothing of it was \
             acknowledged",
            torn.file,
            torn.bytes,
            torn.at,
            torn.why
        );
    }
    Ok((opened, shape))
}

fn node(settings: &Settings, opened: &Opened<RealDisk>, shape: Shape) -> Result<Node, String> {
    let identity = opened.store.identity();
    let setup = replica::Setup {
        me: Member { id: identity.id, disk: identity.disk },
        incarnation: identity.incarnation,
        process: ProcessId(random()? as u64),
        shared: Shared {
            group: settings.group,
            servers: identity.servers,
            silence_ms: settings.silence_ms,
            copies_min: 1,
            survivor_auto: false,
        },
        takeover: settings.takeover,
        vote: opened.vote,
        shape,
        seen: identity.all_seen().to_vec(),
        seed: random()? as u64,
    };
    let about = node::Setup {
        addresses: settings.servers.clone(),
        login_timeout: settings.login_timeout,
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(Node::new(Moment(0), about, Replica::new(Moment(0), setup)))
}

fn random() -> Result<u128, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(u128::from_le_bytes(bytes))
}

/// Raises the file limit as far as allowed, and keeps a reserve of it for peers and files.
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
