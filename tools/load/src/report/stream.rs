//! Lines from a file: what `postern send` makes of them, beside what one connection can carry.

use crate::stats::{median, verdict};
use postern_testkit::client::{self, Client};
use postern_testkit::group::Group;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LINES: usize = 100_000;
const LINE_BYTES: usize = 100;
const ROUNDS: usize = 5;
/// The share of one connection's rate that `send` must reach.
const TARGET: f64 = 0.8;

/// Both in turns, in one run: `send` repeats safely, starts a process, logs in and reads a file;
/// the other one just writes and counts.
pub(crate) fn measure(group: &mut Group) -> Result<String, String> {
    let primary = group.settle()?;
    let server = group.address(primary);
    client::create_accounts(server)?;
    Client::log_in(server)?;
    let file = group.folder().join("lines");
    let text = format!("{}\n", "x".repeat(LINE_BYTES)).repeat(LINES);
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let (mut sends, mut raws) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raws.push(write_raw(server)?);
        sends.push(send_file(group.binary(), server, &file)?);
    }
    let rate = |times: &[Duration]| LINES as f64 / median(times).as_secs_f64();
    let ratio = rate(&sends) / rate(&raws);
    Ok(format!(
        "  {LINES} lines of {LINE_BYTES} bytes, {ROUNDS} times: postern send {:.0} per second, one \
         connection {:.0}\n  send is {ratio:.2} times that ({}); target: at least {TARGET}\n",
        rate(&sends),
        rate(&raws),
        verdict(ratio >= TARGET),
    ))
}

/// Writes requests as fast as the server takes them, and counts answers.
fn write_raw(server: SocketAddr) -> Result<Duration, String> {
    let lost = |error: std::io::Error| format!("{server}: {error}");
    let requests = format!("{}\n", client::send(LINE_BYTES)).repeat(LINES);
    let stream = TcpStream::connect(server).map_err(lost)?;
    let mut writer = stream.try_clone().map_err(lost)?;
    let began = Instant::now();
    let write = move || {
        writer.write_all(format!("{}\n", client::login()).as_bytes())?;
        writer.write_all(requests.as_bytes())?;
        writer.shutdown(Shutdown::Write)
    };
    let writer = thread::spawn(write);
    let mut good = 0;
    for line in BufReader::new(stream).lines() {
        good += usize::from(client::is_ok(&line.map_err(lost)?));
    }
    let took = began.elapsed();
    writer.join().map_err(|_| "the writer panicked".to_owned())?.map_err(lost)?;
    match good {
        // The login's answer is one, too.
        good if good == LINES + 1 => Ok(took),
        good => Err(format!("{good} good answers to {LINES} requests and a login")),
    }
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
