//! Checks what accounts have sent against the mailboxes.

use super::{Check, Finding};
use std::collections::BTreeMap;

/// A message of an account's `SENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its own number, from 1.
    pub i: u64,
    /// Its number in the receiver's mailbox.
    pub n: u64,
    /// The receiver.
    pub to: String,
    /// The text.
    pub text: String,
}

/// Checks the whole `SENT` of an account that was never deleted, as read after the last answer.
/// `last` holds the mailboxes, as in [`History::check`](super::History::check); none of their
/// accounts was deleted.
///
/// # Errors
/// Returns the first violation.
pub fn check_sent(
    user: &str,
    sent: &[Sent],
    last: &BTreeMap<String, Vec<(String, String)>>,
) -> Result<(), Finding> {
    let wrong = |check, why: String| Err(Finding { check, message: format!("{user}: SENT {why}") });
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for (expected, Sent { i, n, to, text }) in (1..).zip(sent) {
        if *i != expected {
            return wrong(Check::Dense, format!("{i} was read in place of {expected}"));
        }
        let place = usize::try_from(n - 1).expect("a mailbox is in memory");
        let message = last.get(to).and_then(|mailbox| mailbox.get(place));
        if message.is_none_or(|(from, stored)| from != user || stored != text) {
            return wrong(Check::Kept, format!("{i} names message {n} of {to}, which is another"));
        }
        // One account sends in the order of the log, which is that of each mailbox.
        let before = newest.insert(to, *n).unwrap_or(0);
        if before >= *n {
            return wrong(Check::Dense, format!("{i} of {to} has number {n}, after {before}"));
        }
    }
    let stored = last.values().flatten().filter(|(from, _)| from == user).count();
    if stored != sent.len() {
        return wrong(Check::Kept, format!("lists {} of {stored} stored messages", sent.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_what_the_mailboxes_hold() {
        let mailbox = |messages: &[(&str, &str)]| {
            messages.iter().map(|(from, text)| ((*from).to_owned(), (*text).to_owned())).collect()
        };
        let last = BTreeMap::from([
            ("bob".to_owned(), mailbox(&[("ann", "a"), ("cyd", "b"), ("ann", "c")])),
            ("cyd".to_owned(), mailbox(&[("ann", "d")])),
        ]);
        let sent = |i, n, to: &str, text: &str| {
            let (to, text) = (to.to_owned(), text.to_owned());
            Sent { i, n, to, text }
        };
        let good = [sent(1, 1, "bob", "a"), sent(2, 1, "cyd", "d"), sent(3, 3, "bob", "c")];
        check_sent("ann", &good, &last).unwrap();
        check_sent("bob", &[], &last).unwrap();
        let changed = |at: usize, change: &dyn Fn(&mut Sent)| {
            let mut sent = good.to_vec();
            change(&mut sent[at]);
            check_sent("ann", &sent, &last).unwrap_err().check
        };
        assert_eq!(changed(1, &|sent| sent.i = 3), Check::Dense);
        assert_eq!(changed(1, &|sent| sent.n = 2), Check::Kept);
        assert_eq!(changed(1, &|sent| sent.to = "dan".to_owned()), Check::Kept);
        assert_eq!(changed(0, &|sent| sent.text = "b".to_owned()), Check::Kept);
        assert_eq!(changed(0, &|sent| sent.n = 2), Check::Kept);
        let swapped = [sent(1, 3, "bob", "c"), sent(2, 1, "bob", "a"), sent(3, 1, "cyd", "d")];
        assert_eq!(check_sent("ann", &swapped, &last).unwrap_err().check, Check::Dense);
        let fewer = check_sent("ann", &good[..2], &last).unwrap_err();
        assert_eq!(fewer.check, Check::Kept);
    }
}
