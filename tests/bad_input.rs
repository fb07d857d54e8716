//! Wrong config, a port in use, directories that are unusable or belong to others, foreign peers:
//! each causes one clear line, changes no file, and harms no other server.

mod common;

use common::{Group, run, snapshot, stderr};

fn refused(group: &Group, n: usize, expected: &str) {
    let output = run(group.serve(n));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let complaints: Vec<&str> = said.lines().filter(|l| l.starts_with("postern: ")).collect();
    assert_eq!(complaints.len(), 1, "one line: {said}");
    assert!(complaints[0].contains(expected), "{said}");
}

/// Returns a group of one whose server has run, and is stopped.
fn stopped() -> Group {
    let mut group = Group::new(1);
    group.start(1);
    group.wait_members(1);
    assert_eq!(group.client(1, "ann").ask("SEND ann hi"), "OK 1");
    assert_eq!(group.terminate(1), Some(0));
    group
}

#[test]
fn a_wrong_config_names_file_and_line() {
    let group = Group::new(1);
    let text = std::fs::read_to_string(group.config()).unwrap();
    std::fs::write(group.config(), format!("{text}silence = 7\n")).unwrap();
    let line = text.lines().count() + 1;
    refused(&group, 1, &format!("postern.toml: line {line}: unknown field"));
    assert!(!group.data(1).exists(), "nothing is touched");
}

#[test]
fn a_port_in_use() {
    let group = Group::new(1);
    let _taken = std::net::TcpListener::bind(&group.servers[0]).unwrap();
    refused(&group, 1, "another program listens there; stop it");
    assert!(!group.data(1).exists());
}

#[test]
fn a_directory_that_cannot_be_made() {
    let group = Group::new(1);
    std::fs::write(group.data(1), "a file").unwrap();
    refused(&group, 1, "data1");
}

#[test]
fn a_directory_in_use() {
    let mut group = Group::new(1);
    group.start(1);
    let config = group.dir.path().join("other.toml");
    let text = std::fs::read_to_string(group.config()).unwrap();
    std::fs::write(&config, text.replace(":5001", ":5009")).unwrap();
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut again = common::postern();
    again.args(["serve", "--id", "1", "--config"]).arg(&config).arg("--data").arg(group.data(1));
    assert!(stderr(&run(again)).contains("a server runs on it"));
}

#[test]
fn a_directory_of_another_server_or_group_is_not_touched() {
    let group = stopped();
    let foreign = Group::new(3);
    for n in [1, 2] {
        std::fs::create_dir(foreign.data(n)).unwrap();
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(group.data(1).join("."))
            .arg(foreign.data(n))
            .status();
        assert!(copied.unwrap().success());
        let before = snapshot(&foreign.data(n));
        refused(&foreign, n, "it belongs to group");
        assert_eq!(snapshot(&foreign.data(n)), before);
    }
}

#[test]
fn a_peer_of_another_group_is_refused_and_harms_nobody() {
    let group = Group::open();
    let primary = group.wait_members(3);
    // A server of another group, whose list names two servers of this group.
    let mut stranger = Group::new(3);
    let text = std::fs::read_to_string(stranger.config()).unwrap();
    let text = text.replace(&stranger.servers[1], &group.servers[1]);
    let text = text.replace(&stranger.servers[2], &group.servers[2]);
    std::fs::write(stranger.config(), text).unwrap();
    stranger.start(1);
    stranger.wait_line(1, "does not know this group's secret");
    assert_eq!(stranger.status(1).unwrap()["role"], "blank");
    assert_eq!(group.wait_members(3), primary);
}

#[test]
fn a_closed_stderr_does_not_end_the_server() {
    let mut group = Group::new(1);
    let mut child = group.serve(1).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    group.wait(1, "it answers", |status| status["role"] == "primary");
    for _ in 0..3 {
        // Each of these is logged.
        let mut nonsense = group.connect(1);
        nonsense.send_bytes(b"\0\xff\xff\xff\xff");
        nonsense.rest();
    }
    group.wait(1, "it still answers", |_| true);
    child.kill().and_then(|()| child.wait()).unwrap();
    group.start(1);
}

#[test]
fn wrong_usage_is_exit_2() {
    let mut command = common::postern();
    command.args(["serve", "--id", "4"]);
    assert_eq!(run(command).status.code(), Some(2));
}
