//! Loads of real groups: the loss of the primary costs no message that is sent with a key, and all
//! kinds of clients at once find no violation.

use super::*;
use clap::Parser;
use postern_testkit::group::build_binary;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(line: &str) -> Options {
    Line::parse_from(["load"].into_iter().chain(line.split(' '))).options
}

fn run_load(options: &Options, servers: &[(SocketAddr, Option<u32>)]) -> Report {
    let clients = options.all_clients().unwrap();
    let report = options.run_against(servers, &clients).unwrap();
    assert_eq!(report.outcome.finding, None, "{}", report.text());
    report
}

/// Kills the primary when it has this many messages.
fn kill_primary_at(group: &mut Group, messages: u64) {
    let primary = group.settle().unwrap();
    let end = Instant::now() + TIMEOUT;
    loop {
        let status = group.status(primary).expect("it answers");
        if status["messages"].parse::<u64>().unwrap() >= messages {
            break;
        }
        assert!(Instant::now() < end, "{status:?}");
        thread::sleep(Duration::from_millis(5));
    }
    group.kill(primary).unwrap();
    group.reap(primary).unwrap();
}

#[test]
fn with_keys_the_loss_of_the_primary_costs_no_message() {
    let mut group = Group::start(&build_binary(), false).unwrap();
    let servers = servers_of(&group).unwrap();
    let (done, report) = channel();
    thread::spawn(move || {
        let options = options("-c 8 -d 8 --once --receivers 4 -w 0.1 -s 3");
        // After its timeout, the test has failed and dropped the receiver.
        let _ = done.send(run_load(&options, &servers));
    });
    kill_primary_at(&mut group, 500);
    let report = report.recv_timeout(TIMEOUT * 2).expect("the load ends well");
    assert_eq!(report.outcome.counts.takeovers.len(), 1, "{}", report.text());
    assert_eq!(
        (report.outcome.counts.unknown, report.outcome.mailboxes_read),
        (0, 8),
        "{}",
        report.text()
    );
    assert!(
        report.outcome.counts.lost >= 8 && report.outcome.counts.acked_total > 500,
        "{}",
        report.text()
    );
}

#[test]
fn all_kinds_of_clients_find_no_violation() {
    let group = Group::start(&build_binary(), false).unwrap();
    let file = group.folder().join("mix.toml");
    let mix = "
        [[clients]]
        connections = 4
        outstanding = 8
        mailboxes = 1
        bytes = '1..3840'
        receivers = 2

        [[clients]]
        senders = 2
        rate = 200
        mailboxes = 6
        idle = 3
        slow = 2
        slow-bytes = 2000
        storm = 0.3
        once = true

        [[clients]]
        connections = 3
        outstanding = 2
        storm = 0.4
    ";
    std::fs::write(&file, mix).unwrap();
    let options = options(&format!("--mix {} -w 0.1 -s 1.5", file.display()));
    let report = run_load(&options, &servers_of(&group).unwrap());
    let counts = &report.outcome.counts;
    assert_eq!((report.outcome.mailboxes_read, counts.storms.len() >= 2), (10, true), "{report:?}");
    assert!(counts.delivered > 0 && counts.acked > 0, "{report:?}");
}
