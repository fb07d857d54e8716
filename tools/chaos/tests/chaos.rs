//! Real servers that are killed, stopped and handed over lose nothing, and chaos sees that they do
//! not: its clients, its verdict and its end, without root and without a disk that fails.

use postern_testkit::group::build_binary;
use std::process::{Command, Output};

fn chaos(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-chaos"));
    command.args(arguments).output().unwrap()
}

#[test]
fn a_few_bad_moments_end_well() {
    let binary = build_binary();
    let binary = binary.display().to_string();
    let kinds = "kill,kill-two,stop,term,handover";
    let bounds = ["--seed", "3", "--faults", "6", "--seconds", "20", "--survivor", "ask"];
    let options = ["--only", kinds, "--postern", &binary];
    let output = chaos(&[&bounds[..], &options].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{why}");
    assert!(said.contains("\n6 faults; ") && said.contains("three logs are the same"), "{said}");
    assert!(said.contains("kill -9"), "{said}");
}

#[test]
fn what_is_no_fault_is_refused() {
    assert_eq!(chaos(&["--only", "earthquake"]).status.code(), Some(2));
    let none = chaos(&["--only", "cut", "--survivor", "auto"]);
    let why = String::from_utf8_lossy(&none.stderr);
    assert!(none.status.code() == Some(1) && why.contains("bears none"), "{why}");
}
