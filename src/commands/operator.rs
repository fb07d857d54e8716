//! How commands reach servers as an operator: over a link, by the group's secret.

use crate::client::{self, Unreached};
use crate::replica::Packet;
use crate::server::operator_client::OperatorClient;
use crate::settings::Settings;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may take for each step.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Calls the server at a place of the list.
fn call(settings: &Settings, slot: usize) -> io::Result<OperatorClient> {
    let stream =
        connect(&settings.servers[slot]).map_err(|why| io::Error::other(why.to_string()))?;
    shake(settings, stream)
}

/// Connects to who listens where a server is to be, whoever that is.
pub(super) fn connect(server: &str) -> Result<TcpStream, Unreached> {
    let stream = client::dial(server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Makes sure that a server of the group listens there.
pub(super) fn shake(settings: &Settings, stream: TcpStream) -> io::Result<OperatorClient> {
    OperatorClient::begin(stream, &settings.secret, settings.group)
}

/// Whether somebody did not answer in time.
pub(super) fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Why no answer came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nothing was asked.
    Unasked(String),
    /// It was asked, and may have been done.
    Lost(String),
}

/// Asks the server at a place of the list over a link of its own; what it answers in that time, as
/// a packet and what follows it.
pub(super) fn ask(
    settings: &Settings,
    slot: usize,
    (packet, rest): (Packet, &[u8]),
    patience: Duration,
) -> Result<(Packet, Vec<u8>), NoAnswer> {
    let say = |error: io::Error| match error {
        silence if is_silence(&silence) => "no answer".to_owned(),
        error => error.to_string(),
    };
    let mut frame = Vec::new();
    packet.encode(&mut frame);
    frame.extend_from_slice(rest);
    let mut call = call(settings, slot).map_err(|error| NoAnswer::Unasked(say(error)))?;
    call.set_patience(patience).map_err(|error| NoAnswer::Unasked(say(error)))?;
    let answer = call.send(&frame).and_then(|()| call.receive());
    let frame = answer.map_err(|error| NoAnswer::Lost(say(error)))?;
    match Packet::decode(&frame) {
        Ok((Packet::Refused(why), _)) => Err(NoAnswer::Unasked(format!("it refuses: {why}"))),
        Ok((packet, rest)) => Ok((packet, rest.to_vec())),
        Err(_) => Err(NoAnswer::Lost("its answer is none".to_owned())),
    }
}
