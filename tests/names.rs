//! Servers and clients use names as far as they resolve. A name without an address blocks no
//! other server, all addresses of a name are tried, and a server that clients cannot reach is
//! reported.

mod common;

use common::{DEADLINE, Group, postern, run, run_by, stderr};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

fn rewrite(group: &Group, from: &str, to: &str) {
    let text = fs::read_to_string(group.config()).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(group.config(), text.replace(from, to)).unwrap();
}

/// Runs a command that needs only the config file.
fn operate(group: &Group, arguments: &[&str]) -> Output {
    let mut command = postern();
    command.args(arguments).arg("--config").arg(group.config());
    run(command)
}

#[test]
fn a_name_without_an_address_stops_nobody_else() {
    let mut group = Group::open();
    for n in [3, 2, 1] {
        group.terminate(n);
    }
    // The machine of server 3 is gone, and so is its name. Servers 1 and 2 start as before.
    let gone = group.servers[2].clone();
    rewrite(&group, &gone, "gone.invalid:5003");
    group.start(1);
    group.start(2);
    let primary = group.wait_members(2);
    assert_eq!(group.client(primary, "ann").ask("SEND ann hi"), "OK 1");
    let line = group.wait_line(1, "cannot look up");
    assert!(line.contains("gone.invalid:5003 (server 3)"), "{line}");

    let listed = operate(&group, &["user", "list"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "ann offline\n", "{}", stderr(&listed));
    let given = operate(&group, &["handover"]);
    assert!(given.status.success(), "{}", stderr(&given));
    let status = operate(&group, &["status"]);
    let shown = String::from_utf8_lossy(&status.stdout);
    assert_eq!(status.status.code(), Some(1), "{shown}");
    assert!(shown.contains("server 3 (gone.invalid:5003): no such name"), "{shown}");
    assert!(shown.contains("server 3 is not a member"), "{shown}");
    // The missing name does not prevent recovery either.
    group.terminate(1);
    group.terminate(2);
    let mut recover = postern();
    recover.arg("recover").arg("--config").arg(group.config()).arg("--data").arg(group.data(1));
    let shown = run(recover);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("server 3 at gone.invalid:5003: no such name"), "{shown}");
}

#[test]
fn servers_may_have_names_with_several_addresses() {
    // `localhost` resolves to 127.0.0.1, and on many machines first to ::1.
    let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
    drop(free);
    let mut group = Group::at(ports.map(|port| format!("localhost:{port}")).to_vec());
    (1..=3).for_each(|n| group.start(n));
    group.wait_members(3);
    let line = group.wait_line(1, "listens on");
    assert!(line.contains(&format!("127.0.0.1:{}", ports[0])), "where it really listens: {line}");
    assert!(line.contains(&group.data(1).display().to_string()), "where its data is: {line}");
    let status = operate(&group, &["status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    // A server that listens only on IPv4 is found at the second address of its name.
    group.kill(1);
    rewrite(&group, "servers =", &format!("listen = \"127.0.0.1:{}\"\nservers =", ports[0]));
    group.start(1);
    group.wait_members(3);
}

/// Starts server 3 at the address in `group.servers`, which differs from the one in its config
/// file.
fn start_elsewhere(group: &mut Group) {
    let text = fs::read_to_string(group.config()).unwrap();
    fs::write(group.config(), format!("listen = \"{}\"\n{text}", group.servers[2])).unwrap();
    group.start(3);
    fs::write(group.config(), text).unwrap();
}

#[test]
fn a_server_that_clients_do_not_reach_is_noticed_and_gets_no_role() {
    let mut group = Group::new(3);
    let address = group.servers[2].rsplit_once(':').unwrap().0.to_owned();
    group.start(1);
    group.start(2);
    // Server 3 does not listen at the address that the list gives.
    let listed = std::mem::replace(&mut group.servers[2], format!("{address}:5009"));
    start_elsewhere(&mut group);
    let mut primary = group.wait_members(3);
    while primary == 3 {
        // Server 3 was elected before the others could know that it is unreachable.
        group.kill(3);
        group.wait_members(2);
        start_elsewhere(&mut group);
        primary = group.wait_members(3);
    }
    let line = group.wait_line(primary, "server 3 reached this one");
    assert!(line.contains(&format!("{listed} refuses connections")), "{line}");
    let given = operate(&group, &["handover"]);
    assert!(given.status.success(), "{}", stderr(&given));
    let next = 3 - primary;
    group.wait(next, "it leads, not server 3", |status| status["role"] == "primary");
    let status = operate(&group, &["status"]);
    assert_eq!(status.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(shown.contains(&format!("server 3 ({listed}): refused")), "{shown}");
}

/// Returns the command, run where the resolver does not answer for minutes. Needs root; `None`
/// where that is impossible.
fn with_silent_resolver(command: &Command, folder: &Path, resolver: &UdpSocket) -> Option<Command> {
    let config = folder.join("resolv.conf");
    let server = resolver.local_addr().unwrap().ip();
    fs::write(&config, format!("nameserver {server}\noptions timeout:30 attempts:5\n")).unwrap();
    let mut shell = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    shell.args(["--mount", "sh", "-c", script]).arg(&config);
    let probed = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    probed.is_ok_and(|status| status.success()).then(|| run_by(shell, command))
}

#[test]
fn a_silent_resolver_holds_up_nobody() {
    let Ok(resolver) = UdpSocket::bind("127.99.53.1:53") else {
        return println!("skipped: no port 53 for this user");
    };
    let mut group = Group::new(3);
    let folder = tempfile::tempdir().unwrap();
    (1..=3).for_each(|n| group.start(n));
    let primary = group.wait_members(3);
    drop(group.client(primary, "ann"));
    let live = group.servers[primary - 1].clone();
    let servers = format!("silent.invalid:5001,{live}");
    let client = |arguments: &[&str]| {
        let mut command = postern();
        command.args(arguments).args(["--servers", &servers]);
        command.env("POSTERN_PASSWORD", "correct-horse").stdin(Stdio::null());
        with_silent_resolver(&command, folder.path(), &resolver)
    };
    let Some(mut send) = client(&["send", "ann", "ann", "hi"]) else {
        return println!("skipped: no mount namespaces here");
    };
    let begun = Instant::now();
    let sent = send.output().unwrap();
    assert!(sent.status.success(), "{}", stderr(&sent));
    let status = client(&["status"]).unwrap().output().unwrap();
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(shown.contains("the resolver does not answer"), "{shown}");
    // A server needs only its own address to start, and does not wait for the others'.
    group.terminate(3);
    let [one, two] = [group.servers[0].clone(), group.servers[1].clone()];
    rewrite(&group, &one, "silent1.invalid:5001");
    rewrite(&group, &two, "silent2.invalid:5002");
    let mut serve = with_silent_resolver(&group.serve(3), folder.path(), &resolver).unwrap();
    serve.stderr(Stdio::null());
    group.start_as(3, serve);
    group.wait_members(3);
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    assert_eq!(group.mailbox(group.wait_members(3), "ann"), ["hi"]);
}
