//! What the machine can do without postern: syncs and round trips.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What a record of a short message takes on disk.
const RECORD_BYTES: usize = 200;
const TEXT_BYTES: usize = 100;
/// As many as there are servers, which sync at the same time.
const WRITERS: usize = 3;
const SYNCS: usize = 300;
const ROUND_TRIPS: usize = 1000;

/// Samples of both.
#[derive(Default)]
pub(crate) struct Baseline {
    /// An append and its fdatasync, while others do the same on the same disk.
    pub(crate) syncs: Vec<Duration>,
    /// A round trip on the loopback device.
    pub(crate) round_trips: Vec<Duration>,
}

impl Baseline {
    /// Adds samples of now.
    pub(crate) fn measure(&mut self, folder: &Path) -> Result<(), String> {
        self.syncs.extend(time_syncs(folder)?);
        self.round_trips.extend(time_round_trips()?);
        Ok(())
    }
}

/// Latencies of appends by three writers at once, each to a file of its own.
pub(crate) fn time_syncs(folder: &Path) -> Result<Vec<Duration>, String> {
    thread::scope(|scope| {
        let write = |at: usize| time_writer(&folder.join(format!("baseline{at}")));
        let writers: Vec<_> = (0..WRITERS).map(|at| scope.spawn(move || write(at))).collect();
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().map_err(|_| "a writer panicked".to_owned())??);
        }
        Ok(all)
    })
}

fn time_writer(path: &Path) -> Result<Vec<Duration>, String> {
    let failed = |error| format!("{}: {error}", path.display());
    let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
    let mut samples = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[b'x'; RECORD_BYTES]).and_then(|()| file.sync_data()).map_err(failed)?;
        samples.push(began.elapsed());
    }
    Ok(samples)
}

fn time_round_trips() -> Result<Vec<Duration>, String> {
    let failed = |error| format!("loopback: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let mut near = TcpStream::connect(address).map_err(failed)?;
    let (far, _) = listener.accept().map_err(failed)?;
    near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).map_err(failed)?;
    let echo = thread::spawn(move || echo(far));
    let mut samples = Vec::with_capacity(ROUND_TRIPS);
    let mut buffer = [b'x'; TEXT_BYTES];
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        near.write_all(&buffer).and_then(|()| near.read_exact(&mut buffer)).map_err(failed)?;
        samples.push(began.elapsed());
    }
    drop(near);
    echo.join().map_err(|_| "the echo panicked".to_owned())?;
    Ok(samples)
}

/// Ends when the other side does.
fn echo(mut stream: TcpStream) {
    let mut buffer = [0; TEXT_BYTES];
    while stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer)).is_ok() {}
}
