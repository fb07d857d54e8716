//! What client commands have in common: which servers, whose password, what went wrong.

use super::terminal::ask_hidden;
use crate::client::{Account, Client, Error};
use crate::options;
use crate::settings;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Where the config file of a group lies, if nobody says otherwise.
const CONFIG: &str = "postern.toml";
/// Who is asked when nobody is named.
const SERVER: &str = "127.0.0.1:5001";

/// The servers of the group: from the options, the environment, the config file, or the default.
///
/// # Errors
/// One line that says what is wrong with the file.
pub(super) fn servers(group: &options::Group) -> Result<Vec<String>, String> {
    match (&group.servers, &group.config) {
        (Some(servers), _) => Ok(servers.clone()),
        (None, Some(config)) => settings::servers(config),
        (None, None) if Path::new(CONFIG).exists() => settings::servers(Path::new(CONFIG)),
        (None, None) => Ok(vec![SERVER.to_owned()]),
    }
}

/// A client of the group, for the account that the options name.
///
/// # Errors
/// One line that says what is missing.
pub(super) fn client(
    login: &options::Login,
    open: impl FnOnce(Account) -> Account,
    patience: Duration,
) -> Result<Client, String> {
    let servers = servers(&login.group)?;
    let password = password(login)?;
    let account = open(Account::new(&login.user, &password));
    let mut client = Client::new(servers, account).map_err(said)?;
    client.set_patience(Some(patience));
    Ok(client)
}

/// Why a command can't go on, for a person.
pub(super) fn said(error: Error) -> String {
    match error {
        Error::Refused(why) => format!("{} ({})", why.words, why.code),
        other => other.to_string(),
    }
}

fn password(login: &options::Login) -> Result<String, String> {
    match given_password(login.password_file.as_deref())? {
        Some(password) => Ok(password),
        None => ask(&format!("Password of {}: ", login.user)),
    }
}

/// A new password: asked for twice, if it has to be.
///
/// # Errors
/// One line that says what is missing.
pub(super) fn new_password(user: &str, file: Option<&Path>) -> Result<String, String> {
    if let Some(password) = given_password(file)? {
        return Ok(password);
    }
    let first = ask(&format!("New password of {user}: "))?;
    if ask("Once more: ")? == first { Ok(first) } else { Err("the passwords differ".to_owned()) }
}

/// The password that a file or the environment holds.
fn given_password(file: Option<&Path>) -> Result<Option<String>, String> {
    if let Some(path) = file {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        return Ok(Some(text.lines().next().unwrap_or("").to_owned()));
    }
    let given = std::env::var_os("POSTERN_PASSWORD").map(std::ffi::OsString::into_string);
    given.transpose().map_err(|_| "POSTERN_PASSWORD: is not UTF-8".to_owned())
}

fn ask(question: &str) -> Result<String, String> {
    ask_hidden(question).map_err(|_| {
        "no password: set POSTERN_PASSWORD, or name a file with --password-file".to_owned()
    })
}
