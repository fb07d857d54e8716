//! The rate of `postern send` with a file, beside that of one connection of the load.

use crate::run::{drive_group, plan::Clients};
use crate::stats::{median, verdict};
use postern::limits::REQUESTS_MAX;
use postern_testkit::client::{self, Client};
use postern_testkit::group::Group;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LINES: usize = 100_000;
const LINE_BYTES: usize = 100;
const ROUNDS: usize = 5;
/// The target of the ratio of both rates.
const TARGET: f64 = 0.8;
/// Warm-up, measured time and timeout of the load, each round.
const SPANS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(10)];

/// Measures both in turns. `postern send` starts a process, logs in, reads a file and sends with
/// keys; the load has as many outstanding requests as a server accepts.
pub(super) fn measure(group: &mut Group) -> Result<String, String> {
    let primary = group.settle()?;
    let server = group.address(primary);
    client::create_accounts(server)?;
    Client::log_in(server)?;
    let file = group.folder().join("lines");
    let text = format!("{}\n", "x".repeat(LINE_BYTES)).repeat(LINES);
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let one = Clients { connections: 1, outstanding: REQUESTS_MAX, ..Clients::default() };
    let clients = [one.complete()?];
    let (mut sends, mut loads) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        loads.push(drive_group(group, &clients, SPANS, false)?.acked_per_second);
        sends.push(send_file(group.binary(), server, &file)?);
    }
    loads.sort_unstable_by(f64::total_cmp);
    let (send, load) = (LINES as f64 / median(&sends).as_secs_f64(), loads[ROUNDS / 2]);
    let ratio = send / load;
    Ok(format!(
        "  {LINES} lines of {LINE_BYTES} bytes, {ROUNDS} times: postern send {send:.0} per second, \
         one connection {load:.0}\n  ratio {ratio:.2} ({}); target: at least {TARGET}\n",
        verdict(ratio >= TARGET),
    ))
}

fn send_file(postern: &Path, server: SocketAddr, file: &Path) -> Result<Duration, String> {
    let input = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = Command::new(postern);
    command.args(["send", "--servers", &server.to_string(), client::SENDER, client::RECEIVER]);
    command.env("POSTERN_PASSWORD", client::PASSWORD).stdin(input).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().map_err(|error| format!("postern send: {error}"))?;
    let took = began.elapsed();
    if status.success() { Ok(took) } else { Err(format!("postern send: {status}")) }
}
