//! Carrying faults out, and ending them.

use super::arena::Arena;
use super::plan::{Kind, Part, Step, Whom};
use postern::rng::Rng;
use postern_testkit::group::SERVERS;
use rustix::process::Signal;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What is left of a disk that is nearly full: less than servers keep for themselves.
const NEARLY_FULL_BYTES: u64 = 32 << 20;
/// How a disk fails. The server must end of it, or not come to it.
const FAILURES: [&str; 6] = [
    "sync * fail EIO",
    "sync log/ fail EIO",
    "sync vote fail EIO",
    "write log/ fail EIO",
    "write log/ fail ENOSPC",
    "rename identity fail EIO",
];

/// A fault that lasts.
pub(super) struct Active {
    pub(super) kind: Kind,
    pub(super) server: usize,
    other: usize,
    pub(super) until: Instant,
    handover: Option<Child>,
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(child) = &mut self.handover {
            // One that has ended already needs no end.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

impl Active {
    /// Whether it is about a server.
    fn strikes(&self, at: usize) -> bool {
        match self.kind {
            Kind::KillAll => true,
            Kind::KillTwo => at == self.server || at == self.other,
            Kind::Handover | Kind::Cut | Kind::OneWay => false,
            _ => at == self.server,
        }
    }

    /// Whether this part of a server is this fault's own: no other fault may strike it.
    pub(super) fn holds(&self, part: Part, at: usize) -> bool {
        self.strikes(at) && self.kind.parts().contains(&part)
    }

    /// Whether both are about the same part of a server.
    fn collides(&self, other: &Active) -> bool {
        let parts = self.kind.parts().iter();
        parts
            .copied()
            .any(|part| (0..SERVERS).any(|at| self.holds(part, at) && other.holds(part, at)))
    }

    /// Whether it asks its server to end.
    pub(super) fn is_stop(&self) -> bool {
        self.kind == Kind::Term
    }

    /// Whether the server may end of it by itself.
    pub(super) fn may_end(&self, at: usize) -> bool {
        let ends = matches!(self.kind, Kind::Full | Kind::FailingDisk | Kind::Rot);
        ends && at == self.server
    }

    /// Whom it strikes, for a person.
    pub(super) fn whom(&self, primary: Option<usize>) -> String {
        let name = |at: usize| {
            let role = if primary == Some(at) { " (primary)" } else { "" };
            format!("{}{role}", at + 1)
        };
        match self.kind {
            Kind::KillAll => "all".to_owned(),
            Kind::KillTwo | Kind::Cut => format!("{} and {}", self.server + 1, self.other + 1),
            Kind::OneWay => format!("{} to {}", self.server + 1, self.other + 1),
            Kind::Handover => "-".to_owned(),
            _ => name(self.server),
        }
    }

    fn killed(&self) -> Vec<usize> {
        (0..SERVERS).filter(|at| self.strikes(*at)).collect()
    }
}

/// Finds whom a step strikes now; nobody when all that it could strike are struck already.
pub(super) fn aim(step: &Step, primary: usize, active: &[Active], arena: &Arena) -> Option<Active> {
    let wanted = match step.whom {
        Whom::Primary => primary,
        Whom::Backup(at) => (primary + 1 + at) % SERVERS,
    };
    let until = Instant::now() + step.span;
    let mut aims = (0..SERVERS).map(|turn| {
        let server = (wanted + turn) % SERVERS;
        let other = (server + step.other) % SERVERS;
        Active { kind: step.kind, server, other, until, handover: None }
    });
    // Of what is no server's own there is one at a time.
    let shared = |kind: Kind| kind.parts().is_empty();
    if shared(step.kind) && active.iter().any(|one| shared(one.kind)) {
        return None;
    }
    let can = |aim: &Active| {
        let runs = |at: usize| !aim.holds(Part::Process, at) || arena.group.is_running(at);
        (0..SERVERS).all(runs) && !active.iter().any(|one| one.collides(aim))
    };
    aims.find(can)
}

/// Begins a fault; a word on how.
pub(super) fn begin(arena: &mut Arena, fault: &mut Active, draw: u64) -> Result<String, String> {
    let mut rng = Rng::new(draw);
    let at = fault.server;
    match fault.kind {
        Kind::Kill | Kind::KillTwo | Kind::KillAll => {
            let killed = fault.killed();
            killed.iter().try_for_each(|at| arena.group.kill(*at))?;
            killed.iter().try_for_each(|at| arena.group.reap(*at))?;
            return Ok("kill -9".to_owned());
        }
        Kind::Stop => arena.group.signal(at, Signal::STOP)?,
        Kind::Term => arena.group.terminate(at)?,
        Kind::Handover => fault.handover = Some(hand_over(arena)?),
        Kind::NearlyFull => fill(arena, at, NEARLY_FULL_BYTES)?,
        Kind::Full => fill(arena, at, 0)?,
        Kind::SlowDisk => {
            // From 20 ms to 4 s, evenly in the logarithm.
            let ms = (20.0 * 200f64.powf(rng.below(1001) as f64 / 1000.0)) as u64;
            arena.order(at, &format!("sync * delay {ms}\n"))?;
            return Ok(format!("syncs take {ms} ms"));
        }
        Kind::FailingDisk => {
            let order = FAILURES[rng.below(FAILURES.len() as u64) as usize];
            arena.order(at, order)?;
            return Ok(order.to_owned());
        }
        Kind::Rot => {
            arena.group.kill(at)?;
            arena.group.reap(at)?;
            let order = draw_rot(&mut rng, arena.group.data(at))?;
            arena.order(at, &order)?;
            arena.group.start_server(at)?;
            return Ok(order);
        }
        Kind::Isolate => arena.network()?.set_up(at + 1, false)?,
        Kind::Cut => {
            arena.network()?.block(at + 1, fault.other + 1)?;
            arena.network()?.block(fault.other + 1, at + 1)?;
        }
        Kind::OneWay => arena.network()?.block(at + 1, fault.other + 1)?,
        Kind::SlowLink => {
            arena.network()?.slow_down(at + 1)?;
        }
    }
    Ok(fault.kind.name())
}

/// Ends a fault; a word on how, and the servers that are to be started again.
pub(super) fn heal(
    arena: &mut Arena,
    fault: &mut Active,
) -> Result<(&'static str, Vec<usize>), String> {
    let at = fault.server;
    let mut again = Vec::new();
    let word = match fault.kind {
        Kind::Kill | Kind::KillTwo | Kind::KillAll => {
            again = fault.killed();
            "starts"
        }
        Kind::Stop => {
            arena.group.signal(at, Signal::CONT)?;
            "SIGCONT"
        }
        Kind::Term => {
            again.push(at);
            "starts"
        }
        Kind::Handover => {
            let ended = fault.handover.as_mut().map(Child::try_wait);
            match ended {
                Some(Ok(Some(status))) if status.success() => "handed over",
                Some(Ok(Some(_))) => "was not handed over",
                _ => "is still handed over",
            }
        }
        Kind::NearlyFull | Kind::Full => {
            match arena.volume(at) {
                Some(volume) => volume.clear()?,
                None => arena.order(at, "")?,
            }
            "has room"
        }
        Kind::SlowDisk | Kind::FailingDisk | Kind::Rot => {
            arena.order(at, "")?;
            "disk is well"
        }
        Kind::Isolate => {
            arena.network()?.set_up(at + 1, true)?;
            "cable is plugged in"
        }
        Kind::Cut => {
            arena.network()?.unblock(at + 1, fault.other + 1)?;
            arena.network()?.unblock(fault.other + 1, at + 1)?;
            "cut ends"
        }
        Kind::OneWay => {
            arena.network()?.unblock(at + 1, fault.other + 1)?;
            "cut ends"
        }
        Kind::SlowLink => {
            arena.network()?.speed_up(at + 1)?;
            "link is fast"
        }
    };
    Ok((word, again))
}

fn fill(arena: &Arena, at: usize, but: u64) -> Result<(), String> {
    match arena.volume(at) {
        Some(volume) => volume.fill(but),
        None => arena.order(at, "write * fail ENOSPC"),
    }
}

fn hand_over(arena: &Arena) -> Result<Child, String> {
    let log = arena.group.folder().join("handover.log");
    let failed = |error| format!("postern handover: {error}");
    let log = File::options().create(true).append(true).open(log).map_err(failed)?;
    let mut command = Command::new(arena.group.binary());
    command.args(["handover", "--config"]).arg(arena.group.config());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().map_err(failed)
}

/// What the disk of a stopped server shows, and did not before.
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
