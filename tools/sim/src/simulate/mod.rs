//! Whole groups in virtual time: three real nodes on disks and links that fail as real ones do,
//! and a crowd of clients. Everything random comes from the seed.
//!
//! In the order to read them: `run` (the command), `world` (the loop), `machine`, `lives`,
//! `process` and `kernel` (one server and its
//! turn), `network`, `clock`, `clients`; `faults` (the plan),
//! `strike`, `damage` and `twin` (carrying it out); `checks`, `truth`, `mirror`, `wall` and
//! `history` (what must be true); `scenario` (one day, told in lines).

mod checks;
mod clients;
mod clock;
mod damage;
mod faults;
mod history;
mod kernel;
mod link_end;
mod lives;
mod machine;
mod mirror;
mod network;
mod play;
mod process;
mod run;
mod scenario;
mod seal;
mod story;
mod strike;
mod trial;
mod truth;
mod twin;
mod wall;
mod world;

pub(crate) use kernel::{Act, Wire};
pub(crate) use link_end::LinkEnd;
pub(crate) use mirror::Entry;
pub use play::{PlayOptions, play_file, play_files};
pub(crate) use process::{GROUP, Incoming, Process, Settings, hash, open};
pub use run::{Mode, Options, run};
pub use scenario::play;
pub use trial::{Outcome, Sabotage, Trial, try_seed};
pub(crate) use world::address_of;
