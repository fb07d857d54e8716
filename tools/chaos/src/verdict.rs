//! The final check of the data directories and logs, after all servers were killed.

use postern::ids::{Index, Secret};
use postern::mailbox::Mailboxes;
use postern::record::Record;
use postern::replica::LogReader;
use postern::store::disk::RealDisk;
use postern::store::{Opening, Store, check};
use postern_testkit::group::{Group, SERVERS};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Checks that no data directory is damaged, that all of them hold the same entries, and that no
/// server has panicked. Returns the number of entries.
pub(super) fn check_servers(group: &Group) -> Result<usize, String> {
    let mut logs = Vec::new();
    for at in 0..SERVERS {
        let failed = |why: String| format!("server {}: {why}", at + 1);
        logs.push(read_log(group.data(at)).map_err(failed)?);
    }
    for (at, log) in logs.iter().enumerate().skip(1) {
        if *log != logs[0] {
            let first = log.iter().zip(&logs[0]).position(|(own, other)| own != other);
            let entry = first.unwrap_or(log.len().min(logs[0].len())) + 1;
            return Err(format!(
                "the logs of servers 1 and {} differ from entry {entry} on",
                at + 1
            ));
        }
    }
    let mut lines = (0..SERVERS).flat_map(|at| group.log_lines(at));
    lines.find(|line| line.contains("panicked")).map_or(Ok(logs[0].len()), Err)
}

/// Returns a hash of each entry. Fails where `postern check` would report damage.
fn read_log(data: &Path) -> Result<Vec<u64>, String> {
    let disk = RealDisk::open(data).map_err(|error| error.to_string())?;
    let found = check::check(&disk).map_err(|error| error.to_string())?;
    if !found.damage.is_empty() {
        return Err(found.damage.join("; "));
    }
    let identity = found.identity.ok_or("the data directory belongs to no server")?;
    // With another secret, all of the log is read.
    let empty = Mailboxes::new(&Secret::new([0; Secret::BYTES]));
    let opening = Opening { expected: &identity, label: "verdict", empty: &empty };
    let opened = Store::open(disk, &opening, &mut |_| {}).map_err(|error| error.to_string())?;
    let (store, mut hashes) = (opened.store, Vec::new());
    let hash = &mut |record: &Record<'_>| {
        let mut hasher = DefaultHasher::new();
        record.bytes.hash(&mut hasher);
        hashes.push(hasher.finish());
    };
    store.for_each(Index(1), store.last(), hash).map_err(|error| error.to_string())?;
    Ok(hashes)
}
