//! What the store asks of a disk, and the real one. A simulated disk implements the same handful
//! of methods and lies in every way that real ones do.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory. Paths are relative to it; nothing is durable before the matching sync.
pub trait Disk {
    /// An open file.
    type File: std::fmt::Debug;
    /// The names in a folder, in no order; empty when there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing; `create` makes it when it is missing.
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
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
}

/// A folder of the file system, made with mode 0700 when it is missing.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// Opens the data directory `root`, making it and its `log` folder where they are missing.
    pub fn open(root: &Path) -> io::Result<RealDisk> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(root.join("log"))?;
        Ok(RealDisk { root: root.to_owned() })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Free bytes of the file system that holds the directory, for an unprivileged process.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &str, create: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600);
        options.open(self.root.join(path))
    }

    fn size(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match file.read_at(&mut into[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }
}

#[cfg(test)]
pub(super) mod fake {
    //! A disk in memory that keeps what was written apart from what was synced, can crash with
    //! any part of the unsynced bytes kept, and counts its calls.

    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, Default)]
    struct Bytes {
        seen: Vec<u8>,
        durable: Vec<u8>,
    }

    #[derive(Debug, Default)]
    struct Inner {
        files: Vec<Bytes>,
        names: BTreeMap<String, usize>,
        durable_names: BTreeMap<String, usize>,
        syncs: u64,
        fail_sync: bool,
    }

    #[derive(Debug, Default)]
    pub(in crate::store) struct FakeDisk(RefCell<Inner>);

    fn missing() -> io::Error {
        io::Error::from(io::ErrorKind::NotFound)
    }

    impl FakeDisk {
        /// The disk after a power cut: of the bytes of each file that were not synced, those
        /// whose 512-byte sector `kept` picks; of names, only synced ones.
        pub(in crate::store) fn crash(&self, mut kept: impl FnMut() -> bool) -> FakeDisk {
            let inner = self.0.borrow();
            let mut files = inner.files.clone();
            for file in &mut files {
                let mut after = file.durable.clone();
                if file.seen.len() > after.len() && kept() {
                    after.resize(file.seen.len(), 0);
                }
                for start in (0..after.len().min(file.seen.len())).step_by(512) {
                    let end = (start + 512).min(after.len()).min(file.seen.len());
                    if after[start..end] != file.seen[start..end] && kept() {
                        after[start..end].copy_from_slice(&file.seen[start..end]);
                    }
                }
                file.seen.clone_from(&after);
                file.durable = after;
            }
            let names = inner.durable_names.clone();
            let durable_names = names.clone();
            FakeDisk(RefCell::new(Inner { files, names, durable_names, ..Inner::default() }))
        }

        pub(in crate::store) fn syncs(&self) -> u64 {
            self.0.borrow().syncs
        }

        pub(in crate::store) fn fail_syncs(&self) {
            self.0.borrow_mut().fail_sync = true;
        }

        pub(in crate::store) fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
            let mut inner = self.0.borrow_mut();
            let at = inner.names[path];
            edit(&mut inner.files[at].seen);
            inner.files[at].durable = inner.files[at].seen.clone();
        }
    }

    impl Disk for FakeDisk {
        type File = usize;

        fn list(&self, folder: &str) -> io::Result<Vec<String>> {
            let inner = self.0.borrow();
            let inside = inner.names.keys().filter_map(|name| {
                let rest = if folder == "." { Some(&name[..]) } else { name.strip_prefix(folder) };
                rest.map(|rest| rest.trim_start_matches('/').to_owned())
            });
            Ok(inside.filter(|name| !name.contains('/')).collect())
        }

        fn open(&self, path: &str, create: bool) -> io::Result<usize> {
            let mut inner = self.0.borrow_mut();
            if let Some(&file) = inner.names.get(path) {
                return Ok(file);
            }
            if !create {
                return Err(missing());
            }
            inner.files.push(Bytes::default());
            let file = inner.files.len() - 1;
            inner.names.insert(path.to_owned(), file);
            Ok(file)
        }

        fn size(&self, file: &usize) -> io::Result<u64> {
            Ok(self.0.borrow().files[*file].seen.len() as u64)
        }

        fn read_at(&self, file: &usize, into: &mut [u8], at: u64) -> io::Result<usize> {
            let inner = self.0.borrow();
            let bytes = &inner.files[*file].seen;
            let from = bytes.get(at as usize..).unwrap_or(&[]);
            let count = from.len().min(into.len());
            into[..count].copy_from_slice(&from[..count]);
            Ok(count)
        }

        fn write_at(&self, file: &usize, bytes: &[u8], at: u64) -> io::Result<()> {
            let seen = &mut self.0.borrow_mut().files[*file].seen;
            let end = at as usize + bytes.len();
            if seen.len() < end {
                seen.resize(end, 0);
            }
            seen[at as usize..end].copy_from_slice(bytes);
            Ok(())
        }

        fn truncate(&self, file: &usize, size: u64) -> io::Result<()> {
            self.0.borrow_mut().files[*file].seen.truncate(size as usize);
            Ok(())
        }

        fn sync(&self, file: &usize) -> io::Result<()> {
            let mut inner = self.0.borrow_mut();
            inner.syncs += 1;
            if inner.fail_sync {
                return Err(io::Error::other("the disk is sick"));
            }
            let bytes = &mut inner.files[*file];
            bytes.durable.clone_from(&bytes.seen);
            Ok(())
        }

        fn sync_folder(&self, _: &str) -> io::Result<()> {
            let mut inner = self.0.borrow_mut();
            inner.durable_names = inner.names.clone();
            Ok(())
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            let mut inner = self.0.borrow_mut();
            let file = inner.names.remove(from).ok_or_else(missing)?;
            inner.names.insert(to.to_owned(), file);
            Ok(())
        }

        fn remove(&self, path: &str) -> io::Result<()> {
            self.0.borrow_mut().names.remove(path).map(drop).ok_or_else(missing)
        }
    }
}
