//! Feeds hostile input to the parts of postern that read bytes from outside.
//!
//! Stable Rust has no instrumented fuzzer. Each target instead knows
//! the structure of its inputs: a generator makes mostly valid ones, and a mutator then damages
//! them. A seed gives the same cases in the same order, whatever the number of threads.
//!
//! In the order to read them: `case` (an input and its mutations), `target` (the list of targets),
//! `run` (the command), `shrink` (the smallest input with the same finding), and one file for each
//! target.

mod case;
mod catch;
mod channel;
mod client;
mod directory;
mod hostile;
mod lines;
mod packets;
mod prepared;
mod run;
mod session;
mod settings;
mod shrink;
mod target;
#[cfg(test)]
mod tests;
mod victim;

pub use run::{Options, run};
pub use target::Which;
