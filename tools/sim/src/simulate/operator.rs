//! An operator who orders a handover over a link of its own.

use super::kernel::ConnId;
use super::link_end::LinkEnd;
use super::process::{GROUP, Incoming};
use super::world::{World, address_of};
use postern::ids::ServerId;
use postern::replica::{Packet, RoleView};

/// The operator. At most one order waits for the handshake of its connection.
#[derive(Default)]
pub(super) struct Operator {
    connections: u64,
    waiting: Option<(ConnId, LinkEnd, Option<ServerId>)>,
}

impl Operator {
    /// Whether this is the operator's connection.
    pub(super) fn has(&self, conn: ConnId) -> bool {
        self.waiting.as_ref().is_some_and(|(own, ..)| *own == conn)
    }
}

impl World {
    /// Sends the order of an operator to the primary; without a primary, to server `n`. The order
    /// names the member `to` that takes over; `None` allows any member.
    pub(super) fn order_handover(&mut self, n: usize, to: Option<ServerId>) -> bool {
        let leads = |n: &usize| {
            let process = self.servers[*n].process.as_ref();
            process.is_some_and(|process| process.node().replica().role() == RoleView::Primary)
        };
        let n = (0..3).find(leads).unwrap_or(n);
        if self.servers[n].process.is_none() {
            return false;
        }
        // No end of a connection in the network has such a number.
        self.operator.connections += 1;
        let conn = ConnId(u64::MAX - self.operator.connections);
        let (end, first) = LinkEnd::dialler(self.settings.encrypts);
        self.operator.waiting = Some((conn, end, to));
        self.servers[n].inbox.push(Incoming::Opened(conn, address_of(conn)));
        self.deliver(n, Incoming::Bytes(conn, first));
        true
    }

    /// Handles bytes of server `n`. They complete the handshake: the operator sends its order and
    /// ends the connection.
    pub(super) fn on_operator_bytes(&mut self, n: usize, conn: ConnId, bytes: &[u8]) {
        let Some((_, mut end, to)) = self.operator.waiting.take() else { return };
        if end.receive(bytes).is_err() {
            return; // the server refuses the connection, in plain text
        }
        let order = Packet::Order { group: GROUP, to };
        let inbox = &mut self.servers[n].inbox;
        inbox.push(Incoming::Bytes(conn, end.send(&order, &[])));
        inbox.push(Incoming::Finished(conn));
    }
}
