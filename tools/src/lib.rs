//! Runs whole groups of postern, in virtual time and in real processes, and judges what they
//! answered.

pub mod sim;
