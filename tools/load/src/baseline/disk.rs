//! How fast writes become durable.

use super::Measured;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The size of a file that is overwritten again and again.
const FILLED_BYTES: usize = 4 << 20;

/// Writes with a sync each, by concurrent writers with their own files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writes {
    pub(super) writers: usize,
    /// The length of each write.
    pub(super) bytes: usize,
    /// Whether the files were filled with zeros before and keep their size.
    pub(super) filled: bool,
    /// Whether all writers begin each write together; the slowest one counts.
    pub(super) together: bool,
}

impl Writes {
    /// Times writes and syncs of files in `folder`.
    pub(super) fn measure(self, folder: &Path, time: Duration) -> Result<Measured, String> {
        let failed = |error| format!("{}: {error}", folder.display());
        let made = tempfile::Builder::new().prefix("baseline-").tempdir_in(folder);
        let made = made.map_err(failed)?;
        let files = (0..self.writers).map(|at| self.create(&made.path().join(at.to_string())));
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

    fn create(self, path: &Path) -> io::Result<File> {
        let file = File::create_new(path)?;
        if self.filled {
            // Zeros rather than fallocate: the first write to an allocated block would change its
            // metadata, too, which the sync had to make durable.
            file.write_all_at(&vec![0; FILLED_BYTES], 0)?;
        }
        file.sync_all()?;
        Ok(file)
    }

    /// Writes and syncs until `end`. With `together`, all writers do the same number of rounds.
    fn write(
        self,
        file: &File,
        end: Instant,
        start: &Barrier,
        rounds: &AtomicUsize,
    ) -> io::Result<Vec<Duration>> {
        let text = vec![b'x'; self.bytes];
        let size = if self.filled { FILLED_BYTES / self.bytes * self.bytes } else { usize::MAX };
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
            let written = file.write_all_at(&text, (round * self.bytes % size) as u64);
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
        let writes = Writes { writers: 3, bytes: 10, filled: false, together: true };
        let measured = writes.measure(folder.path(), Duration::from_millis(5)).unwrap();
        assert!(measured.count > 0);
        let missing = folder.path().join("missing");
        writes.measure(&missing, Duration::from_millis(5)).unwrap_err();
    }
}
