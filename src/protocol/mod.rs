//! Requests and replies as types, and the one table of commands. Pure.

mod command;
mod reply;

pub use command::{
    After, Command, Pattern, Refusal, Right, Task, help, is_text, parse, parse_operator,
};
pub use reply::{Answer, Code, Note, Reply};
