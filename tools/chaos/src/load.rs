//! The background load: more connections than the recording clients have, checked by
//! `postern-load`.

use super::Options;
use postern_load::run::background::Background;
use postern_load::run::plan::Clients;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes per second that a slow reader reads.
const SLOW_BYTES: u64 = 5000;
/// How often the clients without keys close their connections and reconnect, all at once.
const STORM_SECONDS: f64 = 7.0;
/// Maximum time that a run may need after its last fault.
const EXTRA_TIME: Duration = Duration::from_secs(600);

/// Starts the load. The group must be healthy.
pub(super) fn start(servers: Vec<SocketAddr>, options: &Options) -> Result<Background, String> {
    let with_keys = Clients {
        connections: 16,
        outstanding: 8,
        bytes: options.bytes,
        rate: options.rate.div_ceil(2),
        mailboxes: 4,
        receivers: 4,
        once: true,
        ..Clients::default()
    };
    // Only without keys do outcomes become unknown. These clients include every other kind, too.
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
    Background::start(servers, clients, Duration::from_secs(options.seconds) + EXTRA_TIME)
}
