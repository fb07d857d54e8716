//! The `postern` binary: options in, exit code out.

use clap::Parser;
use postern::commands;
use postern::options::{Command, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    commands::log_to_stderr(options.verbose, options.quiet);
    let done = match &options.command {
        Command::Chat(options) => commands::chat::run(options),
        Command::Check(options) => commands::check::run(options),
        Command::Demo(options) => commands::demo::run(options),
        Command::Handover(options) => commands::handover::run(options),
        Command::Init(options) => commands::init::run(options),
        Command::Recover(options) => commands::recover::run(options),
        Command::Send(options) => commands::send::run(options),
        Command::Serve(options) => {
            commands::serve::give_memory_back();
            commands::serve::run(options)
        }
        Command::Status(options) => commands::status::run(options),
        Command::Tail(options) => commands::tail::run(options),
    };
    match done {
        Ok(code) => code,
        Err(why) => {
            commands::complain(&why);
            ExitCode::FAILURE
        }
    }
}
