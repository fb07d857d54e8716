//! Front ends: what the bytes of a session mean. A front end cuts the bytes that a client has sent
//! into requests, and makes bytes of the replies. It reads no socket, so that the server and the
//! simulator run the same one.

mod reply;
mod telnet;
mod text;

pub use reply::encode;
pub use text::{Request, Text};
