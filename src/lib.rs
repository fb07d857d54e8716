//! postern: a replicated mailbox and chat server for three cheap boxes.

pub mod limits;
pub mod mailbox;
pub mod meter;
pub mod moment;
pub mod names;
pub mod node;
pub mod protocol;
pub mod record;
pub mod replica;
pub mod rng;
pub mod store;
