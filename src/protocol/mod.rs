//! Requests and replies as types, and the one table of commands. Pure.

mod command;
mod reply;

pub use command::{
    After, Command, Pattern, Refusal, Right, Task, as_line, fits, help, is_text, parse,
    parse_operator, with_breaks,
};
pub use reply::{Answer, Code, Note, Reply};

/// The character that stands for a line break within a line: SYMBOL FOR NEWLINE. Records hold LF
/// instead.
pub const LINE_BREAK: char = '\u{2424}';
