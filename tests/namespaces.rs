//! Three servers in three network namespaces: the promises that hold on loopback hold on a
//! network whose links fail silently. Needs root; otherwise the test prints a note and passes.

mod common;

use common::{Client, Group};
use postern_testkit::network::{Network, command_in};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Set for the process of this program that is the client in a namespace.
const CLIENT: &str = "POSTERN_TEST_CLIENT_OF";

#[test]
fn a_cut_primary_is_replaced_and_acknowledges_nothing() {
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => return println!("skipped: no network namespaces here: {why}"),
    };
    let mut group = Group::at((1..=3).map(|n| format!("{}:5001", network.address(n))).collect());
    group.namespaces = (1..=3).map(|n| network.namespace(n)).collect();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    assert_eq!(group.client(primary, "ann").ask("SEND ann before"), "OK 1");

    let mut cut = client_inside(&network, primary, &group.servers[primary - 1]);
    let mut answers = BufReader::new(cut.stdout.take().expect("it is piped"));
    wait_line(&mut answers, "logged in");
    network.set_up(primary, false).unwrap();
    drop(cut.stdin.take());
    let next = wait_primary(&group, primary);
    assert_eq!(group.client(next, "ann").ask("SEND ann after"), "OK 2");
    wait_line(&mut answers, "answer: ERR unknown-outcome");
    cut.wait().unwrap();

    network.set_up(primary, true).unwrap();
    let last = group.wait_members(3);
    assert_eq!(group.mailbox(last, "ann"), ["before", "after"]);
}

fn wait_line(lines: &mut impl BufRead, begin: &str) {
    let mut said = String::new();
    while !said.lines().any(|line| line.starts_with(begin)) {
        let count = lines.read_line(&mut said).unwrap();
        assert!(count > 0, "not {begin}: {said}");
    }
}

/// Waits until one of the other servers leads the two remaining ones.
fn wait_primary(group: &Group, cut: usize) -> usize {
    let leads = |n: &usize| {
        let status = group.status(*n).expect("it is not cut");
        status["role"] == "primary" && status["members"].split(',').count() == 2
    };
    let find = || (1..=3).filter(|n| *n != cut).find(leads);
    common::wait_for(find, || "nobody took over".to_owned())
}

/// Starts this program again as a client in the namespace of the server that will be cut off.
fn client_inside(network: &Network, n: usize, server: &str) -> std::process::Child {
    let this = std::env::current_exe().expect("this program");
    let mut command = command_in(&network.namespace(n), this);
    command.args(["--exact", "client_inside_a_namespace", "--nocapture"]).env(CLIENT, server);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("ip runs")
}

#[test]
fn client_inside_a_namespace() {
    let Ok(server) = std::env::var(CLIENT) else { return };
    let mut client = Client::try_connect(&server).expect("the server is here");
    assert_eq!(client.ask("LOGIN ann correct-horse end"), "OK ann 1");
    println!("\nlogged in");
    // The end of stdin means that the cable is cut.
    let _ = std::io::stdin().read_line(&mut String::new());
    println!("answer: {}", client.ask("SEND ann lost"));
}
