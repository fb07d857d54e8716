//! The server that tests of the tools start.

use std::path::PathBuf;
use std::process::Command;

/// The `postern` binary, built with the same features as everything else here.
pub(crate) fn postern() -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", profile, "--bin", "postern"])
        .args(["-p", "postern", "-p", "postern-tools"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "postern is built");
    // This is `deps/name-hash` in the folder of binaries.
    let this = std::env::current_exe().expect("this test has a file");
    let folder = this.parent().and_then(|deps| deps.parent()).expect("it is in a folder");
    folder.join("postern")
}
