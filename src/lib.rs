//! postern: a replicated mailbox and chat server for three cheap boxes.
//!
//! One server is a pure state machine, [`node::Node`]: inputs in, outputs out, without sockets,
//! files, clocks or threads. A [`host::Host`] drives it: it owns the node and the log, and fixes
//! the order of a turn. Around that are edges: those that ship, [`server::Server`], are one thread,
//! one poll loop, one readiness set; a simulator has others. In the order to read them:
//!
//! * words: [`ids`], [`address`], [`time`], [`limits`], [`rng`], and [`record`], the bytes of a
//!   log entry;
//! * the pure modules, which know only those words and not each other: [`protocol`] (text),
//!   [`frontend`] (bytes of a session), [`mailbox`] (the replicated state), [`replica`] (who is
//!   primary, what is answered);
//! * [`store`]: the log on disk, the only code that names files;
//! * [`node`]: joins the pure modules into one server; [`latency`] counts its latencies;
//! * [`host`]: the turn, the order of durability; with two walks through the code;
//! * [`server`]: sockets, the clock, the thread that hashes passwords, the encryption of links;
//! * [`client`]: follows the primary, for commands and for other programs;
//! * [`settings`], [`options`] and [`commands`]: what a person types and writes.

pub mod address;
pub mod client;
pub mod commands;
pub mod frontend;
pub mod host;
pub mod ids;
pub mod keyed_hash;
pub mod latency;
pub mod limits;
pub mod mailbox;
pub mod node;
pub mod options;
pub mod protocol;
pub mod record;
pub mod replica;
pub mod rng;
pub mod server;
pub mod settings;
pub mod store;
pub mod time;
