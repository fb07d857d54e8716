//! Shared parts of the client commands: the servers, the password, and error messages.

use super::Named;
use super::terminal::ask_hidden;
use crate::address;
use crate::client::{Account, After, Attributes, Client, Error};
use crate::limits::LINE_BYTES_MAX;
use crate::options;
use crate::settings;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Default path of a group's config file.
const CONFIG: &str = "postern.toml";
/// The server that is asked if no servers are named.
const SERVER: &str = "127.0.0.1:5001";

/// The byte order mark, with which some editors begin a UTF-8 file.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Set if no servers were named.
static DEFAULTED: AtomicBool = AtomicBool::new(false);

/// Returns the servers of the group: from the options, the environment, the config file, or the
/// default.
///
/// # Errors
/// Returns a one-line message that states what is wrong with the file, or the environment.
pub(super) fn servers(group: &options::Group) -> Result<Vec<String>, String> {
    if let Some(servers) = &group.servers {
        return Ok(servers.clone());
    }
    if let Some(config) = &group.config {
        return settings::servers(config);
    }
    match std::env::var("POSTERN_SERVERS") {
        Ok(servers) if !servers.trim().is_empty() => servers
            .split(',')
            .map(|server| address::parse(server).named("POSTERN_SERVERS"))
            .collect(),
        _ if Path::new(CONFIG).exists() => settings::servers(Path::new(CONFIG)),
        _ => {
            DEFAULTED.store(true, Ordering::Relaxed);
            Ok(vec![SERVER.to_owned()])
        }
    }
}

/// Returns the text of a message after its title, as servers show it to netcat.
pub(super) fn with_title<'a>(text: &'a str, attributes: &Attributes) -> Cow<'a, str> {
    match &attributes.title {
        Some(title) => format!("{title}: {text}").into(),
        None => text.into(),
    }
}

/// Returns a note on the default server if no servers were named, to be printed when it does not
/// help.
pub(super) fn default_note() -> Option<String> {
    DEFAULTED.load(Ordering::Relaxed).then(|| {
        format!(
            "no servers were named, so {SERVER} was asked; name them by --servers, POSTERN_SERVERS \
             or a file {CONFIG}"
        )
    })
}

/// Returns a client of the group for the account that the options name. Creates the account if it
/// `may_be_new` and does not exist: then it asks twice for the password.
///
/// # Errors
/// Returns a one-line message that states what is missing.
pub(super) fn client(
    login: &options::Login,
    after: After,
    may_be_new: bool,
    patience: Duration,
) -> Result<Client, String> {
    let servers = servers(&login.group)?;
    let password = match given_password(login.password_file.as_deref())? {
        Some(password) => password,
        None if may_be_new => ask_twice(&login.user)?,
        None => ask_for(&login.user)?,
    };
    let account = Account::new(&login.user, &password).after(after);
    let account = if may_be_new { account.created() } else { account };
    let mut client = Client::new(servers, account).map_err(|error| said(&error))?;
    client.set_patience(Some(patience));
    Ok(client)
}

/// Returns the message for an error that ends a command.
pub(super) fn said(error: &Error) -> String {
    let note = default_note().filter(|_| matches!(error, Error::NoPrimary(_)));
    note.map_or_else(|| error.to_string(), |note| format!("{error}; {note}"))
}

/// Returns a new password. Asks for it twice if neither the file nor the environment holds it.
///
/// # Errors
/// Returns a one-line message that states what is missing.
pub(super) fn new_password(account: &options::NewPassword) -> Result<String, String> {
    let given = given_password(account.password_file.as_deref())?;
    given.map_or_else(|| ask_twice(&account.name), Ok)
}

fn ask_twice(user: &str) -> Result<String, String> {
    let first = ask_for(user)?;
    if ask("Once more: ")? == first { Ok(first) } else { Err("the passwords differ".to_owned()) }
}

fn ask_for(user: &str) -> Result<String, String> {
    ask(&format!("Password of {user}: "))
}

/// Returns the password from the file or the environment, if there is one.
fn given_password(file: Option<&Path>) -> Result<Option<String>, String> {
    let (shown, line) = match (file, std::env::var_os("POSTERN_PASSWORD")) {
        (Some(path), _) => {
            let is_stdin = path == Path::new("-");
            let shown = if is_stdin { "standard input".into() } else { path.display().to_string() };
            // Standard input without a buffer: others read what follows the first line.
            let stdin = || io::stdin().as_fd().try_clone_to_owned().map(File::from);
            let opened = if is_stdin { stdin() } else { File::open(path) };
            let line = opened.and_then(first_line);
            (shown.clone(), line.named(format_args!("{shown}: cannot read the password"))?)
        }
        (None, Some(given)) => ("POSTERN_PASSWORD".to_owned(), given.into_encoded_bytes()),
        (None, None) => return Ok(None),
    };
    match String::from_utf8(line) {
        Err(_) => Err(format!("{shown}: the password is not UTF-8; save it as UTF-8 text")),
        Ok(empty) if empty.is_empty() => Err(format!("{shown}: the password is empty")),
        Ok(password) => Ok(Some(password)),
    }
}

/// Reads the first line without its line end, and without the byte order mark with which some
/// editors begin a file. Reads at most [`LINE_BYTES_MAX`] bytes of a longer line, more than any
/// password has.
#[expect(clippy::unbuffered_bytes, reason = "others read what follows")]
fn first_line(input: impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    for byte in input.bytes().take(LINE_BYTES_MAX) {
        match byte? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    line.pop_if(|byte| *byte == b'\r');
    Ok(line.strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::to_vec).unwrap_or(line))
}

fn ask(question: &str) -> Result<String, String> {
    ask_hidden(question).map_err(|_| {
        "no password: set POSTERN_PASSWORD, or name a file with --password-file".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_whatever_its_end() {
        let table: &[(&[u8], &[u8], &[u8])] = &[
            (b"correct-horse", b"correct-horse", b""),
            (b"correct-horse\nrest", b"correct-horse", b"rest"),
            (b"correct-horse\r\nrest", b"correct-horse", b"rest"),
            (b"correct-horse\r", b"correct-horse", b""),
            (b"\xef\xbb\xbfcorrect-horse\r\n", b"correct-horse", b""),
            (b" two  \xef\xbb\xbf\r\r\n", b" two  \xef\xbb\xbf\r", b""),
            (b"", b"", b""),
            (b"\nrest", b"", b"rest"),
            (b"\xef\xbb\xbf\n", b"", b""),
        ];
        for (input, line, rest) in table {
            let mut left = *input;
            assert_eq!(first_line(&mut left).unwrap(), *line, "{input:x?}");
            assert_eq!(left, *rest, "{input:x?}");
        }
        let endless = first_line(&mut io::repeat(b'x')).unwrap();
        assert_eq!(endless.len(), LINE_BYTES_MAX);
    }
}
