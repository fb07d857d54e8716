//! The mailboxes at the end of a run, to compare with the answers to clients.

use super::process::secret;
use postern::ids::UserName;
use postern::limits::SKEW_MAX;
use postern::mailbox::{Change, Forget, Mailboxes, Outcome};
use postern::node::Retention;
use postern::protocol::as_line;
use postern::record::{self, BadRecord};
use postern::time::WallTime;
use std::collections::BTreeMap;

/// The sender and text of each message, by mailbox.
pub(super) type Contents = BTreeMap<String, Vec<(String, String)>>;

/// What records have done.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// All messages, also those that are forgotten.
    pub(super) contents: Contents,
    /// How many are forgotten.
    pub(super) forgotten: u64,
}

/// Applies records to empty mailboxes. Nothing may be forgotten that the settings keep.
pub(super) fn replay(records: &[u8], retention: Retention) -> Result<Replayed, String> {
    let mut mailboxes = Mailboxes::new(&secret());
    let mut found = Contents::new();
    let mut times: BTreeMap<String, Vec<WallTime>> = BTreeMap::new();
    let mut forgotten = 0;
    for record in record::each(records) {
        let record = record.map_err(BadRecord::as_str)?;
        let Some(change) = Change::decode(record.kind, record.body) else { continue };
        let before = mailboxes.messages();
        match (&change, mailboxes.apply(record.index, &change)) {
            (Change::Message { to, from, key, content, .. }, Outcome::Stored(n)) => {
                let mailbox = found.entry(to.to_string()).or_default();
                let message = (from.to_string(), as_line(content.text).into_owned());
                let place = n as usize - 1;
                match mailbox.get(place) {
                    // A repetition of a message with the same key.
                    Some(known) if key.is_some() && *known == message => {}
                    None if place == mailbox.len() => {
                        mailbox.push(message);
                        times.entry(to.to_string()).or_default().push(record.time);
                    }
                    _ => return Err(format!("message {} of {to} has number {n}", mailbox.len())),
                }
            }
            (Change::Delete { user, .. }, Outcome::Done) => {
                found.remove(&user.to_string());
                times.remove(&user.to_string());
            }
            (Change::Forget(forgets), _) => {
                forgotten += before - mailboxes.messages();
                for Forget { user, .. } in forgets.each() {
                    let times = times.get(&user.to_string()).map_or(&[][..], Vec::as_slice);
                    check_kept(&mailboxes, user, times, record.time, retention)?;
                }
            }
            _ => {}
        }
    }
    Ok(Replayed { contents: found, forgotten })
}

/// Checks what a mailbox keeps after an entry of the time `now`. `times` are those of its messages.
fn check_kept(
    mailboxes: &Mailboxes,
    user: UserName,
    times: &[WallTime],
    now: WallTime,
    retention: Retention,
) -> Result<(), String> {
    let Some(account) = mailboxes.account(user) else { return Ok(()) };
    let is_needed = |most: u64| account.kept() < most && account.forgotten.messages > 0;
    let Some(newest) = account.forgotten.messages.checked_sub(1) else { return Ok(()) };
    let age = times.get(newest as usize).map(|time| now.0.saturating_sub(time.0));
    let is_old = retention.keep_time.is_some_and(|keep| {
        age.is_none_or(|age| age + SKEW_MAX.as_millis() as u64 >= keep.as_millis() as u64)
    });
    if !is_old && retention.keep_messages.is_none_or(is_needed) {
        let (kept, newest) = (account.kept(), newest + 1);
        return Err(format!("{user} keeps {kept} messages, and has forgotten {newest} too early"));
    }
    Ok(())
}
