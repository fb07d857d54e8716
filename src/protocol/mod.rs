//! The text protocol: lines in, lines out. Pure.

mod command;
mod reply;

pub use command::{After, Command, Pattern, Refusal, Right, help, is_text, parse, parse_operator};
pub use reply::{Code, Note, error, message, note, ok};
