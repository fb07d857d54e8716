//! The load beside the clients that record everything: more connections, judged by the checker of
//! `postern-load`.

use postern_load::run::background::Background;
use postern_load::run::plan::Clients;
use postern_load::run::text::Sizes;
use std::net::SocketAddr;
use std::time::Duration;

/// How much slow readers read in a second.
const SLOW_BYTES: u64 = 5000;
/// How often the clients without keys close and reconnect, all at once.
const STORM_SECONDS: f64 = 7.0;
/// A run takes at most so much longer than its time; the load ends then.
const EXTRA_TIME: Duration = Duration::from_secs(600);

/// What the load sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Messages a second, whatever the group does: what is delayed is sent at once afterwards.
    pub(super) rate: u64,
    /// The lengths of texts.
    pub(super) bytes: Sizes,
    /// How long faults are injected.
    pub(super) time: Duration,
}

/// Starts the load on a group that is whole.
pub(super) fn start(servers: Vec<SocketAddr>, load: Rate) -> Result<Background, String> {
    let with_keys = Clients {
        connections: 16,
        outstanding: 8,
        bytes: load.bytes,
        rate: load.rate.div_ceil(2),
        mailboxes: 4,
        receivers: 4,
        once: true,
        ..Clients::default()
    };
    // Their outcomes may be unknown. Beside them, every other kind of client.
    let without_keys = Clients {
        mailboxes: 2,
        receivers: 2,
        slow: 2,
        slow_bytes: SLOW_BYTES,
        idle: 8,
        storm: STORM_SECONDS,
        once: false,
        ..with_keys.clone()
    };
    let clients = vec![with_keys.complete()?, without_keys.complete()?];
    Background::start(servers, clients, load.time + EXTRA_TIME)
}
