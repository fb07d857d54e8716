//! A trial: one run of one seed. Faults, then a time without faults, then the checks of the end.

use super::clients::Clients;
use super::contents::{self, Replayed};
use super::durable;
use super::faults::{self, Fault, Kind};
use super::network::TWIN;
use super::process::Settings;
use super::trace;
use super::world::World;
use crate::{catch_panic, require};
use postern::limits::SEGMENT_BYTES;
use postern::mailbox::Limits;
use postern::node::Retention;
use postern::record::{self, Record};
use postern::replica::{Replica, RoleView, Rule, Takeover};
use postern::rng::Rng;
use std::fmt::Write;
use std::time::Duration;

/// The size of segments in a third of the seeds: a few batches, so that logs have many of them.
const SEGMENT_BYTES_SMALL: u64 = 2048;

/// A defect that is planted to test whether the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The disk of server 2 reports syncs that it has not done.
    LyingSyncs,
    /// An acknowledged message is missing at the end.
    LostMessage,
    /// A ping contains the clock of its receiver, so that no server knows another one's clock.
    EchoedClocks,
}

/// The options of a trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The seed of everything random.
    pub seed: u64,
    /// How long faults are injected, in virtual seconds.
    pub seconds: u64,
    /// Whether a trace is recorded.
    pub trace: bool,
    /// A planted defect.
    pub sabotage: Option<Sabotage>,
    /// Faults to skip, by their places in the plan.
    pub without: Vec<usize>,
}

/// The result of a trial.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What went wrong, if anything.
    pub finding: Option<String>,
    /// A hash of the times of all events.
    pub hash: u64,
    /// What happened how often.
    pub counts: Counts,
    /// The lines of the trace, if one was recorded.
    pub trace: Vec<String>,
}

/// How often things happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    pub(super) events: u64,
    pub(super) virtual_us: u64,
    /// Requests of clients: successful, refused and unanswered.
    pub(super) requests: [u64; 3],
    pub(super) elections: u64,
    pub(super) configs: u64,
    /// Messages that mailboxes have forgotten.
    pub(super) forgotten: u64,
    /// Those that are emptied on a disk.
    pub(super) emptied: u64,
    /// Records whose times were compared with the median of the clocks.
    pub(super) times: u64,
    /// Faults that had an effect, in the order of [`Kind::ALL`].
    pub(super) effects: [u64; Kind::ALL.len()],
    /// Decisions of each rule, in the order of [`Rule::ALL`].
    pub(super) decisions: [u64; Rule::ALL.len()],
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            events: 0,
            virtual_us: 0,
            requests: [0; 3],
            elections: 0,
            configs: 0,
            forgotten: 0,
            emptied: 0,
            times: 0,
            effects: [0; Kind::ALL.len()],
            decisions: [0; Rule::ALL.len()],
        }
    }
}

impl Counts {
    /// Adds the counts of another trial.
    pub(super) fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.virtual_us += other.virtual_us;
        self.elections += other.elections;
        self.configs += other.configs;
        self.forgotten += other.forgotten;
        self.emptied += other.emptied;
        self.times += other.times;
        let sums = self.requests.iter_mut().chain(&mut self.effects).chain(&mut self.decisions);
        let counts = other.requests.iter().chain(&other.effects).chain(&other.decisions);
        sums.zip(counts).for_each(|(sum, count)| *sum += count);
    }
}

impl Trial {
    /// A trial of a seed with default options.
    pub fn new(seed: u64) -> Trial {
        Trial { seed, seconds: 300, trace: false, sabotage: None, without: Vec::new() }
    }

    fn settings(&self) -> Settings {
        let mut rng = Rng::new(self.seed ^ 0x5e77);
        let peer_timeout_ms = [200, 500, 1000, 2000, 2000, 5000][rng.below(6) as usize];
        let takeover = if rng.below(4) == 0 { Takeover::Rank } else { Takeover::Coin };
        let copies_min = if rng.below(6) == 0 { 2 } else { 1 };
        let survivor_auto = rng.below(3) == 0;
        // These two have random streams of their own, so that they do not change other draws.
        let segment_bytes = match Rng::new(self.seed ^ 0x5e93_e175).below(6) {
            0 | 1 => SEGMENT_BYTES_SMALL,
            // So small that a truncation removes segments.
            2 => SEGMENT_BYTES_SMALL / 8,
            _ => SEGMENT_BYTES,
        };
        // Rarely, since a handshake takes more processor time than a simulated second.
        let encrypts = Rng::new(self.seed ^ 0x05ea_1ed5).below(128) == 0;
        let mut rng = Rng::new(self.seed ^ 0x0f_0496);
        let mut one_of = |count, value: u64| (rng.below(count) == 0).then_some(value);
        let limits = Limits {
            messages: one_of(8, 40).unwrap_or(u64::MAX),
            bytes: one_of(8, 300).unwrap_or(u64::MAX),
        };
        let keep_messages = one_of(4, 1 + self.seed % 24);
        let keep_time = one_of(6, 5 + self.seed % 60).map(Duration::from_secs);
        let retention = Retention { keep_time, keep_messages, limits };
        Settings {
            peer_timeout_ms,
            takeover,
            copies_min,
            survivor_auto,
            segment_bytes,
            encrypts,
            digest_entries: 50,
            retention,
        }
    }

    fn plan(&self) -> Vec<Fault> {
        faults::plan(self.seed, self.seconds * 1_000_000, self.settings().survivor_auto)
    }

    /// Describes the faults that are not skipped, one line each.
    pub fn faults(&self) -> Vec<String> {
        let plan = self.plan().into_iter().enumerate();
        let left = plan.filter(|(at, _)| !self.without.contains(at));
        left.map(|(_, fault)| fault.to_string()).collect()
    }
}

/// Runs a trial. A panic is a finding.
pub fn try_seed(trial: &Trial) -> Outcome {
    if trial.trace {
        trace::start();
    }
    let mut outcome = catch_panic(|| run(trial)).unwrap_or_else(|panic| {
        let finding = panic.to_string();
        trace::line(|| finding.clone());
        Outcome { finding: Some(finding), ..Outcome::default() }
    });
    if trial.trace {
        outcome.trace = trace::finish();
    }
    outcome
}

fn run(trial: &Trial) -> Outcome {
    let mut world = World::new(trial.seed, trial.settings(), trial.plan());
    world.faults.excluded.clone_from(&trial.without);
    world.faults.liar = (trial.sabotage == Some(Sabotage::LyingSyncs)).then_some(1);
    world.checks.times.echoed = trial.sabotage == Some(Sabotage::EchoedClocks);
    trace::stamp(0, 0);
    trace::line(|| format!("seed {}, {:?}", trial.seed, trial.settings()));
    world.run_to(trial.seconds * 1_000_000);
    if !world.found_something() {
        let noted = check_liveness(&mut world);
        world.note(noted);
    }
    if !world.found_something() {
        let noted = check_end(&mut world, trial.sabotage == Some(Sabotage::LostMessage));
        world.note(noted);
    }
    (0..=TWIN).for_each(|n| world.end_process(n, true));
    let checks = &world.checks;
    let counts = Counts {
        virtual_us: world.now,
        requests: world.clients.counts.all(),
        elections: checks.elections,
        configs: checks.configs,
        times: checks.times.checked,
        ..world.results.counts
    };
    Outcome { counts, ..world.results }
}

/// Ends all faults. The group must be healthy soon, also when a server is then lost for good.
fn check_liveness(world: &mut World) -> Result<(), String> {
    trace::stamp(world.now, 0);
    trace::line(|| "ALL FAULTS END".to_owned());
    world.end_all_faults();
    let timeout = world.settings.peer_timeout_us();
    world.end_twin_safely()?;
    wait(world, timeout, "all three are members and agree", |world| is_healthy(world, 3))?;
    let mut rng = Rng::new(world.results.hash);
    if rng.below(2) == 0 {
        let lost = rng.below(3) as usize;
        trace::line(|| format!("server {} is lost for good", lost + 1));
        world.lose_for_good(lost, rng.below(3));
        wait(world, timeout, "the two others are members and agree", |world| is_healthy(world, 2))?;
    }
    let before = world.clients.counts.sends;
    world.with_clients(Clients::speed_up);
    wait(world, timeout * 10, "a new message is acknowledged", |world| {
        world.clients.counts.sends > before
    })?;
    world.clients.quiet = true;
    world.with_clients(Clients::wake_all);
    // A client on a dead connection waits for its own timeout.
    let end = world.now + 10 * timeout + 35_000_000;
    world.run_to(end);
    let waiting = world.clients.waiting();
    require(waiting == 0 || world.found_something(), || {
        format!("{waiting} requests were never answered")
    })
}

/// Waits for at most 10 `T`, and the time of restarts and connects. Waits longer if the primary
/// delays the addition of a server that was dropped often.
fn wait(
    world: &mut World,
    timeout: u64,
    what: &str,
    done: impl Fn(&World) -> bool,
) -> Result<(), String> {
    let began = world.now;
    loop {
        if world.found_something() || done(world) {
            return Ok(());
        }
        let penalty = if world.checks.penalty { 32_000_000 } else { 0 };
        require(world.now <= began + 10 * timeout + 3_000_000 + penalty, || {
            format!("not within 10 T: {what}: {}", describe(world))
        })?;
        if !world.step(world.now + timeout) {
            world.now += timeout;
        }
    }
}

impl World {
    /// The running replicas of the group.
    pub(super) fn replicas(&self) -> impl Iterator<Item = &Replica> + Clone {
        let running = self.servers.iter().filter_map(|server| server.process.as_ref());
        let replicas = running.map(|process| process.node().replica());
        replicas.filter(|replica| !self.checks.is_stray(replica))
    }

    /// The primary with the highest term. One of a lower term may be paused.
    pub(super) fn primary(&self) -> Option<&Replica> {
        let primaries = self.replicas().filter(|replica| replica.role() == RoleView::Primary);
        primaries.max_by_key(|replica| replica.term())
    }
}

/// Whether a primary leads this number of members, which all run and have the same log.
pub(super) fn is_healthy(world: &World, members: usize) -> bool {
    let replicas = world.replicas();
    let primaries = replicas.clone().filter(|replica| {
        replica.role() == RoleView::Primary && replica.confirmed_read().is_some()
    });
    let Some(primary) = primaries.max_by_key(|replica| replica.term()) else { return false };
    let Some(config) = primary.config().filter(|config| config.count() == members) else {
        return false;
    };
    let equal = replicas.filter(|replica| {
        let same_term = replica.term() == primary.term();
        config.has(replica.me()) && same_term && replica.committed() == primary.committed()
    });
    equal.count() == members && primary.acknowledged() == primary.last()
}

/// Describes the state of each server.
pub(super) fn describe(world: &World) -> String {
    let mut text = String::new();
    for (n, server) in world.servers.iter().enumerate() {
        let written = match &server.process {
            None if n == TWIN => Ok(()),
            None => write!(text, "{}: down; ", n + 1),
            Some(process) => {
                let r = process.node().replica();
                let (role, term, last, committed) = (r.role(), r.term(), r.last(), r.committed());
                let acknowledged = r.acknowledged();
                let config = r.config().map(ToString::to_string).unwrap_or_default();
                write!(
                    text,
                    "{}: {role:?} term {term} last {last} committed {committed} \
                     acknowledged {acknowledged} members {config}; ",
                    n + 1
                )
            }
        };
        written.expect("a write to a string does not fail");
    }
    text
}

/// Checks that a disk has all acknowledged entries, and that they explain all answers to clients.
/// With `lose`, the last message is removed first.
pub(super) fn check_end(world: &mut World, lose: bool) -> Result<(), String> {
    let acknowledged = world.checks.acknowledged.len();
    let mut complete = None;
    for server in &world.servers {
        if let Some(disk) = server.disk_id
            && world.checks.has_all_acknowledged(disk, &server.disk)
        {
            complete = Some(server.disk.clone());
        }
    }
    let Some(disk) = complete else {
        return Err(format!("no disk has all of the {acknowledged} acknowledged entries"));
    };
    let log = durable::records(&disk);
    let mut records: Vec<&[u8]> =
        record::each(&log).filter_map(Result::ok).map(|record| record.bytes).collect();
    records.truncate(acknowledged);
    // What clients have read is compared with what was sent.
    let mut emptied = 0;
    for bytes in &mut records {
        let record = Record::trust(bytes);
        if record.kind == record::Kind::EMPTIED {
            emptied += 1;
            *bytes = world.checks.emptied.get(&record.index).ok_or("nobody has emptied it")?;
        }
    }
    if lose {
        let message = |bytes: &&[u8]| bytes[32] == record::Kind::MESSAGE.0;
        let last = records.iter().rposition(message);
        records.remove(last.ok_or("there is no message to lose")?);
    }
    let settings = world.settings.retention;
    let Replayed { contents, forgotten } = contents::replay(&records.concat(), settings)?;
    world.results.counts.forgotten = forgotten;
    world.results.counts.emptied = emptied;
    world.clients.history.check(&contents).map_err(|finding| finding.to_string())?;
    let bound = 200 + 40 * world.results.counts.effects.iter().sum::<u64>();
    let (elections, configs) = (world.checks.elections, world.checks.configs);
    require(elections + configs <= bound, || {
        format!("too many changes: {elections} elections, {configs} configs")
    })?;
    Ok(())
}
