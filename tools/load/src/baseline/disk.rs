//! How often bytes can be made durable.

use super::Measured;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The size of a file that is written over and over.
const FILLED_BYTES: u64 = 4 << 20;

/// What each sync has to make durable: so many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// Behind the end of the file.
    Append(usize),
    /// Within a file that keeps its size.
    Filled(usize),
}

/// Writes and syncs by so many writers at once, each to a file of its own in `folder`.
pub(super) fn time_syncs(
    folder: &Path,
    time: Duration,
    writers: usize,
    way: Way,
) -> Result<Measured, String> {
    let write = |file: &File, began| time_writer(file, began, time, way);
    let (each, time) = run_writers(folder, writers, way, write)?;
    let samples = each.concat();
    Ok(Measured { count: samples.len() as u64, samples, time })
}

/// Appends and syncs by so many writers, all begun together, again and again: of each time the
/// slowest.
pub(super) fn time_slowest(
    folder: &Path,
    time: Duration,
    writers: usize,
    bytes: usize,
) -> Result<Measured, String> {
    let (start, rounds) = (Barrier::new(writers), AtomicUsize::new(usize::MAX));
    let write = |file: &File, began: Instant| {
        let text = vec![b'x'; bytes];
        let (mut samples, mut outcome) = (Vec::new(), Ok(()));
        for round in 0.. {
            start.wait();
            // All see the same number here: it is of a later round than the one it was set in.
            if round >= rounds.load(Ordering::Relaxed) {
                break;
            }
            let synced = sync(file, &text, (round * bytes) as u64);
            if synced.is_err() || began.elapsed() >= time {
                rounds.fetch_min(round + 1, Ordering::Relaxed);
            }
            // A writer that has failed waits for the others' last round all the same.
            outcome = outcome.and(synced.map(|took| samples.push(took)));
        }
        outcome.map(|()| samples)
    };
    let (each, time) = run_writers(folder, writers, Way::Append(bytes), write)?;
    let mut samples = Vec::new();
    for one in each {
        samples.resize(one.len(), Duration::ZERO);
        samples.iter_mut().zip(one).for_each(|(slowest, took)| *slowest = took.max(*slowest));
    }
    Ok(Measured { count: samples.len() as u64, samples, time })
}

/// What so many writers in threads make of files of their own, from when all of them are there,
/// and how long that takes.
fn run_writers(
    folder: &Path,
    writers: usize,
    way: Way,
    write: impl Fn(&File, Instant) -> io::Result<Vec<Duration>> + Sync,
) -> Result<(Vec<Vec<Duration>>, Duration), String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let made = tempfile::Builder::new().prefix("limits-").tempdir_in(folder).map_err(failed)?;
    let files = (0..writers).map(|at| prepare(&made.path().join(at.to_string()), way));
    let files = files.collect::<Result<Vec<File>, String>>()?;
    let began = Instant::now();
    let each: Result<_, String> = thread::scope(|scope| {
        let write = &write;
        let writers = files.iter().map(|file| scope.spawn(move || write(file, began)));
        let ended = writers.collect::<Vec<_>>().into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|one| one.map_err(|_| "a writer panicked".to_owned())?.map_err(failed)).collect()
    });
    Ok((each?, began.elapsed()))
}

/// How long a write and its sync take.
fn sync(file: &File, bytes: &[u8], at: u64) -> io::Result<Duration> {
    let start = Instant::now();
    file.write_all_at(bytes, at)?;
    file.sync_data()?;
    Ok(start.elapsed())
}

fn prepare(path: &Path, way: Way) -> Result<File, String> {
    let failed = |error| format!("{}: {error}", path.display());
    let file = File::create_new(path).map_err(failed)?;
    if let Way::Filled(_) = way {
        // Zeros rather than a reservation: a block that was only reserved changes with its first
        // write from unwritten to written, and that has to be made durable too.
        file.write_all_at(&vec![0; FILLED_BYTES as usize], 0).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    Ok(file)
}

fn time_writer(file: &File, began: Instant, time: Duration, way: Way) -> io::Result<Vec<Duration>> {
    let (bytes, end) = match way {
        Way::Append(bytes) => (bytes, u64::MAX),
        Way::Filled(bytes) => (bytes, FILLED_BYTES - bytes as u64),
    };
    let bytes = vec![b'x'; bytes];
    let mut at = 0;
    let mut samples = Vec::new();
    while began.elapsed() < time {
        samples.push(sync(file, &bytes, at)?);
        at += bytes.len() as u64;
        if at > end {
            at = 0;
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_writers_take_part_in_each_round_and_end_together() {
        let folder = tempfile::tempdir().unwrap();
        let measured = time_slowest(folder.path(), Duration::from_millis(5), 3, 10).unwrap();
        assert!(measured.count > 0);
        let gone = folder.path().join("gone");
        time_slowest(&gone, Duration::from_millis(5), 3, 10).unwrap_err();
    }
}
