//! `host:port` of a server, as people write it.

use std::net::{SocketAddr, SocketAddrV6, ToSocketAddrs};

/// Parses one entry of a list of servers. Does not resolve its host.
///
/// # Errors
/// A description of the mistake, for people.
pub fn parse(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("an entry is empty; is there a comma too many?".to_owned());
    }
    let wrong = |why: &str| Err(format!("{text}: is not host:port: {why}"));
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong("the port is missing");
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if text.contains(|c: char| c.is_whitespace() || ";,".contains(c)) {
        return wrong("separate servers by commas, without spaces");
    }
    if !digits || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return wrong("a port is a number from 1 to 65535");
    }
    if host.starts_with('[') {
        let is_address = text.parse::<SocketAddrV6>().is_ok();
        return if is_address { Ok(text.to_owned()) } else { wrong("brackets are for IPv6") };
    }
    if host.contains(':') {
        return wrong("put an IPv6 address in brackets");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return wrong("a host is a name or an address");
    }
    Ok(text.to_owned())
}

/// The address, if the entry holds one and not a name. IPv4-mapped IPv6 addresses are returned as
/// IPv4.
pub fn literal(server: &str) -> Option<SocketAddr> {
    let address: SocketAddr = server.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Resolves a server to its addresses. Blocks as long as the resolver does; never returns an
/// empty list.
///
/// # Errors
/// Why the name has no address, for people.
pub fn look_up(server: &str) -> Result<Vec<SocketAddr>, String> {
    let found: Vec<SocketAddr> = server.to_socket_addrs().map_err(|e| e.to_string())?.collect();
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

/// Whether two entries name the same server, however they are written. Two names may still
/// resolve to one address.
pub fn is_same(one: &str, other: &str) -> bool {
    match (literal(one), literal(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// The first entry that repeats an earlier one.
pub fn repeated(servers: &[String]) -> Option<usize> {
    (1..servers.len()).find(|at| servers[..*at].iter().any(|known| is_same(known, &servers[*at])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_lists() {
        for good in
            ["lab1:5001", " lab1:5001 ", "a.b-c_d.example:1", "192.0.2.1:65535", "[::1]:5001"]
        {
            assert_eq!(parse(good).as_deref(), Ok(good.trim()), "{good}");
        }
        assert!(parse("[fe80::1%2]:5001").is_ok());
        let table = [
            ("", "a comma too many"),
            ("  ", "a comma too many"),
            ("lab1", "the port is missing"),
            ("lab1:", "from 1 to 65535"),
            ("lab1:0", "from 1 to 65535"),
            ("lab1:65536", "from 1 to 65535"),
            ("lab1:+5001", "from 1 to 65535"),
            (":5001", "a name or an address"),
            ("a:1;b:1", "separate servers by commas"),
            ("a:1 b:1 c:1", "separate servers by commas"),
            ("::1:5001", "in brackets"),
            ("[lab1]:5001", "brackets are for IPv6"),
            ("lab1/x:5001", "a name or an address"),
            ("läb1:5001", "a name or an address"),
        ];
        for (bad, expected) in table {
            let why = parse(bad).expect_err(bad);
            assert!(why.contains(expected), "{bad}: {why}");
        }
    }

    #[test]
    fn one_server_may_be_written_in_several_ways() {
        let same = [
            ("[::ffff:127.0.0.1]:5001", "127.0.0.1:5001"),
            ("[::1]:5001", "[0:0::1]:5001"),
            ("Lab1:5001", "lab1:5001"),
        ];
        for (one, other) in same {
            assert!(is_same(one, other), "{one} {other}");
        }
        assert!(!is_same("lab1:5001", "lab1:5002") && !is_same("127.0.0.1:1", "[::1]:1"));
        let list = ["a:1", "b:1", "A:1"].map(str::to_owned);
        assert_eq!((repeated(&list), repeated(&list[..2])), (Some(2), None));
    }
}
