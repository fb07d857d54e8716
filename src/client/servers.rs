//! Chooses the next server to try in the search for the primary.

use crate::address;
use std::time::Duration;

/// The most servers that other servers named and that are not in the caller's list.
const LEARNED_MAX: usize = 8;
/// The first pause after no known server was the primary: a takeover lasts a few milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The known servers of a group.
#[derive(Debug)]
pub(super) struct Servers {
    /// `host:port` of each.
    known: Vec<String>,
    /// How many servers the caller gave. They come first in `known`.
    given: usize,
    /// The position of the next server to try unless a server was named as the primary.
    next: usize,
    /// The server that was named as the primary, until it is tried.
    named: Option<String>,
    /// How many servers were tried since the last pause.
    tried: usize,
    pause: Duration,
}

impl Servers {
    /// The servers to try. Never empty.
    pub(super) fn new(known: Vec<String>) -> Servers {
        Servers { given: known.len(), known, next: 0, named: None, tried: 0, pause: PAUSE_MIN }
    }

    /// Returns the server to try next, and how long to wait before that.
    pub(super) fn next(&mut self) -> (String, Duration) {
        // A named server counts as tried too: two servers may name each other.
        let pause = if self.tried >= self.known.len() { self.pause } else { Duration::ZERO };
        if pause > Duration::ZERO {
            self.tried = 0;
            self.pause = (2 * self.pause).min(PAUSE_MAX);
        }
        self.tried += 1;
        if let Some(named) = self.named.take() {
            return (named, pause);
        }
        let server = self.known[self.next].clone();
        self.next = (self.next + 1) % self.known.len();
        (server, pause)
    }

    /// Returns all known servers.
    pub(super) fn known(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(String::as_str)
    }

    /// Tries this server next, since another server named it as the primary.
    pub(super) fn on_named(&mut self, server: &str) {
        self.learn([server].into_iter());
        self.named = Some(server.to_owned());
    }

    /// Adds the servers of the group, as a server listed them.
    pub(super) fn learn<'a>(&mut self, servers: impl Iterator<Item = &'a str>) {
        for server in servers {
            let known = self.known.iter().any(|known| address::is_same(known, server));
            if known {
                continue;
            }
            if self.known.len() >= self.given + LEARNED_MAX {
                // The oldest learned server goes first, since it may be wrong; a group has at most
                // three servers.
                self.known.remove(self.given);
                self.next %= self.known.len();
            }
            self.known.push(server.to_owned());
        }
    }

    /// Returns how many servers are known.
    #[cfg(feature = "simulate")]
    pub(super) fn held(&self) -> usize {
        self.known.len()
    }

    /// Resets the pauses, since the primary was found.
    pub(super) fn on_found(&mut self) {
        self.tried = 0;
        self.pause = PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_asked_in_turn_and_then_there_is_a_pause() {
        let mut servers = Servers::new(["a", "b", "c"].map(str::to_owned).to_vec());
        let mut order = String::new();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let (server, pause) = servers.next();
            order += &server;
            pauses.push(pause.as_millis());
        }
        assert_eq!(order, "abcabcabc");
        assert_eq!(pauses, [0, 0, 0, 5, 0, 0, 10, 0, 0]);
        (0..60).for_each(|_| assert!(servers.next().1 <= PAUSE_MAX));
        servers.on_found();
        assert_eq!(servers.next().1, Duration::ZERO);
    }

    #[test]
    fn who_is_named_is_asked_first() {
        let mut servers = Servers::new(["a", "b"].map(str::to_owned).to_vec());
        assert_eq!(servers.next().0, "a");
        servers.on_named("c");
        assert_eq!(servers.next().0, "c");
        assert_eq!(servers.next().0, "b", "it was not, the others go on");
        assert_eq!(servers.next().0, "c", "and it is one of them now");
        (0..100).for_each(|n| servers.on_named(&format!("x{n}")));
        assert_eq!(servers.known.len(), 2 + LEARNED_MAX);
        assert_eq!(servers.known[..2], ["a", "b"]);
        servers.learn(["lab2"].into_iter());
        assert!(servers.known().any(|known| known == "lab2"), "the newest are kept");
    }

    #[test]
    fn two_that_name_each_other_are_asked_at_leisure() {
        let mut servers = Servers::new(["a", "b"].map(str::to_owned).to_vec());
        let mut waited = Duration::ZERO;
        for n in 0..40 {
            servers.on_named(if n % 2 == 0 { "a" } else { "b" });
            waited += servers.next().1;
        }
        assert!(waited > 10 * PAUSE_MAX, "{waited:?}");
    }
}
