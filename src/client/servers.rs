//! Whose turn it is to be asked for the primary.

use std::time::Duration;

/// Servers that are not in the list but were named by others, at most.
const LEARNED_MAX: usize = 8;
/// The first pause after nobody was the primary: a takeover takes a few milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The servers of a group, as far as they are known.
#[derive(Debug)]
pub(super) struct Servers {
    /// `host:port` of each.
    known: Vec<String>,
    /// Those that others know by names which are none here.
    nameless: Vec<String>,
    /// How many of them the caller gave.
    given: usize,
    /// Who is asked next, when nobody was named.
    next: usize,
    /// Who was named as the primary.
    named: Option<String>,
    /// Tried since the last pause.
    tried: usize,
    pause: Duration,
}

impl Servers {
    /// These, which are some.
    pub(super) fn new(known: Vec<String>) -> Servers {
        Servers {
            given: known.len(),
            known,
            nameless: Vec::new(),
            next: 0,
            named: None,
            tried: 0,
            pause: PAUSE_MIN,
        }
    }

    /// Who is to be asked, and how long to wait before that.
    pub(super) fn next(&mut self) -> (String, Duration) {
        // Who was named counts too: two servers may name each other.
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

    /// Another server says that this one is the primary.
    pub(super) fn on_named(&mut self, server: &str) {
        self.learn([server].into_iter());
        self.named = Some(server.to_owned());
    }

    /// A server says that these are the group.
    pub(super) fn learn<'a>(&mut self, servers: impl Iterator<Item = &'a str>) {
        for server in servers {
            let known = self.known.iter().chain(&self.nameless).any(|known| known == server);
            if !known && self.known.len() < LEARNED_MAX {
                self.known.push(server.to_owned());
            }
        }
    }

    /// The name has no address here: looking it up again would take its time each time.
    pub(super) fn on_nameless(&mut self, server: &str) {
        // Of those that the caller gave there is always one.
        if let Some(at) = self.known.iter().rposition(|known| known == server)
            && at >= self.given
        {
            self.known.remove(at);
            if self.nameless.len() == LEARNED_MAX {
                self.nameless.remove(0);
            }
            self.nameless.push(server.to_owned());
            self.next = 0;
        }
    }

    /// How many servers are remembered.
    #[cfg(feature = "simulate")]
    pub(super) fn held(&self) -> usize {
        self.known.len() + self.nameless.len()
    }

    /// The one that was asked is the primary.
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
        assert!(servers.known.len() <= LEARNED_MAX);
        for n in 0..100 {
            servers.on_named(&format!("y{n}"));
            servers.on_nameless(&format!("y{n}"));
            servers.on_nameless(&format!("x{n}"));
        }
        assert!(servers.nameless.len() <= LEARNED_MAX);
    }

    #[test]
    fn a_learned_name_without_an_address_is_forgotten() {
        let mut servers = Servers::new(vec!["a".to_owned()]);
        servers.learn(["a", "lab2", "lab3"].into_iter());
        servers.on_nameless("lab2");
        servers.on_nameless("a");
        servers.learn(["lab2", "lab3"].into_iter());
        let asked: Vec<String> = (0..4).map(|_| servers.next().0).collect();
        assert_eq!(asked, ["a", "lab3", "a", "lab3"]);
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
