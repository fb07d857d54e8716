//! The authentication and encryption of a link: Noise `NNpsk0` with the secret of `postern.toml`,
//! as bytes in and bytes out, without a socket.
//!
//! The dialler sends first. Both handshake messages have the same, fixed size. After them come
//! messages, each a `u16` length and a ciphertext. They carry one stream of bytes in each
//! direction, cut anywhere. A dialler without the secret fails at its first message, a dialled side
//! without it at the second.
//!
//! A replayed first message gets an answer, but nothing more: the keys depend on fresh numbers of
//! both sides. A dialler is therefore trusted only after a message that follows the handshake was
//! opened: [`Channel::is_proven`].

use super::kernel::Seal;
use crate::ids::{GroupId, Secret};
use crate::limits::{FIRST_BYTES_MAX, FRAME_BYTES_MAX, REKEY_MESSAGES};
use byteorder::{ByteOrder, LE};
use snow::{Builder, HandshakeState, TransportState};
use std::{fmt, mem};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// The handshake fails unless both sides begin with the same prologue: the version of the
/// handshake, and the group.
const PROLOGUE: &[u8] = b"postern link 1";
const TAG_BYTES: usize = 16;
/// The longest message of the Noise protocol.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;
const LENGTH_BYTES: usize = 2;
/// Either message of the handshake: a public key, and the proof that its sender knows the secret.
pub const HANDSHAKE_BYTES: usize = 32 + TAG_BYTES;
/// The answer to a dialler without the secret. It is no valid handshake message, and a person can
/// read it in a packet capture.
const REFUSAL: &[u8; HANDSHAKE_BYTES] = b"postern: you do not know this group's secret\r\n\0\0";

/// Why a channel accepts nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The other side does not know the secret, or uses another protocol.
    Stranger,
    /// The received bytes are not what the other side sealed.
    Tampered,
}

/// One side of an encrypted link.
pub struct Channel {
    stage: Stage,
    /// Bytes to send, held back until the handshake is complete.
    held: Vec<u8>,
    is_proven: bool,
}

enum Stage {
    /// Waits for the first or the second message of the handshake.
    Handshake(Box<HandshakeState>),
    Open(Box<TransportState>),
    /// Accepts and sends nothing more.
    Broken,
}

impl Channel {
    /// Returns the dialler's side, and appends the first handshake message to `out`.
    pub fn initiator(secret: &Secret, group: GroupId, out: &mut Vec<u8>) -> Channel {
        let mut handshake = begin(secret, group, true);
        let start = grow(out, HANDSHAKE_BYTES);
        let written = handshake.write_message(&[], &mut out[start..]);
        let length = written.expect("it is our turn, and the kernel has randomness");
        assert_eq!(length, HANDSHAKE_BYTES, "a handshake message has one size");
        Channel::new(handshake)
    }

    /// Returns the side that was dialled.
    pub fn responder(secret: &Secret, group: GroupId) -> Channel {
        Channel::new(begin(secret, group, false))
    }

    fn new(handshake: HandshakeState) -> Channel {
        let stage = Stage::Handshake(Box::new(handshake));
        Channel { stage, held: Vec::new(), is_proven: false }
    }

    fn shake(
        &mut self,
        mut handshake: Box<HandshakeState>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<usize, Broken> {
        let Some(message) = input.get(..HANDSHAKE_BYTES) else {
            self.stage = Stage::Handshake(handshake);
            return Ok(0);
        };
        let is_initiator = handshake.is_initiator();
        let payload = handshake.read_message(message, &mut []);
        if payload != Ok(0) {
            if !is_initiator {
                out.extend_from_slice(REFUSAL);
            }
            return Err(Broken::Stranger);
        }
        if !is_initiator {
            let start = grow(out, HANDSHAKE_BYTES);
            let written = handshake.write_message(&[], &mut out[start..]);
            written.map_err(|_| Broken::Stranger)?;
        }
        let mut transport = handshake.into_transport_mode().map_err(|_| Broken::Stranger)?;
        seal(&mut transport, &mem::take(&mut self.held), out);
        self.stage = Stage::Open(Box::new(transport));
        // The answer depends on the number that this side drew for this link.
        self.is_proven = is_initiator;
        Ok(HANDSHAKE_BYTES)
    }
}

impl Seal for Channel {
    fn is_proven(&self) -> bool {
        self.is_proven
    }

    fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match &mut self.stage {
            Stage::Handshake(_) => {
                self.held.extend_from_slice(bytes);
                let bounded = self.held.len() <= FRAME_BYTES_MAX;
                assert!(bounded, "little is said before the other side is known");
            }
            Stage::Open(transport) => seal(transport, bytes, out),
            Stage::Broken => {}
        }
    }

    fn open(
        &mut self,
        input: &[u8],
        opened: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Broken> {
        let taken = match mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Handshake(handshake) => self.shake(handshake, input, out),
            Stage::Open(mut transport) => {
                let taken = open(&mut transport, input, opened);
                self.stage = Stage::Open(transport);
                self.is_proven |= matches!(taken, Ok(1..));
                // A replayed handshake fails here.
                taken.map_err(|()| if self.is_proven { Broken::Tampered } else { Broken::Stranger })
            }
            Stage::Broken => Err(Broken::Tampered),
        };
        if taken.is_err() {
            self.stage = Stage::Broken;
        }
        taken
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("is_proven", &self.is_proven).finish_non_exhaustive()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::Stranger => "does not know this group's secret, or is no postern server",
            Broken::Tampered => "sent what the other side did not seal",
        })
    }
}

fn begin(secret: &Secret, group: GroupId, initiator: bool) -> HandshakeState {
    let prologue = [PROLOGUE, &group.0.to_le_bytes()].concat();
    let builder = Builder::new(PATTERN.parse().expect("a pattern that snow was built with"));
    let builder = builder.psk(0, secret.bytes()).and_then(|b| b.prologue(&prologue));
    let built =
        builder.and_then(|b| if initiator { b.build_initiator() } else { b.build_responder() });
    built.expect("each part is set once, and snow was built with all of them")
}

fn grow(out: &mut Vec<u8>, by: usize) -> usize {
    let start = out.len();
    out.resize(start + by, 0);
    start
}

/// The largest content of a message, in bytes. The first message is small, since its sender is
/// unknown.
fn carried_max(messages_before: u64) -> usize {
    if messages_before == 0 { FIRST_BYTES_MAX } else { MESSAGE_BYTES_MAX - TAG_BYTES }
}

fn seal(transport: &mut TransportState, mut bytes: &[u8], out: &mut Vec<u8>) {
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(bytes.len().min(carried_max(transport.sending_nonce())));
        let length = piece.len() + TAG_BYTES;
        let start = grow(out, LENGTH_BYTES + length);
        LE::write_u16(&mut out[start..], length as u16);
        let written = transport.write_message(piece, &mut out[start + LENGTH_BYTES..]);
        let written = written.expect("the piece fits, and 2^64 messages are never sent");
        assert_eq!(written, length, "a message is its content and a tag");
        if transport.sending_nonce().is_multiple_of(REKEY_MESSAGES) {
            transport.rekey_outgoing();
        }
        bytes = rest;
    }
}

fn open(transport: &mut TransportState, input: &[u8], opened: &mut Vec<u8>) -> Result<usize, ()> {
    let Some(length) = input.get(..LENGTH_BYTES) else { return Ok(0) };
    let length = usize::from(LE::read_u16(length));
    let carried = length.checked_sub(TAG_BYTES).ok_or(())?;
    if carried == 0 || carried > carried_max(transport.receiving_nonce()) {
        return Err(());
    }
    let Some(message) = input.get(LENGTH_BYTES..LENGTH_BYTES + length) else { return Ok(0) };
    let start = grow(opened, carried);
    if transport.read_message(message, &mut opened[start..]).is_err() {
        opened.truncate(start);
        return Err(());
    }
    if transport.receiving_nonce().is_multiple_of(REKEY_MESSAGES) {
        transport.rekey_incoming();
    }
    Ok(LENGTH_BYTES + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const GROUP: GroupId = GroupId(7);

    fn secret(byte: u8) -> Secret {
        Secret::new([byte; 32])
    }

    /// One side, the bytes that it has to send, and the bytes that it received.
    struct Side {
        channel: Channel,
        out: Vec<u8>,
        opened: Vec<u8>,
        input: Vec<u8>,
    }

    impl Side {
        fn initiator(secret: &Secret, group: GroupId) -> Side {
            let mut out = Vec::new();
            let channel = Channel::initiator(secret, group, &mut out);
            Side { channel, out, opened: Vec::new(), input: Vec::new() }
        }

        fn responder(secret: &Secret, group: GroupId) -> Side {
            let channel = Channel::responder(secret, group);
            Side { channel, out: Vec::new(), opened: Vec::new(), input: Vec::new() }
        }

        fn pair() -> (Side, Side) {
            (Side::initiator(&secret(1), GROUP), Side::responder(&secret(1), GROUP))
        }

        fn say(&mut self, bytes: &[u8]) {
            self.channel.seal(bytes, &mut self.out);
        }

        fn take(&mut self, bytes: &[u8]) -> Result<(), Broken> {
            self.input.extend_from_slice(bytes);
            loop {
                let taken = self.channel.open(&self.input, &mut self.opened, &mut self.out)?;
                if taken == 0 {
                    return Ok(());
                }
                self.input.drain(..taken);
            }
        }
    }

    fn deliver(from: &mut Side, to: &mut Side) -> Result<(), Broken> {
        let bytes = mem::take(&mut from.out);
        to.take(&bytes)
    }

    /// Two sides after the handshake and one message each.
    fn open_pair() -> (Side, Side) {
        let (mut a, mut b) = Side::pair();
        a.say(b"hello");
        deliver(&mut a, &mut b).unwrap();
        assert!(!b.channel.is_proven(), "a first message may be a recorded one");
        deliver(&mut b, &mut a).unwrap();
        assert!(a.channel.is_proven());
        deliver(&mut a, &mut b).unwrap();
        assert!(b.channel.is_proven());
        assert_eq!(mem::take(&mut b.opened), b"hello");
        (a, b)
    }

    #[test]
    fn streams_of_any_size_arrive_in_any_fragments() {
        let seed = 5;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let (mut a, mut b) = Side::pair();
        let sizes =
            [0, 1, 100, FIRST_BYTES_MAX, FIRST_BYTES_MAX + 1, 65_519, 65_520, FRAME_BYTES_MAX];
        let mut said = Vec::new();
        for size in [0, 1, 100].into_iter().chain(sizes.repeat(3)) {
            let bytes: Vec<u8> = (0..size).map(|_| rng.below(256) as u8).collect();
            said.extend_from_slice(&bytes);
            a.say(&bytes);
            while !a.out.is_empty() {
                let part = 1 + rng.below(a.out.len() as u64) as usize;
                let bytes: Vec<u8> = a.out.drain(..part).collect();
                b.take(&bytes).unwrap();
                deliver(&mut b, &mut a).unwrap();
            }
        }
        assert!(b.opened == said, "{} of {} bytes", b.opened.len(), said.len());
        b.say(b"and back");
        deliver(&mut b, &mut a).unwrap();
        assert_eq!(a.opened, b"and back");
    }

    #[test]
    fn both_directions_change_their_keys_in_step() {
        let (mut a, mut b) = open_pair();
        for n in 0..3 * REKEY_MESSAGES {
            a.say(&n.to_le_bytes());
            deliver(&mut a, &mut b).unwrap();
            if n % 3 == 0 {
                b.say(&n.to_le_bytes());
                deliver(&mut b, &mut a).unwrap();
            }
        }
        assert_eq!(b.opened.len() as u64, 3 * REKEY_MESSAGES * 8);
    }

    #[test]
    fn keys_are_changed_at_all() {
        let (mut a, mut b) = open_pair();
        let Stage::Open(transport) = &mut a.channel.stage else { panic!("it is open") };
        transport.rekey_outgoing();
        a.say(b"with the next key, too early");
        assert_eq!(deliver(&mut a, &mut b), Err(Broken::Tampered));
        let (mut a, mut b) = open_pair();
        let Stage::Open(transport) = &mut b.channel.stage else { panic!("it is open") };
        for _ in 1..REKEY_MESSAGES {
            a.say(b"x");
        }
        for _ in 1..REKEY_MESSAGES - 1 {
            let taken = open(transport, &a.out, &mut b.opened).unwrap();
            a.out.drain(..taken);
        }
        a.say(b"with the next key");
        // Unless this side changes its key too, it can't open the first message of the new key.
        let mut plain = [0; 64];
        let message = |out: &[u8]| out[LENGTH_BYTES..LENGTH_BYTES + 1 + TAG_BYTES].to_vec();
        transport.read_message(&message(&a.out), &mut plain).unwrap();
        a.out.drain(..LENGTH_BYTES + 1 + TAG_BYTES);
        assert!(transport.read_message(&a.out[LENGTH_BYTES..], &mut plain).is_err());
    }

    #[test]
    fn another_secret_or_group_is_refused_by_both_sides() {
        for (other, group) in [(secret(2), GROUP), (secret(1), GroupId(8))] {
            let mut a = Side::initiator(&other, group);
            let mut b = Side::responder(&secret(1), GROUP);
            a.say(b"hello");
            assert_eq!(deliver(&mut a, &mut b), Err(Broken::Stranger));
            assert_eq!(b.out, REFUSAL);
            assert_eq!(deliver(&mut b, &mut a), Err(Broken::Stranger));
            assert!(a.out.is_empty() && a.opened.is_empty() && b.opened.is_empty());
            // It accepts nothing more.
            assert!(b.take(&[0; 100]).is_err());
        }
    }

    #[test]
    fn a_recorded_handshake_is_useless() {
        let (mut a, mut b) = Side::pair();
        a.say(b"hello");
        let first = a.out.clone();
        deliver(&mut a, &mut b).unwrap();
        let second = b.out.clone();
        deliver(&mut b, &mut a).unwrap();
        let hello = a.out.clone();
        // The dialler's whole side, replayed.
        let mut again = Side::responder(&secret(1), GROUP);
        again.take(&first).unwrap();
        assert!(!again.channel.is_proven());
        assert_eq!(again.take(&hello), Err(Broken::Stranger));
        assert!(!again.channel.is_proven() && again.opened.is_empty());
        // The answer, replayed to another dialler.
        let mut again = Side::initiator(&secret(1), GROUP);
        assert_eq!(again.take(&second), Err(Broken::Stranger));
        assert!(!again.channel.is_proven());
    }

    #[test]
    fn a_reflected_handshake_is_useless() {
        let (mut a, _) = Side::pair();
        let own = mem::take(&mut a.out);
        assert_eq!(a.take(&own), Err(Broken::Stranger));
        assert!(!a.channel.is_proven());
        // The same after the handshake: this side's own messages, reflected.
        let (mut a, mut b) = open_pair();
        a.say(b"words");
        let own = mem::take(&mut a.out);
        assert_eq!(a.take(&own), Err(Broken::Tampered));
        b.say(b"words");
        let own = mem::take(&mut b.out);
        assert_eq!(b.take(&own), Err(Broken::Tampered));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        for at in 0..HANDSHAKE_BYTES {
            let (mut a, mut b) = Side::pair();
            a.out[at] ^= 1;
            assert_eq!(deliver(&mut a, &mut b), Err(Broken::Stranger), "byte {at}");
            let (mut a, mut b) = Side::pair();
            deliver(&mut a, &mut b).unwrap();
            b.out[at] ^= 1;
            assert_eq!(deliver(&mut b, &mut a), Err(Broken::Stranger), "byte {at}");
        }
        let words = b"words";
        for at in 0..LENGTH_BYTES + words.len() + TAG_BYTES {
            let (mut a, mut b) = open_pair();
            a.say(words);
            a.say(words);
            a.out[at] ^= 1;
            let taken = deliver(&mut a, &mut b);
            // A longer length waits for bytes that never come.
            assert!(taken == Err(Broken::Tampered) || b.opened.is_empty(), "byte {at}");
        }
        // Messages omitted, duplicated, reordered.
        let (mut a, mut b) = open_pair();
        a.say(words);
        let one = mem::take(&mut a.out);
        a.say(words);
        assert_eq!(deliver(&mut a, &mut b), Err(Broken::Tampered));
        let (mut a, mut b) = open_pair();
        a.say(words);
        a.out.extend_from_within(..);
        assert_eq!(deliver(&mut a, &mut b), Err(Broken::Tampered));
        assert_eq!(b.opened, words);
        drop(one);
    }

    #[test]
    fn lengths_are_bounded_before_they_are_believed() {
        let (mut a, mut b) = Side::pair();
        deliver(&mut a, &mut b).unwrap();
        let too_long = (FIRST_BYTES_MAX + TAG_BYTES + 1) as u16;
        assert_eq!(b.take(&too_long.to_le_bytes()), Err(Broken::Stranger));
        for length in [0, 1, TAG_BYTES as u16] {
            let (_, mut b) = open_pair();
            assert_eq!(b.take(&length.to_le_bytes()), Err(Broken::Tampered));
        }
    }

    #[test]
    fn no_debug_output_shows_a_secret() {
        let (a, _) = open_pair();
        let shown = format!("{:?} {:?}", a.channel, Secret::new([171; 32]));
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab, ab"), "{shown}");
    }
}
