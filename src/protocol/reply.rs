//! The replies of a server to a client, whichever front end encodes them.

use crate::content::Content;
use crate::ids::UserName;
use crate::time::WallTime;
use serde::de::{self, value::StrDeserializer};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::{self, Display};

/// The code of an error, the first word after `ERR`. Clients may rely on it; the text after it
/// may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The command is unknown.
    BadCommand,
    /// A missing, extra or malformed argument, or an unfinished last line.
    BadArgument,
    /// Text with characters that are not allowed, or invalid UTF-8.
    BadText,
    /// A line or a text over its bound.
    TooLong,
    /// The request needs a login.
    NotLoggedIn,
    /// The connection is already logged in.
    AlreadyLoggedIn,
    /// Only an operator may do this.
    NotAllowed,
    /// An account has that name already.
    Exists,
    /// No account has that name.
    NoSuchUser,
    /// The password is wrong, or the account does not exist.
    WrongPassword,
    /// The server does not admit clients yet, or the primary could not answer in time.
    NotReady,
    /// The key was used for another message.
    KeyReused,
    /// The receiver's mailbox keeps as much as it may.
    MailboxFull,
    /// Too many wrong passwords came before.
    TooManyAttempts,
    /// This server is a backup.
    NotPrimary,
    /// Fewer servers are attached than `min_copies` requires.
    TooFewCopies,
    /// The disk of a server is nearly full.
    NoSpace,
    /// A limit of this server is reached.
    Busy,
    /// This server can't read the requested data from its disk.
    Unreadable,
    /// The change may or may not take effect.
    UnknownOutcome,
}

impl Code {
    /// Returns the code of this name, if any.
    pub fn named(name: &str) -> Option<Code> {
        Code::deserialize(StrDeserializer::<de::value::Error>::new(name)).ok()
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Why a server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The server stops.
    Stopping,
    /// The server is no longer primary.
    NotPrimary,
    /// The account was deleted.
    Deleted,
    /// The password was changed.
    PasswordChanged,
    /// The client sent no request in time.
    LoginTimeout,
    /// A change lost the copies that `min_copies` requires.
    TooFewCopies,
    /// The next message can't be read from this server's disk.
    Unreadable,
}

impl Note {
    /// The first word after `NOTE`. Clients may rely on it.
    pub fn code(self) -> &'static str {
        self.row().0
    }

    /// The error code for a request that was still waiting and has stored nothing.
    pub fn refusal(self) -> Code {
        self.row().1
    }

    fn row(self) -> (&'static str, Code, &'static str) {
        match self {
            Note::Stopping => {
                ("stopping", Code::NotReady, "this server stops; connect to another one")
            }
            Note::NotPrimary => {
                ("not-primary", Code::NotPrimary, "another server takes over; connect again")
            }
            Note::Deleted => ("deleted", Code::NotLoggedIn, "this account was deleted"),
            Note::PasswordChanged => {
                let words = "the password was changed; log in again";
                ("password-changed", Code::NotLoggedIn, words)
            }
            Note::LoginTimeout => {
                ("login-timeout", Code::NotReady, "no request came before a login")
            }
            Note::TooFewCopies => {
                let words = "fewer servers are attached than the settings ask for";
                ("too-few-copies", Code::TooFewCopies, words)
            }
            Note::Unreadable => {
                let words = "the next message can't be read from the disk of this server";
                ("unreadable", Code::Unreadable, words)
            }
        }
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}

/// A reply to a client. A front end encodes it.
#[derive(Clone)]
pub enum Reply<'a> {
    /// The answer to a completed request.
    Ok(Answer<'a>),
    /// The answer to a request that is refused, or has failed, with a text for people.
    Error(Code, Cow<'a, str>),
    /// Why the connection is closed.
    Note(Note),
    /// A message of the mailbox that the client reads.
    Message {
        /// Its number in the mailbox.
        n: u64,
        /// When it was stored.
        time: WallTime,
        /// The sender.
        from: UserName,
        /// What it says.
        content: Content<'a>,
        /// Whether the attributes come in lines of their own. If not, the text begins with the
        /// title.
        attributes: bool,
    },
    /// A message that the client has sent.
    Sent {
        /// Its number among all that the account has sent.
        i: u64,
        /// Its number in the receiver's mailbox.
        n: u64,
        /// When it was stored.
        time: WallTime,
        /// The receiver.
        to: UserName,
        /// What it says.
        content: Content<'a>,
        /// As of a message of the mailbox.
        attributes: bool,
    },
    /// The numbers of the first and the last of some messages that the client has sent, whose
    /// receivers were deleted since, or no longer keep them.
    Gone(u64, u64),
    /// The messages of the mailbox before this number are no longer kept.
    KeptFrom(u64),
    /// An account, before the answer to a request for a list.
    User {
        /// Its name.
        name: UserName,
        /// Whether a client is logged in to it.
        online: bool,
    },
    /// A name and a value of the server's state, before the answer to a request for them.
    Stat(&'a str, &'a str),
    /// The usage and purpose of a command, before the answer to a request for help.
    Help(&'a str),
}

/// The content of the answer to a completed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Nothing more.
    Done,
    /// A number: of a message, or of the lines that came before.
    Number(u64),
    /// An account.
    User(UserName),
    /// An account, and the number of its last message.
    Login(UserName, u64),
    /// The text that the client has sent.
    Echo(&'a str),
    /// The connection is closed.
    Bye,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_by_their_names() {
        let names = [
            "bad-command",
            "bad-argument",
            "bad-text",
            "too-long",
            "not-logged-in",
            "already-logged-in",
            "not-allowed",
            "exists",
            "no-such-user",
            "wrong-password",
            "not-ready",
            "key-reused",
            "mailbox-full",
            "too-many-attempts",
            "not-primary",
            "too-few-copies",
            "no-space",
            "busy",
            "unreadable",
            "unknown-outcome",
        ];
        for (at, name) in names.into_iter().enumerate() {
            let code = Code::named(name).expect(name);
            assert_eq!((code as usize, &code.to_string()[..]), (at, name));
        }
        assert_eq!(Code::UnknownOutcome as usize + 1, names.len(), "all of them");
        assert_eq!(Code::named("no-such-code"), None);
    }
}
