//! A short run passes all checks: no acknowledged message is lost while servers are killed,
//! stopped and handed over. Needs neither root nor disk faults.

use postern_testkit::group::build_binary;
use std::process::{Command, Output};

fn chaos(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-chaos"));
    command.args(arguments).output().unwrap()
}

#[test]
fn a_run_with_six_faults_passes_all_checks() {
    let binary = build_binary().display().to_string();
    let kinds = "kill,kill-two,stop,term,handover";
    let bounds = ["--seed", "3", "--faults", "6", "--seconds", "20", "--survivor", "ask"];
    let options = ["--only", kinds, "--postern", &binary];
    let output = chaos(&[&bounds[..], &options].concat());
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("\n6 faults injected\n"), "{stdout}");
    assert!(stdout.contains("\nok: the three logs are identical"), "{stdout}");
    assert!(stdout.contains("kill -9"), "{stdout}");
}

#[test]
fn unknown_and_forbidden_faults_are_refused() {
    assert_eq!(chaos(&["--only", "earthquake"]).status.code(), Some(2));
    let forbidden = chaos(&["--only", "cut", "--survivor", "auto"]);
    let why = String::from_utf8_lossy(&forbidden.stderr);
    assert!(forbidden.status.code() == Some(1) && why.contains("allows none of these"), "{why}");
}
