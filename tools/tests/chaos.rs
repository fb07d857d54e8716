//! Real servers that are killed, stopped and handed over lose nothing, and chaos sees that they do
//! not: its clients, its verdict and its end, without root and without a disk that fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The server's binary, which is another package's: built as this program is, so that it is the
/// same that other tests have.
fn postern() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--workspace", "--bins", "--locked"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    Path::new(env!("CARGO_BIN_EXE_postern-tools")).with_file_name("postern")
}

fn chaos(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-tools"));
    command.arg("chaos").args(arguments).output().unwrap()
}

#[test]
fn a_few_bad_moments_end_well() {
    let binary = postern();
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
