//! The command line, as one definition.

use crate::address;
use crate::client::After;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// A replicated mailbox and chat server for three cheap boxes.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Says more; twice, still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Says only what is wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

impl Options {
    /// Reads the command line of this process. Ends it if that is wrong, or asks for help.
    pub fn of_process() -> Options {
        Options::parse_from(with_counts(std::env::args_os()))
    }
}

/// Writes `-5` as `-n 5` after the command `tail`, as its namesake has it.
fn with_counts(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut result: Vec<OsString> = Vec::new();
    for argument in arguments {
        let is_tail = result.iter().skip(1).any(|word| word == "tail");
        let is_value = result.last().is_some_and(|word| word == "--after");
        let count = argument.to_str().and_then(|word| word.strip_prefix('-')).unwrap_or_default();
        let is_count = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        match is_tail && is_count && !is_value {
            true => result.push(format!("--last={count}").into()),
            false => result.push(argument),
        }
    }
    result
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows the whole thing on this machine: three servers, and what to type.
    #[command(after_help = "Example:\n  postern demo --port 5001")]
    Demo(Demo),
    /// Writes the config file of a new group, for all its servers.
    #[command(
        after_help = concat!(
            "Example:\n  postern init ",
            "--servers localhost:5001,localhost:5002,localhost:5003",
        )
    )]
    Init(Init),
    /// Runs a server.
    #[command(after_help = "Example:\n  postern serve --config postern.toml --id 1 --data data1")]
    Serve(Serve),
    /// Chats: what others write comes above the line that you type.
    #[command(after_help = concat!(
        "It follows the primary, sends what was not answered again, and shows nothing twice. The ",
        "next prompt means: stored. Type /help there.\n\nExample:\n  ",
        "postern chat --servers lab1:5001,lab2:5001,lab3:5001 ann",
    ))]
    Chat(Chat),
    /// Sends a message, or each line of standard input as one.
    #[command(after_help = concat!(
        "Exit 0 only if every line was acknowledged: stored on the disk of every attached server, ",
        "once, in order, whatever servers failed meanwhile. Empty lines are passed over. After a ",
        "line that is refused no more are sent, unless --skip says so.\n\nExample:\n  ",
        "postern send --password-file pw ann bob lunch at noon?\n  ",
        "dmesg | postern send --password-file pw ann ops",
    ))]
    Send(Send),
    /// Prints the messages of a mailbox, one a line: number, time, sender, text.
    #[command(after_help = concat!(
        "Each message is printed once, in order, whatever servers fail meanwhile.\n\nExample:\n  ",
        "postern tail --password-file pw bob -n 10 --follow",
    ))]
    Tail(Tail),
    /// Shows all servers of a group.
    #[command(after_help = concat!(
        "Exit 0 if every configured server answers and is a member, and changes are taken; else ",
        "1, with the reason.\n\n",
        "term: how many elections there were; each has one primary at most. gate: open once all ",
        "servers were attached, from then on clients are let in. learner: a server that is being ",
        "filled, and no member yet. last, answered, applied: entries of the log that are stored, ",
        "that every member has stored, and that mailboxes show.\n\n",
        "Example:\n  postern status --servers 127.0.0.1:5001",
    ))]
    Status(Status),
    /// Reads all files of a stopped server, says what they hold and what is damaged.
    #[command(after_help = concat!(
        "Changes nothing. Exit 0 if all is sound, 1 if something is damaged. It also reads what ",
        "was quarantined.\n\nExample:\n  postern check --data data1",
    ))]
    Check(Check),
    /// Asks the primary to give its role to a backup, before planned work on its machine.
    #[command(after_help = concat!(
        "Nothing that was answered is lost, and clients wait some milliseconds. SIGTERM to the ",
        "primary does the same first.\n\nExample:\n  postern handover --config postern.toml",
    ))]
    Handover(Handover),
    /// Overrules the group: goes on with one stopped server alone, when the others are lost.
    #[command(after_help = concat!(
        "Without --yes it changes nothing: it shows what the directory holds and what may be ",
        "lost, and prints the word that --yes wants. It refuses while another server answers.",
        "\n\nExample:\n  postern recover --config postern.toml --data data1",
    ))]
    Recover(Recover),
    /// Lists, makes and deletes accounts, and sets their passwords, as the group's operator.
    #[command(after_help = concat!(
        "The secret in the config file lets the operator in.\n\nExample:\n  ",
        "postern user add ann\n  postern user list",
    ))]
    User(User),
    /// Prints a script that lets a shell complete commands and options.
    #[command(after_help = concat!(
        "Example:\n  ",
        "postern completions bash > ~/.local/share/bash-completion/completions/postern",
    ))]
    Completions(Completions),
    /// Prints the manual pages.
    #[command(after_help = concat!(
        "Example:\n  postern man | man -l -\n  ",
        "postern man --dir ~/.local/share/man/man1",
    ))]
    Man(Man),
}

/// Options of `postern demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keeps the data here, for the next time; otherwise it goes to a new temporary folder.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The first of three ports.
    #[arg(long, default_value_t = 5001, value_parser = clap::value_parser!(u16).range(1..=65533))]
    pub port: u16,
}

/// Options of `postern init`.
#[derive(Debug, Args)]
pub struct Init {
    /// `host:port` of the servers 1, 2 and 3, or of one that runs alone.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "SERVERS",
        required = true,
        value_parser = address::parse,
    )]
    pub servers: Vec<String>,
    /// The file to write.
    #[arg(long, default_value = "postern.toml")]
    pub out: PathBuf,
}

/// Options of `postern serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The config file.
    #[arg(long, default_value = "postern.toml")]
    pub config: PathBuf,
    /// Which server of the list this one is.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub id: u8,
    /// The data directory, instead of the one in the config file.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Ends when standard input does: for a parent that may die.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// Which group a client command speaks to.
#[derive(Debug, Args)]
pub struct Group {
    /// Its servers, HOST:PORT each; of one that runs the others are learned. Otherwise those of
    /// --config, of POSTERN_SERVERS, of ./postern.toml, or 127.0.0.1:5001.
    #[arg(long, value_delimiter = ',', value_name = "SERVERS", value_parser = address::parse)]
    pub servers: Option<Vec<String>>,
    /// A file with a `servers` line; nothing else in it is looked at.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Who logs in.
#[derive(Debug, Args)]
pub struct Login {
    /// The account.
    pub user: String,
    /// Read the password from the first line of FILE (`-`: standard input); without it
    /// POSTERN_PASSWORD is used, or the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where.
    #[command(flatten)]
    pub group: Group,
}

/// How long commands may wait, in seconds: up to a day.
fn wait() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=86_400)
}

/// Options of `postern chat`.
#[derive(Debug, Args)]
pub struct Chat {
    /// Who chats.
    #[command(flatten)]
    pub login: Login,
    /// Makes the account if it is not there.
    #[arg(long)]
    pub create: bool,
    /// Shows so many of the last messages first.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub last: u64,
}

/// Options of `postern send`.
#[derive(Debug, Args)]
pub struct Send {
    /// Who sends.
    #[command(flatten)]
    pub login: Login,
    /// Whose mailbox.
    pub to: String,
    /// The message, behind `--` if it begins with one; without it, each line of standard input is
    /// one.
    pub text: Vec<String>,
    /// Print what became of each line, as JSON.
    #[arg(long)]
    pub json: bool,
    /// Replace what a message cannot hold, and split lines that are too long.
    #[arg(long)]
    pub lossy: bool,
    /// Report a line that cannot be sent, and go on with the next; exit 1 in the end.
    #[arg(long)]
    pub skip: bool,
    /// Gives up when no primary is found for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = wait())]
    pub wait: u64,
}

/// Options of `postern tail`.
#[derive(Debug, Args)]
pub struct Tail {
    /// Whose mailbox.
    #[command(flatten)]
    pub login: Login,
    /// Start with the last COUNT messages; -COUNT is short for it.
    #[arg(short = 'n', long, value_name = "COUNT", conflicts_with = "after")]
    pub last: Option<u64>,
    /// Start after message N; `end` prints only new messages, `-5` starts with the last 5.
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        allow_hyphen_values = true,
        value_parser = After::parse_word,
    )]
    pub after: After,
    /// Goes on with new messages as they come, until Ctrl+C.
    #[arg(short, long)]
    pub follow: bool,
    /// Prints each message as a JSON object.
    #[arg(long)]
    pub json: bool,
    /// Gives up when no primary is found for so many seconds; once let in, a follower never does.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = wait())]
    pub wait: u64,
}

/// Options of `postern status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Which group.
    #[command(flatten)]
    pub group: Group,
}

/// Options of `postern check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The data directory, or a folder below its `quarantine`.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// Options of `postern handover`.
#[derive(Debug, Args)]
pub struct Handover {
    /// Give the role to this server instead of any backup.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub to: Option<u8>,
    /// The config file of the group; its secret lets an operator in.
    #[arg(long, default_value = "postern.toml")]
    pub config: PathBuf,
}

/// Options of `postern recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// The data directory to go on with.
    #[arg(long)]
    pub data: PathBuf,
    /// Go on with what was quarantined in this folder of the data directory, as `STATUS` names it.
    #[arg(long, value_name = "FOLDER")]
    pub from: Option<PathBuf>,
    /// Another data directory of the group, to see which one is best; may be given again.
    #[arg(long)]
    pub also: Vec<PathBuf>,
    /// The word that a run without it has printed.
    #[arg(long, value_name = "WORD")]
    pub yes: Option<String>,
    /// The config file of the group.
    #[arg(long, default_value = "postern.toml")]
    pub config: PathBuf,
    /// Whose directory it is, if that can't be read in it any more.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub id: Option<u8>,
}

/// Options of `postern user`.
#[derive(Debug, Args)]
pub struct User {
    /// What to do.
    #[command(subcommand)]
    pub what: UserCommand,
    /// The config file of the group.
    #[arg(long, default_value = "postern.toml", global = true)]
    pub config: PathBuf,
}

/// What `postern user` does.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Prints all accounts, and who is online.
    List,
    /// Makes an account.
    Add(NewPassword),
    /// Sets a password, and closes the account's sessions.
    Passwd(NewPassword),
    /// Delete an account with its messages, after asking.
    Delete {
        /// The account.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// An account and its new password.
#[derive(Debug, Args)]
pub struct NewPassword {
    /// The account.
    pub name: String,
    /// Read the password from the first line of FILE (`-`: standard input); without it
    /// POSTERN_PASSWORD is used, or the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Options of `postern completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell.
    pub shell: clap_complete::Shell,
}

/// Options of `postern man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Writes each page into a file of its own in this folder.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Options::command().get_subcommands() {
            let help = command.clone().render_help().to_string();
            assert!(help.contains("Example:\n  postern "), "{}", command.get_name());
        }
    }

    #[test]
    fn tail_takes_counts_as_its_namesake_does() {
        let last = |words: &str| {
            let words = format!("postern {words}");
            let options = Options::parse_from(with_counts(words.split(' ').map(OsString::from)));
            let Command::Tail(tail) = options.command else { panic!("tail") };
            (tail.last, tail.after)
        };
        assert_eq!(last("tail bob -5"), (Some(5), After::Number(0)));
        assert_eq!(last("tail -5 bob"), (Some(5), After::Number(0)));
        assert_eq!(last("tail bob -n 5"), (Some(5), After::Number(0)));
        assert_eq!(last("tail bob --after -5"), (None, After::Last(5)));
    }
}
