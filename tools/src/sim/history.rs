//! What clients asked and what they were told, held against the log in the end: everything
//! answered is there at its number, everything refused is not, what is unknown at most once.

use postern::mailbox::{Change, Mailboxes, Outcome as Applied};
use postern::record;
use std::collections::BTreeMap;

/// A request, as far as it leaves anything behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Send { text: String },
    Other,
}

/// How it ended. Without one it stays open for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Number(u64),
    Done,
    Refused,
    Unknown,
}

#[derive(Debug)]
struct Asked {
    client: u32,
    request: Request,
    at: u64,
    outcome: Option<(u64, Outcome)>,
}

/// Names a request of a [`History`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpId(usize);

/// Everything that was asked and answered.
#[derive(Debug, Default)]
pub(super) struct History {
    all: Vec<Asked>,
    /// Numbers under which texts were shown.
    shown: Vec<(u64, String)>,
    sends: usize,
}

impl History {
    pub(super) fn asked(&mut self, client: u32, at: u64, request: Request) -> OpId {
        self.all.push(Asked { client, request, at, outcome: None });
        OpId(self.all.len() - 1)
    }

    pub(super) fn answered(&mut self, op: OpId, at: u64, outcome: Outcome) {
        let asked = &mut self.all[op.0];
        let sent = matches!(outcome, Outcome::Number(_)) && asked.request != Request::Other;
        self.sends += usize::from(sent);
        asked.outcome = Some((at, outcome));
    }

    pub(super) fn shown(&mut self, number: u64, text: &str) {
        self.shown.push((number, text.to_owned()));
    }

    /// How many messages were answered.
    pub(super) fn sends(&self) -> usize {
        self.sends
    }

    /// How many requests were answered with success, refused, and neither.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let mut counts = (0, 0, 0);
        for asked in &self.all {
            match asked.outcome {
                Some((_, Outcome::Number(_) | Outcome::Done)) => counts.0 += 1,
                Some((_, Outcome::Refused)) => counts.1 += 1,
                _ => counts.2 += 1,
            }
        }
        counts
    }

    /// Compares everything with the answered entries of a log, in their order.
    pub(super) fn check(&self, answered: &[u8]) -> Result<(), String> {
        let found = numbers(answered)?;
        for asked in &self.all {
            let Request::Send { text } = &asked.request else { continue };
            let stood = found.get(text).map_or(&[][..], Vec::as_slice);
            let right = match asked.outcome {
                Some((_, Outcome::Number(n))) => stood == [n],
                Some((_, Outcome::Refused)) => stood.is_empty(),
                _ => stood.len() <= 1,
            };
            if !right {
                return Err(format!(
                    "client {} asked to send {text} at {} us and was told {:?}: the log has it \
                     at {stood:?}",
                    asked.client, asked.at, asked.outcome
                ));
            }
        }
        for (number, text) in &self.shown {
            if found.get(text).is_none_or(|stood| !stood.contains(number)) {
                return Err(format!("{text} was shown as {number} and does not stand there"));
            }
        }
        Ok(())
    }
}

/// Under which numbers each text was stored.
fn numbers(answered: &[u8]) -> Result<BTreeMap<String, Vec<u64>>, String> {
    let mut mailboxes = Mailboxes::default();
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in record::each(answered) {
        let record = record.map_err(|why| why.to_string())?;
        let Some(change) = Change::decode(record.kind, record.body) else { continue };
        let outcome = mailboxes.apply(record.index, &change);
        if let (Change::Message { text, .. }, Applied::Stored(n)) = (change, outcome) {
            found.entry(text.to_owned()).or_default().push(n);
        }
    }
    Ok(found)
}
