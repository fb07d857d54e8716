//! What clients at half load notice of work beside them: the refill of an empty server, a backup,
//! many logins. And how many bytes a server writes for the messages that it stores.

use super::{Amount, fill, log_bytes, segments};
use crate::run::{drive_group, plan::Clients};
use crate::stats::verdict;
use postern::commands::{Answer, ask_status};
use postern_testkit::client::PASSWORD;
use postern_testkit::group::{Group, SERVERS};
use procfs::process::Process;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The speed of a refill, relative to a bare copy.
const REFILL_TARGET: f64 = 0.5;
/// The p99 of clients beside other work, relative to that without.
const P99_TARGET: f64 = 2.0;
/// Bytes that a server writes, relative to those of the log: without and with index files and
/// checkpoints.
const WRITTEN_TARGETS: [f64; 2] = [1.1, 1.25];
/// Logins at once.
const LOGINS: u64 = 1000;
/// Warm-up, measured time and timeout of a load.
const SPANS: [Duration; 3] =
    [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(60)];
/// Within this time a load has created its accounts.
const ACCOUNTS_TIME: Duration = Duration::from_millis(2500);
/// After a refused login.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const WRITING_TIME: Duration = Duration::from_secs(20);
/// Bytes that a bare copy syncs at a time.
const COPY_SYNC_BYTES: usize = 8 * 1024 * 1024;

/// What clients notice of a backup, of logins, and of a refill.
pub(super) fn measure(group: &mut Group, amount: Amount) -> Result<String, String> {
    let rate = drive_group(group, &clients(0)?, SPANS, false)?.acked_per_second as u64 / 2;
    let half = clients(rate)?;
    let mut text = format!("  half load, 64 connections: {rate} messages a second\n");
    let mut backup = Command::new(group.binary());
    backup.args(["backup", "--out", "-", "--config"]).arg(group.config());
    backup.stdout(Stdio::null());
    text += &compared(
        group,
        &half,
        "a backup",
        |_| Ok(()),
        move || {
            let failed = |error| format!("backup: {error}");
            let mut child = backup.spawn().map_err(failed)?;
            thread::sleep(SPANS[1]);
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            Ok(String::new())
        },
    )?;
    let primary = group.settle()?;
    let primary = group.address(primary);
    let what = format!("{LOGINS} logins at once");
    text += &compared(group, &half, &what, |_| Ok(()), move || log_in_all(primary, amount))?;
    let at = (group.settle()? + 1) % SERVERS;
    let server = group.address(at).to_string();
    let begin = |group: &mut Group| empty(group, at);
    text += &compared(group, &half, "the refill of an empty server", begin, move || {
        let is_filling =
            || ask_status(&server, super::QUIET_TIME).is_ok_and(|answer| !is_filled(&answer));
        Ok(if is_filling() { String::new() } else { "    it was filled before\n".to_owned() })
    })?;
    let began = Instant::now();
    wait_filled(group, at)?;
    text += &format!("    it went on for {:.1} s\n", began.elapsed().as_secs_f64());
    Ok(text)
}

fn clients(rate: u64) -> Result<[Clients; 1], String> {
    let clients = Clients { connections: 64, outstanding: 16, rate, ..Clients::default() };
    Ok([clients.complete()?])
}

/// Measures a load, and the same load again while something else goes on. `begin` begins that
/// between both; `beside` does it when clients send, and says more.
fn compared(
    group: &mut Group,
    load: &[Clients],
    what: &str,
    begin: impl FnOnce(&mut Group) -> Result<(), String>,
    beside: impl FnOnce() -> Result<String, String> + Send,
) -> Result<String, String> {
    let p99 = |group: &Group| {
        let latency = drive_group(group, load, SPANS, false)?.latency_us;
        latency.map(|latency| latency.p99 / 1e3).ok_or_else(|| "nothing is answered".to_owned())
    };
    let alone = p99(group)?;
    begin(group)?;
    let (with, more) = thread::scope(|scope| {
        let beside = scope.spawn(|| {
            // The load has created its accounts and logged in by then.
            thread::sleep(ACCOUNTS_TIME);
            beside()
        });
        (p99(group), beside.join().unwrap_or_else(|_| Err(format!("{what}: failed"))))
    });
    let (with, more) = (with?, more?);
    let ratio = with / alone;
    Ok(format!(
        "  p99 {alone:.1} ms, beside {what} {with:.1} ms: {ratio:.1} times ({}); target: at most \
         {P99_TARGET}\n{more}",
        verdict(ratio <= P99_TARGET)
    ))
}

/// Logs in to accounts with all their messages, at the same time. A server refuses logins that
/// would wait long: they are sent again.
fn log_in_all(server: SocketAddr, amount: Amount) -> Result<String, String> {
    let failed = |error: io::Error| format!("login: {error}");
    let line = |n: u64| format!("LOGIN {} {PASSWORD} 0\n", fill::name(n));
    let connect = |n: u64| {
        let stream = TcpStream::connect(server)?;
        (&stream).write_all(line(n).as_bytes())?;
        Ok((n, BufReader::new(stream)))
    };
    let began = Instant::now();
    let streams = (0..LOGINS.min(amount.mailboxes)).map(connect);
    let mut waiting = streams.collect::<io::Result<VecDeque<_>>>().map_err(failed)?;
    let (mut messages, mut again, count) = (0, 0, waiting.len());
    while let Some((n, mut stream)) = waiting.pop_front() {
        let mut answer = String::new();
        loop {
            answer.clear();
            stream.read_line(&mut answer).map_err(failed)?;
            if !answer.starts_with("MSG ") {
                break;
            }
            messages += 1;
        }
        if answer.starts_with("ERR busy") {
            again += 1;
            thread::sleep(BUSY_PAUSE);
            stream.get_mut().write_all(line(n).as_bytes()).map_err(failed)?;
            waiting.push_back((n, stream));
        } else if !answer.starts_with("OK ") {
            return Err(format!("login: {answer}"));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(format!(
        "    {count} logins with {messages} messages in {seconds:.1} s; {again} were refused and \
         sent again\n"
    ))
}

/// Refills an empty server of a group that nobody uses.
pub(super) fn refill(group: &mut Group) -> Result<String, String> {
    let at = (group.settle()? + 1) % SERVERS;
    let bytes = log_bytes(group.data(at))?;
    let copied = copy(&segments(group.data(at))?, group.folder().join("copy"))?;
    let began = Instant::now();
    empty(group, at)?;
    wait_filled(group, at)?;
    let time = began.elapsed();
    let mib = bytes >> 20;
    let speed = |time: Duration| mib as f64 / time.as_secs_f64();
    let ratio = copied.div_duration_f64(time);
    Ok(format!(
        "  {mib} MiB in {:.1} s: {:.0} MiB/s; a bare copy over loopback, synced, {:.0} MiB/s: \
         {ratio:.2} of its speed ({}); target: {REFILL_TARGET}\n",
        time.as_secs_f64(),
        speed(time),
        speed(copied),
        verdict(ratio >= REFILL_TARGET)
    ))
}

/// Ends a server, empties its directory, and starts it.
fn empty(group: &mut Group, at: usize) -> Result<(), String> {
    group.kill(at)?;
    group.reap(at)?;
    fs::remove_dir_all(group.data(at)).map_err(|error| format!("empty: {error}"))?;
    group.start_server(at)
}

/// Whether a server that was empty is a member again.
fn is_filled(status: &Answer) -> bool {
    status.get("role").is_some_and(|role| role == "backup")
}

fn wait_filled(group: &Group, at: usize) -> Result<(), String> {
    let began = Instant::now();
    while !group.status(at).is_some_and(|status| is_filled(&status)) {
        if began.elapsed() > super::APPLY_TIME {
            return Err(format!("server {} is not filled\n{}", at + 1, group.last_words()));
        }
        thread::sleep(super::POLL_INTERVAL);
    }
    Ok(())
}

/// Sends files over loopback, and writes them to one file. Returns how long that takes.
fn copy(files: &[PathBuf], to: PathBuf) -> Result<Duration, String> {
    let failed = |error: io::Error| format!("copy: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let files = files.to_vec();
    let began = Instant::now();
    let sender = thread::spawn(move || -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let mut buffer = vec![0; 256 * 1024];
        for path in files {
            let mut file = File::open(path)?;
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                stream.write_all(&buffer[..read])?;
            }
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept().map_err(failed)?;
    let mut file = File::create(&to).map_err(failed)?;
    let (mut buffer, mut unsynced) = (vec![0; 256 * 1024], 0);
    loop {
        let read = stream.read(&mut buffer).map_err(failed)?;
        file.write_all(&buffer[..read]).map_err(failed)?;
        unsynced += read;
        if read == 0 || unsynced >= COPY_SYNC_BYTES {
            file.sync_data().map_err(failed)?;
            unsynced = 0;
        }
        if read == 0 {
            break;
        }
    }
    let time = began.elapsed();
    sender.join().map_err(|_| "copy: the sender has failed".to_owned())?.map_err(failed)?;
    fs::remove_file(to).map_err(failed)?;
    Ok(time)
}

/// Counts the bytes that a backup server of a new group writes at full load.
pub(super) fn written(postern: &Path) -> Result<String, String> {
    let group = &mut Group::start(postern, false)?;
    let at = (group.settle()? + 1) % SERVERS;
    let pid = group.pid(at)?;
    // The main thread writes the log, another one the files that follow from it. The kernel counts
    // whole pages.
    let counted = || -> Result<[u64; 2], String> {
        let process = Process::new(pid as i32);
        let io = process.and_then(|process| Ok((process.task_main_thread()?.io()?, process.io()?)));
        let (main, all) = io.map_err(|error| format!("process {pid}: {error}"))?;
        Ok([main.write_bytes, all.write_bytes])
    };
    let (log, before) = (log_bytes(group.data(at))?, counted()?);
    drive_group(group, &clients(0)?, [SPANS[0], WRITING_TIME, SPANS[2]], false)?;
    let grown = (log_bytes(group.data(at))? - log) as f64;
    let after = counted()?;
    let [alone, with] = [0, 1].map(|at| (after[at] - before[at]) as f64 / grown);
    Ok(format!(
        "  at full load {:.0} MiB of log; written {alone:.2} times that ({}), with index files and \
         checkpoints {with:.2} times ({}); targets: {WRITTEN_TARGETS:?}\n",
        grown / f64::from(1 << 20),
        verdict(alone <= WRITTEN_TARGETS[0]),
        verdict(with <= WRITTEN_TARGETS[1])
    ))
}
