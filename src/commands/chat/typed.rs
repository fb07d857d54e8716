//! Parses what the user types: messages, and commands that begin with a slash.

use crate::ids::UserName;
use std::fmt::Write;

/// A parsed line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed<'a> {
    /// An empty line.
    Nothing,
    /// A message. `to` is the receiver if the line names one.
    Say { to: Option<String>, text: &'a str },
    /// Sets the receiver of messages.
    To(String),
    /// Lists the users that match a pattern.
    Who(&'a str),
    /// Changes the password.
    Passwd,
    /// Shows the help text.
    Help,
    /// Ends the chat.
    Quit,
    /// An invalid line, and why it is invalid.
    Wrong(String),
}

/// The commands: name, argument, description.
pub(super) const COMMANDS: [(&str, &str, &str); 5] = [
    ("/to", "NAME", "sends to NAME what you type from now on"),
    ("/who", "[PATTERN]", "lists users, and who is online; PATTERN with * and ?"),
    ("/passwd", "", "changes your password"),
    ("/help", "", "shows this"),
    ("/quit", "", "waits until all is stored, and ends; Ctrl+D does it, too"),
];

/// Returns the help text.
pub(super) fn help() -> String {
    let mut text = "@NAME TEXT        sends TEXT to NAME, and what you type after it\n".to_owned();
    for (name, argument, what) in COMMANDS {
        writeln!(text, "{:17} {what}", format!("{name} {argument}")).expect("a string takes it");
    }
    text += "//TEXT            sends /TEXT\n";
    text + "Tab completes names and commands; arrow up: what you typed"
}

/// Parses a line without its line end.
pub(super) fn read(line: &str) -> Typed<'_> {
    if line.trim().is_empty() {
        return Typed::Nothing;
    }
    if let Some(rest) = line.strip_prefix('@') {
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        return match (named(name), text.is_empty()) {
            (Err(why), _) => Typed::Wrong(why),
            (Ok(name), true) => Typed::To(name),
            (Ok(name), false) => Typed::Say { to: Some(name), text },
        };
    }
    match line.strip_prefix('/') {
        None => Typed::Say { to: None, text: line },
        Some(text) if text.starts_with('/') => Typed::Say { to: None, text },
        Some(command) => read_command(command.trim_end()),
    }
}

/// Parses a line of a paste. No line of it is a command, and only the first may name a receiver.
pub(super) fn read_pasted(line: &str, is_first: bool) -> Typed<'_> {
    match line {
        line if line.trim().is_empty() => Typed::Nothing,
        line if is_first && line.starts_with('@') && line.contains(' ') => read(line),
        text => Typed::Say { to: None, text },
    }
}

fn read_command(command: &str) -> Typed<'_> {
    let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
    match (&name.to_ascii_lowercase()[..], argument.trim()) {
        ("to", name) => named(name).map_or_else(Typed::Wrong, Typed::To),
        ("who", "") => Typed::Who("*"),
        ("who", pattern) if !pattern.contains(' ') => Typed::Who(pattern),
        ("passwd", "") => Typed::Passwd,
        ("help", "") => Typed::Help,
        ("quit" | "exit", "") => Typed::Quit,
        _ => {
            let words = "try /help; a text that begins with / is typed with two";
            Typed::Wrong(format!("there is no command /{command}: {words}"))
        }
    }
}

fn named(name: &str) -> Result<String, String> {
    let known = UserName::parse(name).map(|name| name.to_string());
    known.ok_or_else(|| format!("{name:?} is no name: 1 to 32 of a-z 0-9 _ . -"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let say = |to: Option<&str>, text| Typed::Say { to: to.map(str::to_owned), text };
        for (line, expected) in [
            ("", Typed::Nothing),
            ("  ", Typed::Nothing),
            ("hello  there ", say(None, "hello  there ")),
            ("@bob hi", say(Some("bob"), "hi")),
            ("@Bob", Typed::To("bob".to_owned())),
            ("//etc is full", say(None, "/etc is full")),
            ("/to bob ", Typed::To("bob".to_owned())),
            ("/who", Typed::Who("*")),
            ("/who a*", Typed::Who("a*")),
            ("/passwd", Typed::Passwd),
            ("/help", Typed::Help),
            ("/quit", Typed::Quit),
            ("/EXIT", Typed::Quit),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
        for line in ["/to", "/to .x", "@", "@ä hi", "/who a b", "/tmp/x", "/quit now"] {
            assert!(matches!(read(line), Typed::Wrong(_)), "{line}: {:?}", read(line));
        }
    }

    #[test]
    fn a_paste_is_text() {
        let say = |to: Option<&str>, text| Typed::Say { to: to.map(str::to_owned), text };
        for (line, is_first, expected) in [
            ("@bob hi", true, say(Some("bob"), "hi")),
            ("@bob hi", false, say(None, "@bob hi")),
            ("@ann", true, say(None, "@ann")),
            ("/quit", true, say(None, "/quit")),
            ("/etc/passwd", false, say(None, "/etc/passwd")),
            (" ", false, Typed::Nothing),
        ] {
            assert_eq!(read_pasted(line, is_first), expected, "{line}");
        }
    }

    #[test]
    fn the_help_names_each_command_and_fits_a_terminal() {
        let help = help();
        assert!(COMMANDS.iter().all(|(name, ..)| help.contains(name)));
        assert!(help.lines().all(|line| line.len() <= 76), "{help}");
    }
}
