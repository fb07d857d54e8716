//! Connects to servers as an operator: over a link, authenticated by the group's secret.

use crate::client::{self, Unreached};
use crate::replica::Packet;
use crate::server::operator_client::OperatorClient;
use crate::settings::Settings;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

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
    Ok(OperatorClient::begin(stream, &settings.secret, settings.shared.group)?)
}

/// Why a server did not do what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server received no request, or refused it.
    Unasked(String),
    /// Another server may be able to do it.
    Elsewhere(String),
    /// No server can do it.
    Refused(String),
    /// The request was sent, and may have been executed.
    Lost(String),
}

/// Returns when to give up the search for a primary that can do what an operator wants.
pub(super) fn deadline(settings: &Settings) -> Instant {
    let peer_timeout = Duration::from_millis(settings.shared.peer_timeout_ms.into());
    Instant::now() + 2 * peer_timeout + PATIENCE
}

/// Asks the servers in turn until one of them, the primary, does it. Never asks again after an
/// answer was lost, since it may be done: the error then names the command that shows it, `see`.
pub(super) fn ask_in_turn<T>(
    settings: &Settings,
    deadline: Instant,
    see: &str,
    mut ask: impl FnMut(usize) -> Result<T, Failure>,
) -> Result<T, String> {
    loop {
        let (mut excuses, mut heard) = (Vec::new(), false);
        for slot in 0..settings.servers.len() {
            let server = name(settings, slot);
            let why = match ask(slot) {
                Ok(done) => return Ok(done),
                Err(Failure::Refused(why)) => return Err(why),
                Err(Failure::Lost(why)) => {
                    return Err(format!("{server}: {why}; it may be done: see {see}"));
                }
                Err(Failure::Elsewhere(why)) => {
                    heard = true;
                    why
                }
                Err(Failure::Unasked(why)) => why,
            };
            excuses.push(format!("{server}: {why}"));
        }
        // During a takeover there is a new primary in a moment.
        if !heard || Instant::now() >= deadline {
            return Err(excuses.join("; "));
        }
        thread::sleep(PAUSE);
    }
}

/// Asks the server at a place of the list over a new link. Returns the packet that it answers
/// within `patience`, and the bytes after that packet.
pub(super) fn ask(
    settings: &Settings,
    slot: usize,
    (packet, rest): (Packet, &[u8]),
    patience: Duration,
) -> Result<(Packet, Vec<u8>), Failure> {
    let unasked = |why: Unreached| Failure::Unasked(why.to_string());
    let mut frame = Vec::new();
    packet.encode(&mut frame);
    frame.extend_from_slice(rest);
    let stream = connect(&settings.servers[slot]).map_err(unasked)?;
    let mut call = shake(settings, stream).map_err(unasked)?;
    call.set_patience(patience).map_err(|error| unasked(error.into()))?;
    let answer = call.send(&frame).and_then(|()| call.receive());
    let frame = answer.map_err(|error| Failure::Lost(Unreached::from(error).to_string()))?;
    match Packet::decode(&frame) {
        Ok((Packet::Refused(why), _)) => Err(Failure::Unasked(format!("it refuses: {why}"))),
        Ok((packet, rest)) => Ok((packet, rest.to_vec())),
        Err(_) => Err(Failure::Lost("invalid response".to_owned())),
    }
}
