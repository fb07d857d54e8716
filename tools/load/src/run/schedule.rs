//! The open loop: when each message is due, regardless of the server.

use super::counts::Nanos;

const SECOND: u128 = 1_000_000_000;

/// A constant rate of messages from the beginning of the load on; the senders take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Messages per second, of all senders together; not zero.
    pub(crate) rate: u64,
    pub(crate) senders: usize,
}

impl Schedule {
    /// Returns when a sender's message is due. Its latency counts from here: otherwise the wait for
    /// a slow server or an earlier message would be missing (*coordinated omission*).
    pub(crate) fn due(&self, sender: usize, serial: u64) -> Nanos {
        let turn = u128::from(serial) * self.senders as u128 + sender as u128;
        let after = turn * SECOND / u128::from(self.rate);
        u64::try_from(after).unwrap_or(u64::MAX)
    }

    /// Returns how many turns of all senders are due.
    pub(crate) fn turns(&self, now: Nanos) -> u64 {
        // A turn that is due exactly at `now` counts.
        let last = (u128::from(now) + 1) * u128::from(self.rate);
        u64::try_from(last.div_ceil(SECOND)).unwrap_or(u64::MAX)
    }

    /// Returns when a turn is due.
    pub(crate) fn due_turn(&self, turn: u64) -> Nanos {
        let senders = self.senders as u64;
        self.due((turn % senders) as usize, turn / senders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_take_turns_evenly() {
        let schedule = Schedule { rate: 4, senders: 2 };
        let quarter = 250_000_000;
        let table = [((0, 0), 0), ((1, 0), 1), ((0, 1), 2), ((1, 1), 3), ((1, 7), 15)];
        for ((sender, serial), turn) in table {
            assert_eq!(schedule.due(sender, serial), turn * quarter, "{sender} {serial}");
            assert_eq!(schedule.due_turn(turn), schedule.due(sender, serial));
        }
    }

    #[test]
    fn as_many_are_due_as_have_their_time() {
        for rate in [1, 3, 7, 1000, 333_333, 2_000_000_000] {
            let schedule = Schedule { rate, senders: 3 };
            for now in [0, 1, 1000, 999_999_999, 1_000_000_000, 1_000_000_001] {
                let turns = schedule.turns(now);
                assert!(schedule.due_turn(turns - 1) <= now, "{rate} {now}");
                assert!(schedule.due_turn(turns) > now, "{rate} {now}: {turns}");
            }
        }
    }
}
