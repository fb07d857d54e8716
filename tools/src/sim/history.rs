//! What the log says of the mailboxes in the end, to be held against what clients were told.

use postern::mailbox::{Change, Mailboxes, Outcome};
use postern::record;
use std::collections::BTreeMap;

/// Sender and text of all messages of every mailbox, in their order.
pub(super) type Contents = BTreeMap<String, Vec<(String, String)>>;

/// What these records make of empty mailboxes.
pub(super) fn contents(records: &[u8]) -> Result<Contents, String> {
    let mut mailboxes = Mailboxes::default();
    let mut found = Contents::new();
    for record in record::each(records) {
        let record = record.map_err(|why| why.to_string())?;
        let Some(change) = Change::decode(record.kind, record.body) else { continue };
        match (&change, mailboxes.apply(record.index, &change)) {
            (Change::Message { to, from, text, .. }, Outcome::Stored(n)) => {
                let mailbox = found.entry(to.to_string()).or_default();
                mailbox.push((from.to_string(), (*text).to_owned()));
                if mailbox.len() as u64 != n {
                    return Err(format!("message {} of {to} has number {n}", mailbox.len()));
                }
            }
            (Change::Delete { user, .. }, Outcome::Done) => drop(found.remove(&user.to_string())),
            _ => {}
        }
    }
    Ok(found)
}
