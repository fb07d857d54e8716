//! postern itself, under the same load.

use super::measure::{self, SETTINGS, TEXT_BYTES};
use super::table::Row;
use super::{Options, System, note, peer};
use crate::report::takeover;
use crate::run::accounts;
use crate::run::plan::Clients;
use crate::run::text::Sizes;
use postern_testkit::client::{self, Client};
use postern_testkit::group::{Group, SERVERS};
use postern_testkit::process;
use std::path::Path;
use std::time::Duration;

const MEANING: &str = "`SEND`: on the disks of all three servers (of those that are attached), and \
                       never to be undone";

/// What postern reaches.
///
/// # Errors
/// It could not be measured.
pub(crate) fn measure(postern: &Path, options: &Options) -> Result<Row, String> {
    let version = peer::version(postern, "--version")?;
    let mut row = Row {
        key: System::Postern.key(),
        title: format!("postern {version}"),
        version,
        meaning: MEANING,
        figures: Vec::new(),
        resident: Vec::new(),
        takeovers: Vec::new(),
    };
    let mut group = Group::start(postern, false)?;
    let measured = load(&mut row, &mut group, Duration::from_secs(options.seconds));
    measured.map_err(|why| format!("{why}\n{}", group.last_words()))?;
    drop(group);
    for _ in 0..options.kills {
        note("postern, kill -9 of the primary");
        let mut group = Group::start(postern, false)?;
        let primary = group.settle()?;
        client::create_accounts(group.address(primary))?;
        // Passwords that were right once need no hash afterwards.
        Client::log_in(group.address(primary))?.must(&client::send(TEXT_BYTES))?;
        group.kill(primary)?;
        let taken_over = takeover::take_over(&group, &takeover::others(&[primary]));
        row.takeovers.push(taken_over.map_err(|why| format!("{why}\n{}", group.last_words()))?);
    }
    Ok(row)
}

fn load(row: &mut Row, group: &mut Group, time: Duration) -> Result<(), String> {
    let server = group.settle()?;
    let server = group.address(server);
    let pids = (0..SERVERS).map(|at| group.pid(at)).collect::<Result<Vec<_>, _>>()?;
    for (connections, outstanding) in SETTINGS {
        note(&format!("postern, {connections}×{outstanding}"));
        let bytes = Sizes::fixed(TEXT_BYTES);
        let clients = Clients { connections, outstanding, bytes, ..Clients::default() };
        let clients = [clients.complete()?];
        let accounts = accounts::accounts(&format!("{connections}-{outstanding}"), &clients);
        accounts::create(server, &clients, &accounts)?;
        // Nobody reads, here as elsewhere.
        let mut part = accounts::part(&clients[0], &accounts[0]);
        part.read_back = None;
        row.figures.push(measure::measure(server, &pids, part, time)?);
    }
    for pid in pids {
        row.resident.push(process::memory(pid)?.resident);
    }
    Ok(())
}
