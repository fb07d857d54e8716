//! Every scenario in `tools/sim/scenarios` passes with the nodes that ship. The first lines of each
//! state what it tests.

use postern_sim::simulate::play_file;
use std::fs;
use std::path::Path;

#[test]
fn every_scenario_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let mut failed = Vec::new();
    for path in &paths {
        failed.extend(play_file(path).err());
    }
    let _ = std::panic::take_hook();
    assert!(paths.len() > 1 && failed.is_empty(), "{}", failed.join("\n\n"));
}
