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
    let user = &login.user;
    if let Some(path) = &login.password_file {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        return Ok(text.lines().next().unwrap_or("").to_owned());
    }
    if let Some(password) = std::env::var_os("POSTERN_PASSWORD") {
        return password.into_string().map_err(|_| "POSTERN_PASSWORD: is not UTF-8".to_owned());
    }
    ask_hidden(&format!("Password of {user}: ")).map_err(|_| {
        "no password: set POSTERN_PASSWORD, or name a file with --password-file".to_owned()
    })
}
