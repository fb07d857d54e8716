//! The server keeps what the text protocol promises: each promise is one small test whose name
//! says it, in the order in which the protocol is described. With `POSTERN_ADDR=host:port` they
//! ask the server there, a primary of any make; without it, one that they start. What needs
//! servers to be started and stopped comes last, and only without it.
//!
//! One run has six passwords wrong, and a server lets an address try twenty in a minute: of one
//! that goes on running, no more than three runs in a minute.

#[path = "../common/mod.rs"]
mod common;
mod scene;

// In the order of the protocol's description, which blank lines keep.

mod shape;

mod requests;

mod accounts;

mod names;

mod keys;

mod errors;

mod status;

mod connections;

mod servers;

mod unanswered;
