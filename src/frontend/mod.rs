#![doc = include_str!("README.md")]
//!
//! # In the code
//!
//! A front end cuts the bytes that a client has sent into requests ([`Text`]), and makes bytes of
//! the replies ([`encode`]). It reads no socket, so that the server and the simulator run the same
//! one.

mod reply;
mod telnet;
mod text;

pub use reply::encode;
pub use text::{Request, Text};
