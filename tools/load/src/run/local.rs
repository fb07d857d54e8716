//! Finds the processes of servers that somebody else has started on this machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The process that listens at an address of this machine, where it may be seen.
pub(crate) fn listener(address: SocketAddr) -> Option<u32> {
    // Only a machine's own addresses can be bound.
    UdpSocket::bind((address.ip(), 0)).ok()?;
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let found = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let found: Vec<String> = found.collect();
    let sockets: Vec<String> = found
        .iter()
        .flat_map(|table| table.lines().filter_map(listening))
        .filter(|(ip, port, _)| {
            *port == address.port() && (*ip == address.ip() || ip.is_unspecified())
        })
        .map(|(_, _, inode)| format!("socket:[{inode}]"))
        .collect();
    let mut processes = fs::read_dir("/proc").ok()?.flatten();
    processes.find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let holds = files.any(|file| {
            let target = fs::read_link(file.path());
            target.is_ok_and(|target| sockets.iter().any(|one| target.as_os_str() == one.as_str()))
        });
        holds.then_some(pid)
    })
}

/// Address, port and inode of a line of the kernel's table, when it is a socket that listens.
fn listening(line: &str) -> Option<(IpAddr, u16, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    if *state != "0A" {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    // Words of four bytes, each in the order of this machine.
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok();
    let ip = if ip.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes()))
    } else {
        let mut bytes = [0; 16];
        for (at, piece) in bytes.chunks_mut(4).enumerate() {
            piece.copy_from_slice(&word(at)?.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?, inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

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
