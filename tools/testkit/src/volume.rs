//! Small file systems, so that a disk can be full without filling that of the machine. Needs root.

use rustix::fs::FallocateFlags;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BALLAST: &str = "ballast";

/// A file system of its own, unmounted when this is dropped.
#[derive(Debug)]
pub struct Volume {
    at: PathBuf,
}

impl Volume {
    /// One in memory, at a folder that is made where it is missing.
    ///
    /// # Errors
    /// It can't be mounted.
    pub fn in_memory(at: &Path, mebibytes: u32) -> Result<Volume, String> {
        make(at)?;
        let size = format!("size={mebibytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "postern"]).arg(at))?;
        Ok(Volume { at: at.to_owned() })
    }

    /// One in a file beside that folder, whose syncs are as slow as those of its disk.
    ///
    /// # Errors
    /// It can't be made or mounted.
    pub fn in_file(at: &Path, mebibytes: u32) -> Result<Volume, String> {
        make(at)?;
        let image = at.with_extension("image");
        let failed = |error| format!("{}: {error}", image.display());
        let file = File::create(&image).map_err(failed)?;
        file.set_len(u64::from(mebibytes) << 20).map_err(failed)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at))?;
        Ok(Volume { at: at.to_owned() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Fills it but for so many bytes.
    ///
    /// # Errors
    /// It can't be filled.
    pub fn fill(&self, but: u64) -> Result<(), String> {
        let path = self.at.join(BALLAST);
        let failed = |error| format!("{}: {error}", path.display());
        let stat = rustix::fs::statvfs(&self.at).map_err(|error| failed(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let file = File::create(&path).map_err(failed)?;
        let mut bytes = free.saturating_sub(but);
        // The file system needs some of it for itself, and so does whoever else writes now.
        while bytes > 0 {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                Err(rustix::io::Errno::NOSPC) => bytes = bytes.saturating_sub(64 * 1024),
                done => return done.map_err(|error| failed(error.into())),
            }
        }
        Ok(())
    }

    /// Ends a [`Volume::fill`].
    ///
    /// # Errors
    /// It can't be done.
    pub fn clear(&self) -> Result<(), String> {
        let path = self.at.join(BALLAST);
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Who still uses it keeps it until then.
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn make(at: &Path) -> Result<(), String> {
    fs::create_dir_all(at).map_err(|error| format!("{}: {error}", at.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", why.lines().next().unwrap_or_default()))
}
