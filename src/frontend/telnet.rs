//! Telnet commands at the start of a line (RFC 854): they are skipped, a timing mark is refused.
//!
//! Inside a line the same bytes are text of another encoding: `FF F4` is "яф" in Windows-1251.
//! There nothing is skipped, or a message would be stored that nobody sent; such a line is refused
//! as a whole, since it is not UTF-8. No request begins with these bytes, so at the start of a line
//! nothing is lost.

/// Begins a command.
const IAC: u8 = 255;
/// Marks the end of what an interrupt discards.
const DM: u8 = 242;
/// Interrupts the process, as Ctrl+C does.
const IP: u8 = 244;
/// The commands that the number of an option follows, from this one
const WILL: u8 = 251;
const DO: u8 = 253;
/// to this one.
const DONT: u8 = 254;
/// Refuses an option.
const WONT: u8 = 252;
/// The option that marks a place in the output (RFC 860).
const TIMING_MARK: u8 = 6;

/// Refuses a timing mark.
pub(super) const NO_TIMING_MARK: [u8; 3] = [IAC, WONT, TIMING_MARK];

/// What a line starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Text, or nothing.
    Text,
    /// Bytes that are a command if the right one follows.
    Partial,
    /// A command of this many bytes.
    Command(Command, usize),
}

/// A telnet command, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A negotiation, or the mark after an interrupt: it is skipped.
    Negotiation,
    /// A request for a timing mark.
    TimingMark,
    /// An interrupt.
    Interrupt,
}

/// Reads the start of a line. `interrupted`: since the line before only commands came, and an
/// interrupt was one of them.
pub(super) fn start(input: &[u8], interrupted: bool) -> Start {
    match *input {
        [IAC] | [IAC, WILL..=DONT] => Start::Partial,
        // It is the end of a line, whatever comes before it.
        [IAC, WILL..=DONT, b'\n' | b'\r', ..] => Start::Text,
        [IAC, DO, TIMING_MARK, ..] => Start::Command(Command::TimingMark, 3),
        [IAC, WILL..=DONT, _, ..] => Start::Command(Command::Negotiation, 3),
        [IAC, IP, ..] => Start::Command(Command::Interrupt, 2),
        [IAC, DM, ..] if interrupted => Start::Command(Command::Negotiation, 2),
        _ => Start::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_negotiations_and_interrupts_are_commands() {
        let table: &[(&[u8], Start)] = &[
            (b"", Start::Text),
            (b"PING", Start::Text),
            (b"\xff", Start::Partial),
            (b"\xff\xfb", Start::Partial),
            (b"\xff\xfe", Start::Partial),
            (b"\xff\xfb\x18", Start::Command(Command::Negotiation, 3)),
            (b"\xff\xfc\xffPING", Start::Command(Command::Negotiation, 3)),
            (b"\xff\xfd\x06", Start::Command(Command::TimingMark, 3)),
            (b"\xff\xfe\x06", Start::Command(Command::Negotiation, 3)),
            (b"\xff\xf4", Start::Command(Command::Interrupt, 2)),
            (b"\xff\xf4\xff\xfd\x06", Start::Command(Command::Interrupt, 2)),
            // An option with the number of a line's end would join two lines.
            (b"\xff\xfb\n", Start::Text),
            (b"\xff\xfe\r\n", Start::Text),
            (b"\xff\xfd\nPING\n", Start::Text),
            // Other commands answer a negotiation that postern never begins.
            (b"\xff\xfa\x1f\x00\x50\x00\x0a\xff\xf0", Start::Text),
            (b"\xff\xff", Start::Text),
            (b"\xff\xf2", Start::Text),
            (b"\xff\n", Start::Text),
            (b"a\xff\xf4", Start::Text),
        ];
        for (input, expected) in table {
            assert_eq!(start(input, false), *expected, "{input:x?}");
        }
        assert_eq!(start(b"\xff\xf2", true), Start::Command(Command::Negotiation, 2));
    }
}
