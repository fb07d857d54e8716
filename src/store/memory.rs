//! A disk in memory, for tests and simulations: it keeps what was written apart from what was
//! synced, can crash with any part of the unsynced bytes kept, and counts its calls.

use super::disk::Disk;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

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

/// A data directory in memory.
#[derive(Debug, Default)]
pub struct MemoryDisk(RefCell<Inner>);

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl MemoryDisk {
    /// The disk after a power cut: of the bytes of each file that were not synced, those
    /// whose 512-byte sector `kept` picks; of names, only synced ones.
    pub fn crash(&self, mut kept: impl FnMut() -> bool) -> MemoryDisk {
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
        MemoryDisk(RefCell::new(Inner { files, names, durable_names, ..Inner::default() }))
    }

    /// How many syncs were asked for.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// From now on every sync fails.
    pub fn fail_syncs(&self) {
        self.0.borrow_mut().fail_sync = true;
    }

    /// Changes the bytes of a file behind everybody's back, durably.
    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.borrow_mut();
        let at = inner.names[path];
        edit(&mut inner.files[at].seen);
        inner.files[at].durable = inner.files[at].seen.clone();
    }

    /// The disk as it is seen now, with what is durable of it, for another process.
    pub fn same(&self) -> MemoryDisk {
        let inner = self.0.borrow();
        let (files, names) = (inner.files.clone(), inner.names.clone());
        let durable_names = inner.durable_names.clone();
        MemoryDisk(RefCell::new(Inner { files, names, durable_names, ..Inner::default() }))
    }
}

impl Disk for MemoryDisk {
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
        if let Some(file) = inner.names.remove(from) {
            inner.names.insert(to.to_owned(), file);
            return Ok(());
        }
        // It may be a folder.
        let rest = |name: &str| Some(name.strip_prefix(from)?.strip_prefix('/')?.to_owned());
        let inside: Vec<_> =
            inner.names.keys().filter_map(|name| Some((name.clone(), rest(name)?))).collect();
        for (name, rest) in &inside {
            let file = inner.names.remove(name).expect("it was just listed");
            inner.names.insert(format!("{to}/{rest}"), file);
        }
        if inside.is_empty() { Err(missing()) } else { Ok(()) }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.borrow_mut().names.remove(path).map(drop).ok_or_else(missing)
    }

    fn make_folder(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}
