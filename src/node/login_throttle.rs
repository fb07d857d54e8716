//! Counts wrong passwords. After too many, every further attempt must wait, even with the right
//! password.

use crate::ids::{Origin, UserName};
use crate::limits::{ATTEMPT_WINDOW, ATTEMPTS_PER_NAME, ATTEMPTS_PER_ORIGIN, ORIGINS_REMEMBERED};
use crate::time::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The wrong passwords of the last minute, by the address that they came from.
#[derive(Debug, Default)]
pub(super) struct LoginThrottle(BTreeMap<Origin, VecDeque<(Moment, UserName)>>);

impl LoginThrottle {
    /// Returns how long a client at this address must wait before a password for this name is
    /// checked.
    pub(super) fn wait(&self, from: Origin, name: UserName, now: Moment) -> Option<Duration> {
        let wrong = self.0.get(&from)?;
        // The attempt that must expire before the number of attempts is below the bound.
        let nth_newest = |bound: usize, of: &dyn Fn(UserName) -> bool| {
            let recent = wrong.iter().rev().filter(|(at, _)| now < *at + ATTEMPT_WINDOW);
            recent.filter(|(_, name)| of(*name)).nth(bound - 1).map(|(at, _)| *at)
        };
        let by_name = nth_newest(ATTEMPTS_PER_NAME, &|wrong| wrong == name);
        let by_all = nth_newest(ATTEMPTS_PER_ORIGIN, &|_| true);
        by_name.max(by_all).map(|at| at + ATTEMPT_WINDOW - now)
    }

    /// Records a wrong password from this address.
    pub(super) fn note(&mut self, from: Origin, name: UserName, now: Moment) {
        if !self.0.contains_key(&from) && self.0.len() >= ORIGINS_REMEMBERED {
            let newest = |wrong: &VecDeque<(Moment, UserName)>| wrong.back().map(|(at, _)| *at);
            let oldest = self.0.iter().min_by_key(|(_, wrong)| newest(wrong));
            let oldest = oldest.map(|(origin, _)| *origin);
            oldest.and_then(|origin| self.0.remove(&origin));
        }
        let wrong = self.0.entry(from).or_default();
        if wrong.len() >= ATTEMPTS_PER_ORIGIN {
            wrong.pop_front();
        }
        wrong.push_back((now, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn origin(n: u32) -> Origin {
        Origin::from(IpAddr::from(Ipv4Addr::from(n)))
    }

    fn name(n: usize) -> UserName {
        UserName::parse(&format!("user{n}")).unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    #[test]
    fn five_of_a_name_and_twenty_of_an_address_in_a_minute() {
        let mut throttle = LoginThrottle::default();
        for n in 0..ATTEMPTS_PER_NAME as u64 {
            assert_eq!(throttle.wait(origin(1), name(1), at(n)), None);
            throttle.note(origin(1), name(1), at(n));
        }
        let wait = |throttle: &LoginThrottle, of, n, now| throttle.wait(of, name(n), at(now));
        assert_eq!(wait(&throttle, origin(1), 1, 10), Some(Duration::from_secs(50)));
        assert_eq!(wait(&throttle, origin(1), 2, 10), None, "another name");
        assert_eq!(wait(&throttle, origin(2), 1, 10), None, "another address");
        assert_eq!(wait(&throttle, origin(1), 1, 59), Some(Duration::from_secs(1)));
        assert_eq!(wait(&throttle, origin(1), 1, 60), None, "the first one is a minute old");
        for n in 0..ATTEMPTS_PER_ORIGIN {
            throttle.note(origin(1), name(n), at(70));
        }
        assert_eq!(wait(&throttle, origin(1), 99, 75), Some(Duration::from_secs(55)));
        assert_eq!(wait(&throttle, origin(1), 99, 130), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut throttle = LoginThrottle::default();
        for n in 0..3 * ORIGINS_REMEMBERED as u32 {
            for _ in 0..2 * ATTEMPTS_PER_ORIGIN {
                throttle.note(origin(n), name(1), at(u64::from(n)));
            }
        }
        assert_eq!(throttle.0.len(), ORIGINS_REMEMBERED);
        assert!(throttle.0.values().all(|wrong| wrong.len() == ATTEMPTS_PER_ORIGIN));
        let last = 3 * ORIGINS_REMEMBERED as u32 - 1;
        assert!(throttle.wait(origin(last), name(1), at(u64::from(last))).is_some());
    }
}
