//! The indexes of the configs in a log. Every batch header names the newest config before it,
//! which reveals the loss of a config.

use crate::ids::Index;
use crate::limits::CONFIGS_KEPT;

/// The indexes of the newest configs. A cut usually restores the config before and seldom reaches
/// further.
#[derive(Clone, Debug, Default)]
pub(super) struct Configs {
    /// In order, at most [`CONFIGS_KEPT`].
    places: Vec<Index>,
    /// Older ones were dropped.
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

    /// Removes the configs after `last`. Returns whether the newest remaining one is still known.
    #[must_use]
    pub(super) fn cut(&mut self, last: Index) -> bool {
        self.places.retain(|at| *at <= last);
        !self.places.is_empty() || !self.forgot
    }

    /// The index of the newest config, or 0.
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
