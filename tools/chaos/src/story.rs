//! What happened, one line an event: when, what, to whom, who led then, and how long clients waited
//! for the next acknowledgement.

use super::clients::Clients;
use super::watch::Watch;
use postern_testkit::print;
use std::time::{Duration, Instant};

/// The lines; that of an event is printed when the next one comes.
pub(super) struct Story {
    began: Instant,
    open: Option<Line>,
}

struct Line {
    at: Instant,
    what: String,
    whom: String,
}

impl Story {
    /// Begins with the head of the columns.
    pub(super) fn begin() -> Result<Story, String> {
        let began = Instant::now();
        print(&row("seconds", "what", "whom", "new primary", "next OK"))?;
        Ok(Story { began, open: None })
    }

    /// Notes an event, and prints what has come of the one before.
    pub(super) fn tell(
        &mut self,
        what: &str,
        whom: &str,
        watch: &Watch,
        clients: &Clients,
    ) -> Result<(), String> {
        self.end(watch, clients)?;
        self.open = Some(Line { at: Instant::now(), what: what.to_owned(), whom: whom.to_owned() });
        Ok(())
    }

    /// Says more exactly what the last event is.
    pub(super) fn name(&mut self, what: String) {
        if let Some(line) = &mut self.open {
            line.what = what;
        }
    }

    /// Whether the last event is this.
    pub(super) fn is_at(&self, what: &str) -> bool {
        self.open.as_ref().is_some_and(|line| line.what == what)
    }

    /// Prints what has come of the last event.
    pub(super) fn end(&mut self, watch: &Watch, clients: &Clients) -> Result<(), String> {
        let Some(Line { at, what, whom }) = self.open.take() else { return Ok(()) };
        let after = |then: Instant| ms(then - at);
        let leader = watch.leader_after(at);
        let leader = leader.map_or("-".to_owned(), |leader| {
            format!("{} after {}", leader.server + 1, after(leader.since))
        });
        let acked = clients.acked_after(at).map_or("none yet".to_owned(), after);
        let began = format!("{:.3}", (at - self.began).as_secs_f64());
        print(&row(&began, &what, &whom, &leader, &acked))
    }
}

fn row(at: &str, what: &str, whom: &str, leader: &str, acked: &str) -> String {
    format!("{at:>9}  {what:<32}{whom:<13}{leader:<19}{acked}\n")
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}
