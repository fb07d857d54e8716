//! Ctrl+C ends every client command at once, at every moment, with exit code 130. The terminal is
//! restored, and unfinished input is not sent.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use common::{Group, postern};
use rustix::process::Signal;
use std::net::TcpListener;
use std::process::Command;
use terminal::Terminal;

/// The moment at which a command is interrupted.
enum Moment {
    /// When the first text is shown, and after the second one is typed.
    Seen(&'static str, &'static str),
    /// As soon as the command handles signals: it has nothing to show.
    Begun,
}

fn command(arguments: &[&str], server: &str, password: bool) -> Command {
    let mut command = postern();
    command.args(arguments).env("POSTERN_SERVERS", server);
    match password {
        true => command.env("POSTERN_PASSWORD", "correct-horse"),
        false => command.env_remove("POSTERN_PASSWORD"),
    };
    command
}

#[test]
fn every_client_command_ends_with_130_and_leaves_the_terminal_as_it_was() {
    let group = Group::alone();
    group.client(1, "ann");
    let here = &group.servers[0][..];
    // Accepts connections, and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = &silent.local_addr().unwrap().to_string()[..];
    let config = group.config().display().to_string();
    let moments: [(Command, Moment); 13] = [
        (command(&["chat", "ann"], here, false), Moment::Seen("Password of ann:", "correct-ho")),
        (command(&["chat", "ann"], here, true), Moment::Seen("1 copy >", "")),
        (command(&["chat", "ann"], here, true), Moment::Seen("1 copy >", "@ann half a li")),
        (command(&["chat", "ann"], nowhere, true), Moment::Begun),
        (command(&["send", "ann", "ann"], here, false), Moment::Seen("Password of ann:", "")),
        (command(&["send", "ann", "ann"], here, true), Moment::Begun),
        (command(&["send", "ann", "ann", "hi"], nowhere, true), Moment::Begun),
        (command(&["tail", "ann", "-f"], here, false), Moment::Seen("Password of ann:", "c")),
        (command(&["tail", "ann", "-f"], here, true), Moment::Begun),
        (command(&["tail", "ann"], nowhere, true), Moment::Begun),
        (command(&["status"], nowhere, true), Moment::Begun),
        (
            command(&["user", "add", "eve", "--config", &config], here, false),
            Moment::Seen("Password of eve:", "correct-ho"),
        ),
        (
            command(&["user", "passwd", "ann", "--config", &config], here, false),
            Moment::Seen("Password of ann:", ""),
        ),
    ];
    for (command, moment) in &moments {
        for by_key in [true, false] {
            let mut terminal = Terminal::run(command);
            match moment {
                // SIGHUP is the last signal that it registers.
                Moment::Begun => terminal.listens_for(Signal::HUP),
                Moment::Seen(text, typed) => {
                    terminal.see(text);
                    terminal.type_in(typed);
                }
            }
            if by_key {
                // The first Ctrl+C clears a line that is being edited.
                terminal.type_in("\x03\x03");
            } else {
                terminal.signal(Signal::INT);
            }
            assert_eq!(terminal.end().code(), Some(130), "{command:?} {by_key}");
            assert!(terminal.is_sane(), "{command:?} {by_key}");
        }
    }
    assert_eq!(group.mailbox(1, "ann").len(), 0, "nothing is sent");
    let mut client = group.connect(1);
    assert!(client.ask("LOGIN eve correct-ho").starts_with("ERR wrong-password "));
}

#[test]
fn who_runs_in_the_background_or_under_nohup_is_left_alone() {
    let group = Group::alone();
    group.client(1, "ann");
    let tail =
        format!("{} tail ann -f --servers {}", postern().get_program().display(), group.servers[0]);
    // SIGTERM in the background ends it, without touching a terminal that it has not changed.
    // Under nohup it ignores SIGHUP and continues.
    let script = format!(
        "set -m; {tail} >/dev/null & \
         while ! grep -q 'SigCgt:.*[1-9a-f]' /proc/$!/status; do :; done; \
         until [ \"$(postern_waits $!)\" ]; do :; done; \
         kill -TERM $!; wait $!; echo first $?; \
         (trap '' HUP; exec {tail} >/dev/null) & \
         until [ \"$(postern_waits $!)\" ]; do :; done; \
         kill -HUP $!; kill -0 $! && kill -TERM $!; wait $!; echo second $?"
    );
    // It is connected, and waits, when it has a socket besides its standard streams.
    let waits = "postern_waits() { ls -l /proc/$1/fd 2>/dev/null | grep socket | head -1; }; ";
    let mut bash = Command::new("bash");
    bash.args(["-c", &(waits.to_owned() + &script)]).env("POSTERN_PASSWORD", "correct-horse");
    let mut terminal = Terminal::run(&bash);
    terminal.see("first 143");
    terminal.see("second 143");
}
