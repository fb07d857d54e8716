//! One run of one seed: faults, then peace, then what must hold in the end.

use super::faults::{self, Fault, Kind};
use super::history;
use super::network::TWIN;
use super::process::Settings;
use super::story;
use super::truth;
use super::world::World;
use postern::limits::SEGMENT_BYTES;
use postern::record;
use postern::replica::{Replica, RoleView, Takeover};
use postern::rng::Rng;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The size of segments in a third of the seeds: a few batches, so that logs have many of them.
const SEGMENT_BYTES_SMALL: u64 = 2048;

/// A world that is broken on purpose, to see whether that is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The disk of server 2 says that it synced and did not.
    LyingSyncs,
    /// A client's answered message is forgotten in the end.
    LostMessage,
    /// Pings show the clock of their receiver: no server knows another one's.
    EchoedClocks,
}

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Names everything random.
    pub seed: u64,
    /// After the faults, progress is demanded.
    pub liveness: bool,
    /// How long faults last, in virtual seconds.
    pub seconds: u64,
    /// A story is told.
    pub story: bool,
    /// See [`Sabotage`].
    pub sabotage: Option<Sabotage>,
    /// Which faults of the plan are left out, by their places.
    pub without: Vec<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What went wrong, if anything.
    pub finding: Option<String>,
    /// Of everything that happened, in its order.
    pub hash: u64,
    /// How many things happened.
    pub events: u64,
    /// How long it lasted, in virtual µs.
    pub virtual_us: u64,
    /// How often each kind of fault took effect.
    pub took: Vec<(String, u64)>,
    /// Requests answered, refused, and neither.
    pub requests: (u64, u64, u64),
    /// How often each rule decided, in the order of [`postern::replica::Rule::ALL`].
    pub decisions: Vec<u64>,
    /// Elections won, and configs answered.
    pub changes: (u64, u64),
    /// How many records were held to the median of the clocks.
    pub times: u64,
    /// The story, if it was told.
    pub story: Vec<String>,
    /// How many faults the plan has.
    pub planned: usize,
}

impl Trial {
    /// The whole trial of a seed.
    pub fn new(seed: u64) -> Trial {
        let (seconds, without) = (300, Vec::new());
        Trial { seed, liveness: true, seconds, story: false, sabotage: None, without }
    }

    fn settings(&self) -> Settings {
        let mut rng = Rng::new(self.seed ^ 0x5e77);
        let peer_timeout_ms = [200, 500, 1000, 2000, 2000, 5000][rng.below(6) as usize];
        let takeover = if rng.below(4) == 0 { Takeover::Rank } else { Takeover::Coin };
        let copies_min = if rng.below(6) == 0 { 2 } else { 1 };
        let survivor_auto = rng.below(3) == 0;
        // Of its own stream: it does not shift the other draws.
        let segment_bytes = match Rng::new(self.seed ^ 0x5e93_e175).below(6) {
            0 | 1 => SEGMENT_BYTES_SMALL,
            // So small that cuts reach into earlier ones.
            2 => SEGMENT_BYTES_SMALL / 8,
            _ => SEGMENT_BYTES,
        };
        // A handshake takes longer than all else in a virtual second.
        let encrypts = Rng::new(self.seed ^ 0x05ea_1ed5).below(128) == 0;
        Settings { peer_timeout_ms, takeover, copies_min, survivor_auto, segment_bytes, encrypts }
    }

    fn plan(&self) -> Vec<Fault> {
        faults::plan(self.seed, self.seconds * 1_000_000, self.settings().survivor_auto)
    }

    /// The faults that are left, one line each.
    pub fn faults(&self) -> Vec<String> {
        let plan = self.plan().into_iter().enumerate();
        let left = plan.filter(|(at, _)| !self.without.contains(at));
        left.map(|(_, fault)| fault.to_string()).collect()
    }
}

/// Runs a trial; a panic in a node is a finding.
pub fn try_seed(trial: &Trial) -> Outcome {
    if trial.story {
        story::begin();
    }
    let ran = catch_unwind(AssertUnwindSafe(|| run(trial)));
    let mut outcome = ran.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let finding = format!("panic: {}", words.unwrap_or_default());
        story::tell(|| finding.clone());
        Outcome { finding: Some(finding), planned: trial.plan().len(), ..Outcome::default() }
    });
    if trial.story {
        outcome.story = story::end();
    }
    outcome
}

fn run(trial: &Trial) -> Outcome {
    let plan: Vec<Fault> = trial.plan();
    let planned = plan.len();
    let mut world = World::new(trial.seed, trial.settings(), plan);
    world.left_out.clone_from(&trial.without);
    if trial.sabotage == Some(Sabotage::LyingSyncs) {
        world.liar = Some(1);
    }
    world.times.echoed = trial.sabotage == Some(Sabotage::EchoedClocks);
    story::at(0, 0);
    story::tell(|| format!("seed {}, {:?}", trial.seed, trial.settings()));
    world.run_to(trial.seconds * 1_000_000);
    if trial.liveness && world.finding.is_none() {
        let noted = demand_progress(&mut world);
        world.note(noted);
    }
    if world.finding.is_none() {
        let noted = judge(&mut world, trial.sabotage == Some(Sabotage::LostMessage));
        world.note(noted);
    }
    (0..=TWIN).for_each(|n| world.ends_life(n, true));
    let took = Kind::ALL.iter().map(|kind| (format!("{kind:?}"), world.took[*kind as usize]));
    Outcome {
        hash: world.hash,
        events: world.events,
        virtual_us: world.now,
        took: took.collect(),
        requests: world.crowd.counts.all(),
        decisions: world.decisions.to_vec(),
        changes: (world.checks.elections, world.checks.configs),
        times: world.times.checked,
        story: Vec::new(),
        planned,
        finding: world.finding.take(),
    }
}

/// All faults end, and the group must be whole soon; then one may be lost for good.
fn demand_progress(world: &mut World) -> Result<(), String> {
    story::at(world.now, 0);
    story::tell(|| "PEACE".to_owned());
    world.calm_down();
    let silence = u64::from(world.settings.peer_timeout_ms) * 1000;
    world.part_with_twin()?;
    wait(world, silence, "all three are members and agree", |world| is_well(world, 3))?;
    let mut rng = Rng::new(world.hash);
    if rng.below(2) == 0 {
        let lost = rng.below(3) as usize;
        story::tell(|| format!("server {} is lost for good", lost + 1));
        world.lose_for_good(lost, rng.below(3));
        wait(world, silence, "the two that are left go on", |world| is_well(world, 2))?;
    }
    let (crowd, mut hands) = world.crowd();
    let before = crowd.counts.sends;
    crowd.hurry(&mut hands);
    wait(world, silence * 10, "a new message is answered", |world| {
        world.crowd.counts.sends > before
    })?;
    let (crowd, mut hands) = world.crowd();
    crowd.quiet = true;
    crowd.wake_all(&mut hands);
    // A client that waits on a dead connection has its own patience.
    let end = world.now + 10 * silence + 35_000_000;
    world.run_to(end);
    match world.crowd.waiting() {
        _ if world.finding.is_some() => Ok(()),
        0 => Ok(()),
        waiting => Err(format!("{waiting} requests were never answered")),
    }
}

/// Waits at most 10 `T`, and what restarts and connections take; longer where a penalty runs.
fn wait(
    world: &mut World,
    silence: u64,
    what: &str,
    done: impl Fn(&World) -> bool,
) -> Result<(), String> {
    let began = world.now;
    loop {
        if world.finding.is_some() || done(world) {
            return Ok(());
        }
        let patience = 10 * silence + 3_000_000 + if world.penalty { 32_000_000 } else { 0 };
        if world.now > began + patience {
            return Err(format!("not within 10 T: {what}: {}", picture(world)));
        }
        if !world.step(world.now + silence) {
            world.now += silence;
        }
    }
}

impl World {
    /// The replicas of the group that run.
    pub(super) fn replicas(&self) -> impl Iterator<Item = &Replica> + Clone {
        let running = self.servers.iter().filter_map(|server| server.process.as_ref());
        let replicas = running.map(|process| process.node().replica());
        replicas.filter(|replica| !self.checks.is_stray(replica))
    }
}

/// A primary leads so many members, all of them running and settled.
pub(super) fn is_well(world: &World, members: usize) -> bool {
    let replicas = world.replicas();
    let leads = replicas.clone().filter(|replica| {
        replica.role() == RoleView::Primary && replica.confirmed_read().is_some()
    });
    // An old one may be stopped, and not know.
    let Some(primary) = leads.max_by_key(|replica| replica.term()) else { return false };
    let Some(config) = primary.config().filter(|config| config.count() == members) else {
        return false;
    };
    let equal = replicas.filter(|replica| config.has(replica.me()));
    let equal = equal.filter(|replica| {
        replica.term() == primary.term() && replica.committed() == primary.committed()
    });
    equal.count() == members && primary.acknowledged() == primary.last()
}

pub(super) fn picture(world: &World) -> String {
    let mut text = String::new();
    for (n, server) in world.servers.iter().enumerate() {
        let written = match &server.process {
            None if n == TWIN => Ok(()),
            None => write!(text, "{}: down; ", n + 1),
            Some(process) => {
                let r = process.node().replica();
                let config = r.config().map(ToString::to_string).unwrap_or_default();
                write!(
                    text,
                    "{}: {:?} term {} last {} committed {} acknowledged {} members {config}; ",
                    n + 1,
                    r.role(),
                    r.term(),
                    r.last(),
                    r.committed(),
                    r.acknowledged()
                )
            }
        };
        written.expect("a string takes every word");
    }
    text
}

/// What was answered is there, and is what clients were told.
pub(super) fn judge(world: &mut World, lose: bool) -> Result<(), String> {
    let acknowledged = world.checks.acknowledged.len();
    let mut found = None;
    for server in &world.servers {
        if let Some(disk) = server.disk_id
            && world.checks.keeps_all(disk, &server.disk)
        {
            found = Some(server.disk.clone());
        }
    }
    let Some(disk) = found else {
        return Err(format!("no disk has all of the {acknowledged} answered entries"));
    };
    let log = truth::records(&disk);
    let mut records: Vec<&[u8]> =
        record::each(&log).filter_map(Result::ok).map(|record| record.bytes).collect();
    records.truncate(acknowledged);
    if lose {
        let message = |bytes: &&[u8]| bytes[32] == record::Kind::MESSAGE.0;
        let last = records.iter().rposition(message);
        records.remove(last.ok_or("there is no message to lose")?);
    }
    let contents = history::contents(&records.concat())?;
    world.crowd.history.check(&contents).map_err(|finding| finding.to_string())?;
    let bound = 200 + 40 * world.took.iter().sum::<u64>();
    if world.checks.elections + world.checks.configs > bound {
        let (elections, configs) = (world.checks.elections, world.checks.configs);
        return Err(format!("a storm: {elections} elections, {configs} configs"));
    }
    Ok(())
}
