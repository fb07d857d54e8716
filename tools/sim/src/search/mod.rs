//! An exhaustive search to small bounds: the replicas that ship, driven breadth-first through
//! every order of deliveries, syncs, crashes, restarts, lost disks, elections and changes of the
//! members. There are no timers: what a timer decides may be decided at any time.
//!
//! States are compared by a hash of everything that affects the future. To save memory, an open
//! state is the actions since an earlier state, which is kept complete every few levels.

mod action;
pub mod command;
mod world;

pub use action::{Action, Bounds};

use crate::catch_panic;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};
use world::World;

/// Levels between two complete states.
const LEVELS: usize = 4;

/// The result of a search.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Distinct states that were visited.
    pub states: u64,
    /// Actions that were applied. Most lead to known states.
    pub steps: u64,
    /// The number of actions to the farthest state.
    pub depth: usize,
    /// Every state within the bounds was visited.
    pub complete: bool,
    /// The shortest sequence of actions that violates an invariant, and which one.
    pub found: Option<(Vec<Action>, String)>,
}

/// The actions that lead to a state, last one first.
struct Trail {
    action: Action,
    before: Option<Rc<Trail>>,
}

/// A state to visit: the latest complete state before it, and the actions that lead to it.
struct Open {
    base: Rc<World>,
    trail: Option<Rc<Trail>>,
    depth: usize,
}

/// Visits all states that are reachable within `bounds`, for at most `time`.
pub fn search(bounds: &Bounds, time: Duration) -> Report {
    let begin = Instant::now();
    let first = Rc::new(World::formed(bounds));
    let mut known = HashSet::from([first.fingerprint()]);
    let mut open = VecDeque::from([Open { base: first, trail: None, depth: 0 }]);
    let mut report = Report { states: 1, ..Report::default() };
    let mut actions = Vec::new();
    while let Some(Open { base, trail, depth }) = open.pop_front() {
        if report.states.is_multiple_of(64) && begin.elapsed() >= time {
            return report;
        }
        let world = base.after(&latest(trail.as_ref(), depth % LEVELS));
        report.depth = depth;
        world.actions(&mut actions);
        for action in actions.drain(..) {
            let stepped = catch_panic(|| world.after(&[action]));
            let trail = Some(Rc::new(Trail { action, before: trail.clone() }));
            let after = match stepped {
                Ok(after) => after,
                Err(panic) => {
                    let actions = latest(trail.as_ref(), usize::MAX);
                    report.found = Some((actions, panic.to_string()));
                    return report;
                }
            };
            report.steps += 1;
            if known.insert(after.fingerprint()) {
                report.states += 1;
                let depth = depth + 1;
                let complete = depth.is_multiple_of(LEVELS);
                let base = if complete { Rc::new(after) } else { Rc::clone(&base) };
                open.push_back(Open { base, trail, depth });
            }
        }
    }
    report.complete = true;
    report
}

/// Returns the latest `count` actions of a trail, in order.
fn latest(trail: Option<&Rc<Trail>>, count: usize) -> Vec<Action> {
    let trail = std::iter::successors(trail, |trail| trail.before.as_ref());
    let mut actions: Vec<Action> = trail.take(count).map(|trail| trail.action).collect();
    actions.reverse();
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern::replica::Decision;

    #[test]
    fn a_search_with_small_bounds_is_complete() {
        let bounds = Bounds { terms: 1, entries: 1, late_syncs: true, ..Bounds::default() };
        let report = search(&bounds, Duration::from_secs(60));
        assert!(report.complete && report.found.is_none(), "{report:?}");
        assert!(report.states > 100, "{report:?}");
    }

    #[test]
    fn an_election_a_change_and_a_crash_violate_no_invariant() {
        let bounds = Bounds {
            terms: 2,
            entries: 2,
            changes: 1,
            crashes: 1,
            wipes: 1,
            cuts: 1,
            late_syncs: true,
        };
        let report = search(&bounds, Duration::from_secs(5));
        assert!(report.found.is_none(), "{report:?}");
    }

    /// Tests the search itself.
    #[test]
    fn a_violated_invariant_is_found() {
        let bounds = Bounds { terms: 2, entries: 1, late_syncs: true, ..Bounds::default() };
        let mut world = World::formed(&bounds);
        world.claim_acknowledged(9, "an entry that no client sent");
        let campaign = Action::Decide(2, Decision::Campaign);
        let mut world = catch_panic(|| world.after(&[campaign])).expect("a campaign is allowed");
        let elected = catch_panic(|| world.settle());
        let why = elected.expect_err("a primary lacks an acknowledged entry").to_string();
        assert!(why.contains("lacks entry 9"), "{why}");
    }
}
