//! Who does not know the group's secret takes no part in it: not as a server with another secret,
//! not with nonsense, not with what was recorded. It is closed soon, and the log says so once.

mod common;

use common::{Client, Group};
use postern::ids::Secret;
use postern::server::Seal;
use postern::server::channel::{Channel, HANDSHAKE_BYTES};
use postern::server::operator_client::OperatorClient;
use postern::settings::Settings;
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

/// What a server says of somebody who dialled it.
const STRANGER: &str = "it claims to be a server, but does not know this group's secret";

/// Everything up to the end of a connection, and how long that took.
fn rest(client: &mut Client) -> (Vec<u8>, Duration) {
    let begin = Instant::now();
    let mut bytes = Vec::new();
    match client.stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    (bytes, begin.elapsed())
}

#[test]
fn a_server_with_another_secret_never_joins() {
    let mut group = Group::open();
    let text = std::fs::read_to_string(group.config()).unwrap();
    let own = text.lines().find(|line| line.starts_with("secret")).unwrap();
    let other = format!("secret = \"{}A=\"", "AbC9".repeat(10) + "xy");
    group.kill(3);
    group.wait_members(2);
    std::fs::write(group.config(), text.replace(own, &other)).unwrap();
    group.start(3);
    for n in [1, 2] {
        group.wait_line(n, STRANGER);
        group.wait_line(3, &format!("the answer for server {n} at {}", group.servers[n - 1]));
    }
    // It tries again and again; that is said once.
    std::thread::sleep(Duration::from_millis(500));
    for n in [1, 2] {
        assert_eq!(group.log(n).matches(STRANGER).count(), 1, "{}", group.log(n));
    }
    assert_eq!(group.log(3).matches("the answer for server").count(), 2, "{}", group.log(3));
    assert!(!group.log(3).split("listens").last().unwrap().contains("linked with"));
    group.wait_members(2);
    // With the right one it is welcome.
    group.kill(3);
    std::fs::write(group.config(), text).unwrap();
    group.start(3);
    group.wait_members(3);
}

#[test]
fn nonsense_gets_few_bytes_and_little_time() {
    let group = Group::open();
    // Enough for a handshake: closed at once, in words.
    let mut client = group.connect(1);
    client.send_bytes(&[0; 1 + HANDSHAKE_BYTES]);
    let (said, _) = rest(&mut client);
    assert!(said.starts_with(b"postern: you do not know this group's secret"), "{said:?}");
    group.wait_line(1, STRANGER);
    // More than that, for as long as it is taken.
    let mut client = group.connect(1);
    client.send_bytes(&vec![0; 10_000_000]);
    rest(&mut client);
    // Less than that: closed when the time is over, which is a quarter of peer_timeout_ms.
    let mut client = group.connect(1);
    client.send_bytes(&[0; HANDSHAKE_BYTES]);
    let (said, time) = rest(&mut client);
    assert!(said.is_empty());
    assert!(time > Duration::from_millis(300) && time < Duration::from_secs(5), "{time:?}");
    group.wait_line(1, "took too long");
    // Many at once keep nobody out for longer.
    let mut many: Vec<Client> = (0..40).map(|_| group.connect(1)).collect();
    many.iter_mut().for_each(|client| client.send_bytes(b"\0"));
    group.wait_line(1, "too many unauthenticated server connections");
    assert!(many.iter_mut().all(|client| rest(client).0.is_empty()));
    group.wait_members(3);
}

#[test]
fn a_recorded_handshake_is_useless() {
    let group = Group::open();
    let settings = Settings::read(&group.config()).unwrap();
    let mut sent = vec![0];
    let mut channel = Channel::initiator(&settings.secret, settings.shared.group, &mut sent);
    let mut original = group.connect(1);
    original.send_bytes(&sent);
    let mut answer = [0; HANDSHAKE_BYTES];
    original.stream.read_exact(&mut answer).unwrap();
    let mut first = Vec::new();
    let taken = channel.open(&answer, &mut Vec::new(), &mut first);
    assert_eq!(taken, Ok(HANDSHAKE_BYTES));
    channel.seal(&[1, 0, 0, 0, 0xff], &mut first);
    // The same bytes on a new connection are answered with new numbers, and then closed.
    let mut again = group.connect(1);
    again.send_bytes(&sent);
    let mut other = [0; HANDSHAKE_BYTES];
    again.stream.read_exact(&mut other).unwrap();
    assert_ne!(answer, other);
    again.send_bytes(&first);
    assert!(rest(&mut again).0.is_empty());
    group.wait_line(1, STRANGER);
    assert!(
        !group.log(1).contains("an invalid packet was received"),
        "the replica never heard of it"
    );
    // On the original one they are what they were: a frame that is no packet.
    original.send_bytes(&first);
    rest(&mut original);
    group.wait_line(1, "an invalid packet was received");
    group.wait_members(3);
}

#[test]
fn a_command_that_knows_the_secret_is_let_in() {
    let group = Group::alone();
    let settings = Settings::read(&group.config()).unwrap();
    let call =
        OperatorClient::begin(group.connect(1).stream, &settings.secret, settings.shared.group);
    let mut call = call.unwrap();
    // No packet: the server ends the link.
    call.send(b"\xff").unwrap();
    assert!(call.receive().is_err());
    group.wait_line(1, "an invalid packet was received");
    let other = Secret::new([1; Secret::BYTES]);
    let refused =
        OperatorClient::begin(group.connect(1).stream, &other, settings.shared.group).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
}
