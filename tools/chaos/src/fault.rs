//! Injects faults, and ends them.

use super::environment::Environment;
use super::plan::{Kind, PlannedFault, Resource, Target};
use postern::rng::Rng;
use postern_testkit::group::SERVERS;
use rustix::process::Signal;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Free space on a nearly full disk: less than a server reserves.
const NEARLY_FULL_BYTES: u64 = 32 << 20;
/// How a disk can fail. The server must exit, unless it does not perform the operation meanwhile.
const DISK_FAILURES: [&str; 6] = [
    "sync * fail EIO",
    "sync log/ fail EIO",
    "sync vote fail EIO",
    "write log/ fail EIO",
    "write log/ fail ENOSPC",
    "rename identity fail EIO",
];

/// A fault that is injected and has not ended.
pub(super) struct ActiveFault {
    pub(super) kind: Kind,
    pub(super) server: usize,
    /// The second target of a fault that has two.
    other: usize,
    pub(super) until: Instant,
    /// The process of `postern handover`.
    handover: Option<Child>,
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        if let Some(child) = &mut self.handover {
            // Fails if it has ended already.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

impl ActiveFault {
    /// Returns the servers whose own resources the fault occupies.
    fn servers(&self) -> Vec<usize> {
        match self.kind {
            Kind::KillAll => (0..SERVERS).collect(),
            Kind::KillTwo => vec![self.server, self.other],
            Kind::Handover | Kind::Cut | Kind::OneWay => Vec::new(),
            _ => vec![self.server],
        }
    }

    /// Returns whether the fault occupies this resource of a server, so that no other fault may.
    pub(super) fn occupies(&self, resource: Resource, at: usize) -> bool {
        self.kind.properties().resources.contains(&resource) && self.servers().contains(&at)
    }

    /// Returns whether both occupy the same resource. Faults without resources (`handover`, `cut`
    /// and `one-way`) conflict with each other.
    fn conflicts_with(&self, other: &ActiveFault) -> bool {
        let (own, others) = (self.kind.properties().resources, other.kind.properties().resources);
        let shared = |at: &usize| own.iter().any(|resource| other.occupies(*resource, *at));
        (own.is_empty() && others.is_empty()) || self.servers().iter().any(shared)
    }

    /// Returns whether the fault asks its server to exit.
    pub(super) fn is_termination(&self) -> bool {
        self.kind == Kind::Term
    }

    /// Returns whether its server may exit because of the fault.
    pub(super) fn may_crash(&self) -> bool {
        matches!(self.kind, Kind::Full | Kind::FailingDisk | Kind::Rot)
    }

    /// Returns the directions that a `cut` or `one-way` blocks, by numbers from 1.
    fn directions(&self) -> impl Iterator<Item = (usize, usize)> {
        let (from, to) = (self.server + 1, self.other + 1);
        let back = (self.kind == Kind::Cut).then_some((to, from));
        [(from, to)].into_iter().chain(back)
    }

    /// Names its targets, for the timeline.
    pub(super) fn targets(&self, primary: Option<usize>) -> String {
        let (server, other) = (self.server + 1, self.other + 1);
        match self.kind {
            Kind::KillAll => "all".to_owned(),
            Kind::KillTwo | Kind::Cut => format!("{server} and {other}"),
            Kind::OneWay => format!("{server} to {other}"),
            Kind::Handover => "-".to_owned(),
            _ if primary == Some(self.server) => format!("{server} (primary)"),
            _ => server.to_string(),
        }
    }
}

/// Chooses the targets of a planned fault. Returns `None` if active faults occupy all of them.
pub(super) fn choose_targets(
    planned: &PlannedFault,
    primary: usize,
    active: &[ActiveFault],
    environment: &Environment,
) -> Option<ActiveFault> {
    let preferred = match planned.target {
        Target::Primary => primary,
        Target::Backup(at) => (primary + 1 + at) % SERVERS,
    };
    let until = Instant::now() + planned.duration;
    let mut candidates = (0..SERVERS).map(|skipped| {
        let server = (preferred + skipped) % SERVERS;
        let other = (server + planned.offset) % SERVERS;
        ActiveFault { kind: planned.kind, server, other, until, handover: None }
    });
    candidates.find(|fault| {
        let stopped = |at| !environment.group.is_running(at);
        let is_down = (0..SERVERS).any(|at| fault.occupies(Resource::Process, at) && stopped(at));
        !is_down && !active.iter().any(|other| other.conflicts_with(fault))
    })
}

/// Injects a fault. Returns the event for the timeline.
pub(super) fn inject(
    environment: &mut Environment,
    fault: &mut ActiveFault,
    seed: u64,
) -> Result<String, String> {
    let mut rng = Rng::new(seed);
    let at = fault.server;
    let mut detail = match fault.kind {
        Kind::Kill | Kind::KillTwo | Kind::KillAll => "kill -9",
        Kind::Stop => "SIGSTOP",
        Kind::Term => "SIGTERM",
        _ => "",
    }
    .to_owned();
    match fault.kind {
        Kind::Kill | Kind::KillTwo | Kind::KillAll => {
            let servers = fault.servers();
            servers.iter().try_for_each(|at| environment.group.kill(*at))?;
            servers.iter().try_for_each(|at| environment.group.reap(*at))?;
        }
        Kind::Stop => environment.group.signal(at, Signal::STOP)?,
        Kind::Term => environment.group.terminate(at)?,
        Kind::Handover => fault.handover = Some(start_handover(environment)?),
        Kind::NearlyFull => environment.fill_disk(at, NEARLY_FULL_BYTES)?,
        Kind::Full => environment.fill_disk(at, 0)?,
        Kind::SlowDisk => {
            // From 20 ms to 4 s, uniformly in the logarithm.
            let ms = (20.0 * 200f64.powf(rng.below(1001) as f64 / 1000.0)) as u64;
            detail = format!("sync * delay {ms}");
            environment.set_disk_faults(at, &detail)?;
        }
        Kind::FailingDisk => {
            DISK_FAILURES[rng.below(DISK_FAILURES.len() as u64) as usize].clone_into(&mut detail);
            environment.set_disk_faults(at, &detail)?;
        }
        Kind::Rot => {
            environment.group.kill(at)?;
            environment.group.reap(at)?;
            detail = draw_rot(&mut rng, environment.group.data(at))?;
            environment.set_disk_faults(at, &detail)?;
            environment.group.start_server(at)?;
        }
        Kind::Isolate => environment.network()?.set_up(at + 1, false)?,
        Kind::Cut | Kind::OneWay => {
            let network = environment.network()?;
            fault.directions().try_for_each(|(from, to)| network.block(from, to))?;
        }
        Kind::SlowLink => environment.network()?.slow_down(at + 1).map(drop)?,
    }
    let separator = if detail.is_empty() { "" } else { ": " };
    Ok(format!("{}{separator}{detail}", fault.kind.name()))
}

/// Ends a fault. Returns the event for the timeline, and the servers to restart.
pub(super) fn end(
    environment: &Environment,
    fault: &mut ActiveFault,
) -> Result<(String, Vec<usize>), String> {
    let at = fault.server;
    let (mut detail, mut restart) = ("", Vec::new());
    match fault.kind {
        Kind::Kill | Kind::KillTwo | Kind::KillAll | Kind::Term => restart = fault.servers(),
        Kind::Stop => environment.group.signal(at, Signal::CONT)?,
        Kind::Handover => {
            detail = match fault.handover.as_mut().map(Child::try_wait) {
                Some(Ok(Some(status))) if status.success() => ": succeeded",
                Some(Ok(Some(_))) => ": failed",
                _ => ": interrupted",
            }
        }
        Kind::NearlyFull | Kind::Full => environment.clear_disk(at)?,
        Kind::SlowDisk | Kind::FailingDisk | Kind::Rot => environment.set_disk_faults(at, "")?,
        Kind::Isolate => environment.network()?.set_up(at + 1, true)?,
        Kind::Cut | Kind::OneWay => {
            let network = environment.network()?;
            fault.directions().try_for_each(|(from, to)| network.unblock(from, to))?;
        }
        Kind::SlowLink => environment.network()?.speed_up(at + 1)?,
    }
    Ok((format!("{} ends{detail}", fault.kind.name()), restart))
}

fn start_handover(environment: &Environment) -> Result<Child, String> {
    let group = &environment.group;
    let failed = |error| format!("postern handover: {error}");
    let log = File::options().create(true).append(true).open(group.folder().join("handover.log"));
    let mut command = Command::new(group.binary());
    command.args(["handover", "--config"]).arg(group.config());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_err(failed)?);
    command.spawn().map_err(failed)
}

/// Draws a rule by which a restarted server reads damaged data.
fn draw_rot(rng: &mut Rng, data: &Path) -> Result<String, String> {
    let segment = newest_segment(data)?;
    let (file, path) = match rng.below(8) {
        0 => ("vote", data.join("vote")),
        1 => ("identity", data.join("identity")),
        2 | 3 => return Ok("read log/ short".to_owned()),
        _ => ("log/", segment),
    };
    let size = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    Ok(format!("read {file} flip {}", rng.below(size.max(1))))
}

fn newest_segment(data: &Path) -> Result<PathBuf, String> {
    let folder = data.join("log");
    let failed = |error| format!("{}: {error}", folder.display());
    let entries = fs::read_dir(&folder).map_err(failed)?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(failed)?.into_iter().max().ok_or_else(|| "the log has no segment".to_owned())
}
