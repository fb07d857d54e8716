//! The load generator of postern, and what is measured with it.

pub mod baseline;
pub mod compare;
pub mod failover;
pub mod report;
pub mod run;
mod stats;
pub mod storage;
