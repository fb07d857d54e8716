//! The size of the stripped binary.

use crate::stats::verdict;
use postern_testkit::{group, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: u64 = 2 * 1024 * 1024;
const STATIC: &str = "x86_64-unknown-linux-musl";
/// The build profile of the binary that has a target.
const PROFILE: &str = "small";

/// Measures the binary, and the static one if it was built.
pub(crate) fn measure(postern: &Path) -> Result<String, String> {
    let mut text = format!("  {}, stripped: {}\n", postern.display(), mib(stripped(postern)?));
    match static_beside(postern).filter(|path| path.exists()) {
        Some(path) => {
            let bytes = stripped(&path)?;
            let (met, target) = (verdict(bytes <= TARGET), mib(TARGET));
            let size = mib(bytes);
            text += &format!("  {STATIC}, stripped: {size} ({met}); target: at most {target}\n");
        }
        None => {
            text += &format!(
                "  {STATIC}: not built; `rustup target add {STATIC}` and `cargo build --config \
                 .cargo/small.toml --profile {PROFILE} --target {STATIC}`\n"
            );
        }
    }
    Ok(text)
}

/// Returns the path of a static build in the same target folder.
fn static_beside(postern: &Path) -> Option<PathBuf> {
    let target = postern.parent()?.parent()?;
    Some(target.join(STATIC).join(PROFILE).join(postern.file_name()?))
}

/// Returns the size after `strip`.
fn stripped(path: &Path) -> Result<u64, String> {
    let folder = group::folder("report")?;
    let out = folder.path().join("stripped");
    run(Command::new("strip").arg("-o").arg(&out).arg(path))?;
    let size = fs::metadata(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    Ok(size.len())
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}
