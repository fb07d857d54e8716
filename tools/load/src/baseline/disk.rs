//! How fast writes become durable.

use super::Measured;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The length of each append.
const BYTES: usize = 200;

/// Appends with a sync each, by concurrent writers with their own files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writes {
    pub(super) writers: usize,
    /// Whether all writers begin each write together; the slowest one counts.
    pub(super) together: bool,
}

impl Writes {
    /// Times writes and syncs of files in `folder`.
    pub(super) fn measure(self, folder: &Path, time: Duration) -> Result<Measured, String> {
        let failed = |error| format!("{}: {error}", folder.display());
        let made = tempfile::Builder::new().prefix("baseline-").tempdir_in(folder);
        let made = made.map_err(failed)?;
        let create = |at: usize| {
            let file = File::create_new(made.path().join(at.to_string()))?;
            file.sync_all()?;
            Ok(file)
        };
        let files = (0..self.writers).map(create);
        let files = files.collect::<io::Result<Vec<File>>>().map_err(failed)?;
        let (start, rounds) = (Barrier::new(self.writers), AtomicUsize::new(usize::MAX));
        let began = Instant::now();
        let each: Result<Vec<Vec<Duration>>, String> = thread::scope(|scope| {
            let (start, rounds, end) = (&start, &rounds, began + time);
            let write = |file| scope.spawn(move || self.write(file, end, start, rounds));
            let writers = files.iter().map(write);
            let ended = writers.collect::<Vec<_>>().into_iter().map(thread::ScopedJoinHandle::join);
            let samples = |one: thread::Result<io::Result<_>>| {
                one.map_err(|_| "a writer panicked".to_owned())?.map_err(failed)
            };
            ended.map(samples).collect()
        });
        let (each, time) = (each?, began.elapsed());
        if !self.together {
            return Ok(Measured::new(&each.concat(), time));
        }
        let slowest = |round| each.iter().filter_map(|one: &Vec<Duration>| one.get(round)).max();
        let samples: Vec<Duration> = (0..).map_while(slowest).copied().collect();
        Ok(Measured::new(&samples, time))
    }

    /// Writes and syncs until `end`. With `together`, all writers do the same number of rounds.
    fn write(
        self,
        mut file: &File,
        end: Instant,
        start: &Barrier,
        rounds: &AtomicUsize,
    ) -> io::Result<Vec<Duration>> {
        let (mut samples, mut outcome) = (Vec::new(), Ok(()));
        for round in 0.. {
            if self.together {
                start.wait();
            }
            // With `together`, all writers read the same number: it is set in an earlier round.
            if round >= rounds.load(Ordering::Relaxed) {
                break;
            }
            let begin = Instant::now();
            let written = file.write_all(&[b'x'; BYTES]);
            let synced = written.and_then(|()| file.sync_data());
            samples.push(begin.elapsed());
            if synced.is_err() || Instant::now() >= end {
                rounds.fetch_min(round + 1, Ordering::Relaxed);
            }
            // A writer that has failed takes part until the last round, since others wait for it.
            outcome = outcome.and(synced);
        }
        outcome.map(|()| samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_writers_take_part_in_each_round_and_end_together() {
        let folder = tempfile::tempdir().unwrap();
        let writes = Writes { writers: 3, together: true };
        let measured = writes.measure(folder.path(), Duration::from_millis(5)).unwrap();
        assert!(measured.count > 0);
        let missing = folder.path().join("missing");
        writes.measure(&missing, Duration::from_millis(5)).unwrap_err();
    }
}
