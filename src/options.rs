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
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
    /// Log more; repeat for still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Log only warnings and errors.
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
    /// Start three servers on this machine, and print what to type.
    #[command(after_help = "Example:\n  postern demo --port 5001")]
    Demo(Demo),
    /// Write the config file of a new group, for all its servers.
    #[command(after_help = "Example:\n  \
        postern init --servers localhost:5001,localhost:5002,localhost:5003")]
    Init(Init),
    /// Run a server.
    #[command(after_help = "Example:\n  postern serve --config postern.toml --id 1 --data data1")]
    Serve(Serve),
    /// Chat: show messages from others above the line that you type.
    #[command(after_help = "It follows the primary, sends what was not answered again, and shows \
        nothing twice. The next prompt means: stored. Type /help there.\n\nExample:\n  \
        postern chat --servers lab1:5001,lab2:5001,lab3:5001 ann")]
    Chat(Chat),
    /// Send a message, or each line of standard input as a message.
    #[command(after_help = "Exit 0 only if every line was acknowledged: stored on the disk of \
        every attached server, once, in order, whatever servers failed meanwhile. Empty lines \
        are passed over. After a line that is refused no more are sent, unless --skip says so.\n\n\
        Example:\n  postern send --password-file pw ann bob lunch at noon?\n  \
        dmesg | postern send --password-file pw ann ops")]
    Send(Send),
    /// Print the messages of a mailbox, one per line: number, time, sender, text.
    #[command(after_help = "Each message is printed once, in order, whatever servers fail \
        meanwhile.\n\nExample:\n  postern tail --password-file pw bob -n 10 --follow")]
    Tail(Tail),
    /// Show all servers of a group.
    #[command(after_help = "Exit 0 if every configured server answers and is a member, and \
        changes are taken; else 1, with the reason.\n\nterm: how many elections there were; each \
        has one primary at most. gate: open once all servers were attached, from then on clients \
        are let in. learner: a server that is being filled, and no member yet. last, answered, \
        applied: entries of the log that are stored, that every member has stored, and that \
        mailboxes show.\n\nExample:\n  postern status --servers 127.0.0.1:5001")]
    Status(Status),
    /// Verify all files of a stopped server, and print what they hold.
    #[command(after_help = "Changes nothing. Exit 0 if all is sound, 1 if something is damaged. \
        It also reads what was quarantined.\n\nExample:\n  postern check --data data1")]
    Check(Check),
    /// Hand the primary role to a backup, before planned work on the primary's machine.
    #[command(after_help = "Nothing that was answered is lost, and clients wait some \
        milliseconds. SIGTERM to the primary does the same first.\n\nExample:\n  \
        postern handover --config postern.toml")]
    Handover(Handover),
    /// Overrule the group: continue with one stopped server alone, after the others are lost.
    #[command(after_help = "Without --yes it changes nothing: it shows what the directory holds \
        and what may be lost, and prints the word that --yes wants. It refuses while another \
        server answers.\n\nExample:\n  postern recover --config postern.toml --data data1")]
    Recover(Recover),
    /// Copy all messages and accounts of a running group to a file.
    #[command(after_help = "The file holds everything that was acknowledged when the command \
        began, and a checksum. It comes from a backup server if one runs. `-` writes to standard \
        output.\n\nExample:\n  postern backup --out postern-monday.bak\n  \
        postern backup --out - | zstd | ssh nas 'cat > postern.bak.zst'")]
    Backup(Backup),
    /// Make a new group from a backup.
    #[command(after_help = "Writes the config file of the new group, and the data directory of \
        its server 1. Accounts, messages, their numbers and keys are those of the backup.\n\n\
        Example:\n  postern restore postern-monday.bak --data data1 \\\n    \
        --servers lab1:5001,lab2:5001,lab3:5001")]
    Restore(Restore),
    /// List, add and delete accounts, and set passwords, as the group's operator.
    #[command(after_help = "The secret in the config file lets the operator in.\n\nExample:\n  \
        postern user add ann\n  postern user list")]
    User(User),
    /// Print a script for the completion of commands and options in a shell.
    #[command(after_help = "Example:\n  \
        postern completions bash > ~/.local/share/bash-completion/completions/postern")]
    Completions(Completions),
    /// Print the manual pages.
    #[command(after_help = "Example:\n  postern man | man -l -\n  \
        postern man --dir ~/.local/share/man/man1")]
    Man(Man),
}

/// Options of `postern demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep the data in this folder for the next run. Default: a new temporary folder.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The first of three consecutive ports.
    #[arg(long, default_value_t = 5001, value_parser = clap::value_parser!(u16).range(1..=65533))]
    pub port: u16,
}

/// Options of `postern init`.
#[derive(Debug, Args)]
pub struct Init {
    /// HOST:PORT of servers 1, 2 and 3, or of a single server.
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
    /// Read the settings from this file.
    #[arg(long, default_value = "postern.toml")]
    pub config: PathBuf,
    /// The position of this server in the list: 1, 2 or 3.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub id: u8,
    /// The data directory. Default: the one in the config file.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Stop when standard input ends: for a parent process that may die.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// Which group a client command speaks to.
#[derive(Debug, Args)]
pub struct Group {
    /// Ask these servers, HOST:PORT each; one that runs names the others. Default: those of
    /// --config, of POSTERN_SERVERS, of ./postern.toml, or 127.0.0.1:5001.
    #[arg(long, value_delimiter = ',', value_name = "SERVERS", value_parser = address::parse)]
    pub servers: Option<Vec<String>>,
    /// Read the servers from the `servers` line of this file, and nothing else.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Who logs in.
#[derive(Debug, Args)]
pub struct Login {
    /// The account.
    pub user: String,
    /// Read the password from the first line of FILE (`-`: standard input). Default:
    /// POSTERN_PASSWORD, or ask on the terminal.
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
    /// The account that chats.
    #[command(flatten)]
    pub login: Login,
    /// Create the account if it does not exist.
    #[arg(long)]
    pub create: bool,
    /// Show the last COUNT messages first.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub last: u64,
}

/// Options of `postern send`.
#[derive(Debug, Args)]
pub struct Send {
    /// The account that sends.
    #[command(flatten)]
    pub login: Login,
    /// The account whose mailbox it is.
    pub to: String,
    /// The message, after `--` if it begins with a hyphen. Default: each line of standard input.
    pub text: Vec<String>,
    /// Send all of standard input as one message.
    #[arg(long, conflicts_with_all = ["text", "lossy", "skip"])]
    pub whole: bool,
    #[command(flatten)]
    pub attributes: Attributes,
    /// Print the outcome of each line as JSON.
    #[arg(long)]
    pub json: bool,
    /// Replace what a message cannot hold, and split lines that are too long.
    #[arg(long)]
    pub lossy: bool,
    /// Report a line that cannot be sent, continue with the next, and exit with 1 at the end.
    #[arg(long)]
    pub skip: bool,
    /// Give up when no primary is found for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = wait())]
    pub wait: u64,
}

/// The attributes of a message.
#[derive(Clone, Debug, Args)]
pub struct Attributes {
    /// Give the message a title of at most 250 bytes.
    #[arg(long)]
    pub title: Option<String>,
    /// Give the message a priority: 1 is the least urgent, 5 the most.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub priority: Option<u8>,
    /// Give the message tags, words by which programs sort messages.
    #[arg(long)]
    pub tags: Option<String>,
    /// Give the message an address that a click on it opens.
    #[arg(long, value_name = "URL")]
    pub click: Option<String>,
}

/// Options of `postern tail`.
#[derive(Debug, Args)]
pub struct Tail {
    /// The account whose mailbox it is.
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
    /// Continue with new messages as they arrive, until Ctrl+C.
    #[arg(short, long)]
    pub follow: bool,
    /// Print each message as a JSON object.
    #[arg(long)]
    pub json: bool,
    /// Give up when no primary is found for this many seconds; a follower that was logged in once
    /// never does.
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
    /// The data directory, or a folder in its `quarantine`.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// Options of `postern handover`.
#[derive(Debug, Args)]
pub struct Handover {
    /// Hand the role to this server instead of any backup.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub to: Option<u8>,
    /// The config file of the group; its secret authenticates an operator.
    #[arg(long, default_value = "postern.toml")]
    pub config: PathBuf,
}

/// Options of `postern recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// Continue with this data directory.
    #[arg(long)]
    pub data: PathBuf,
    /// Continue with this quarantined folder of the data directory, as `STATUS` names it.
    #[arg(long, value_name = "FOLDER")]
    pub from: Option<PathBuf>,
    /// Compare with another data directory of the group; may be repeated.
    #[arg(long)]
    pub also: Vec<PathBuf>,
    /// Continue: the word that a run without this option has printed.
    #[arg(long, value_name = "WORD")]
    pub yes: Option<String>,
    /// The config file of the group.
    #[arg(long, default_value = "postern.toml")]
    pub config: PathBuf,
    /// The server whose directory this is, if its identity can't be read.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub id: Option<u8>,
}

/// Options of `postern backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write; `-`: standard output.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Copy at most this number of MiB a second.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 16,
        value_parser = clap::value_parser!(u64).range(1..=4096),
    )]
    pub rate: u64,
    /// The config file of the group; its secret authenticates an operator.
    #[arg(long, default_value = "postern.toml")]
    pub config: PathBuf,
}

/// Options of `postern restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup; `-`: standard input.
    pub file: PathBuf,
    /// The data directory of server 1 to make. It must be missing or empty.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// HOST:PORT of servers 1, 2 and 3 of the new group, or of a single server.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "SERVERS",
        required = true,
        value_parser = address::parse,
    )]
    pub servers: Vec<String>,
    /// The config file to write.
    #[arg(long, value_name = "FILE", default_value = "postern.toml")]
    pub out: PathBuf,
}

/// Options of `postern user`.
#[derive(Debug, Args)]
pub struct User {
    /// The command to run.
    #[command(subcommand)]
    pub what: UserCommand,
    /// The config file of the group.
    #[arg(long, default_value = "postern.toml", global = true)]
    pub config: PathBuf,
}

/// What `postern user` does.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Print all accounts, and which are online.
    List,
    /// Add an account.
    Add(NewPassword),
    /// Set a password, and close the account's sessions.
    Passwd(NewPassword),
    /// Delete an account with its messages, after asking.
    Delete {
        /// The account.
        name: String,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// An account and its new password.
#[derive(Debug, Args)]
pub struct NewPassword {
    /// The account.
    pub name: String,
    /// Read the password from the first line of FILE (`-`: standard input). Default:
    /// POSTERN_PASSWORD, or ask on the terminal.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Options of `postern completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Options of `postern man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write each page to a file of its own in this folder.
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
