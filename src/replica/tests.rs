//! Tests of one replica through its interface: events go in, and effects and views come out. Whole
//! groups with faults run in the simulator and its scenarios (`tools`).

mod alone;
mod appends;
mod clocks;
mod drops;
mod epoch;
mod greeting;
mod guards;
mod handover;
mod hello;
mod hellos;
mod leading;
mod leaving;
mod links;
mod lockstep;
mod refusals;
mod server;
mod survivor;
mod votes;
