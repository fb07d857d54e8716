//! postern: a replicated mailbox and chat server for three cheap boxes.
//!
//! One server is a pure state machine, [`node::Node`]: inputs in, outputs out, without sockets,
//! files, clocks or threads. Around it is a thin shell, [`server::Server`]: one thread, one poll
//! loop, one readiness set. In the order to read them:
//!
//! * words: [`names`], [`address`], [`moment`], [`limits`], [`rng`], and [`record`], the bytes of a
//!   log entry;
//! * the pure rooms, which know only those words and not each other: [`protocol`] (text),
//!   [`mailbox`] (the replicated state), [`replica`] (who is primary, what is answered);
//! * [`store`]: the log on disk, the only code that names files;
//! * [`node`]: joins the pure rooms into one server; [`meter`] counts its latencies;
//! * [`server`]: sockets, the disk, the clock, the thread that hashes passwords;
//! * [`client`]: follows the primary, for commands and for other programs;
//! * [`settings`], [`options`] and [`commands`]: what a person types and writes.

pub mod address;
pub mod client;
pub mod commands;
pub mod limits;
pub mod mac;
pub mod mailbox;
pub mod meter;
pub mod moment;
pub mod names;
pub mod node;
pub mod options;
pub mod protocol;
pub mod record;
pub mod replica;
pub mod rng;
pub mod server;
pub mod settings;
pub mod store;
