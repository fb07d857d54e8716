//! What the log says of the mailboxes in the end, to be held against what clients were told.

use super::process::secret;
use postern::mailbox::{Change, Mailboxes, Outcome};
use postern::record;
use std::collections::BTreeMap;

/// Sender and text of all messages of every mailbox, in their order.
pub(super) type Contents = BTreeMap<String, Vec<(String, String)>>;

/// What these records make of empty mailboxes.
pub(super) fn contents(records: &[u8]) -> Result<Contents, String> {
    let mut mailboxes = Mailboxes::new(&secret());
    let mut found = Contents::new();
    for record in record::each(records) {
        let record = record.map_err(|why| why.to_string())?;
        let Some(change) = Change::decode(record.kind, record.body) else { continue };
        match (&change, mailboxes.apply(record.index, &change)) {
            (Change::Message { to, from, key, text, .. }, Outcome::Stored(n)) => {
                let mailbox = found.entry(to.to_string()).or_default();
                let message = (from.to_string(), (*text).to_owned());
                let place = n as usize - 1;
                match mailbox.get(place) {
                    // What a key has stored before.
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
