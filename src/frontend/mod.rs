//! Front ends: what the bytes of a session mean. A front end cuts the bytes that a client has sent
//! into requests, and knows what it owes the client beside the answers. It reads no socket, so that
//! the server and the simulator run the same one.

mod telnet;
mod text;

pub use text::{Request, Text};
