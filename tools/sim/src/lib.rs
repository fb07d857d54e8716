//! Is postern correct? Runs the nodes and logs that ship in virtual time, through bad days by
//! seed, through every order of events, and with hostile bytes from outside.

pub mod cluster;
pub mod count;
pub mod fuzz;
pub mod search;
pub mod simulate;
