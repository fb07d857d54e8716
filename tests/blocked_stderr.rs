//! Nobody has to read what a server logs. It starts, serves and stops while its stderr is a full
//! pipe, and logs again when somebody reads the pipe.

mod common;

use common::{DEADLINE, Group};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write, pipe};
use std::sync::mpsc::channel;
use std::thread;

/// The default capacity of a pipe on Linux.
const PIPE_BYTES: usize = 64 * 1024;

fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let (sender, filled) = channel();
    thread::spawn(move || {
        writer.write_all(&[b'\n'; PIPE_BYTES]).unwrap();
        sender.send(writer)
    });
    let writer = filled.recv_timeout(DEADLINE).expect("a pipe holds 64 KiB");
    (reader, writer)
}

#[test]
fn a_server_never_waits_for_its_log() {
    let mut group = Group::new(1);
    let (reader, writer) = full_pipe();
    group.start_with_stderr(1, writer);
    group.wait_members(1);
    let mut ann = group.client(1, "ann");
    assert_eq!(ann.ask("SEND ann one"), "OK 1");
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    let found = lines.find(|line| line.contains("listens on"));
    assert!(found.is_some(), "what waited is logged when there is room");
    assert_eq!(group.terminate(1), Some(0));
    assert!(lines.any(|line| line.contains("stopping")), "and what comes after it");
}

#[test]
fn a_server_stops_although_nobody_reads_its_log() {
    let mut group = Group::new(1);
    let (_reader, writer) = full_pipe();
    group.start_with_stderr(1, writer);
    group.wait_members(1);
    assert_eq!(group.terminate(1), Some(0));
}
