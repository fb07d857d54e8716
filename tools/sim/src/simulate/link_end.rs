//! The end of a link at an operator or a hostile peer.

use super::process::{GROUP, secret};
use super::seal::SimSeal;
use postern::replica::Packet;
use postern::server::channel::Broken;
use postern::server::{LENGTH_BYTES, LINK_BYTE, Seal, begin_frame, end_frame, next_frame};

/// Encodes and decodes the packets of a link.
#[derive(Debug)]
pub(crate) struct LinkEnd {
    seal: SimSeal,
    input: Vec<u8>,
    opened: Vec<u8>,
    /// The byte that begins a link has not arrived yet.
    awaits_begin: bool,
}

impl LinkEnd {
    /// The end that dials a server, and its first bytes.
    pub(crate) fn dialler(encrypts: bool) -> (LinkEnd, Vec<u8>) {
        let mut first = vec![LINK_BYTE];
        let seal = SimSeal::initiator(encrypts, &secret(), GROUP, &mut first);
        (LinkEnd { seal, input: Vec::new(), opened: Vec::new(), awaits_begin: false }, first)
    }

    /// The end that a server dials.
    pub(crate) fn dialled(encrypts: bool) -> LinkEnd {
        let seal = SimSeal::responder(encrypts, &secret(), GROUP);
        LinkEnd { seal, input: Vec::new(), opened: Vec::new(), awaits_begin: true }
    }

    /// Returns the bytes of a packet and the data after it. Before the handshake is complete, there
    /// are none.
    pub(crate) fn send(&mut self, packet: &Packet, rest: &[u8]) -> Vec<u8> {
        let (mut frame, mut bytes) = (Vec::new(), Vec::new());
        begin_frame(&mut frame);
        packet.encode(&mut frame);
        frame.extend_from_slice(rest);
        end_frame(&mut frame);
        self.seal.seal(&frame, &mut bytes);
        bytes
    }

    /// Decodes bytes of the server.
    ///
    /// # Errors
    /// The server has not sealed them with the right keys.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Received, Broken> {
        let begin = usize::from(self.awaits_begin && bytes.first() == Some(&LINK_BYTE));
        self.awaits_begin &= begin == 0;
        self.input.extend_from_slice(&bytes[begin..]);
        let mut out = Vec::new();
        loop {
            let taken = self.seal.open(&self.input, &mut self.opened, &mut out)?;
            if taken == 0 {
                break;
            }
            self.input.drain(..taken);
        }
        let mut packets = Vec::new();
        while let Some(frame) = next_frame(&self.opened) {
            let frame = frame.expect("a server sends no frame over the bound");
            let (packet, rest) = Packet::decode(frame).expect("a server sends packets");
            packets.push((packet, rest.to_vec()));
            let length = LENGTH_BYTES + frame.len();
            self.opened.drain(..length);
        }
        Ok(Received { packets, out })
    }
}

/// The result of some bytes.
pub(crate) struct Received {
    pub(crate) packets: Vec<(Packet, Vec<u8>)>,
    /// Bytes of the handshake to send.
    pub(crate) out: Vec<u8>,
}
