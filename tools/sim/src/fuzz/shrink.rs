//! Shrinks the input of a finding while the finding stays the same.

use super::case::Case;
use super::catch::{self, Finding};
use super::target::Target;
use crate::remove_items;
use std::time::{Duration, Instant};

/// How long to shrink one finding.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Returns a case with the same finding from which no piece or byte can be removed.
pub(super) fn shrink(target: &Target, case: Case, finding: &Finding) -> Case {
    let end = Instant::now() + TIME_MAX;
    let fails = |case: &Case| {
        Instant::now() < end
            && catch::check(target, case).is_some_and(|found| found.name == finding.name)
    };
    let mut best = case;
    loop {
        let before = best.clone();
        best.0 = remove_items(best.0, &mut |pieces| fails(&Case(pieces.to_vec())));
        for at in 0..best.0.len() {
            let mut with = |piece: &[u8]| {
                let mut tried = best.clone();
                tried.0[at] = piece.to_vec();
                fails(&tried)
            };
            let piece = remove_items(best.0[at].clone(), &mut with);
            best.0[at] = zeroed(piece, &mut with);
        }
        if best == before || Instant::now() >= end {
            return best;
        }
    }
}

/// Replaces bytes by zeros, while `fails` holds.
fn zeroed(mut piece: Vec<u8>, fails: &mut dyn FnMut(&[u8]) -> bool) -> Vec<u8> {
    for at in (1..piece.len()).filter(|at| *at < 64) {
        let old = std::mem::replace(&mut piece[at], 0);
        if old != 0 && !fails(&piece) {
            piece[at] = old;
        }
    }
    piece
}
