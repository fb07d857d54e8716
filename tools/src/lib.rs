//! Runs whole groups of postern, in virtual time and in real processes, and judges what they
//! answered; and makes what real ones run in, links that go down and disks that are full.

pub mod checker;
pub mod fuzz;
pub mod network;
pub mod search;
pub mod sim;
pub mod trio;
pub mod volume;
