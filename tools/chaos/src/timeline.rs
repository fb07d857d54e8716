//! Prints the timeline: one line per event, with the next primary and the next acknowledgement.

use super::clients::Clients;
use super::monitor::Monitor;
use postern_testkit::print;
use std::time::{Duration, Instant};

/// The timeline. It prints an event when the next one is recorded, since only then it knows what
/// has followed.
pub(super) struct Timeline {
    began: Instant,
    last: Option<Event>,
}

struct Event {
    at: Instant,
    text: String,
    targets: String,
}

impl Timeline {
    /// Prints the header.
    pub(super) fn start() -> Result<Timeline, String> {
        print(&row("seconds", "event", "server", "new primary", "next OK"))?;
        Ok(Timeline { began: Instant::now(), last: None })
    }

    /// Records an event, and prints the previous one.
    pub(super) fn record(
        &mut self,
        at: Instant,
        text: &str,
        targets: &str,
        monitor: &Monitor,
        clients: &Clients,
    ) -> Result<(), String> {
        self.print_last(monitor, clients)?;
        self.last = Some(Event { at, text: text.to_owned(), targets: targets.to_owned() });
        Ok(())
    }

    /// Returns whether the last event has this text.
    pub(super) fn last_is(&self, text: &str) -> bool {
        self.last.as_ref().is_some_and(|event| event.text == text)
    }

    /// Prints the last event.
    pub(super) fn print_last(
        &mut self,
        monitor: &Monitor,
        clients: &Clients,
    ) -> Result<(), String> {
        let Some(Event { at, text, targets }) = self.last.take() else { return Ok(()) };
        let delay = |then: Instant| format!("{:.0} ms", (then - at).as_secs_f64() * 1e3);
        let primary = monitor.primary_after(at);
        let primary = primary.map_or("-".to_owned(), |primary| {
            format!("{} after {}", primary.server + 1, delay(primary.since))
        });
        let acked = clients.acked_after(at).map_or("none yet".to_owned(), delay);
        let seconds = format!("{:.3}", self.seconds(at).as_secs_f64());
        print(&row(&seconds, &text, &targets, &primary, &acked))
    }

    /// Returns the time of the timeline.
    pub(super) fn seconds(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }
}

fn row(seconds: &str, event: &str, targets: &str, primary: &str, acked: &str) -> String {
    format!("{seconds:>9}  {event:<40}{targets:<13}{primary:<19}{acked}\n")
}
