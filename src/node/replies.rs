//! Replies that several requests get.

use crate::ids::UserName;
use crate::mailbox::{Change, Outcome};
use crate::protocol::{Answer, Code, Reply, Words};

/// The password is wrong, or there is no such account: nobody learns which.
pub(super) const WRONG_PASSWORD: Reply<'static> =
    Reply::Error(Code::WrongPassword, Words::Text("the name or the password is wrong"));

pub(super) fn exists(user: UserName) -> Reply<'static> {
    Reply::Error(Code::Exists, Words::User("there is an account", user))
}

pub(super) fn no_such_user(user: UserName) -> Reply<'static> {
    Reply::Error(Code::NoSuchUser, Words::User("there is no account", user))
}

/// A position beyond the end of a mailbox.
pub(super) fn beyond_end(last: u64) -> Reply<'static> {
    Reply::Error(Code::BadArgument, Words::Number("the last message is number", last))
}

/// What came of a change that is in the log.
pub(super) fn outcome_of(change: &Change<'_>, outcome: Outcome) -> Reply<'static> {
    match (outcome, change) {
        (Outcome::Stored(n), _) => Reply::Ok(Answer::Number(n)),
        (Outcome::Done, Change::Create { user, .. }) => Reply::Ok(Answer::User(*user)),
        (Outcome::Done, _) => Reply::Ok(Answer::Done),
        (Outcome::Exists, Change::Create { user, .. }) => exists(*user),
        (Outcome::NoSuchUser, Change::Message { to, .. }) => no_such_user(*to),
        (Outcome::NotLoggedIn, _) => {
            Reply::Error(Code::NotLoggedIn, Words::Text("this account is no more"))
        }
        (Outcome::KeyReused, _) => {
            Reply::Error(Code::KeyReused, Words::Text("this key has stored another message"))
        }
        (Outcome::WrongPassword | Outcome::Exists | Outcome::NoSuchUser, _) => WRONG_PASSWORD,
    }
}
