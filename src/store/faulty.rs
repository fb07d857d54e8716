//! A disk with faults that tests inject from outside while the server runs. It serves tests of
//! real processes, in debug builds only.
//!
//! `POSTERN_DISK_FAULTS` names a file of rules, one a line, which is read before every operation;
//! replace it as a whole. Without the variable or without the file there are no rules. A rule
//! consists of an operation, the files that it applies to, and a fault. Files are given by the
//! beginning of their paths within the data directory, or by `*`:
//!
//! ```text
//! sync log/ delay 300      takes 300 ms longer
//! write vote fail ENOSPC   does nothing, and fails; EIO is the other error
//! read log/ flip 4711      finds the lowest bit of byte 4711 of the file flipped
//! read identity short      finds only half of what it asks for
//! ```
//!
//! Another line, `segments 100000`, sets the size in bytes at which a new segment begins.
//!
//! The operations are `read`, `write` (also `ftruncate`), `sync` (also of a folder: `log` or `.`)
//! and `rename`.

use super::disk::{Disk, RealDisk, RealFile, named};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const VARIABLE: &str = "POSTERN_DISK_FAULTS";

/// The real disk with injected faults.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    disk: RealDisk,
    /// The file of rules.
    rules: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
    Sync,
    Rename,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Delay(Duration),
    Fail(Errno),
    Flip(u64),
    Short,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    operation: Operation,
    path: String,
    fault: Fault,
}

impl FaultyDisk {
    /// See [`RealDisk::open`].
    pub fn open(root: &Path) -> io::Result<FaultyDisk> {
        let rules = std::env::var_os(VARIABLE).map(PathBuf::from);
        if let Some(rules) = &rules {
            log::warn!("disk faults are ordered by {}", rules.display());
        }
        Ok(FaultyDisk { disk: RealDisk::open(root)?, rules })
    }

    /// The faults that the rules order for an operation on a file.
    fn faults(&self, operation: Operation, path: &str) -> io::Result<Vec<Fault>> {
        let Some(file) = &self.rules else { return Ok(Vec::new()) };
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        let mut met = Vec::new();
        for line in text.lines().filter(|line| segment_bytes(line).is_none()) {
            let no_rule = || io::Error::other(format!("{VARIABLE}: no rule: {line}"));
            let rule = Rule::parse(line).ok_or_else(no_rule)?;
            if rule.operation == operation && (rule.path == "*" || path.starts_with(&rule.path)) {
                met.push(rule.fault);
            }
        }
        Ok(met)
    }

    /// Delays an operation, or lets it fail, as the rules order.
    fn meet(&self, operation: Operation, path: &str) -> io::Result<()> {
        let met = self.faults(operation, path)?.into_iter().try_for_each(Fault::delay_or_fail);
        met.map_err(|error| named(path, &error))
    }
}

/// The size of segments that a line sets.
fn segment_bytes(line: &str) -> Option<u64> {
    line.strip_prefix("segments ")?.parse().ok()
}

impl Fault {
    fn delay_or_fail(self) -> io::Result<()> {
        match self {
            Fault::Delay(time) => thread::sleep(time),
            Fault::Fail(error) => return Err(error.into()),
            Fault::Flip(_) | Fault::Short => {}
        }
        Ok(())
    }
}

impl Rule {
    fn parse(line: &str) -> Option<Rule> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [operation, path, fault @ ..] = &words[..] else { return None };
        let operation = match *operation {
            "read" => Operation::Read,
            "write" => Operation::Write,
            "sync" => Operation::Sync,
            "rename" => Operation::Rename,
            _ => return None,
        };
        let fault = match (fault, operation) {
            (["delay", ms], _) => Fault::Delay(Duration::from_millis(ms.parse().ok()?)),
            (["fail", "EIO"], _) => Fault::Fail(Errno::IO),
            (["fail", "ENOSPC"], _) => Fault::Fail(Errno::NOSPC),
            (["flip", byte], Operation::Read) => Fault::Flip(byte.parse().ok()?),
            (["short"], Operation::Read) => Fault::Short,
            _ => return None,
        };
        Some(Rule { operation, path: (*path).to_owned(), fault })
    }
}

impl Disk for FaultyDisk {
    type File = RealFile;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn open(&self, path: &str, create: bool) -> io::Result<RealFile> {
        self.disk.open(path, create)
    }

    fn size(&self, file: &RealFile) -> io::Result<u64> {
        self.disk.size(file)
    }

    fn read_at(&self, file: &RealFile, into: &mut [u8], at: u64) -> io::Result<usize> {
        let faults = self.faults(Operation::Read, &file.path)?;
        let mut count = self.disk.read_at(file, into, at)?;
        for fault in faults {
            fault.delay_or_fail().map_err(|error| named(&file.path, &error))?;
            match fault {
                Fault::Flip(byte) => {
                    let place = byte.checked_sub(at).and_then(|place| usize::try_from(place).ok());
                    if let Some(byte) = place.and_then(|place| into[..count].get_mut(place)) {
                        *byte ^= 1;
                    }
                }
                Fault::Short => count /= 2,
                Fault::Delay(_) | Fault::Fail(_) => {}
            }
        }
        Ok(count)
    }

    fn write_at(&self, file: &RealFile, bytes: &[u8], at: u64) -> io::Result<()> {
        self.meet(Operation::Write, &file.path)?;
        self.disk.write_at(file, bytes, at)
    }

    fn truncate(&self, file: &RealFile, size: u64) -> io::Result<()> {
        self.meet(Operation::Write, &file.path)?;
        self.disk.truncate(file, size)
    }

    fn sync(&self, file: &RealFile) -> io::Result<()> {
        self.meet(Operation::Sync, &file.path)?;
        self.disk.sync(file)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.meet(Operation::Sync, folder)?;
        self.disk.sync_folder(folder)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.meet(Operation::Rename, from)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.make_folder(folder)
    }

    fn boot(&self) -> Option<u128> {
        self.disk.boot()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn segment_bytes(&self) -> u64 {
        let text = self.rules.as_ref().and_then(|rules| fs::read_to_string(rules).ok());
        let set = text.as_ref().and_then(|text| text.lines().find_map(segment_bytes));
        set.unwrap_or(self.disk.segment_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rule_is_refused() {
        let good = ["sync * delay 5", "write vote fail EIO", "read log/ flip 9", "read log/ short"];
        for line in good {
            assert!(Rule::parse(line).is_some(), "{line}");
        }
        let bad = ["", "sync", "sync *", "sync * fail", "sync * fail EPERM", "write * short", "x"];
        for line in bad {
            assert_eq!(Rule::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_rule_strikes_its_operation_on_its_files_and_ends_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules");
        let order = |line: &str| fs::write(&rules, line).unwrap();
        let disk = RealDisk::open(&folder.path().join("data")).unwrap();
        let disk = FaultyDisk { disk, rules: Some(rules.clone()) };
        disk.make_folder("log").unwrap();
        let file = disk.open("log/1", true).unwrap();
        disk.write_at(&file, b"abcdef", 0).unwrap();
        let read = |at| {
            let mut bytes = [0; 8];
            let count = disk.read_at(&file, &mut bytes, at).unwrap();
            bytes[..count].to_vec()
        };
        order("read log/ flip 3");
        assert_eq!((read(0), read(2), read(4)), (b"abceef".into(), b"ceef".into(), b"ef".into()));
        order("read log/ short");
        assert_eq!(read(0), b"abc");
        order("write log/ fail ENOSPC\nsync vote fail EIO");
        let error = disk.write_at(&file, b"x", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.sync(&file).unwrap();
        order("sync log fail EIO");
        assert!(disk.sync(&file).is_err() && disk.sync_folder("log").is_err());
        order("sync log fail");
        assert!(disk.sync(&file).unwrap_err().to_string().contains("no rule: sync log fail"));
        order("segments 700");
        disk.sync(&file).unwrap();
        assert_eq!(disk.segment_bytes(), 700);
        order("");
        assert_eq!(disk.segment_bytes(), crate::limits::SEGMENT_BYTES);
        assert_eq!(read(0), b"abcdef");
    }
}
