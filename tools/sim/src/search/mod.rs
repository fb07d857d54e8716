//! An exhaustive search to small bounds: the replicas that ship, driven breadth-first through
//! every order of deliveries, syncs, crashes, restarts, lost disks, elections and changes of the
//! members. There are no timers: whatever a timer decides may be decided at any time.
//!
//! States are told apart by a hash of all that may matter for what comes. Of the states still to
//! be visited only every few levels a whole one is kept, and the way from there.

mod action;
pub mod command;
mod world;

pub use action::{Action, Bounds};

use std::collections::HashSet;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};
use world::World;

/// Levels between two states that are kept whole.
const LEVELS: usize = 4;

/// How far a search came.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Different states that were visited.
    pub states: u64,
    /// Steps that were taken, most of them to states that were known.
    pub steps: u64,
    /// How many actions lead to the farthest state.
    pub depth: usize,
    /// There was nothing left to visit.
    pub complete: bool,
    /// The shortest way to a broken promise, and what broke.
    pub found: Option<(Vec<Action>, String)>,
}

/// The actions that lead to a state, the last one first.
struct Trail {
    action: Action,
    before: Option<Rc<Trail>>,
}

/// A state to be visited: a whole one, and the way from there.
struct Open {
    base: Rc<World>,
    way: Vec<Action>,
    trail: Option<Rc<Trail>>,
    depth: usize,
}

/// Visits what can be reached within `bounds`, for at most `time`.
pub fn search(bounds: &Bounds, time: Duration) -> Report {
    let begin = Instant::now();
    let first = Rc::new(World::formed(bounds));
    let mut known = HashSet::from([first.fingerprint()]);
    let mut open = VecDeque::from([Open { base: first, way: Vec::new(), trail: None, depth: 0 }]);
    let mut report = Report { states: 1, ..Report::default() };
    let mut actions = Vec::new();
    while let Some(next) = open.pop_front() {
        if report.states.is_multiple_of(64) && begin.elapsed() >= time {
            return report;
        }
        let world = Rc::new(next.base.after(&next.way));
        report.depth = next.depth;
        world.actions(&mut actions);
        for action in actions.drain(..) {
            let stepped = catch_unwind(AssertUnwindSafe(|| world.after(&[action])));
            let trail = Rc::new(Trail { action, before: next.trail.clone() });
            let after = match stepped {
                Ok(after) => after,
                Err(panic) => {
                    report.found = Some((unroll(&trail), words(panic.as_ref())));
                    return report;
                }
            };
            report.steps += 1;
            if !known.insert(after.fingerprint()) {
                continue;
            }
            report.states += 1;
            let whole = (next.depth + 1) % LEVELS == 0;
            let mut way = if whole { Vec::new() } else { next.way.clone() };
            let base = if whole {
                Rc::new(after)
            } else {
                way.push(action);
                Rc::clone(&next.base)
            };
            open.push_back(Open { base, way, trail: Some(trail), depth: next.depth + 1 });
        }
    }
    report.complete = true;
    report
}

fn unroll(last: &Rc<Trail>) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut at = Some(last);
    while let Some(trail) = at {
        actions.push(trail.action);
        at = trail.before.as_ref();
    }
    actions.reverse();
    actions
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bounds_are_searched_to_the_end() {
        let bounds = Bounds {
            terms: 1,
            entries: 1,
            changes: 0,
            crashes: 0,
            wipes: 0,
            cuts: 0,
            late_syncs: true,
        };
        let report = search(&bounds, Duration::from_secs(60));
        assert!(report.complete && report.found.is_none(), "{report:?}");
        assert!(report.states > 100, "{report:?}");
    }

    #[test]
    fn an_election_a_change_and_a_crash_break_nothing_nearby() {
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

    /// What guards the search itself: a promise that is false is found, with the way to it.
    #[test]
    fn a_false_promise_is_found() {
        let bounds = Bounds {
            terms: 2,
            entries: 1,
            changes: 0,
            crashes: 0,
            wipes: 0,
            cuts: 0,
            late_syncs: true,
        };
        let mut world = World::formed(&bounds);
        world.claim_answered(9, "what nobody ever sent");
        let lost = catch_unwind(AssertUnwindSafe(|| world.after(&[Action::Campaign(2)])));
        assert!(lost.is_ok(), "standing is allowed");
        let world = world.after(&[Action::Campaign(2), Action::Sync(2)]);
        let elected = catch_unwind(AssertUnwindSafe(|| {
            let mut world = world;
            let mut actions = Vec::new();
            for _ in 0..40 {
                world.actions(&mut actions);
                let deliver = actions
                    .drain(..)
                    .find(|action| matches!(action, Action::Deliver { .. } | Action::Sync(_)));
                let Some(deliver) = deliver else { break };
                world = world.after(&[deliver]);
            }
        }));
        let why = words(elected.expect_err("a primary lacks what was answered").as_ref());
        assert!(why.contains("lacks entry 9"), "{why}");
    }
}
