//! The encryption of links between simulated servers. In a few seeds it is the real one. In the
//! others, bytes pass unchanged after a handshake of one byte in each direction, since a real
//! handshake takes more processor time than a simulated second.

use postern::ids::{GroupId, Secret};
use postern::server::Seal;
use postern::server::channel::{Broken, Channel};

/// One side of a link.
#[derive(Debug)]
pub(crate) enum SimSeal {
    Noise(Box<Channel>),
    Plain(Plain),
}

/// A link without encryption.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    is_initiator: bool,
    /// The byte of the other side has arrived.
    is_open: bool,
    is_proven: bool,
    /// Bytes to send, held back until the handshake is complete.
    held: Vec<u8>,
}

/// The handshake of either side.
const HANDSHAKE: u8 = b'h';

impl SimSeal {
    /// Creates the side of the dialler. Appends its first bytes to `out`.
    pub(crate) fn initiator(
        encrypts: bool,
        secret: &Secret,
        group: GroupId,
        out: &mut Vec<u8>,
    ) -> SimSeal {
        if encrypts {
            return SimSeal::Noise(Box::new(Channel::initiator(secret, group, out)));
        }
        out.push(HANDSHAKE);
        SimSeal::Plain(Plain { is_initiator: true, ..Plain::default() })
    }

    /// Creates the side that was dialled.
    pub(crate) fn responder(encrypts: bool, secret: &Secret, group: GroupId) -> SimSeal {
        if encrypts {
            return SimSeal::Noise(Box::new(Channel::responder(secret, group)));
        }
        SimSeal::Plain(Plain::default())
    }
}

impl Seal for SimSeal {
    fn is_proven(&self) -> bool {
        match self {
            SimSeal::Noise(channel) => channel.is_proven(),
            SimSeal::Plain(plain) => plain.is_proven,
        }
    }

    fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            SimSeal::Noise(channel) => channel.seal(bytes, out),
            SimSeal::Plain(plain) if plain.is_open => out.extend_from_slice(bytes),
            SimSeal::Plain(plain) => plain.held.extend_from_slice(bytes),
        }
    }

    fn open(
        &mut self,
        input: &[u8],
        opened: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Broken> {
        let plain = match self {
            SimSeal::Noise(channel) => return channel.open(input, opened, out),
            SimSeal::Plain(plain) => plain,
        };
        match input.first() {
            None => Ok(0),
            Some(_) if plain.is_open => {
                opened.extend_from_slice(input);
                plain.is_proven = true;
                Ok(input.len())
            }
            Some(&HANDSHAKE) => {
                plain.is_open = true;
                plain.is_proven = plain.is_initiator;
                if !plain.is_initiator {
                    out.push(HANDSHAKE);
                }
                out.append(&mut plain.held);
                Ok(1)
            }
            Some(_) => Err(Broken::Stranger),
        }
    }
}
