//! Where the configs of a log stand: every batch header names the newest before it, so that the
//! loss of one is noticed.

use crate::ids::Index;
use crate::limits::CONFIGS_KEPT;

/// The places of the newest configs. A cut brings back the one before; it seldom reaches further.
#[derive(Clone, Debug, Default)]
pub(super) struct Configs {
    /// In order, at most [`CONFIGS_KEPT`].
    places: Vec<Index>,
    /// There were more before these.
    forgot: bool,
}

impl Configs {
    pub(super) fn push(&mut self, at: Index) {
        if self.places.len() == CONFIGS_KEPT {
            self.places.drain(..CONFIGS_KEPT / 2);
            self.forgot = true;
        }
        self.places.push(at);
    }

    /// Forgets those behind `last`; whether the newest of the others is still known.
    #[must_use]
    pub(super) fn cut(&mut self, last: Index) -> bool {
        self.places.retain(|at| *at <= last);
        !self.places.is_empty() || !self.forgot
    }

    /// The newest one, or 0.
    pub(super) fn newest(&self) -> Index {
        self.places.last().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_kept_and_a_cut_behind_them_says_so() {
        let mut configs = Configs::default();
        assert!(configs.cut(Index::ZERO), "there never was one");
        for at in 1..=10_000 {
            configs.push(Index(at));
            assert!(configs.places.len() <= CONFIGS_KEPT);
        }
        assert!(configs.cut(Index(9_990)));
        assert_eq!(configs.newest(), Index(9_990));
        assert!(!configs.cut(Index(5)));
        assert_eq!(configs.newest(), Index::ZERO);
    }
}
