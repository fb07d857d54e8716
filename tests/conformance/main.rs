//! The server keeps the promises of the text protocol. Each promise is one small test whose name
//! states it, in the order of the protocol's description. With `POSTERN_ADDR=host:port` the tests
//! connect to the server there, a primary of any implementation; without it, they start one.
//! Tests that need to start and stop servers come last, and run only without it.
//!
//! One run sends six wrong passwords, and a server lets an address try twenty in a minute. Run
//! the tests against one running server at most three times a minute.

#[path = "../common/mod.rs"]
mod common;
mod scene;

// In the order of the protocol's description. Blank lines keep rustfmt from sorting them.

mod shape;

mod requests;

mod accounts;

mod names;

mod keys;

mod content;

mod sent;

mod errors;

mod status;

mod connections;

mod servers;

mod unanswered;
