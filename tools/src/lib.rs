//! Runs whole groups of postern, in virtual time and in real processes, and judges what they
//! answered.

pub mod checker;
pub mod search;
pub mod sim;
pub mod trio;
