//! A disk in memory, for tests and simulations. It keeps written and synced bytes apart, can
//! crash with any part of the unsynced bytes kept, fails in the ways that real disks do, and
//! counts its syncs. A sync costs the bytes written since the one before, not the whole file.

use super::disk::Disk;
use crate::limits::SEGMENT_BYTES;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, Range};
use std::rc::Rc;

/// The unit that disks write as a whole, in bytes.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
struct Bytes {
    /// The content that reads show: the page cache.
    seen: Vec<u8>,
    /// The content that a power cut leaves.
    durable: Vec<u8>,
    /// Everything that the next sync writes lies in this range.
    dirty: Range<usize>,
    /// The offset up to which `durable` is unchanged since the last `look`.
    unchanged: usize,
}

impl Bytes {
    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[at..end].copy_from_slice(bytes);
        self.dirty = if self.dirty.is_empty() {
            at..end
        } else {
            self.dirty.start.min(at)..self.dirty.end.max(end)
        };
    }

    fn truncate(&mut self, size: usize) {
        self.seen.resize(size, 0);
        self.dirty = self.dirty.start.min(size)..self.dirty.end.min(size);
    }

    fn sync(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let same = self.durable.len().min(self.seen.len());
        self.unchanged = self.unchanged.min(same);
        self.durable.resize(self.seen.len(), 0);
        if !dirty.is_empty() {
            self.unchanged = self.unchanged.min(dirty.start);
            self.durable[dirty.clone()].copy_from_slice(&self.seen[dirty]);
        }
    }

    /// Simulates a power cut that keeps the unsynced sectors that `kept` picks.
    fn crash(&mut self, mut kept: impl FnMut() -> bool) {
        let mut after = std::mem::take(&mut self.durable);
        if self.seen.len() > after.len() && kept() {
            after.resize(self.seen.len(), 0);
        }
        for start in (0..after.len().min(self.seen.len())).step_by(SECTOR_BYTES) {
            let end = (start + SECTOR_BYTES).min(after.len()).min(self.seen.len());
            if after[start..end] != self.seen[start..end] && kept() {
                after[start..end].copy_from_slice(&self.seen[start..end]);
            }
        }
        self.seen.clone_from(&after);
        *self = Bytes { seen: std::mem::take(&mut self.seen), durable: after, ..Bytes::default() };
    }
}

/// How a disk fails, until this is changed.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// Every sync fails.
    pub syncs: bool,
    /// One sync fails after this number of syncs. The pages that it should have written look
    /// clean then.
    pub sync_after: Option<u32>,
    /// All syncs fail after this number of syncs, and what they should have written stays
    /// unwritten.
    pub syncs_left: Option<u32>,
    /// Writes fail.
    pub writes: bool,
    /// The disk reports that no space is free.
    pub nearly_full: bool,
    /// Writes that extend a file fail.
    pub full: bool,
    /// Syncs report success and write nothing.
    pub lies: bool,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    /// The number of power cuts.
    boots: u128,
    files: Vec<Bytes>,
    /// Indexes in `files` of files that have lost their last name.
    free: Vec<usize>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The current names of files whose folder was renamed. They become durable with its name.
    moved: BTreeSet<String>,
    syncs: u64,
    failures: Failures,
    /// The size of segments, if it is not the usual one.
    segment_bytes: Option<u64>,
}

impl Inner {
    /// Frees the files that have lost their last name.
    fn reuse_nameless(&mut self) {
        for file in 0..self.files.len() {
            let named =
                |names: &BTreeMap<String, usize>| names.values().any(|named| *named == file);
            let nameless = !named(&self.names) && !named(&self.durable_names);
            if nameless && !self.free.contains(&file) {
                self.files[file] = Bytes::default();
                self.free.push(file);
            }
        }
    }
}

/// A data directory in memory. A clone is the same directory.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Rc<RefCell<Inner>>);

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn check(failing: bool, what: &str) -> io::Result<()> {
    if failing { Err(io::Error::other(what.to_owned())) } else { Ok(()) }
}

/// Whether a name lies directly in a folder.
fn is_inside(name: &str, folder: &str) -> bool {
    let rest = if folder == "." { Some(name) } else { name.strip_prefix(folder) };
    rest.is_some_and(|rest| !rest.trim_start_matches('/').contains('/'))
}

/// The path of the subfolder of `folder` that a name lies in, if any, with the trailing `/`.
fn subfolder<'a>(name: &'a str, folder: &str) -> Option<&'a str> {
    let rest = match folder {
        "." => name,
        _ => name.strip_prefix(folder)?.strip_prefix('/')?,
    };
    let end = name.len() - rest.len() + rest.find('/')?;
    Some(&name[..=end])
}

impl MemoryDisk {
    /// Returns the disk after a power cut. Of the unsynced bytes of each file it has those whose
    /// 512-byte sector `kept` picks; of names, the synced ones and those that `kept` picks.
    pub fn crash(&self, mut kept: impl FnMut() -> bool) -> MemoryDisk {
        let inner = self.0.borrow();
        let mut files = inner.files.clone();
        for file in &mut files {
            file.crash(&mut kept);
        }
        let mut names = inner.durable_names.clone();
        let touched: Vec<&String> = inner.names.keys().chain(inner.durable_names.keys()).collect();
        for name in touched {
            let now = inner.names.get(name);
            if now != names.get(name) && kept() {
                match now {
                    Some(file) => names.insert(name.clone(), *file),
                    None => names.remove(name),
                };
            }
        }
        let durable_names = names.clone();
        let (boots, segment_bytes) = (inner.boots + 1, inner.segment_bytes);
        let after = Inner { boots, files, names, durable_names, segment_bytes, ..Inner::default() };
        MemoryDisk(Rc::new(RefCell::new(after)))
    }

    /// Returns another directory with the same bytes, as a backup program copies it.
    pub fn copied(&self) -> MemoryDisk {
        let mut inner = Inner { failures: Failures::default(), ..self.0.borrow().clone() };
        inner.files.iter_mut().for_each(|file| file.unchanged = 0);
        MemoryDisk(Rc::new(RefCell::new(inner)))
    }

    /// The number of syncs requested.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// From now on the disk fails in these ways.
    pub fn fail(&self, change: impl FnOnce(&mut Failures)) {
        change(&mut self.0.borrow_mut().failures);
    }

    /// Sets the size in bytes at which a log on this disk starts a new segment.
    pub fn set_segment_bytes(&self, bytes: u64) {
        self.0.borrow_mut().segment_bytes = Some(bytes);
    }

    /// Changes the bytes of a file durably, without the store's knowledge.
    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.borrow_mut();
        let at = inner.names[path];
        let file = &mut inner.files[at];
        edit(&mut file.seen);
        file.durable = file.seen.clone();
        (file.dirty, file.unchanged) = (0..0, 0);
    }

    /// Passes what reads of a file show to `read`.
    pub fn read(&self, path: &str, read: impl FnOnce(&[u8])) {
        let inner = self.0.borrow();
        read(&inner.files[inner.names[path]].seen);
    }

    /// The names of all files.
    pub fn paths(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    /// Passes what a power cut would leave of each file in a folder to `look`, in the order of
    /// their names. Its last argument is the offset up to which the file is unchanged since the
    /// call before.
    pub fn look(&self, folder: &str, mut look: impl FnMut(&str, &[u8], usize)) {
        let mut inner = self.0.borrow_mut();
        let Inner { files, durable_names, .. } = &mut *inner;
        let from = durable_names.range::<str, _>((Bound::Included(folder), Bound::Unbounded));
        let within = from.take_while(|(name, _)| name.starts_with(folder));
        for (name, at) in within.filter(|(name, _)| is_inside(name, folder)) {
            let file = &mut files[*at];
            let unchanged = std::mem::replace(&mut file.unchanged, file.durable.len());
            look(name, &file.durable, unchanged);
        }
    }
}

impl Disk for MemoryDisk {
    type File = usize;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inner = self.0.borrow();
        let inside = inner.names.keys().filter(|name| is_inside(name, folder));
        let cut = |name: &String| name.rsplit('/').next().unwrap_or(name).to_owned();
        Ok(inside.map(cut).collect())
    }

    fn open(&self, path: &str, create: bool) -> io::Result<usize> {
        let mut inner = self.0.borrow_mut();
        if let Some(&file) = inner.names.get(path) {
            return Ok(file);
        }
        if !create {
            return Err(missing());
        }
        check(inner.failures.writes, "the disk can't be written")?;
        let file = inner.free.pop().unwrap_or_else(|| {
            inner.files.push(Bytes::default());
            inner.files.len() - 1
        });
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
        let mut inner = self.0.borrow_mut();
        check(inner.failures.writes, "the disk can't be written")?;
        let full = inner.failures.full;
        let file = &mut inner.files[*file];
        if full && at as usize + bytes.len() > file.seen.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        file.write(bytes, at as usize);
        Ok(())
    }

    fn truncate(&self, file: &usize, size: u64) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        check(inner.failures.writes, "the disk can't be written")?;
        inner.files[*file].truncate(size as usize);
        Ok(())
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        inner.syncs += 1;
        let due = inner.failures.sync_after == Some(0);
        inner.failures.sync_after = inner.failures.sync_after.and_then(|left| left.checked_sub(1));
        if due {
            inner.files[*file].dirty = 0..0;
        }
        let ended = inner.failures.syncs_left == Some(0);
        inner.failures.syncs_left = inner.failures.syncs_left.map(|left| left.saturating_sub(1));
        check(due || ended || inner.failures.syncs, "the disk is sick")?;
        if !inner.failures.lies {
            inner.files[*file].sync();
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        check(inner.failures.syncs, "the disk is sick")?;
        let Inner { names, durable_names, moved, .. } = &mut *inner;
        let gone = |name: &str| {
            let inner = subfolder(name, folder);
            inner.is_some_and(|inner| !names.keys().any(|name| name.starts_with(inner)))
        };
        durable_names.retain(|name, _| !is_inside(name, folder) && !gone(name));
        let synced = |name: &str| {
            is_inside(name, folder) || (moved.contains(name) && subfolder(name, folder).is_some())
        };
        let inside = names.iter().filter(|(name, _)| synced(name));
        durable_names.extend(inside.map(|(name, file)| (name.clone(), *file)));
        moved.retain(|name| !durable_names.contains_key(name));
        inner.reuse_nameless();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        check(inner.failures.writes, "the disk can't be written")?;
        if let Some(file) = inner.names.remove(from) {
            inner.names.insert(to.to_owned(), file);
            return Ok(());
        }
        // `from` may be a folder.
        let rest = |name: &str| Some(name.strip_prefix(from)?.strip_prefix('/')?.to_owned());
        let inside: Vec<_> =
            inner.names.keys().filter_map(|name| Some((name.clone(), rest(name)?))).collect();
        for (name, rest) in &inside {
            let file = inner.names.remove(name).expect("it was just listed");
            let new = format!("{to}/{rest}");
            if inner.durable_names.get(name) == Some(&file) {
                inner.moved.insert(new.clone());
            }
            inner.names.insert(new, file);
        }
        if inside.is_empty() { Err(missing()) } else { Ok(()) }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        check(inner.failures.writes, "the disk can't be written")?;
        inner.names.remove(path).map(drop).ok_or_else(missing)
    }

    fn make_folder(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn boot(&self) -> Option<u128> {
        Some(self.0.borrow().boots)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(if self.0.borrow().failures.nearly_full { 0 } else { u64::MAX })
    }

    fn segment_bytes(&self) -> u64 {
        self.0.borrow().segment_bytes.unwrap_or(SEGMENT_BYTES)
    }
}
