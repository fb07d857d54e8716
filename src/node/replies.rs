//! Replies that several kinds of requests share.

use crate::ids::UserName;
use crate::mailbox::{Change, Outcome};
use crate::protocol::{Answer, Code, Reply};
use std::borrow::Cow;

/// The reply to a wrong password and to an unknown account. It does not reveal which.
pub(super) const WRONG_PASSWORD: Reply<'static> =
    Reply::Error(Code::WrongPassword, Cow::Borrowed("the name or the password is wrong"));

/// The reply to a change that is logged, when the session ends before the change is acknowledged.
pub(super) const UNKNOWN_OUTCOME: Reply<'static> =
    Reply::Error(Code::UnknownOutcome, Cow::Borrowed("this change may or may not take effect"));

/// Returns an error with this text.
pub(super) fn error<'a>(code: Code, text: impl Into<Cow<'a, str>>) -> Reply<'a> {
    Reply::Error(code, text.into())
}

pub(super) fn exists(user: UserName) -> Reply<'static> {
    error(Code::Exists, format!("there is an account {user}"))
}

pub(super) fn no_such_user(user: UserName) -> Reply<'static> {
    error(Code::NoSuchUser, format!("there is no account {user}"))
}

pub(super) fn mailbox_full(user: UserName) -> Reply<'static> {
    error(Code::MailboxFull, format!("the mailbox of {user} is full"))
}

/// Returns the reply to a position beyond the end of a mailbox.
pub(super) fn beyond_end(last: u64) -> Reply<'static> {
    error(Code::BadArgument, format!("the last message is number {last}"))
}

/// Returns the reply to a change that was applied.
pub(super) fn outcome_of(change: &Change<'_>, outcome: Outcome) -> Reply<'static> {
    match (outcome, change) {
        (Outcome::Stored(n), _) => Reply::Ok(Answer::Number(n)),
        (Outcome::Done, Change::Create { user, .. }) => Reply::Ok(Answer::User(*user)),
        (Outcome::Done, _) => Reply::Ok(Answer::Done),
        (Outcome::Exists, Change::Create { user, .. }) => exists(*user),
        (Outcome::NoSuchUser, Change::Message { to, .. }) => no_such_user(*to),
        (Outcome::MailboxFull, Change::Message { to, .. }) => mailbox_full(*to),
        (Outcome::NotLoggedIn, _) => error(Code::NotLoggedIn, "this account was deleted"),
        (Outcome::KeyReused, _) => error(Code::KeyReused, "this key has stored another message"),
        (
            Outcome::WrongPassword | Outcome::Exists | Outcome::NoSuchUser | Outcome::MailboxFull,
            _,
        ) => WRONG_PASSWORD,
    }
}
