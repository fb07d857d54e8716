//! How often bytes can be made durable.

use super::Measured;
use std::fs::File;
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
    let failed = |error| format!("{}: {error}", folder.display());
    let folder = tempfile::Builder::new().prefix("limits-").tempdir_in(folder).map_err(failed)?;
    let files = (0..writers).map(|at| prepare(&folder.path().join(at.to_string()), way));
    let files = files.collect::<Result<Vec<File>, String>>()?;
    let began = Instant::now();
    let samples = thread::scope(|scope| {
        let write = |file| scope.spawn(move || time_writer(&file, time, way));
        let writers: Vec<_> = files.into_iter().map(write).collect();
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().map_err(|_| "a writer panicked".to_owned())??);
        }
        Ok::<_, String>(all)
    })?;
    Ok(Measured { count: samples.len() as u64, samples, time: began.elapsed() })
}

/// Appends and syncs by so many writers, all begun together, again and again: of each time the
/// slowest.
pub(super) fn time_slowest(
    folder: &Path,
    time: Duration,
    writers: usize,
    bytes: usize,
) -> Result<Measured, String> {
    let failed = |error| format!("{}: {error}", folder.display());
    let folder = tempfile::Builder::new().prefix("limits-").tempdir_in(folder).map_err(failed)?;
    let way = Way::Append(bytes);
    let files = (0..writers).map(|at| prepare(&folder.path().join(at.to_string()), way));
    let files = files.collect::<Result<Vec<File>, String>>()?;
    let (start, rounds) = (Barrier::new(writers), AtomicUsize::new(usize::MAX));
    let began = Instant::now();
    let write = |file: &File| {
        let text = vec![b'x'; bytes];
        let (mut samples, mut outcome) = (Vec::new(), Ok(()));
        for round in 0.. {
            start.wait();
            // All see the same number here: it is of a later round than the one it was set in.
            if round >= rounds.load(Ordering::Relaxed) {
                break;
            }
            let start = Instant::now();
            let at = (round * bytes) as u64;
            let synced = file.write_all_at(&text, at).and_then(|()| file.sync_data());
            samples.push(start.elapsed());
            if synced.is_err() || began.elapsed() >= time {
                rounds.fetch_min(round + 1, Ordering::Relaxed);
            }
            outcome = outcome.and(synced);
        }
        outcome.map(|()| samples)
    };
    let each = thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = files.iter().map(|file| scope.spawn(move || write(file))).collect();
        let ended = writers.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|ended| ended.map_err(|_| "a writer panicked".to_owned())).collect::<Vec<_>>()
    });
    let mut samples: Vec<Duration> = Vec::new();
    for one in each {
        let one = one?.map_err(failed)?;
        samples.resize(one.len(), Duration::ZERO);
        samples.iter_mut().zip(one).for_each(|(slowest, took)| *slowest = took.max(*slowest));
    }
    Ok(Measured { count: samples.len() as u64, samples, time: began.elapsed() })
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

fn time_writer(file: &File, time: Duration, way: Way) -> Result<Vec<Duration>, String> {
    let (bytes, end) = match way {
        Way::Append(bytes) => (bytes, u64::MAX),
        Way::Filled(bytes) => (bytes, FILLED_BYTES - bytes as u64),
    };
    let bytes = vec![b'x'; bytes];
    let (began, mut at) = (Instant::now(), 0);
    let mut samples = Vec::new();
    while began.elapsed() < time {
        let start = Instant::now();
        let synced = file.write_all_at(&bytes, at).and_then(|()| file.sync_data());
        synced.map_err(|error| error.to_string())?;
        samples.push(start.elapsed());
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
