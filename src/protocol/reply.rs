//! What a server says to a text client.

use crate::limits::LINE_BYTES_MAX;
use crate::moment::WallTime;
use std::fmt::{self, Display};
use std::io::Write;

/// The first word after `ERR`: the contract. The words behind it may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// An unknown word.
    BadCommand,
    /// A missing, extra or malformed argument, or an unfinished last line.
    BadArgument,
    /// Text with characters that are not allowed, or invalid UTF-8.
    BadText,
    /// A line or a text over its bound.
    TooLong,
    /// The request needs a login.
    NotLoggedIn,
    /// The connection is logged in.
    AlreadyLoggedIn,
    /// Only an operator may.
    NotAllowed,
    /// There is an account of that name.
    Exists,
    /// There is no account of that name.
    NoSuchUser,
    /// The password is wrong, or there is no such account.
    WrongPassword,
    /// Clients are not let in yet, or the primary could not answer in time.
    NotReady,
    /// The key has stored another message.
    KeyReused,
    /// Too many wrong ones came before.
    TooManyAttempts,
    /// This server is a backup.
    NotPrimary,
    /// Fewer servers are attached than `min_copies` asks for.
    TooFewCopies,
    /// The disk of a server is nearly full.
    NoSpace,
    /// A limit of this server is reached.
    Busy,
    /// This server can't read what is asked for from its disk.
    Unreadable,
    /// The change may or may not take effect.
    UnknownOutcome,
}

impl Code {
    const ALL: [Code; 19] = [
        Code::BadCommand,
        Code::BadArgument,
        Code::BadText,
        Code::TooLong,
        Code::NotLoggedIn,
        Code::AlreadyLoggedIn,
        Code::NotAllowed,
        Code::Exists,
        Code::NoSuchUser,
        Code::WrongPassword,
        Code::KeyReused,
        Code::TooManyAttempts,
        Code::NotReady,
        Code::NotPrimary,
        Code::TooFewCopies,
        Code::NoSpace,
        Code::Busy,
        Code::Unreadable,
        Code::UnknownOutcome,
    ];

    fn name(self) -> &'static str {
        match self {
            Code::BadCommand => "bad-command",
            Code::BadArgument => "bad-argument",
            Code::BadText => "bad-text",
            Code::TooLong => "too-long",
            Code::NotLoggedIn => "not-logged-in",
            Code::AlreadyLoggedIn => "already-logged-in",
            Code::NotAllowed => "not-allowed",
            Code::Exists => "exists",
            Code::NoSuchUser => "no-such-user",
            Code::WrongPassword => "wrong-password",
            Code::KeyReused => "key-reused",
            Code::TooManyAttempts => "too-many-attempts",
            Code::NotReady => "not-ready",
            Code::NotPrimary => "not-primary",
            Code::TooFewCopies => "too-few-copies",
            Code::NoSpace => "no-space",
            Code::Busy => "busy",
            Code::Unreadable => "unreadable",
            Code::UnknownOutcome => "unknown-outcome",
        }
    }

    /// The code of this name, if there is one.
    pub fn named(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.name() == name)
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn write(out: &mut Vec<u8>, line: fmt::Arguments<'_>) {
    out.write_fmt(line).expect("a vector takes every byte");
}

/// `OK`, and what was asked for.
pub fn ok(out: &mut Vec<u8>, what: impl Display) {
    let before = out.len();
    write(out, format_args!("OK {what}"));
    // An answer without words is the bare word.
    if out.len() == before + "OK ".len() {
        out.pop();
    }
    out.push(b'\n');
}

/// `ERR`, the code, and words for a person: as many as a line holds.
pub fn error(out: &mut Vec<u8>, code: Code, words: impl Display) {
    let mut line = format!("ERR {code} {words}");
    let fits = (0..=line.len().min(LINE_BYTES_MAX - 1)).rev().find(|at| line.is_char_boundary(*at));
    line.truncate(fits.unwrap_or(0));
    write(out, format_args!("{line}\n"));
}

/// Why a server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The server ends.
    Stopping,
    /// It is primary no more.
    NotPrimary,
    /// The account is gone.
    Deleted,
    /// The password is another one.
    PasswordChanged,
    /// No request came in time.
    LoginTimeout,
    /// A change lost the copies that it was to have.
    TooFewCopies,
    /// The next message can't be read from this server's disk.
    Unreadable,
}

impl Note {
    fn code(self) -> &'static str {
        match self {
            Note::Stopping => "stopping",
            Note::NotPrimary => "not-primary",
            Note::Deleted => "deleted",
            Note::PasswordChanged => "password-changed",
            Note::LoginTimeout => "login-timeout",
            Note::TooFewCopies => "too-few-copies",
            Note::Unreadable => "unreadable",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Note::Stopping => "this server stops; connect to another one",
            Note::NotPrimary => "another server takes over; connect again",
            Note::Deleted => "this account was deleted",
            Note::PasswordChanged => "the password was changed; log in again",
            Note::LoginTimeout => "no request came before a login",
            Note::TooFewCopies => "fewer servers are attached than the settings ask for",
            Note::Unreadable => "the next message can't be read from the disk of this server",
        }
    }

    /// What a request gets that was still waiting, and stored nothing.
    pub fn refusal(self) -> Code {
        match self {
            Note::Stopping | Note::LoginTimeout => Code::NotReady,
            Note::NotPrimary => Code::NotPrimary,
            Note::Deleted | Note::PasswordChanged => Code::NotLoggedIn,
            Note::TooFewCopies => Code::TooFewCopies,
            Note::Unreadable => Code::Unreadable,
        }
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// `NOTE`, the code, and words for a person.
pub fn note(out: &mut Vec<u8>, note: Note) {
    write(out, format_args!("NOTE {} {note}\n", note.code()));
}

/// A message of a mailbox.
pub fn message(out: &mut Vec<u8>, n: u64, time: WallTime, from: &str, text: &str) {
    write(out, format_args!("MSG {n} {} {from} {text}\n", time.rfc3339()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn codes_are_found_by_their_names() {
        assert!(Code::ALL.into_iter().all(|code| Code::named(&code.to_string()) == Some(code)));
        let last = Code::ALL[Code::ALL.len() - 1] as usize;
        assert_eq!(last + 1, Code::ALL.len(), "all of them");
        assert_eq!(Code::named("no-such-code"), None);
    }

    #[test]
    fn lines() {
        assert_eq!(line(|out| ok(out, "")), "OK\n");
        assert_eq!(line(|out| ok(out, "ann 3")), "OK ann 3\n");
        assert_eq!(line(|out| ok(out, "a ")), "OK a \n");
        let exists = line(|out| error(out, Code::Exists, "ann has an account"));
        assert_eq!(exists, "ERR exists ann has an account\n");
        let stopping = line(|out| note(out, Note::Stopping));
        assert_eq!(stopping, "NOTE stopping this server stops; connect to another one\n");
        let long = line(|out| error(out, Code::NotPrimary, "ü".repeat(LINE_BYTES_MAX)));
        assert!(long.starts_with("ERR not-primary ü") && long.ends_with("ü\n"));
        assert!((LINE_BYTES_MAX - 1..=LINE_BYTES_MAX).contains(&long.len()), "{}", long.len());
        assert_eq!(
            line(|out| message(out, 7, WallTime(0), "bob", "a  b")),
            "MSG 7 1970-01-01T00:00:00.000Z bob a  b\n"
        );
    }
}
