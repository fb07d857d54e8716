//! Simulations of whole groups in virtual time: three real nodes, and clients, on disks and
//! connections with injected faults. Everything random comes from the seed.
//!
//! | modules, in reading order | contents |
//! | --- | --- |
//! | `run`, `trial` | the command, and the run of one seed |
//! | `world`, `clock` | the event loop, and its schedule |
//! | `machine`, `lifecycle`, `process`, `kernel`, `seal` | a server and its turn |
//! | `network`, `link_end`, `operator`, `clients` | what a server communicates with |
//! | `faults`, `inject`, `damage`, `twin` | the plan of faults, and their injection |
//! | `checks`, `durable`, `log_copy`, `wall_clock`, `contents` | what must be true |
//! | `scenario`, `play` | tests as text |
//! | `trace` | one line for each event |

mod checks;
mod clients;
mod clock;
mod contents;
mod damage;
mod durable;
mod faults;
mod inject;
mod kernel;
mod lifecycle;
mod link_end;
mod log_copy;
mod machine;
mod network;
mod operator;
mod play;
mod process;
mod run;
mod scenario;
mod seal;
mod trace;
mod trial;
mod twin;
mod wall_clock;
mod world;

pub(crate) use kernel::{ConnId, Output};
pub(crate) use link_end::LinkEnd;
pub(crate) use log_copy::Entry;
pub use play::{PlayOptions, play_file, play_files};
pub(crate) use process::{GROUP, Incoming, Process, Settings, hash, open, open_store};
pub use run::{Options, run};
pub use scenario::play;
pub use trial::{Counts, Outcome, Sabotage, Trial, try_seed};
pub(crate) use world::address_of;
