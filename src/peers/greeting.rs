//! The hello, the first packet of each side of a link: how this server says its own, how it
//! judges another one, and the choice between two links to the same server.

use super::evidence::Evidence;
use super::peer::Link;
use super::{Env, Identity, Peers};
use crate::effect::{Closing, Effect, Obstacle};
use crate::ids::{DiskId, LinkId, Member, Position, Run, ServerId, Term};
use crate::limits::ANCESTRY_MAX;
use crate::packet::{Epoch, Hello, Packet, Past, Refusal};
use crate::rules::Rule;

/// What a hello says of this server's term and log.
#[derive(Clone, Debug)]
pub(crate) struct OwnState {
    pub(crate) term: Term,
    /// The disk of the server that began the term's epoch; `None` for the first epoch.
    pub(crate) founder: Option<DiskId>,
    /// The end of the stored log.
    pub(crate) last: Position,
    /// The epochs that the log holds, oldest first.
    pub(crate) epochs: Vec<Epoch>,
    /// The run with which the log last adds this server's disk.
    pub(crate) added: Option<Run>,
}

/// A server is linked, by a new link that stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Up {
    pub(crate) member: Member,
    /// It has started again since it was linked last, or since this server recorded a start.
    pub(crate) restarted: bool,
}

impl Env<'_> {
    /// Sends this server's hello.
    pub(crate) fn say_hello(&mut self, link: LinkId, to: ServerId, own: &OwnState) {
        self.peers.hellos += 1;
        let Identity { me, run, runs, former, shared } = &self.peers.own;
        let hello = Hello {
            shared: *shared,
            from: *me,
            to,
            run: *run,
            serial: self.peers.hellos,
            has_other: self.peers.has_link_or_greets(to),
            term: own.term,
            founder: own.founder,
            last: own.last,
        };
        let surplus = own.epochs.len().saturating_sub(ANCESTRY_MAX);
        let epochs = own.epochs[surplus..].to_vec();
        let past = Past { runs: runs.clone(), epochs, former: *former, added: own.added };
        let mut bytes = Vec::new();
        past.encode(&mut bytes);
        self.out.send_with(link, Packet::Hello(hello), bytes);
    }

    /// Judges who sends a hello: its group, its settings, its id.
    pub(crate) fn judge_sender(
        &self,
        hello: &Hello,
        dialled: Option<ServerId>,
    ) -> Result<(), Refusal> {
        let own = &self.peers.own;
        if hello.shared.group != own.shared.group {
            return Err(Refusal::Group);
        }
        if hello.shared != own.shared {
            return Err(Refusal::Settings);
        }
        if hello.from.id == own.me.id {
            return Err(Refusal::SameId);
        }
        let unexpected = dialled.is_some_and(|id| id != hello.from.id);
        let Some(peer) = self.peers.peer(hello.from.id) else { return Err(Refusal::WrongId) };
        if unexpected || hello.to != own.me.id {
            return Err(Refusal::WrongId);
        }
        if peer.is_shunned(self.now) { Err(Refusal::Nonsense) } else { Ok(()) }
    }

    /// Judges the directory of the sender: refuses an old copy, and remembers it. `added` is the
    /// run with which the group last added the disk. `forgot` means that the log lacks entries
    /// that the sender has acknowledged to this primary.
    ///
    /// The memory of one server is not enough to quarantine a directory, so only a server that
    /// `decides`, a primary that a majority answers, calls it an old copy.
    pub(crate) fn judge_directory(
        &mut self,
        (hello, past): (&Hello, &Past),
        added: Option<Run>,
        forgot: bool,
        decides: bool,
    ) -> Result<(), Refusal> {
        let copy = self.peers.seen.copy_rule(hello.from.disk, &past.runs, added);
        let Some(rule) = copy.or(forgot.then_some(Rule::RefusedForgot)) else { return Ok(()) };
        self.peers.note(rule);
        if rule == Rule::RefusedCopy {
            self.peers.seen.note_copy(hello.from.disk, &past.runs);
            self.store_seen(hello.from.disk);
        }
        Err(if decides { Refusal::OldCopy } else { Refusal::Doubtful })
    }

    /// Refuses a hello, and closes the link.
    pub(crate) fn refuse(&mut self, link: LinkId, from: Option<ServerId>, why: Refusal) {
        self.out.send(link, Packet::Refused(why));
        self.peers.note_obstacle(from, Obstacle::Refused(why));
        let from = from.unwrap_or(self.peers.own.me.id);
        self.out.push(Effect::Close(link, Closing::Refused(from, why)));
        let rule = match why {
            Refusal::Version => Rule::RefusedVersion,
            Refusal::Group => Rule::RefusedGroup,
            Refusal::Settings => Rule::RefusedSettings,
            Refusal::SameId => Rule::RefusedSameId,
            Refusal::WrongId => Rule::RefusedWrongId,
            Refusal::Epoch => Rule::RefusedEpoch,
            Refusal::Straggler | Refusal::Parted => Rule::RefusedStraggler,
            Refusal::Occupied => Rule::RefusedOccupied,
            // Noted with its reason.
            Refusal::OldCopy | Refusal::Doubtful | Refusal::Nonsense => return,
        };
        self.peers.note(rule);
    }

    /// Closes the link to a disk that the log has added with a run that the linked directory
    /// lacks.
    pub(crate) fn close_copies(&mut self, run_added: impl Fn(DiskId) -> Option<Run>) {
        let is_copy = |link: &Link| {
            let added = run_added(link.member.disk);
            added.is_some_and(|added| self.peers.seen.is_other_life(link.member.disk, added))
        };
        let copy = self.peers.all.iter().position(|peer| peer.link.as_ref().is_some_and(is_copy));
        let Some(at) = copy else { return };
        self.peers.note(Rule::RefusedCopy);
        let peer = &self.peers.all[at];
        let (id, link) = (peer.id, peer.link.as_ref().expect("it was just found").id);
        self.out.send(link, Packet::Refused(Refusal::Doubtful));
        self.lose_link(at, Some(Closing::Refused(id, Refusal::Doubtful)));
    }

    /// Links a server whose hello was accepted. Returns `None` if another link to the same
    /// process stays instead.
    pub(crate) fn establish(
        &mut self,
        (link, dialled): (LinkId, bool),
        (hello, past): (&Hello, &Past),
    ) -> Option<Up> {
        let new = Link::new(link, dialled, hello);
        let member = new.member;
        let at =
            self.peers.position(member.id).expect("the hello of an unknown server was refused");
        self.peers.note_reached(at, &new);
        if self.peers.all[at].link.as_ref().is_some_and(|old| !self.peers.replaces(&new, old)) {
            self.out.push(Effect::Close(new.id, Closing::Spare));
            return None;
        }
        let peer = &mut self.peers.all[at];
        peer.log_link(&new);
        if let Some(old) = peer.link.replace(new) {
            self.out.push(Effect::Close(old.id, Closing::Spare));
        }
        peer.reset_link_state();
        (peer.heard, peer.met, peer.former) = (Some(self.now), true, past.former);
        // The ping reports this server's health before any acknowledgement.
        peer.ping_due = true;
        if self.peers.own.shared.survivor_auto {
            // No server may continue alone without this evidence. In other setups the next ping
            // starts these dials, since a second link resets the packets in flight on the first
            // one.
            self.seek_links();
        }
        let restarted = self.peers.seen.note(member.disk, &past.runs);
        if restarted {
            self.store_seen(member.disk);
        }
        self.peers.changed = true;
        Some(Up { member, restarted })
    }
}

impl Peers {
    /// Returns whether this very process sent the hello: it has dialled itself.
    pub(crate) fn is_itself(&self, hello: &Hello) -> bool {
        hello.run.process == self.own.run.process
    }

    /// Records the epoch in the hello of a server that was not refused.
    pub(crate) fn note_epoch(&mut self, hello: &Hello) {
        if let Some(at) = self.position(hello.from.id) {
            self.all[at].epoch = Some(hello.term.epoch());
        }
    }

    /// Returns whether a new link to the same process replaces the one in use. Both servers choose
    /// the same one: the hellos of two links may arrive in either order, and the hello with the
    /// higher serial is later. For a link to another process see [`Env::waits_for_place`].
    fn replaces(&self, new: &Link, old: &Link) -> bool {
        let later = new.serial > old.serial;
        if later && !new.has_other {
            true
        } else if !later && !old.has_other {
            false
        } else if old.dialled == new.dialled {
            later
        } else {
            // The link that the server with the lower id dialled stays.
            new.dialled == (self.own.me.id < new.member.id)
        }
    }

    /// Records that a link was established, if only for a moment. If this server dialled it, the
    /// other one answers at its own address.
    fn note_reached(&mut self, at: usize, new: &Link) {
        let peer = &mut self.all[at];
        if peer.process.replace(new.process()) != Some(new.process()) {
            (peer.reached, peer.unreachable) = (false, None);
            peer.evidence = Evidence::default();
        }
        if new.dialled {
            (peer.reached, peer.unreachable) = (true, None);
        }
    }
}
