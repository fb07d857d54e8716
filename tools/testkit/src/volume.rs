//! Small file systems, so that a test can fill a disk without filling that of the machine. Needs
//! root.

use crate::run;
use rustix::fs::FallocateFlags;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that takes up the free space.
const BALLAST: &str = "ballast";

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct Volume {
    at: PathBuf,
}

impl Volume {
    /// Mounts a tmpfs. Creates the mount point if it is missing.
    pub fn in_memory(at: &Path, mebibytes: u32) -> Result<Volume, String> {
        create_dir(at)?;
        let size = format!("size={mebibytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "postern"]).arg(at))?;
        Ok(Volume { at: at.to_owned() })
    }

    /// Mounts an ext4 that is stored in a file beside the mount point. Its syncs reach the disk.
    pub fn in_file(at: &Path, mebibytes: u32) -> Result<Volume, String> {
        create_dir(at)?;
        let image = at.with_extension("image");
        let file = File::create(&image);
        let sized = file.and_then(|file| file.set_len(u64::from(mebibytes) << 20));
        sized.map_err(|error| format!("{}: {error}", image.display()))?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at))?;
        Ok(Volume { at: at.to_owned() })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Fills the volume until only `free_bytes` bytes are free.
    pub fn fill(&self, free_bytes: u64) -> Result<(), String> {
        let path = self.at.join(BALLAST);
        let failed = |error| format!("{}: {error}", path.display());
        let stat = rustix::fs::statvfs(&self.at).map_err(|error| failed(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let file = File::create(&path).map_err(failed)?;
        let mut bytes = free.saturating_sub(free_bytes);
        // The file system needs some blocks for its own tables, and a server may write meanwhile.
        while bytes > 0 {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                Err(rustix::io::Errno::NOSPC) => bytes = bytes.saturating_sub(64 * 1024),
                done => return done.map_err(|error| failed(error.into())),
            }
        }
        Ok(())
    }

    /// Frees the space that [`Volume::fill`] took.
    pub fn clear(&self) -> Result<(), String> {
        let path = self.at.join(BALLAST);
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A lazy unmount works even while a process still has files open there.
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn create_dir(at: &Path) -> Result<(), String> {
    fs::create_dir_all(at).map_err(|error| format!("{}: {error}", at.display()))
}
