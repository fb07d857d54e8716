//! Servers in network namespaces: links that go down, one way or both, and get slow, without a
//! word to anybody. Needs root.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The place of the bridge, from which clients speak.
const HERE: usize = 100;
/// A name that nobody has: what is sent to it is lost.
const NOBODY: &str = "02:00:00:00:00:fe";

/// Three namespaces, each with a cable to one bridge; gone when this is dropped. One per process:
/// all names carry its id.
#[derive(Debug)]
pub struct Network {
    number: u32,
}

/// How links are made slow, which not every kernel can do in every way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slowness {
    /// What is sent is late, and part of it is lost.
    Netem,
    /// Little is sent at a time: what comes at once is late, and lost when it is too much.
    TokenBucket,
}

impl Network {
    /// Makes namespaces, cables and the bridge.
    ///
    /// # Errors
    /// What can't be made, in the words of `ip`.
    pub fn new() -> Result<Network, String> {
        let network = Network { number: std::process::id() };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", network.address(HERE)), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for n in 1..=3 {
            let (name, cable, inner) = (network.namespace(n), network.cable(n), network.inner(n));
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

    /// The name of a namespace, from 1 to 3.
    pub fn namespace(&self, n: usize) -> String {
        format!("postern-{}-{n}", self.number)
    }

    /// The address of a namespace.
    pub fn address(&self, n: usize) -> Ipv4Addr {
        let [a, b, ..] = self.number.wrapping_mul(2_654_435_761).to_be_bytes();
        Ipv4Addr::new(10, a, b, n as u8)
    }

    /// Pulls the cable of a namespace, or plugs it in.
    ///
    /// # Errors
    /// It can't be done.
    pub fn plug(&self, n: usize, up: bool) -> Result<(), String> {
        ip(&["link", "set", &self.cable(n), if up { "up" } else { "down" }])
    }

    /// From now on nothing that one namespace sends reaches the other one.
    ///
    /// # Errors
    /// It can't be done.
    pub fn cut(&self, from: usize, to: usize) -> Result<(), String> {
        let (name, to, inner) =
            (self.namespace(from), self.address(to).to_string(), self.inner(from));
        let neighbour = ["neigh", "replace", &to, "lladdr", NOBODY, "nud", "permanent"];
        ip(&[&["-n", &name], &neighbour[..], &["dev", &inner]].concat())
    }

    /// Ends a [`Network::cut`].
    ///
    /// # Errors
    /// It can't be done.
    pub fn mend(&self, from: usize, to: usize) -> Result<(), String> {
        let to = self.address(to).to_string();
        ip(&["-n", &self.namespace(from), "neigh", "del", &to, "dev", &self.inner(from)])
    }

    /// From now on what a namespace sends is late, and partly lost.
    ///
    /// # Errors
    /// This kernel knows no way.
    pub fn slow(&self, n: usize) -> Result<Slowness, String> {
        let (name, inner) = (self.namespace(n), self.inner(n));
        let add = |how: &[&str]| {
            tc(&[&["-n", &name, "qdisc", "replace", "dev", &inner, "root"], how].concat())
        };
        let netem = add(&["netem", "delay", "40ms", "20ms", "loss", "3%"]);
        let or_bucket = |_| {
            add(&["tbf", "rate", "400kbit", "burst", "3000", "limit", "20000"])?;
            Ok(Slowness::TokenBucket)
        };
        netem.map(|()| Slowness::Netem).or_else(or_bucket)
    }

    /// Ends a [`Network::slow`].
    ///
    /// # Errors
    /// It can't be done.
    pub fn hasten(&self, n: usize) -> Result<(), String> {
        tc(&["-n", &self.namespace(n), "qdisc", "del", "dev", &self.inner(n), "root"])
    }

    fn bridge(&self) -> String {
        format!("pst{}b", self.number)
    }

    /// The end of a cable at the bridge.
    fn cable(&self, n: usize) -> String {
        format!("pst{}c{n}", self.number)
    }

    /// The end of a cable in the namespace.
    fn inner(&self, n: usize) -> String {
        self.cable(n) + "i"
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
    run("ip", arguments)
}

fn tc(arguments: &[&str]) -> Result<(), String> {
    run("tc", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().next().unwrap_or_default();
    Err(format!("{program} {}: {why}", arguments.join(" ")))
}
