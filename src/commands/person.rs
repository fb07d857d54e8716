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
/// One line that says what is wrong with the file, or the environment.
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
            .map(|server| {
                settings::parse_server(server).map_err(|why| format!("POSTERN_SERVERS: {why}"))
            })
            .collect(),
        _ if Path::new(CONFIG).exists() => settings::servers(Path::new(CONFIG)),
        _ => Ok(vec![SERVER.to_owned()]),
    }
}

/// A client of the group, for the account that the options name; a password that is asked for and
/// may be a new one is asked for twice.
///
/// # Errors
/// One line that says what is missing.
pub(super) fn client(
    login: &options::Login,
    may_be_new: bool,
    open: impl FnOnce(Account) -> Account,
    patience: Duration,
) -> Result<Client, String> {
    let servers = servers(&login.group)?;
    let password = match given_password(login.password_file.as_deref())? {
        Some(password) => password,
        None if may_be_new => ask_twice(&login.user)?,
        None => ask_for(&login.user)?,
    };
    let account = open(Account::new(&login.user, &password));
    let mut client = Client::new(servers, account).map_err(said)?;
    client.set_patience(Some(patience));
    Ok(client)
}

/// Why a command can't go on, for a person.
pub(super) fn said(error: Error) -> String {
    match error {
        Error::Refused(why) | Error::NotLetIn(why) => format!("{} ({})", why.words, why.code),
        other => other.to_string(),
    }
}

/// A new password: asked for twice, if it has to be.
///
/// # Errors
/// One line that says what is missing.
pub(super) fn new_password(user: &str, file: Option<&Path>) -> Result<String, String> {
    given_password(file)?.map_or_else(|| ask_twice(user), Ok)
}

fn ask_twice(user: &str) -> Result<String, String> {
    let first = ask_for(user)?;
    if ask("Once more: ")? == first { Ok(first) } else { Err("the passwords differ".to_owned()) }
}

fn ask_for(user: &str) -> Result<String, String> {
    ask(&format!("Password of {user}: "))
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
