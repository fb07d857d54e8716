//! A link from a command to a server, on a blocking socket.

use super::channel::Channel;
use super::classify::LINK_BYTE;
use super::frame::{LENGTH_BYTES, begin_frame, end_frame, next_frame};
use super::kernel::Seal;
use crate::ids::{GroupId, Secret};
use crate::limits::FIRST_BYTES_MAX;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An open, encrypted link to a server that has proved that it knows the secret.
#[derive(Debug)]
pub struct OperatorClient {
    stream: TcpStream,
    channel: Channel,
    input: Vec<u8>,
    opened: Vec<u8>,
}

impl OperatorClient {
    /// Runs the handshake on a connection to a server. The timeouts of the stream bound its time.
    ///
    /// # Errors
    /// When the connection fails, or the other side does not know the secret.
    pub fn begin(stream: TcpStream, secret: &Secret, group: GroupId) -> io::Result<OperatorClient> {
        let mut first = vec![LINK_BYTE];
        let channel = Channel::initiator(secret, group, &mut first);
        let mut call = OperatorClient { stream, channel, input: Vec::new(), opened: Vec::new() };
        call.stream.write_all(&first)?;
        while !call.channel.is_proven() {
            call.read()?;
        }
        Ok(call)
    }

    /// Sets the timeout of each read from now on.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let (mut bytes, mut sealed) = (Vec::new(), Vec::new());
        begin_frame(&mut bytes);
        bytes.extend_from_slice(frame);
        end_frame(&mut bytes);
        self.channel.seal(&bytes, &mut sealed);
        self.stream.write_all(&sealed)
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// When the connection fails or ends, or what comes is not from the other side.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(frame) = next_frame(&self.opened) {
                let too_long = |()| io::Error::new(ErrorKind::InvalidData, "a frame too long");
                let frame = frame.map_err(too_long)?.to_vec();
                self.opened.drain(..LENGTH_BYTES + frame.len());
                return Ok(frame);
            }
            self.read()?;
        }
    }

    /// Opens buffered bytes, or reads more.
    fn read(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        let taken = self.channel.open(&self.input, &mut self.opened, &mut out);
        let taken = taken.map_err(|broken| {
            io::Error::new(ErrorKind::PermissionDenied, format!("the other side {broken}"))
        })?;
        self.input.drain(..taken);
        self.stream.write_all(&out)?;
        if taken > 0 {
            return Ok(());
        }
        let mut buffer = [0; FIRST_BYTES_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_BYTES_MAX;
    use std::net::TcpListener;
    use std::thread;

    /// Serves one connection: runs the handshake, and echoes frames.
    fn echo(listener: &TcpListener, secret: &Secret) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut channel = Channel::responder(secret, GroupId(1));
        let (mut input, mut opened) = (Vec::new(), Vec::new());
        let mut buffer = [0; 1000];
        let mut skipped = false;
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            input.extend_from_slice(&buffer[..count]);
            if !skipped {
                assert_eq!(input.remove(0), LINK_BYTE);
                skipped = true;
            }
            let mut out = Vec::new();
            loop {
                match channel.open(&input, &mut opened, &mut out) {
                    Ok(0) => break,
                    Ok(taken) => drop(input.drain(..taken)),
                    Err(_) => return stream.write_all(&out).unwrap(),
                }
            }
            channel.seal(&std::mem::take(&mut opened), &mut out);
            stream.write_all(&out).unwrap();
        }
    }

    #[test]
    fn a_call_shakes_hands_and_carries_frames() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secret = Secret::new([1; 32]);
        let server = secret.clone();
        let server = thread::spawn(move || {
            echo(&listener, &server);
            echo(&listener, &server);
        });
        let stream = TcpStream::connect(address).unwrap();
        let mut call = OperatorClient::begin(stream, &secret, GroupId(1)).unwrap();
        for size in [0, 1, 1000, FRAME_BYTES_MAX] {
            let frame = vec![7; size];
            call.send(&frame).unwrap();
            assert!(call.receive().unwrap() == frame, "{size} bytes");
        }
        drop(call);
        let stream = TcpStream::connect(address).unwrap();
        let refused = OperatorClient::begin(stream, &Secret::new([2; 32]), GroupId(1)).unwrap_err();
        assert!(refused.to_string().contains("does not know this group's secret"), "{refused}");
        server.join().unwrap();
    }
}
