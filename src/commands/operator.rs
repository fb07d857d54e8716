//! Connects to servers as an operator: over a link, authenticated by the group's secret.

use crate::client::{self, Unreached};
use crate::replica::Packet;
use crate::server::operator_client::OperatorClient;
use crate::settings::Settings;
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may take for each step.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two rounds through the servers.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Names the server at a place of the list.
pub(super) fn name(settings: &Settings, slot: usize) -> String {
    format!("server {} at {}", slot + 1, settings.servers[slot])
}

/// Connects to the address of a server, without checking which program listens there.
pub(super) fn connect(server: &str) -> Result<TcpStream, Unreached> {
    let stream = client::dial(server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Performs the handshake, which proves that a server of the group listens there.
pub(super) fn shake(settings: &Settings, stream: TcpStream) -> Result<OperatorClient, Unreached> {
    Ok(OperatorClient::begin(stream, &settings.secret, settings.group)?)
}

/// Why no answer arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The server received no request, or refused it.
    Unasked(String),
    /// The request was sent, and may have been executed.
    Lost(String),
}

/// Asks the server at a place of the list over a new link. Returns the packet that it answers
/// within `patience`, and the bytes after that packet.
pub(super) fn ask(
    settings: &Settings,
    slot: usize,
    (packet, rest): (Packet, &[u8]),
    patience: Duration,
) -> Result<(Packet, Vec<u8>), NoAnswer> {
    let unasked = |why: Unreached| NoAnswer::Unasked(why.to_string());
    let mut frame = Vec::new();
    packet.encode(&mut frame);
    frame.extend_from_slice(rest);
    let stream = connect(&settings.servers[slot]).map_err(unasked)?;
    let mut call = shake(settings, stream).map_err(unasked)?;
    call.set_patience(patience).map_err(|error| unasked(error.into()))?;
    let answer = call.send(&frame).and_then(|()| call.receive());
    let frame = answer.map_err(|error| NoAnswer::Lost(Unreached::from(error).to_string()))?;
    match Packet::decode(&frame) {
        Ok((Packet::Refused(why), _)) => Err(NoAnswer::Unasked(format!("it refuses: {why}"))),
        Ok((packet, rest)) => Ok((packet, rest.to_vec())),
        Err(_) => Err(NoAnswer::Lost("invalid response".to_owned())),
    }
}
