//! The `postern` binary: options in, exit code out.

use postern::commands;
use postern::options::{Command, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::of_process();
    let is_server = matches!(options.command, Command::Serve(_));
    // Before any thread starts: this replaces the process, and threads would not survive.
    let unchanged = is_server.then(commands::serve::give_memory_back).flatten();
    let logged = commands::log_to_stderr(options.verbose, options.quiet);
    if let Some(why) = unchanged {
        log::warn!("the allocator keeps its defaults: {why}");
    }
    let code = match logged.and_then(|()| run(&options.command)) {
        Ok(code) => code,
        Err(why) if is_server => {
            commands::complain_briefly(&why);
            ExitCode::FAILURE
        }
        Err(why) => {
            commands::complain(&why);
            ExitCode::FAILURE
        }
    };
    log::logger().flush();
    code
}

fn run(command: &Command) -> Result<ExitCode, String> {
    // Servers handle signals in their own way.
    if !matches!(command, Command::Demo(_) | Command::Serve(_)) {
        commands::end_on_signals()?;
    }
    match command {
        Command::Backup(options) => commands::backup::run(options),
        Command::Chat(options) => commands::chat::run(options),
        Command::Check(options) => commands::check::run(options),
        Command::Completions(options) => commands::completions::run(options),
        Command::Demo(options) => commands::demo::run(options),
        Command::Handover(options) => commands::handover::run(options),
        Command::Init(options) => commands::init::run(options),
        Command::Man(options) => commands::man::run(options),
        Command::Recover(options) => commands::recover::run(options),
        Command::Restore(options) => commands::backup::restore(options),
        Command::Send(options) => commands::send::run(options),
        Command::Serve(options) => commands::serve::run(options),
        Command::Status(options) => commands::status::run(options),
        Command::Tail(options) => commands::tail::run(options),
        Command::User(options) => commands::user::run(options),
    }
}
