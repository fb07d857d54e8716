//! Binds the addresses of a server: all addresses of its own entry in the list, or of `listen`.

use super::ask_status;
use crate::address;
use crate::ids::ServerId;
use crate::settings::Settings;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// How long the program that occupies the port may take to answer `STATUS`.
const PATIENCE: Duration = Duration::from_millis(300);

/// Binds every address that can be bound, and warns of the others.
///
/// # Errors
/// No address can be bound: states why, and what may help.
pub(super) fn bind_all(settings: &Settings, id: ServerId) -> Result<Vec<TcpListener>, String> {
    let own = &settings.servers[id.slot()];
    let server = settings.listen.as_ref().unwrap_or(own);
    let found = address::look_up(server).map_err(|why| {
        format!(
            "cannot listen on {server}: the name has no address ({why}); correct it, or set \
             `listen` to an address of this machine"
        )
    })?;
    let (mut listeners, mut failures) = (Vec::new(), Vec::new());
    for (at, address) in found.iter().enumerate() {
        if found[..at].contains(address) {
            continue;
        }
        match bind(*address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failures.push((*address, error)),
        }
    }
    if listeners.is_empty() {
        let Some((address, error)) = failures.into_iter().next() else {
            return Err(format!("cannot listen on {server}: the name has no address"));
        };
        let server = match address.to_string() == *server {
            true => server.clone(),
            false => format!("{server} ({})", address.ip()),
        };
        return Err(format!("cannot listen on {server}: {}", explain(id, address, &error)));
    }
    for (address, error) in failures {
        log::warn!("cannot listen on {address}, an address of {server}: {error}");
    }
    Ok(listeners)
}

/// Binds an address, which still refuses connections. While this server reads a long log, others
/// must find at once that it is down.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn explain(id: ServerId, address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrNotAvailable => {
            format!("not an address of this machine. This server runs as --id {id}; is that right?")
        }
        ErrorKind::AddrInUse => match ask_status(&address.to_string(), PATIENCE) {
            Ok(answer) => {
                let server = answer.get("server").map_or("?", String::as_str);
                format!("server {server} of a postern group listens there; stop it first")
            }
            Err(_) => "another program listens there; stop it, or choose another port".to_owned(),
        },
        ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 are for root, choose another one")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_one(list: &str) -> Result<Vec<TcpListener>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.toml");
        Settings::init(&path, &[list.to_owned()], false).unwrap();
        bind_all(&Settings::read(&path).unwrap(), ServerId::new(1).unwrap())
    }

    #[test]
    fn errors_say_what_may_help() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        for (server, expected) in [
            (address.to_string(), format!("on {address}: another program listens there")),
            (format!("localhost:{}", address.port()), "localhost:".to_owned()),
            ("192.0.2.17:5001".to_owned(), "This server runs as --id 1; is that right?".to_owned()),
            ("gone.invalid:5001".to_owned(), "gone.invalid:5001: the name has no".to_owned()),
        ] {
            match bind_one(&server) {
                Err(why) => assert!(why.contains(&expected), "{why}"),
                // The IPv6 address may be free.
                Ok(listeners) => assert!(server.starts_with("localhost") && listeners.len() == 1),
            }
        }
    }
}
