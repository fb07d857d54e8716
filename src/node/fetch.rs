//! Fetches acknowledged entries from other servers, in the place of those that this server can't
//! read any more. Any linked server may have them, whether there is a primary or not.

use super::{Context, Node, Output};
use crate::ids::{Index, LinkId};
use crate::limits::{ENTRIES_BYTES_MAX, FETCH_TIME};
use crate::record::{self, Record};
use crate::replica::Packet;
use crate::time::Moment;

/// Entries that this server needs, all of them acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The first one.
    pub first: Index,
    /// The last one.
    pub last: Index,
}

/// The entries that are being fetched.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    wanted: Option<Wanted>,
    /// The link on which they were asked for, and when to ask on another one.
    asked: Option<(LinkId, Moment)>,
    /// What other servers have asked for, once on each link.
    requests: Vec<(LinkId, Wanted)>,
}

impl Fetching {
    /// When the next server is asked.
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.wanted.and(self.asked).map(|(_, until)| until)
    }
}

impl Node {
    /// Notes which entries are needed, and whether any part of the log is known to be damaged.
    pub(super) fn note_damaged(&mut self, now: Moment, is_damaged: bool, wanted: Option<Wanted>) {
        self.replica.note_damaged(now, is_damaged);
        if self.fetching.wanted != wanted {
            (self.fetching.wanted, self.fetching.asked) = (wanted, None);
        }
    }

    /// Asks the next linked server, if it is time to.
    pub(super) fn keep_fetching(&mut self, now: Moment, out: &mut Output) {
        let Some(Wanted { first, last }) = self.fetching.wanted else { return };
        let links: Vec<LinkId> = self.replica.links().collect();
        let asked = match self.fetching.asked {
            Some((link, until)) if now < until && links.contains(&link) => return,
            Some((link, _)) => links.iter().position(|other| *other == link),
            None => None,
        };
        let next = asked.map_or(0, |at| at + 1);
        let Some(link) = links.get(next).or(links.first()).copied() else {
            self.fetching.asked = None;
            return;
        };
        self.fetching.asked = Some((link, now + FETCH_TIME));
        out.replica.send(link, Packet::Fetch { first, last });
    }

    /// Notes what a server needs. It is answered once a turn.
    pub(super) fn on_fetch(&mut self, link: LinkId, wanted: Wanted) {
        self.fetching.requests.retain(|(of, _)| *of != link);
        self.fetching.requests.push((link, wanted));
    }

    /// Answers the servers that need entries: with the first ones of them, or with none. Who asks
    /// knows that they are acknowledged, and tells them by their terms.
    pub(super) fn answer_fetches(&mut self, world: &Context<'_>, out: &mut Output) {
        for (link, Wanted { first, last }) in std::mem::take(&mut self.fetching.requests) {
            if !self.replica.links().any(|open| open == link) {
                continue;
            }
            let mut records = Vec::new();
            copy_first(world, (first, last.min(self.replica.last())), &mut records);
            out.replica.send_with(link, Packet::Fetched, records);
        }
    }

    /// Takes the entries that another server has sent, if they are the wanted ones. An entry is
    /// told by its index and term, and is the same on all servers.
    pub(super) fn on_fetched(
        &mut self,
        now: Moment,
        link: LinkId,
        records: &[u8],
        out: &mut Output,
    ) {
        let Some(Wanted { first, last }) = self.fetching.wanted else { return };
        if self.fetching.asked.is_none_or(|(asked, _)| asked != link) {
            return;
        }
        let indexes = (first.0..=last.0).map(Index);
        let is_wanted = |(record, index): (Result<Record<'_>, _>, Option<Index>)| {
            record.is_ok_and(|record| {
                Some(record.index) == index
                    && self.replica.term_of(record.index) == Some(record.term)
            })
        };
        let expected = indexes.map(Some).chain(std::iter::repeat(None));
        let fits = record::each(records).zip(expected).all(is_wanted);
        if fits && !records.is_empty() {
            self.fetching.wanted = None;
            out.fetched = Some(records.to_vec());
        } else {
            // It has none of them. All may be in the same need: they are not asked without pause.
            self.fetching.asked = Some((link, now + FETCH_TIME / 10));
        }
    }
}

/// Appends the first records from `first` to `last` to `out`: as many as a frame holds, and as can
/// be read. What precedes a damaged entry helps, too; the damage is noted where it is read.
pub(super) fn copy_first(world: &Context<'_>, (first, last): (Index, Index), out: &mut Vec<u8>) {
    if first > Index::ZERO && first <= last {
        let through = world.log.last_within(first, last, ENTRIES_BYTES_MAX);
        let keep = &mut |record: &Record<'_>| out.extend_from_slice(record.bytes);
        let _ = world.log.for_each(first, through, keep);
    }
}
