//! What a telnet client says beside its lines (RFC 854, 855): commands are taken out before lines
//! are cut, for the number of an option may be that of a line feed, and all are ignored but one.

/// Begins a command.
const IAC: u8 = 255;
/// The lowest command; what follows an [`IAC`] and is less is no telnet.
const COMMAND_MIN: u8 = 240;
/// Ends a subnegotiation.
const SE: u8 = 240;
/// Interrupts: the first command of a client that negotiates nothing, as one types Ctrl+C.
const IP: u8 = 244;
/// Begins a subnegotiation.
const SB: u8 = 250;
/// The commands that the number of an option follows.
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
/// The option that marks a place in the output (RFC 860).
const TIMING_MARK: u8 = 6;
/// Bytes of a subnegotiation; a longer one is none, and its rest is text.
const SUB_BYTES_MAX: u8 = 250;

/// Answers who asked for a timing mark.
pub(super) const NO_TIMING_MARK: [u8; 3] = [IAC, WONT, TIMING_MARK];

const CR: u8 = b'\r';
const NUL: u8 = 0;

/// What is known of a connection's telnet. Before the first negotiation or interrupt it is taken
/// for a connection without: all other bytes are what they are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Telnet {
    last: Last,
    spoken: bool,
    /// Bytes of the subnegotiation.
    sub: u8,
}

/// What came before the next byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    /// Text, or nothing.
    #[default]
    Text,
    /// Text that ends with a carriage return.
    Return,
    /// An [`IAC`], which is text if no command follows.
    Iac,
    /// A command that the number of an option follows.
    Negotiation,
    /// The one of these that asks for an option.
    Do,
    /// The begin of a subnegotiation.
    Sub,
    /// The same, with an [`IAC`] as its last byte.
    SubIac,
}

impl Telnet {
    /// Takes telnet's commands out of what came after the first `old` bytes of `input`; whether
    /// one of them asks for a timing mark.
    pub(super) fn strip(&mut self, input: &mut Vec<u8>, old: usize) -> bool {
        let new = &input[old..];
        let is_text = matches!(self.last, Last::Text | Last::Return);
        // A NUL that follows no return is refused later: it need not be told apart here.
        if is_text && !new.contains(&IAC) && !(self.spoken && new.contains(&NUL)) {
            if let Some(last) = new.last() {
                self.last = after(*last);
            }
            return false;
        }
        let mut asked = false;
        for byte in input.split_off(old) {
            asked |= self.last == Last::Do && byte == TIMING_MARK;
            self.last = self.take(byte, input);
        }
        asked
    }

    /// Keeps the byte if it is text, and gives what comes before the next one.
    fn take(&mut self, byte: u8, text: &mut Vec<u8>) -> Last {
        match (self.last, byte) {
            (Last::Text | Last::Return, IAC) => Last::Iac,
            // How telnet sends a bare return.
            (Last::Return, NUL) if self.spoken => keep(b'\n', text),
            (Last::Text | Last::Return, _) => keep(byte, text),
            (Last::Iac, IAC) => keep(IAC, text),
            (Last::Iac, WILL..=DONT | IP) => {
                self.spoken = true;
                match byte {
                    IP => Last::Text,
                    DO => Last::Do,
                    _ => Last::Negotiation,
                }
            }
            (Last::Iac, SB) if self.spoken => {
                self.sub = 0;
                Last::Sub
            }
            (Last::Iac, COMMAND_MIN..) if self.spoken => Last::Text,
            (Last::Iac, _) => {
                text.push(IAC);
                keep(byte, text)
            }
            (Last::Negotiation | Last::Do, _) => Last::Text,
            (Last::SubIac, SE) => Last::Text,
            (Last::Sub | Last::SubIac, _) if self.sub == SUB_BYTES_MAX => keep(byte, text),
            (Last::Sub | Last::SubIac, _) => {
                self.sub += 1;
                if self.last == Last::Sub && byte == IAC { Last::SubIac } else { Last::Sub }
            }
        }
    }

    /// No more comes: what began no command is text.
    pub(super) fn finish(&mut self, input: &mut Vec<u8>) {
        if self.last == Last::Iac {
            input.push(IAC);
            self.last = Last::Text;
        }
    }
}

fn keep(byte: u8, text: &mut Vec<u8>) -> Last {
    text.push(byte);
    after(byte)
}

fn after(byte: u8) -> Last {
    if byte == CR { Last::Return } else { Last::Text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_end_makes_text_of_what_began_no_command() {
        for (came, kept) in [(&b"PING\xff"[..], &b"PING\xff"[..]), (b"PING\xff\xfb", b"PING")] {
            let (mut text, mut telnet) = (came.to_vec(), Telnet::default());
            telnet.strip(&mut text, 0);
            telnet.finish(&mut text);
            assert_eq!(&text[..], kept);
        }
    }

    /// What is left of pieces that come one after the other, and what comes before the next.
    fn stripped(pieces: &[&[u8]]) -> (Vec<u8>, Telnet) {
        let (mut text, mut telnet) = (Vec::new(), Telnet::default());
        for piece in pieces {
            let old = text.len();
            text.extend_from_slice(piece);
            telnet.strip(&mut text, old);
        }
        (text, telnet)
    }

    #[test]
    fn commands_are_taken_out_and_text_is_kept() {
        // Each is told of a terminal type first, as clients do that negotiate.
        let table: &[(&[u8], &[u8], Last)] = &[
            (b"", b"", Last::Text),
            (b"PING a\r\n", b"PING a\r\n", Last::Text),
            // The option 10 is no line feed, and 255 no begin of a command.
            (b"PI\xff\xfb\x0aNG\n", b"PING\n", Last::Text),
            (b"\xff\xfb\x01\xff\xfc\x02\xff\xfd\x03\xff\xfe\xffPING", b"PING", Last::Text),
            (b"\xff\xf0\xff\xf1\xff\xf4\xff\xf9PING", b"PING", Last::Text),
            (b"\xff\xfa\x1f\x00\x50\x00\x0a\xff\xf0PING", b"PING", Last::Text),
            // Within a subnegotiation nothing but IAC SE is its end.
            (b"\xff\xfa\x1f\xff\xff\xf0\r\0\n\xff\xfa\xff\xf0PING", b"PING", Last::Text),
            (b"\xff\xfa\x1f\xff\xff\xff\xf0PING", b"PING", Last::Text),
            (b"a\xff\xffb\xff\xff\xfb", b"a\xffb\xff\xfb", Last::Text),
            // No telnet.
            (b"a\xffb\xff\n\xff\xef\xff\r", b"a\xffb\xff\n\xff\xef\xff\r", Last::Return),
            (b"\xff\r\0", b"\xff\r\n", Last::Text),
            (b"PING\r\0PING\r\0", b"PING\r\nPING\r\n", Last::Text),
            (b"\r\r\0\0a\0\n", b"\r\r\n\0a\0\n", Last::Text),
            // What is not whole yet.
            (b"PING\r", b"PING\r", Last::Return),
            (b"PING\xff", b"PING", Last::Iac),
            (b"PING\xff\xfb", b"PING", Last::Negotiation),
            (b"PING\xff\xfd", b"PING", Last::Do),
            (b"PING\xff\xfa\x1f\n\n", b"PING", Last::Sub),
            (b"PING\xff\xfa\x1f\n\n\xff", b"PING", Last::SubIac),
        ];
        for (bytes, text, last) in table {
            let (kept, telnet) = stripped(&[b"\xff\xfb\x18", bytes]);
            assert_eq!((&kept[..], telnet.last), (*text, *last), "{bytes:x?}");
        }
    }

    #[test]
    fn who_negotiates_nothing_speaks_no_telnet() {
        for text in [&b"a\xff\xf9b"[..], b"\xff\xfaa\nb\n", b"a\r\0b\n", b"\xff\xf1", b"\xff\xf0\n"]
        {
            assert_eq!(stripped(&[text]).0, text, "{text:x?}");
        }
        assert_eq!(stripped(&[b"\xff\xf4\xff\xf2PING\r\0"]).0, b"PING\r\n", "an interrupt");
    }

    #[test]
    fn cuts_change_nothing() {
        let seed = 23;
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let telling = [IAC, IAC, SE, SB, WILL, DONT, 241, 239, CR, CR, NUL, b'\n', b'a'];
        for _ in 0..20_000 {
            let length = 1 + rng.below(24);
            let bytes: Vec<u8> =
                (0..length).map(|_| telling[rng.below(telling.len() as u64) as usize]).collect();
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rng.below(rest.len() as u64 + 1) as usize);
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(stripped(&pieces), stripped(&[&bytes]), "{pieces:x?}");
        }
    }

    #[test]
    fn an_endless_subnegotiation_is_none() {
        let (mut input, mut telnet) = (b"\xff\xfb\x1f\xff\xfa\x1f".to_vec(), Telnet::default());
        telnet.strip(&mut input, 0);
        assert!(input.is_empty());
        input.resize(1000, b'\n');
        telnet.strip(&mut input, 0);
        assert_eq!(input.len(), 1000 - usize::from(SUB_BYTES_MAX) + 1);
    }

    #[test]
    fn a_timing_mark_is_asked_for_by_its_own_command_only() {
        let table: &[(&[&[u8]], bool)] = &[
            (&[b"\xff\xfd\x06"], true),
            (&[b"\xff\xfd", b"\x06"], true),
            (&[b"\xff\xfd\x06", b"PING\n"], false),
            (&[b"\xff\xfb\x06\xff\xfc\x06\xff\xfe\x06"], false),
            (&[b"\xff\xfd\x03\x06\xff\xfa\xff\xfd\x06\xff\xf0"], false),
        ];
        for (pieces, expected) in table {
            let mut telnet = Telnet::default();
            let asked = pieces.iter().map(|piece| telnet.strip(&mut piece.to_vec(), 0)).last();
            assert_eq!(asked, Some(*expected), "{pieces:x?}");
        }
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Telnet>() <= 4);
    }
}
