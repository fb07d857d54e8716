//! Finds the processes of servers on this machine.

use procfs::net::{TcpState, tcp, tcp6};
use procfs::process::{FDTarget, all_processes};
use std::net::{SocketAddr, UdpSocket};

/// Returns the process that listens at an address of this machine, if it can be inspected.
pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
    // Only the addresses of this machine can be bound.
    UdpSocket::bind((address.ip(), 0)).ok()?;
    let sockets = tcp().into_iter().chain(tcp6()).flatten().filter(|socket| {
        let local = socket.local_address;
        socket.state == TcpState::Listen
            && local.port() == address.port()
            && (local.ip() == address.ip() || local.ip().is_unspecified())
    });
    let inodes: Vec<u64> = sockets.map(|socket| socket.inode).collect();
    let process = all_processes().ok()?.flatten().find(|process| {
        let mut files = process.fd().into_iter().flatten().flatten();
        files.any(|file| matches!(file.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
    });
    u32::try_from(process?.pid).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, TcpListener};

    #[test]
    fn who_listens_is_found_and_nobody_else() {
        for ip in ["127.0.0.1", "127.3.2.1", "::1", "0.0.0.0"] {
            let ip: IpAddr = ip.parse().unwrap();
            // A machine may have no IPv6.
            let Ok(socket) = TcpListener::bind((ip, 0)) else { continue };
            let mut address = socket.local_addr().unwrap();
            assert_eq!(listener(address), Some(std::process::id()), "{address}");
            if address.ip().is_unspecified() {
                continue;
            }
            drop(socket);
            assert_eq!(listener(address), None, "{address}");
            address.set_ip("192.0.2.1".parse().unwrap());
            assert_eq!(listener(address), None, "not of this machine");
        }
    }
}
