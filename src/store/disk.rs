//! The operations that the store needs from a disk, and the real disk. Simulated disks implement
//! the same trait and fail in the ways that real disks do.

use crate::limits::SEGMENT_BYTES;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory. Paths are relative to it; nothing is durable before the matching sync.
pub trait Disk {
    /// An open file.
    type File: std::fmt::Debug;
    /// Lists the names in a folder, in no particular order. Empty when the folder does not exist.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Opens a file for reading and, unless the disk is read-only, for writing. With `create`,
    /// creates a missing file.
    fn open(&self, path: &str, create: bool) -> io::Result<Self::File>;
    /// The file's size in bytes.
    fn size(&self, file: &Self::File) -> io::Result<u64>;
    /// Reads up to `into.len()` bytes at `at`; fewer only at the end of the file.
    fn read_at(&self, file: &Self::File, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `at`.
    fn write_at(&self, file: &Self::File, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Cuts the file to `size` bytes.
    fn truncate(&self, file: &Self::File, size: u64) -> io::Result<()>;
    /// Makes the file's bytes and size durable (`fdatasync`).
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// Renames a file or folder. Replaces a file that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Creates a folder and its missing parents. They are durable once their names are synced.
    fn make_folder(&self, folder: &str) -> io::Result<()>;
    /// The number that the machine draws at each boot, if it provides one. While the number stays
    /// the same, there was no power cut. Reads then show everything that was written, in order,
    /// unless a write or a sync has failed.
    fn boot(&self) -> Option<u128>;
    /// Free bytes of the file system that holds the directory, for an unprivileged process.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The size in bytes at which a log on this disk starts a new segment.
    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES
    }
}

/// The path of a name in a folder.
pub(super) fn join(folder: &str, name: &str) -> String {
    if folder == "." { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A folder of the file system, created with mode 0700 when it is missing.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
    writable: bool,
}

impl RealDisk {
    /// Opens the data directory `root` and creates it when it is missing.
    pub fn open(root: &Path) -> io::Result<RealDisk> {
        let disk = RealDisk { root: root.to_owned(), writable: true };
        disk.make_folder("")?;
        Ok(disk)
    }

    /// Opens the existing folder `root` for reading only.
    pub fn read_only(root: &Path) -> io::Result<RealDisk> {
        fs::read_dir(root)?;
        Ok(RealDisk { root: root.to_owned(), writable: false })
    }

    /// The path of the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// An open file, and its path within the data directory.
#[derive(Debug)]
pub struct RealFile {
    file: File,
    pub(super) path: String,
}

/// Adds the path of the file to an error of the operating system.
pub(super) fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

impl Disk for RealDisk {
    type File = RealFile;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &str, create: bool) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(self.writable).create(create).mode(0o600);
        let file = options.open(self.root.join(path)).map_err(|error| named(path, &error))?;
        Ok(RealFile { file, path: path.to_owned() })
    }

    fn size(&self, file: &RealFile) -> io::Result<u64> {
        let size = file.file.metadata().map(|metadata| metadata.len());
        size.map_err(|error| named(&file.path, &error))
    }

    fn read_at(&self, file: &RealFile, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match file.file.read_at(&mut into[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(named(&file.path, &error)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, file: &RealFile, bytes: &[u8], at: u64) -> io::Result<()> {
        file.file.write_all_at(bytes, at).map_err(|error| named(&file.path, &error))
    }

    fn truncate(&self, file: &RealFile, size: u64) -> io::Result<()> {
        file.file.set_len(size).map_err(|error| named(&file.path, &error))
    }

    fn sync(&self, file: &RealFile) -> io::Result<()> {
        file.file.sync_data().map_err(|error| named(&file.path, &error))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let synced = File::open(self.root.join(folder)).and_then(|folder| folder.sync_all());
        synced.map_err(|error| named(folder, &error))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = fs::rename(self.root.join(from), self.root.join(to));
        renamed.map_err(|error| named(from, &error))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(path)).map_err(|error| named(path, &error))
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(self.root.join(folder))
    }

    fn boot(&self) -> Option<u128> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_is_the_one_that_the_kernel_names() {
        let folder = tempfile::tempdir().unwrap();
        let boot = RealDisk::open(folder.path()).unwrap().boot();
        let named = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let named = named.map(|text| text.trim().replace('-', ""));
        assert_eq!(boot.map(|boot| format!("{boot:032x}")), named);
    }
}
