//! Three network namespaces on one bridge, whose links can fail silently: down, blocked in one
//! direction, or slow. Needs root.

use crate::run;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;

/// The host part of the bridge's address, from which clients connect.
const BRIDGE: usize = 100;
/// A MAC address that no interface has: packets to it are lost.
const UNUSED_MAC: &str = "02:00:00:00:00:fe";

/// Three namespaces, numbered from 1, each connected to one bridge by a veth pair. Dropping it
/// removes all of them. A process can have one: all names contain the process id.
#[derive(Debug)]
pub struct Network {
    pid: u32,
}

/// How a link is slowed down. Not every kernel supports every way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shaping {
    /// `netem`: packets are delayed, and some are lost.
    Netem,
    /// `tbf`: the rate is low. Packets of a burst are delayed, and lost if the burst is long.
    TokenBucket,
}

impl Network {
    /// Creates the bridge, the namespaces and the veth pairs.
    pub fn new() -> Result<Network, String> {
        let network = Network { pid: std::process::id() };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", network.address(BRIDGE)), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for n in 1..=3 {
            let (name, outer, inner) = (network.namespace(n), network.outer(n), network.inner(n));
            ip(&["netns", "add", &name])?;
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &name])?;
            ip(&["link", "set", &outer, "master", &bridge, "up"])?;
            let address = format!("{}/24", network.address(n));
            ip(&["-n", &name, "address", "add", &address, "dev", &inner])?;
            ip(&["-n", &name, "link", "set", &inner, "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            // Some containers may create namespaces, but not enter them.
            ip(&["netns", "exec", &name, "true"])?;
        }
        Ok(network)
    }

    /// The name of a namespace.
    pub fn namespace(&self, n: usize) -> String {
        format!("postern-{}-{n}", self.pid)
    }

    /// The address of a namespace.
    pub fn address(&self, n: usize) -> Ipv4Addr {
        let [a, b, ..] = self.pid.wrapping_mul(2_654_435_761).to_be_bytes();
        Ipv4Addr::new(10, a, b, n as u8)
    }

    /// Sets the link between a namespace and the bridge up or down.
    pub fn set_up(&self, n: usize, up: bool) -> Result<(), String> {
        ip(&["link", "set", &self.outer(n), if up { "up" } else { "down" }])
    }

    /// Blocks all packets from one namespace to another.
    pub fn block(&self, from: usize, to: usize) -> Result<(), String> {
        let (name, inner) = (self.namespace(from), self.inner(from));
        let to = self.address(to).to_string();
        let neighbour = ["neigh", "replace", &to, "lladdr", UNUSED_MAC, "nud", "permanent"];
        ip(&[&["-n", &name], &neighbour[..], &["dev", &inner]].concat())
    }

    /// Undoes [`Network::block`].
    pub fn unblock(&self, from: usize, to: usize) -> Result<(), String> {
        let to = self.address(to).to_string();
        ip(&["-n", &self.namespace(from), "neigh", "del", &to, "dev", &self.inner(from)])
    }

    /// Delays packets from a namespace, and loses some of them. Fails if the kernel has neither
    /// `netem` nor `tbf`.
    pub fn slow_down(&self, n: usize) -> Result<Shaping, String> {
        let (name, inner) = (self.namespace(n), self.inner(n));
        let add = |how: &[&str]| {
            tc(&[&["-n", &name, "qdisc", "replace", "dev", &inner, "root"], how].concat())
        };
        if add(&["netem", "delay", "40ms", "20ms", "loss", "3%"]).is_ok() {
            return Ok(Shaping::Netem);
        }
        add(&["tbf", "rate", "400kbit", "burst", "3000", "limit", "20000"])?;
        Ok(Shaping::TokenBucket)
    }

    /// Undoes [`Network::slow_down`].
    pub fn speed_up(&self, n: usize) -> Result<(), String> {
        tc(&["-n", &self.namespace(n), "qdisc", "del", "dev", &self.inner(n), "root"])
    }

    fn bridge(&self) -> String {
        format!("pst{}b", self.pid)
    }

    /// The end of a veth pair at the bridge.
    fn outer(&self, n: usize) -> String {
        format!("pst{}c{n}", self.pid)
    }

    /// The end of a veth pair in the namespace.
    fn inner(&self, n: usize) -> String {
        self.outer(n) + "i"
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // If `new` has failed halfway, some of these do not exist.
        for n in 1..=3 {
            let _ = ip(&["link", "delete", &self.outer(n)]);
            let _ = ip(&["netns", "delete", &self.namespace(n)]);
        }
        let _ = ip(&["link", "delete", &self.bridge()]);
    }
}

/// Returns a command that runs a program in a namespace. `ip` replaces itself by the program, so
/// the child's process id is that of the program.
pub fn command_in(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments)).map(drop)
}

fn tc(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("tc").args(arguments)).map(drop)
}
