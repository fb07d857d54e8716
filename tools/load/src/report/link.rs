//! What the encryption of a link costs, without sockets: sealed on one side, opened on the other.

use postern::ids::{GroupId, Secret};
use postern::limits::ENTRIES_BYTES_MAX;
use postern::server::Seal;
use postern::server::channel::Channel;
use std::time::{Duration, Instant};

const SMALL_BYTES: usize = 100;
const TIME: Duration = Duration::from_millis(500);

/// Frames of two sizes, and a handshake.
///
/// # Errors
/// When the two sides do not understand each other.
pub(crate) fn measure() -> Result<String, String> {
    let handshake = repeat(|| Pair::new().map(|_| ()))?;
    let mut pair = Pair::new()?;
    let small = repeat(|| pair.carry(&[7; SMALL_BYTES]))?;
    let large_frame = vec![7; ENTRIES_BYTES_MAX];
    let large = repeat(|| pair.carry(&large_frame))?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Ok(format!(
        "  sealed and opened, on one processor: {SMALL_BYTES} bytes in {:.2} us; {} KiB in {:.0} \
         us, which is {:.0} MB/s\n  handshake, both sides: {:.0} us\n",
        micros(small),
        ENTRIES_BYTES_MAX / 1024,
        micros(large),
        ENTRIES_BYTES_MAX as f64 / micros(large),
        micros(handshake),
    ))
}

/// The mean time of one of many runs.
fn repeat(mut run: impl FnMut() -> Result<(), String>) -> Result<Duration, String> {
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < TIME {
        for _ in 0..8 {
            run()?;
        }
        count += 8;
    }
    Ok(began.elapsed() / count)
}

/// Both sides of a link, and buffers that are used again.
struct Pair {
    dialler: Channel,
    dialled: Channel,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

impl Pair {
    fn new() -> Result<Pair, String> {
        let (secret, group) = (Secret::new([1; Secret::BYTES]), GroupId(1));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (mut sealed, mut opened) = (Vec::new(), Vec::new());
        let mut dialler = Channel::initiator(&secret, group, &mut first);
        let mut dialled = Channel::responder(&secret, group);
        let taken = dialled.open(&first, &mut opened, &mut second);
        taken.map_err(|broken| broken.to_string())?;
        let taken = dialler.open(&second, &mut opened, &mut sealed);
        taken.map_err(|broken| broken.to_string())?;
        Ok(Pair { dialler, dialled, sealed, opened })
    }

    fn carry(&mut self, frame: &[u8]) -> Result<(), String> {
        self.sealed.clear();
        self.opened.clear();
        self.dialler.seal(frame, &mut self.sealed);
        let (mut used, mut out) = (0, Vec::new());
        while used < self.sealed.len() {
            let taken = self.dialled.open(&self.sealed[used..], &mut self.opened, &mut out);
            used += taken.map_err(|broken| broken.to_string())?;
        }
        if self.opened == frame { Ok(()) } else { Err("what was opened differs".to_owned()) }
    }
}
