//! Three servers in three network namespaces: what holds on loopback holds on a network, whose
//! links go down without a word. Needs root; says so and passes where it can't be done.

mod common;

use common::{Client, DEADLINE, Group};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tells this program that it is to be the client in a namespace.
const CLIENT: &str = "POSTERN_TEST_CLIENT_OF";

/// Three namespaces, each with a cable to one bridge; gone when this is dropped.
struct Network {
    number: u32,
}

impl Network {
    fn new() -> Result<Network, String> {
        let network = Network { number: std::process::id() };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", network.address(100)), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for n in 1..=3 {
            let (name, cable) = (network.namespace(n), network.cable(n));
            let inner = network.cable(n) + "i";
            ip(&["netns", "add", &name])?;
            ip(&["link", "add", &cable, "type", "veth", "peer", "name", &inner, "netns", &name])?;
            ip(&["link", "set", &cable, "master", &bridge, "up"])?;
            let address = format!("{}/24", network.address(n));
            ip(&["-n", &name, "address", "add", &address, "dev", &inner])?;
            ip(&["-n", &name, "link", "set", &inner, "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["netns", "exec", &name, "true"])?;
        }
        Ok(network)
    }

    fn bridge(&self) -> String {
        format!("pst{}b", self.number)
    }

    fn namespace(&self, n: usize) -> String {
        format!("postern-{}-{n}", self.number)
    }

    fn cable(&self, n: usize) -> String {
        format!("pst{}c{n}", self.number)
    }

    fn address(&self, n: usize) -> String {
        let [a, b, ..] = self.number.wrapping_mul(2_654_435_761).to_be_bytes();
        format!("10.{a}.{b}.{n}")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // As far as it came about.
        for n in 1..=3 {
            let _ = ip(&["link", "delete", &self.cable(n)]);
            let _ = ip(&["netns", "delete", &self.namespace(n)]);
        }
        let _ = ip(&["link", "delete", &self.bridge()]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), why.trim()))
}

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
    ip(&["link", "set", &network.cable(primary), "down"]).unwrap();
    drop(cut.stdin.take());
    let next = wait_primary(&group, primary);
    assert_eq!(group.client(next, "ann").ask("SEND ann after"), "OK 2");
    wait_line(&mut answers, "answer: ERR unknown-outcome");
    cut.wait().unwrap();

    ip(&["link", "set", &network.cable(primary), "up"]).unwrap();
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

/// Waits until one of the other servers leads the two that are left.
fn wait_primary(group: &Group, cut: usize) -> usize {
    let end = Instant::now() + DEADLINE;
    loop {
        for n in (1..=3).filter(|n| *n != cut) {
            let status = group.status(n).expect("it is not cut");
            if status["role"] == "primary" && status["members"].split(',').count() == 2 {
                return n;
            }
        }
        assert!(Instant::now() < end, "nobody took over");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// This program again, as a client beside the server that was cut.
fn client_inside(network: &Network, n: usize, server: &str) -> std::process::Child {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &network.namespace(n)]).arg(this);
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
    // Its end says that the cable is cut.
    let _ = std::io::stdin().read_line(&mut String::new());
    println!("answer: {}", client.ask("SEND ann lost"));
}
