//! The client's side of gRPC, as far as one kind of call with one message each way needs it:
//! HTTP/2 frames by their bytes, the server's headers by a library.

use super::lines::Split;
use loona_hpack::Decoder;
use std::collections::HashSet;

/// What opens a connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, kind, flags, stream.
const HEAD_BYTES: usize = 9;
/// The largest frame that a server may send, unless it is told that it may send larger ones.
const FRAME_MAX: usize = 16_384;
/// How much both sides may send before the other has made room.
const WINDOW: i64 = 65_535;
/// How much is taken before the server is told that there is room again.
const ROOM: u32 = 16_384;
/// Answered with this, a call has done what it was to do.
const STATUS_OK: &[u8] = b"0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// What has become of a connection or a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Calls may be made.
    Open,
    /// A call is done.
    Done,
    /// A call was refused, with this status.
    Failed(String),
}

/// One connection, on which one method is called.
pub(crate) struct Connection {
    method: &'static str,
    is_open: bool,
    /// Whether the server's table has the headers of calls.
    is_indexed: bool,
    next_stream: u32,
    /// Calls without an answer.
    outstanding: HashSet<u32>,
    decoder: Decoder<'static>,
    /// How much may be sent.
    window: i64,
    /// How much was taken since the server was last told of room.
    taken: u32,
}

impl Connection {
    /// For a method by its path.
    pub(crate) fn new(method: &'static str) -> Connection {
        Connection {
            method,
            is_open: false,
            is_indexed: false,
            next_stream: 1,
            outstanding: HashSet::new(),
            decoder: Decoder::new(),
            window: WINDOW,
            taken: 0,
        }
    }

    /// Writes what opens the connection.
    pub(crate) fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        write_frame(SETTINGS, 0, 0, &[], out);
    }

    /// Writes a call.
    pub(crate) fn call(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let stream = self.next_stream;
        // A connection has a thousand million streams.
        self.next_stream += 2;
        self.outstanding.insert(stream);
        let headers = self.headers();
        write_frame(HEADERS, END_HEADERS, stream, &headers, out);
        // Not compressed, and its length.
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        self.window -= body.len() as i64;
        write_frame(DATA, END_STREAM, stream, &body, out);
    }

    /// The headers of a call: the first one fills the server's table, the others point at it.
    fn headers(&mut self) -> Vec<u8> {
        // POST and http have numbers; so have the names of what has not.
        let mut block = vec![0x83, 0x86];
        if self.is_indexed {
            // The newest is 62.
            block.extend_from_slice(&[65 | 0x80, 64 | 0x80, 63 | 0x80, 62 | 0x80]);
            return block;
        }
        self.is_indexed = true;
        let mut add = |name: u8, value: &[u8]| {
            block.push(0x40 | name);
            if name == 0 {
                block.extend_from_slice(b"\x02te");
            }
            block.push(value.len() as u8);
            block.extend_from_slice(value);
        };
        add(4, self.method.as_bytes());
        add(1, b"localhost");
        add(31, b"application/grpc");
        add(0, b"trailers");
        block
    }

    /// Takes all whole frames: how many bytes they were. May write what they ask for.
    pub(crate) fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut tell: impl FnMut(Event),
    ) -> Result<usize, String> {
        let mut rest = input;
        while let Some((frame, after)) = split_frame(rest)? {
            if let Some(event) = self.handle(&frame, out)? {
                tell(event);
            }
            rest = after;
        }
        if self.window < 0 {
            return Err("window-exceeded: more was sent than the server has room for".to_owned());
        }
        Ok(input.len() - rest.len())
    }

    fn handle(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<Option<Event>, String> {
        match frame.kind {
            DATA => self.make_room(frame.body.len() as u32, out),
            HEADERS => return self.hear_headers(frame),
            RST_STREAM if self.outstanding.remove(&frame.stream) => {
                return Ok(Some(Event::Failed("reset".to_owned())));
            }
            SETTINGS if frame.flags & ACK == 0 => {
                write_frame(SETTINGS, ACK, 0, &[], out);
                if !std::mem::replace(&mut self.is_open, true) {
                    return Ok(Some(Event::Open));
                }
            }
            PING if frame.flags & ACK == 0 => write_frame(PING, ACK, 0, frame.body, out),
            GOAWAY => return Err(format!("goaway: {}", frame.body.escape_ascii())),
            WINDOW_UPDATE if frame.stream == 0 => {
                let more =
                    frame.body.try_into().map_err(|_| "strange-answer: not a window update")?;
                self.window += i64::from(u32::from_be_bytes(more));
            }
            // Acknowledgements, room for streams that have ended, and kinds that nobody knows.
            _ => {}
        }
        Ok(None)
    }

    /// Tells the server of room again, now and then.
    fn make_room(&mut self, taken: u32, out: &mut Vec<u8>) {
        self.taken += taken;
        if self.taken >= ROOM {
            write_frame(WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes(), out);
            self.taken = 0;
        }
    }

    /// The first headers of an answer say nothing; those that end it tell how the call went.
    fn hear_headers(&mut self, frame: &Frame<'_>) -> Result<Option<Event>, String> {
        // Neither a server's short headers nor its trailers use more.
        if frame.flags & (PADDED | PRIORITY) != 0 || frame.flags & END_HEADERS == 0 {
            return Err(format!("strange-answer: headers with flags {:#x}", frame.flags));
        }
        let mut status = None;
        let taken = self.decoder.decode_with_cb(frame.body, |name, value| {
            if *name == *b"grpc-status" {
                status = Some(value.into_owned());
            }
        });
        taken.map_err(|error| format!("strange-answer: {error:?}"))?;
        if frame.flags & END_STREAM == 0 || !self.outstanding.remove(&frame.stream) {
            return Ok(None);
        }
        let status = status.ok_or("strange-answer without a status")?;
        if status == STATUS_OK {
            return Ok(Some(Event::Done));
        }
        Ok(Some(Event::Failed(String::from_utf8_lossy(&status).into_owned())))
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    body: &'a [u8],
}

/// The first frame.
fn split_frame(input: &[u8]) -> Split<'_, Frame<'_>> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [a, b, c, kind, flags, stream @ ..] = *head;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > FRAME_MAX {
        return Err(format!("strange-answer: a frame of {length} bytes"));
    }
    let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    let stream = u32::from_be_bytes(stream) & !(1 << 31);
    Ok(Some((Frame { kind, flags, stream, body }, rest)))
}

fn write_frame(kind: u8, flags: u8, stream: u32, body: &[u8], out: &mut Vec<u8>) {
    // Calls are short: their length has three bytes.
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    //! Calls are as a server understands them, and each answer is heard once; the server's bytes
    //! are what etcd 3.4 answered to three puts and, on stream 5, to one that it refused.

    use super::*;

    const SETTINGS_BYTES: &str = "00000c0400000000000005000040000003ffffffff";
    const SETTINGS_ACK: &str = "000000040100000000";
    const ROOM_AND_PING: &str = "0000040800000000000000000f00000806000000000002041010090e0707";
    const REFUSED: &str = "00003d010500000005885f8b1d75d0620d263d4c4d656440889acac8b21234da8f013340\
                           899acac8b5254207317f972a49220b6772d9714ea5f4a190a5474a95d87ee690b27f";
    const FIRST: &str = "00000201040000000788c0000020000000000007000000001b0a1908bb8cdeb7aac5e9867e\
                         10f5e0a4c486fdd583a70118022002";
    const FIRST_END: &str = "0000070105000000077f0001307f0000";
    const SECOND: &str = "00000201040000000388c2000020000000000003000000001b0a1908bb8cdeb7aac5e9\
                          867e10f5e0a4c486fdd583a701180420020000020105\
                          00000003bfbe";

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a digit");
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    /// A connection with four calls.
    fn four_calls() -> Connection {
        let mut connection = Connection::new("/etcdserverpb.KV/Put");
        let mut out = Vec::new();
        connection.open(&mut out);
        for _ in 0..4 {
            connection.call(b"hello", &mut out);
        }
        connection
    }

    fn take(
        connection: &mut Connection,
        input: &[u8],
    ) -> (Result<usize, String>, Vec<u8>, Vec<Event>) {
        let (mut out, mut events) = (Vec::new(), Vec::new());
        let taken = connection.take(input, &mut out, |event| events.push(event));
        (taken, out, events)
    }

    #[test]
    fn calls_have_headers_and_a_message() {
        let mut connection = Connection::new("/etcdserverpb.KV/Put");
        let mut out = Vec::new();
        connection.open(&mut out);
        assert_eq!(out, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        // The server's side of the same table reads both forms.
        let mut server = Decoder::new();
        let expected = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/etcdserverpb.KV/Put"),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for stream in [1, 3, 5] {
            out.clear();
            connection.call(b"hello", &mut out);
            let (headers, rest) = split_frame(&out).expect("a frame").expect("whole");
            assert_eq!(
                (headers.kind, headers.flags, headers.stream),
                (HEADERS, END_HEADERS, stream)
            );
            let block = server.decode(headers.body).expect("headers");
            let expected = expected.map(|(name, value)| (name.into(), value.into()));
            assert_eq!(block, expected);
            assert_eq!(headers.body.len() == 6, stream > 1);
            let (data, rest) = split_frame(rest).expect("a frame").expect("whole");
            assert_eq!((data.kind, data.flags, data.stream), (DATA, END_STREAM, stream));
            assert_eq!((data.body, rest), (&b"\0\0\0\0\x05hello"[..], &b""[..]));
        }
    }

    #[test]
    fn answers_are_heard_in_the_order_in_which_they_come() {
        let mut connection = four_calls();
        let table = [
            (SETTINGS_BYTES, SETTINGS_ACK, vec![Event::Open]),
            (SETTINGS_ACK, "", vec![]),
            (SETTINGS_BYTES, SETTINGS_ACK, vec![]),
            (ROOM_AND_PING, "00000806010000000002041010090e0707", vec![]),
            (REFUSED, "", vec![Event::Failed("3".to_owned())]),
            (FIRST, "", vec![]),
            (FIRST_END, "", vec![Event::Done]),
            (SECOND, "", vec![Event::Done]),
            ("0000040300000000010000000b", "", vec![Event::Failed("reset".to_owned())]),
            ("0000040300000000010000000b", "", vec![]),
        ];
        for (input, said, expected) in table {
            let input = bytes(input);
            let heard = take(&mut connection, &input);
            assert_eq!(heard, (Ok(input.len()), bytes(said), expected));
        }
    }

    #[test]
    fn answers_may_come_in_pieces() {
        let input = bytes(&[SETTINGS_BYTES, REFUSED, FIRST, FIRST_END, SECOND].concat());
        for at in 0..input.len() {
            let mut connection = four_calls();
            let (taken, _, mut events) = take(&mut connection, &input[..at]);
            events.extend(take(&mut connection, &input[taken.expect("frames")..]).2);
            let expected = [Event::Open, Event::Failed("3".to_owned()), Event::Done, Event::Done];
            assert_eq!(events, expected, "cut at {at}");
        }
    }

    #[test]
    fn both_sides_are_told_of_room() {
        let mut connection = four_calls();
        // Data of a stream that nobody waits for takes room, too.
        let mut input = bytes("004000000000000009");
        input.resize(HEAD_BYTES + FRAME_MAX, 0);
        assert_eq!(take(&mut connection, &input).1, bytes("00000408000000000000004000"));
        let most = vec![0; WINDOW as usize];
        connection.call(&most, &mut Vec::new());
        assert!(take(&mut connection, b"").0.is_err());
        assert!(take(&mut connection, &bytes(ROOM_AND_PING)).0.is_err());
        let room = bytes("0000040800000000000000ffff");
        assert_eq!(take(&mut connection, &room).0, Ok(room.len()));
    }

    #[test]
    fn what_is_no_answer_ends_the_connection() {
        let table = [
            ("00000807000000000000000000 00000000", "goaway"),
            ("004001 00 00 00000001", "a frame too long"),
            ("000001010500000001ff", "headers that point nowhere"),
            ("00000101050000000188", "no status"),
            ("00000101010000000188", "headers that go on"),
            ("000001 08 00 00000000 00", "no window"),
        ];
        for (input, what) in table {
            let input = bytes(&input.replace(' ', ""));
            assert!(take(&mut four_calls(), &input).0.is_err(), "{what}");
        }
    }
}
