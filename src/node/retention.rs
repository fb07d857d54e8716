//! Bounds the mailboxes as the settings ask for. The primary decides which old messages are
//! forgotten, and writes that into the log, so that all servers forget the same. Every server
//! applies these entries as any other one.

use super::deliver::{not_listed, read_list};
use super::{Context, Env, Node};
use crate::ids::{Index, UserName};
use crate::limits::{
    DAMAGED_TIME, EXAMINED_PER_TURN, FORGET_BYTES, FORGET_STEP_TIME, MESSAGES_PER_STEP, SKEW_MAX,
};
use crate::mailbox::{Account, Change, Forget, Forgets, Forgotten, Limits, List};
use crate::record::Record;
use crate::replica::{Config, RoleView};
use crate::time::{Moment, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How much mailboxes keep, by the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Older messages are forgotten: within a twenty-fourth of this time more, so that one entry
    /// forgets many. `None`: never.
    pub keep_time: Option<Duration>,
    /// How many of its newest messages a mailbox keeps. It forgets the others when it has a tenth
    /// more, or is full. `None`: it keeps all.
    pub keep_messages: Option<u64>,
    /// Beyond these a mailbox takes no more messages.
    pub limits: Limits,
}

impl Retention {
    fn forgets(&self) -> bool {
        self.keep_time.is_some() || self.keep_messages.is_some()
    }

    /// From one round over all mailboxes to the next.
    fn pause(&self) -> Option<Duration> {
        self.keep_time.map(|time| (time / 24).max(Duration::from_millis(1)))
    }

    /// Messages before this time are forgotten.
    fn cutoff(&self, wall: WallTime) -> Option<WallTime> {
        let (keep, step) = (self.keep_time?.as_millis() as u64, self.pause()?.as_millis() as u64);
        let oldest = wall.0.saturating_sub(keep);
        Some(WallTime(oldest - oldest % step))
    }

    /// The number of the last message of a mailbox that is one too many; 0 without any.
    fn surplus(&self, account: &Account) -> u64 {
        let Some(keep) = self.keep_messages else { return 0 };
        let most = keep.saturating_add(keep / 10).min(self.limits.messages.saturating_sub(1));
        if account.kept() > most.max(keep) { account.last() - keep } else { 0 }
    }
}

/// A round over all mailboxes.
#[derive(Debug)]
enum Round {
    /// It begins then.
    Due(Moment),
    /// It has reached this name.
    At(Option<UserName>),
    /// No more rounds are needed.
    Over,
}

/// A mailbox whose oldest messages are being read.
#[derive(Debug)]
struct Examined {
    user: UserName,
    account: Index,
    /// The messages up to this one are too many.
    surplus: u64,
    /// All that is to be forgotten, as far as it was read.
    forgotten: Forgotten,
}

/// The work of a primary on what mailboxes forget.
#[derive(Debug)]
pub(super) struct Forgetting {
    round: Round,
    /// Mailboxes that have got too many messages since.
    over: BTreeSet<UserName>,
    examined: Option<Examined>,
    /// When the oldest message of a mailbox was stored, by account, as the last round and this one
    /// have found it.
    oldest: [BTreeMap<Index, WallTime>; 2],
    /// The body of the next entry.
    body: Vec<u8>,
    /// Nothing is done until this entry is applied: the last one that was written, or the last one
    /// that was acknowledged when the server became the primary. `None` before that.
    written: Option<Index>,
    /// When the next messages are read.
    read_at: Moment,
    /// When the next step is due; `None` if only an event makes one necessary.
    deadline: Option<Moment>,
    /// When it was last logged that a message can't be read.
    unreadable_at: Option<Moment>,
}

impl Default for Forgetting {
    fn default() -> Forgetting {
        Forgetting {
            round: Round::Due(Moment(0)),
            over: BTreeSet::new(),
            examined: None,
            oldest: Default::default(),
            body: Vec::new(),
            written: None,
            read_at: Moment(0),
            deadline: None,
            unreadable_at: None,
        }
    }
}

impl Forgetting {
    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.deadline
    }
}

impl Node {
    /// Notes that a mailbox has got a message.
    pub(super) fn note_stored(&mut self, user: UserName) {
        let retention = self.setup.retention;
        if retention.keep_messages.is_some()
            && self.mailboxes.account(user).is_some_and(|account| retention.surplus(account) > 0)
        {
            self.forgetting.over.insert(user);
        }
    }

    /// Makes the next step, if one is due.
    pub(super) fn keep_retention(&mut self, env: &mut Env<'_>) {
        if self.replica.role() != RoleView::Primary || !self.replica.gate_open() {
            self.forgetting = Forgetting::default();
            return;
        }
        self.forgetting.deadline = None;
        let acknowledged = self.replica.acknowledged();
        if self.applied < *self.forgetting.written.get_or_insert(acknowledged)
            || self.stop.is_asked()
        {
            return;
        }
        let retention = self.setup.retention;
        if self.mailboxes.limits() != retention.limits {
            return self.write_retention(env, &Change::Limits(retention.limits));
        }
        if !retention.forgets() {
            return;
        }
        if !self.clocks_agree(env.now) {
            self.forgetting.deadline = Some(env.now + SKEW_MAX);
            return;
        }
        if env.now >= self.forgetting.read_at {
            let cutoff = retention.cutoff(env.world.wall);
            for _ in 0..EXAMINED_PER_TURN {
                if self.forgetting.examined.is_some() {
                    self.read_old(env.world, cutoff);
                    self.forgetting.read_at = env.now + FORGET_STEP_TIME;
                    break;
                }
                if !self.examine_next(env.now, cutoff) {
                    break;
                }
            }
            self.write_forgets(env);
        }
        let Forgetting { round, over, examined, read_at, .. } = &self.forgetting;
        let next = match round {
            _ if examined.is_some() || !over.is_empty() => Some(Moment(0)),
            Round::At(_) => Some(Moment(0)),
            Round::Due(at) => Some(*at),
            Round::Over => None,
        };
        self.forgetting.deadline = next.map(|next| next.max(*read_at));
    }

    /// Whether the clocks of all members show the same time, by and large. In a group of three, the
    /// clock of a single member shows nothing.
    fn clocks_agree(&self, now: Moment) -> bool {
        let members = self.replica.config().map_or(0, Config::count);
        members >= self.setup.addresses.len().min(2)
            && self.replica.clock_spread(now).is_some_and(|spread| spread <= SKEW_MAX)
    }

    /// Looks at the next mailbox. Returns false if there is none.
    fn examine_next(&mut self, now: Moment, cutoff: Option<WallTime>) -> bool {
        let forgetting = &mut self.forgetting;
        let user = match forgetting.over.pop_first() {
            Some(user) => user,
            None => {
                let after = match forgetting.round {
                    Round::Due(at) if at <= now => None,
                    Round::At(after) => after,
                    Round::Due(_) | Round::Over => return false,
                };
                let Some(user) = self.mailboxes.names_after(after).next() else {
                    let pause = self.setup.retention.pause();
                    forgetting.round = pause.map_or(Round::Over, |pause| Round::Due(now + pause));
                    forgetting.oldest.swap(0, 1);
                    forgetting.oldest[1].clear();
                    return false;
                };
                forgetting.round = Round::At(Some(user));
                user
            }
        };
        let Some(account) = self.mailboxes.account(user) else { return true };
        let (created, surplus) = (account.created(), self.setup.retention.surplus(account));
        let oldest = forgetting.oldest.iter().rev().find_map(|known| known.get(&created).copied());
        if let Some(oldest) = oldest {
            forgetting.oldest[1].insert(created, oldest);
        }
        let may_be_old = cutoff.is_some_and(|cutoff| oldest.is_none_or(|oldest| oldest < cutoff));
        if account.kept() > 0 && (surplus > 0 || may_be_old) {
            let (account, forgotten) = (created, account.forgotten);
            forgetting.examined = Some(Examined { user, account, surplus, forgotten });
        }
        true
    }

    /// Reads the next of the oldest messages of the examined mailbox. At the end, notes what it
    /// forgets.
    fn read_old(&mut self, world: &Context<'_>, cutoff: Option<WallTime>) {
        let Node { forgetting, mailboxes, delivery, .. } = self;
        let Some(Examined { user, account: created, surplus, mut forgotten }) =
            forgetting.examined.take()
        else {
            return;
        };
        let account = mailboxes.account(user).filter(|account| account.created() == created);
        let Some(account) = account else { return };
        let (next, last) = (forgotten.messages + 1, account.last());
        let (mut oldest, mut left, mut failed) = (None, MESSAGES_PER_STEP, Ok(()));
        let mut visit = |number: u64, _, record: &Record<'_>| {
            if number > surplus && cutoff.is_none_or(|cutoff| record.time >= cutoff) {
                oldest = Some(record.time);
                return false;
            }
            let bytes = match Change::decode(record.kind, record.body) {
                Some(Change::Message { content, .. }) => content.bytes(),
                Some(Change::Emptied { bytes, .. }) => bytes,
                _ => {
                    failed = Err(not_listed(record));
                    return false;
                }
            };
            forgotten = Forgotten { messages: number, bytes: forgotten.bytes + bytes };
            left -= 1;
            left > 0
        };
        let part = (account, List::Received, next, last);
        let read = read_list(world, mailboxes, part, &mut delivery.reading, &mut visit);
        if let Err(error) = read.and(failed) {
            let logged_at = forgetting.unreadable_at;
            if logged_at.is_none_or(|last| world.now >= last + DAMAGED_TIME) {
                forgetting.unreadable_at = Some(world.now);
                let number = forgotten.messages + 1;
                log::error!("message {number} of {user} can't be read, and stays: {error}");
            }
        } else if oldest.is_none() && forgotten.messages < last {
            // There is more to read.
            forgetting.examined = Some(Examined { user, account: created, surplus, forgotten });
            return;
        }
        if let Some(oldest) = oldest {
            forgetting.oldest[1].insert(created, oldest);
        }
        if forgotten.messages > account.forgotten.messages {
            Forget { user, account: created, forgotten }.encode(&mut forgetting.body);
        }
    }

    /// Writes what is to be forgotten, once no more is found or an entry is full.
    fn write_forgets(&mut self, env: &mut Env<'_>) {
        let Forgetting { round, over, examined, body, .. } = &mut self.forgetting;
        let waits = examined.is_none() && over.is_empty() && !matches!(round, Round::At(_));
        if body.is_empty() || (!waits && body.len() < FORGET_BYTES) {
            return;
        }
        let body = std::mem::take(body);
        let forgets = Forgets::decode(&body).expect("it was encoded here");
        self.write_retention(env, &Change::Forget(forgets));
    }

    fn write_retention(&mut self, env: &mut Env<'_>, change: &Change<'_>) {
        let encode = |body: &mut Vec<u8>| change.encode(body);
        let (now, wall) = (env.now, env.world.wall);
        match self.replica.propose(now, wall, change.kind(), encode, &mut env.out.replica) {
            Ok(index) => self.forgetting.written = Some(index),
            // The next round reads the oldest messages of all mailboxes again.
            Err(_) => {
                let (round, deadline) = (Round::Due(now + DAMAGED_TIME), Some(now + DAMAGED_TIME));
                self.forgetting = Forgetting { round, deadline, ..Forgetting::default() };
            }
        }
    }
}
