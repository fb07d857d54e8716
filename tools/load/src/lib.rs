//! How fast is postern? The load generator, and what is measured with it.

pub mod baseline;
pub mod compare;
pub mod report;
pub mod run;
mod stats;
