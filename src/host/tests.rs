//! A turn leaves nothing undone, for no deadline would start the next one.

use super::*;
use crate::ids::{DiskId, GroupId, Index, LinkId, Secret, ServerId};
use crate::node::{self, Job};
use crate::replica::{Closing, Shared, Takeover};
use crate::store::memory::MemoryDisk;
use crate::store::{FileJob, Identity, Opening};
use std::collections::VecDeque;
use std::time::Duration;

/// Edges whose links break one after the other, each when frames are flushed.
#[derive(Default)]
struct Breaking {
    breaks: VecDeque<LinkId>,
    gone: VecDeque<Input<'static>>,
    appended: usize,
}

impl Edges for Breaking {
    fn clock(&mut self) -> (Moment, WallTime) {
        (Moment(1), WallTime(1))
    }

    fn gauges(&self) -> Gauges {
        Gauges::default()
    }

    fn send(
        &mut self,
        _: LinkId,
        _: Packet,
        _: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn dial(&mut self, _: ServerId) {}

    fn close_link(&mut self, _: LinkId, _: Closing) {}

    fn flush_links(&mut self) {
        let ended = self.breaks.pop_front().map(|link| Input::Replica(Event::Ended { link }));
        self.gone.extend(ended);
    }

    fn hash(&mut self, _: Job) {}

    fn make(&mut self, _: FileJob) {}

    fn write(&mut self, _: SessionId, output: &mut Vec<u8>, _: bool) -> bool {
        output.clear();
        false
    }

    fn finish(&mut self, _: SessionId) {}

    fn resume(&mut self, _: SessionId) {}

    fn next_gone(&mut self) -> Option<Input<'static>> {
        self.gone.pop_front()
    }

    fn warn(&mut self, _: &str) {}

    fn on_append(&mut self, _: &[u8]) {
        self.appended += 1;
    }

    fn on_cut(&mut self, _: Index) {}
}

/// Returns server 1 of a group of `servers`, on an empty disk.
fn host(servers: u8) -> Host<MemoryDisk> {
    let id = ServerId::new(1).unwrap();
    let identity = Identity::new(GroupId(1), servers, id, DiskId(1));
    let empty = crate::mailbox::Mailboxes::new(&Secret::new([7; Secret::BYTES]));
    let opening = Opening { expected: &identity, label: "0", empty: &empty };
    let opened = Store::open(MemoryDisk::default(), &opening, &mut |_| {}).unwrap();
    let shared = Shared {
        group: GroupId(1),
        servers,
        peer_timeout_ms: 2000,
        copies_min: 1,
        survivor_auto: false,
    };
    let node = node::Setup {
        addresses: (1..=servers).map(|n| format!("lab{n}:5001")).collect(),
        login_timeout: Duration::from_secs(60),
        accounts_open: true,
        secret: Secret::new([7; Secret::BYTES]),
        recovery: String::new(),
        former: Vec::new(),
        digest_entries: crate::limits::DIGEST_ENTRIES,
        settings: String::new(),
        retention: Default::default(),
    };
    let scrub = ScrubSettings { bytes_per_second: 0, round: Duration::from_secs(3600) };
    let setup = Setup { shared, takeover: Takeover::Rank, seed: 1, scrub, node };
    Host::build(opened, setup)
}

#[test]
fn links_that_end_while_frames_leave_are_reported_in_the_same_turn() {
    let mut host = host(3);
    for count in 0..4 {
        let mut edges = Breaking::default();
        edges.breaks.extend((0..count).map(LinkId));
        host.begin_turn(&mut edges).unwrap();
        host.finish_turn(&mut edges).unwrap();
        assert!(edges.breaks.is_empty() && edges.gone.is_empty(), "{count} links");
    }
}

#[test]
fn what_is_to_be_durable_wakes_the_loop_until_it_is() {
    let mut host = host(1);
    let mut edges = Breaking::default();
    let mut waited = 0;
    for _ in 0..20 {
        host.begin_turn(&mut edges).unwrap();
        host.finish_turn(&mut edges).unwrap();
        // What the node appended because of the sync is synced in the next turn.
        if host.store().has_unwritten() {
            waited += 1;
            assert_eq!(host.next_deadline(), Some(Moment(0)));
        }
    }
    assert!(edges.appended > 0 && waited > 0, "a group of one forms");
    assert_eq!(host.store().stored(), host.store().last());
    // A vote that is given after the sync of a turn is stored in the next one, which it starts.
    let storage = &mut host.core.storage;
    assert_ne!(storage.next_deadline(), Some(Moment(0)), "all is durable");
    storage.must_persist = Some(storage.vote);
    assert_eq!(storage.next_deadline(), Some(Moment(0)));
    storage.store_vote().unwrap();
    assert_ne!(storage.next_deadline(), Some(Moment(0)));
}
