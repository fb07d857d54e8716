//! The mailboxes at the end of a run, to compare with the answers to clients.

use super::process::secret;
use postern::mailbox::{Change, Mailboxes, Outcome};
use postern::protocol::as_line;
use postern::record::{self, BadRecord};
use std::collections::BTreeMap;

/// The sender and text of each message, by mailbox.
pub(super) type Contents = BTreeMap<String, Vec<(String, String)>>;

/// Applies records to empty mailboxes.
pub(super) fn contents(records: &[u8]) -> Result<Contents, String> {
    let mut mailboxes = Mailboxes::new(&secret());
    let mut found = Contents::new();
    for record in record::each(records) {
        let record = record.map_err(BadRecord::as_str)?;
        let Some(change) = Change::decode(record.kind, record.body) else { continue };
        match (&change, mailboxes.apply(record.index, &change)) {
            (Change::Message { to, from, key, content, .. }, Outcome::Stored(n)) => {
                let mailbox = found.entry(to.to_string()).or_default();
                let message = (from.to_string(), as_line(content.text).into_owned());
                let place = n as usize - 1;
                match mailbox.get(place) {
                    // A repetition of a message with the same key.
                    Some(known) if key.is_some() && *known == message => {}
                    None if place == mailbox.len() => mailbox.push(message),
                    _ => return Err(format!("message {} of {to} has number {n}", mailbox.len())),
                }
            }
            (Change::Delete { user, .. }, Outcome::Done) => drop(found.remove(&user.to_string())),
            _ => {}
        }
    }
    Ok(found)
}
