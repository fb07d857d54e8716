//! postern: a replicated mailbox and chat server for three cheap boxes.
//!
//! One server is a pure state machine, [`node::Node`]: inputs in, outputs out, without sockets,
//! files, clocks or threads. A [`host::Host`] drives it: it owns the node and the log, and fixes
//! the order of a turn. Around that is a [`server::Server`] with the connections: one thread, one
//! poll loop, one readiness set. A simulator answers its calls to the kernel instead. In the order
//! to read them:
//!
//! * words: [`ids`], [`address`], [`time`], [`limits`], [`rng`], [`content`], what a message says,
//!   and [`record`], the bytes of a log entry;
//! * the pure modules, which know only those words and not each other: [`protocol`] (text),
//!   [`frontend`] (bytes of a session), [`mailbox`] (the replicated state), [`replica`], which
//!   joins `peers` (the links to the other servers) with [`raft`] (who is primary, what is
//!   acknowledged); these share `packet`, `config`, `incarnation`, `effect` and `rules`;
//! * [`store`]: the log on disk, the only code that names files;
//! * [`node`]: joins the pure modules into one server; [`latency`] counts its latencies;
//! * [`host`]: the turn, the order of durability; with two walks through the code;
//! * [`server`]: sockets, the clock, the threads that hash and index, the encryption of links;
//! * [`client`]: follows the primary, for commands and for other programs;
//! * [`settings`], [`options`] and [`commands`]: what a person types and writes.
//!
//! # Documents
//!
//! The contracts stand beside the code: [`frontend`] (the text protocol), [`raft`] (the
//! replication), [`store`] (the data directory), [`host`] (the turn), [`commands`] (operation),
//! and `tools/README.md`. A change of behaviour changes them in the same commit.
//!
//! # How to test
//!
//! `cargo test` runs the tests of what ships, `cargo test -p postern-sim` plays the scenarios and
//! some seeds, `cargo test -p postern-load -p postern-chaos -p postern-testkit` runs the other
//! tools' own tests, and `.ci/run` runs all that must hold before a change lands.
//!
//! * Pure modules: tables and properties beside the code.
//! * The store: disks that forget, tear and rot (`src/store/tests`).
//! * The replication: `postern-sim search` tries every order of events to small bounds.
//!   `postern-sim simulate` runs whole groups, the servers that ship, through bad days in virtual
//!   time, by seeds. `tools/sim/scenarios` holds single bad days as text.
//! * Bytes from outside: `postern-sim fuzz`.
//! * Promises to users: one file each in `tests/`, with real processes and sockets. They wait for
//!   states, never for time. The protocol has a suite of its own: `POSTERN_ADDR=HOST:PORT cargo
//!   test --test conformance` asks any server.
//! * Faults of real processes, disks and networks: `postern-chaos`.
//! * Speed: `cargo bench -p postern-sim --bench count` bounds the instructions of a SEND,
//!   `postern-load` measures.
//!
//! # How to add a request
//!
//! Add a variant to [`protocol::Task`], or to [`protocol::Command`] if it is carried out at once,
//! and a line to the table in `protocol/command.rs`: parsing, usage, rights and HELP come from it.
//! Carry it out in `node/requests.rs`. If it changes state, add a [`mailbox::Change`] and a
//! [`record::Kind`]. Describe it in `src/frontend/README.md`, and give it a file in
//! `tests/conformance`.
//!
//! # How to add a packet
//!
//! Add a variant to [`replica::Packet`] with its bytes in `packet/mod.rs`, and raise the version
//! there. Handle it in `Replica::handle` if it concerns the links, in `Raft::on_packet` if it
//! concerns the consensus, or else in `Node::handle`. Describe it in `src/raft/README.md`.
//!
//! # Words of our own
//!
//! * **acknowledged**: committed (Raft §5.4.2) and stored by every member of the newest config.
//!   Kafka calls this index the high watermark, and the members in-sync replicas.
//! * **gate**: closed until all servers were members once. The group admits clients when it is
//!   open.
//! * **epoch**: the upper 16 bits of a term. It grows whenever an operator overrules by `recover`.
//! * **quarantine**: a folder of the data directory. A server moves there what it can't keep, and
//!   never deletes it.
//! * **turn**: one iteration of the event loop.

#![warn(rustdoc::missing_crate_level_docs)]

pub mod address;
#[warn(missing_docs)] // other programs use it
pub mod client;
pub mod commands;
mod config;
pub mod content;
mod effect;
mod fields;
pub mod frontend;
pub mod host;
pub mod ids;
mod incarnation;
pub mod keyed_hash;
pub mod latency;
pub mod limits;
pub mod mailbox;
pub mod node;
pub mod options;
mod packet;
mod peers;
pub mod protocol;
pub mod raft;
pub mod record;
pub mod replica;
pub mod rng;
mod rules;
pub mod server;
pub mod settings;
pub mod store;
pub mod time;
