//! What a server sends to a client, whatever the front end makes of it.

use super::Refusal;
use crate::ids::UserName;
use crate::time::WallTime;
use std::fmt::{self, Display};

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
    /// The first word after `NOTE`: the contract.
    pub fn code(self) -> &'static str {
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

/// What a server sends to a client. A front end makes bytes of it.
#[derive(Clone, Copy)]
pub enum Reply<'a> {
    /// The answer to a request that is done.
    Ok(Answer<'a>),
    /// The answer to a request that is refused, or has failed.
    Error(Code, Words<'a>),
    /// Why the connection is closed.
    Note(Note),
    /// A message of the mailbox that the client reads.
    Message {
        /// Its number in the mailbox.
        n: u64,
        /// When it was stored.
        time: WallTime,
        /// Who has sent it.
        from: UserName,
        /// What it says.
        text: &'a str,
    },
    /// An account, before the answer to a request for a list.
    User {
        /// Its name.
        name: UserName,
        /// Someone is logged in as it.
        online: bool,
    },
    /// A value of the server's state, before the answer to a request for that.
    Stat(&'a str, &'a str),
    /// How a request is written and what it does, before the answer to a request for help.
    Help(&'a str),
}

/// What is said of a request that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Nothing more.
    Done,
    /// A number: of a message, or how many lines came before.
    Number(u64),
    /// An account.
    User(UserName),
    /// An account, and the number of its last message.
    Login(UserName, u64),
    /// What the client has sent.
    Echo(&'a str),
    /// The connection is closed.
    Bye,
}

/// Why a request is refused or has failed, for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words<'a> {
    /// A sentence.
    Text(&'a str),
    /// A sentence that ends with an account.
    User(&'static str, UserName),
    /// A sentence that ends with a number.
    Number(&'static str, u64),
    /// A malformed request; how it is written follows.
    Malformed(&'a Refusal),
    /// That of a note.
    Note(Note),
}

impl Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Words::Text(text) => f.write_str(text),
            Words::User(text, user) => write!(f, "{text} {user}"),
            Words::Number(text, number) => write!(f, "{text} {number}"),
            Words::Malformed(refusal) => refusal.fmt(f),
            Words::Note(note) => note.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_by_their_names() {
        assert!(Code::ALL.into_iter().all(|code| Code::named(&code.to_string()) == Some(code)));
        let last = Code::ALL[Code::ALL.len() - 1] as usize;
        assert_eq!(last + 1, Code::ALL.len(), "all of them");
        assert_eq!(Code::named("no-such-code"), None);
    }
}
