//! The cost of the encryption of a link, without sockets.

use postern::ids::{GroupId, Secret};
use postern::limits::ENTRIES_BYTES_MAX;
use postern::server::Seal;
use postern::server::channel::Channel;
use std::time::{Duration, Instant};

const SMALL_BYTES: usize = 100;
const TIME: Duration = Duration::from_millis(500);

/// Measures frames of two sizes, and the handshake.
pub(super) fn measure() -> Result<String, String> {
    let handshake = repeat(|| connect().map(drop))?;
    let (mut dialler, mut dialled) = connect()?;
    let (mut sealed, mut opened) = (Vec::new(), Vec::new());
    let mut carry = |frame: &[u8]| {
        sealed.clear();
        opened.clear();
        dialler.seal(frame, &mut sealed);
        let mut used = 0;
        while used < sealed.len() {
            let read = dialled.open(&sealed[used..], &mut opened, &mut Vec::new());
            used += read.map_err(|broken| broken.to_string())?;
        }
        if opened == frame { Ok(()) } else { Err("the opened frame differs".to_owned()) }
    };
    let small = repeat(|| carry(&[7; SMALL_BYTES]))?;
    let large_frame = vec![7; ENTRIES_BYTES_MAX];
    let large = repeat(|| carry(&large_frame))?;
    Ok(format!(
        "  sealed and opened, on one processor: {SMALL_BYTES} bytes in {small:.2} us; {} KiB in \
         {large:.0} us, which is {:.0} MB/s\n  handshake, both sides: {handshake:.0} us\n",
        ENTRIES_BYTES_MAX / 1024,
        ENTRIES_BYTES_MAX as f64 / large,
    ))
}

/// Returns the mean time of a run, in microseconds.
fn repeat(mut run: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        (0..8).try_for_each(|_| run())?;
        count += 8;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}

/// Returns both sides of a link after the handshake.
fn connect() -> Result<(Channel, Channel), String> {
    let (secret, group) = (Secret::new([1; Secret::BYTES]), GroupId(1));
    let [mut first, mut second, mut opened, mut rest] = [const { Vec::new() }; 4];
    let mut dialler = Channel::initiator(&secret, group, &mut first);
    let mut dialled = Channel::responder(&secret, group);
    let read = dialled.open(&first, &mut opened, &mut second);
    let read = read.and_then(|_| dialler.open(&second, &mut opened, &mut rest));
    read.map(|_| (dialler, dialled)).map_err(|broken| broken.to_string())
}
