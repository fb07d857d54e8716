//! The identity of a data directory: the file `identity`, replaced as a whole on every change.

use super::disk::Disk;
use super::{OpenError, whole};
use crate::fields::{Field, read_list, write_list};
use crate::ids::{DiskId, GroupId, Incarnation, Index, ProcessId, Run, ServerId};
use crate::incarnation::{Seen, SeenDisk};
use crate::limits::{COPIES_MAX, RUNS_KEPT, SEEN_MAX};
use std::io;

pub(super) const FILE: &str = "identity";
const MAGIC: &[u8; 8] = b"postern\0";
/// The format version of all files of a data directory. Version 1 had no boot, no own runs and no
/// process numbers. Version 2 had one run of each other disk. Version 3 had no copies. Version 4
/// had no attributes of messages.
const VERSION: u32 = 5;
/// The length of the fields that every identity has, in bytes.
const FIXED_BYTES: usize = 84;
/// The longest identity, in bytes.
pub(super) const BYTES_MAX: usize = FIXED_BYTES
    + runs_bytes(RUNS_KEPT)
    + SEEN_MAX * (16 + runs_bytes(RUNS_KEPT) + runs_bytes(COPIES_MAX));

/// The length of a list of `count` starts, in bytes.
const fn runs_bytes(count: usize) -> usize {
    1 + 16 * count
}

/// The identity that a data directory stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group it belongs to.
    pub group: GroupId,
    /// The number of servers in the group.
    pub servers: u8,
    /// The server that owns the directory.
    pub id: ServerId,
    /// The random number drawn when the directory was created.
    pub disk: DiskId,
    /// The number of starts.
    pub incarnation: Incarnation,
    /// The random number that the newest start has drawn.
    pub process: ProcessId,
    /// The boot of the machine during the last start, if known. A process that was killed within
    /// this boot can't have torn what it had written.
    pub boot: Option<u128>,
    /// The first index of the newest segment of the log. That segment must exist.
    pub segment: Index,
    /// The newest starts, in order; the last is that of `incarnation`.
    runs: Vec<Run>,
    seen: Seen,
}

/// The state of the file `identity`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Damaged(&'static str),
    Newer(u32),
    Good(Identity),
}

impl Found {
    /// The identity, if it is readable.
    pub(super) fn good(&self) -> Option<&Identity> {
        if let Found::Good(identity) = self { Some(identity) } else { None }
    }

    /// Refuses a directory of another server or group, or of a newer version.
    pub(super) fn refuse_foreign(&self, expected: &Identity) -> Result<(), OpenError> {
        let refusal = match self {
            Found::Newer(version) => return Err(OpenError::newer(*version)),
            Found::Good(found) if found.group != expected.group => {
                format!("it belongs to group {}, not to {}", found.group, expected.group)
            }
            Found::Good(found) if found.id != expected.id => {
                format!("it belongs to server {}, not to server {}", found.id, expected.id)
            }
            Found::Good(found) if found.servers != expected.servers => {
                format!("its group has {} servers, not {}", found.servers, expected.servers)
            }
            _ => return Ok(()),
        };
        Err(OpenError::Refused(refusal))
    }
}

impl Identity {
    /// The identity of a directory that has never been started.
    pub fn new(group: GroupId, servers: u8, id: ServerId, disk: DiskId) -> Identity {
        Identity {
            group,
            servers,
            id,
            disk,
            incarnation: Incarnation(0),
            process: ProcessId::UNKNOWN,
            boot: None,
            segment: Index(1),
            runs: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Counts a start by `process` in this boot of the machine.
    pub(super) fn start(&mut self, process: ProcessId, boot: Option<u128>) {
        self.incarnation.0 += 1;
        (self.process, self.boot) = (process, boot);
        self.runs.push(Run { incarnation: self.incarnation, process });
        let surplus = self.runs.len().saturating_sub(RUNS_KEPT);
        self.runs.drain(..surplus);
    }

    /// The newest starts, in order, at most [`RUNS_KEPT`].
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The records of other disks.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Records what is known of another disk. Returns whether that changed anything.
    pub(super) fn see(&mut self, disk: SeenDisk) -> bool {
        self.seen.put(disk)
    }

    pub(super) fn read<D: Disk>(disk: &D) -> io::Result<Found> {
        let bytes = whole::read(disk, FILE, BYTES_MAX + 1)?;
        Ok(bytes.map_or(Found::Nothing, |bytes| decode(&bytes)))
    }

    pub(super) fn write<D: Disk>(&self, disk: &D) -> io::Result<()> {
        whole::replace(disk, FILE, &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        VERSION.write(&mut out);
        self.group.write(&mut out);
        self.servers.write(&mut out);
        self.id.write(&mut out);
        self.disk.write(&mut out);
        self.incarnation.write(&mut out);
        self.segment.write(&mut out);
        self.boot.is_some().write(&mut out);
        self.boot.unwrap_or_default().write(&mut out);
        write_list(&self.runs, &mut out);
        out.push(self.seen.all().len() as u8);
        for seen in self.seen.all() {
            seen.disk.write(&mut out);
            write_list(&seen.runs, &mut out);
            write_list(&seen.copies, &mut out);
        }
        crc32c::crc32c(&out).write(&mut out);
        out
    }
}

fn read_seen(rest: &mut &[u8], version: u32) -> Option<SeenDisk> {
    let disk = Field::read(rest)?;
    let runs = match version {
        1 => vec![Run { incarnation: Field::read(rest)?, process: ProcessId::UNKNOWN }],
        2 => vec![Run::read(rest)?],
        _ => read_list(rest, RUNS_KEPT)?,
    };
    let copies = if version < 4 { Vec::new() } else { read_list(rest, RUNS_KEPT)? };
    Some(SeenDisk { disk, runs, copies })
}

fn decode(bytes: &[u8]) -> Found {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Found::Damaged("it does not begin as an identity does");
    };
    // Check the version before the checksum: a newer format may end differently.
    let version = match u32::read(&mut rest) {
        Some(version @ 1..=VERSION) => version,
        Some(version) if version > VERSION => return Found::Newer(version),
        _ => return Found::Damaged("its version is unreadable"),
    };
    let Some((fields, sum)) = rest.split_last_chunk() else {
        return Found::Damaged("it is too short");
    };
    if u32::from_le_bytes(*sum) != crc32c::crc32c(&bytes[..bytes.len() - sum.len()]) {
        return Found::Damaged("its checksum is wrong");
    }
    read_fields(fields, version).map_or(Found::Damaged("its fields are unreadable"), Found::Good)
}

fn read_fields(mut fields: &[u8], version: u32) -> Option<Identity> {
    let rest = &mut fields;
    let (group, servers) = (Field::read(rest)?, Field::read(rest)?);
    let mut identity = Identity::new(group, servers, Field::read(rest)?, Field::read(rest)?);
    identity.incarnation = Field::read(rest)?;
    identity.segment = Field::read(rest)?;
    if version > 1 {
        let known = u8::read(rest)? == 1;
        identity.boot = Some(Field::read(rest)?).filter(|_| known);
        identity.runs = read_list(rest, RUNS_KEPT)?;
    }
    for _ in 0..u8::read(rest)? {
        identity.see(read_seen(rest, version)?);
    }
    identity.process = identity.runs.last().map_or(ProcessId::UNKNOWN, |run| run.process);
    rest.is_empty().then_some(identity)
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    fn run(incarnation: u64) -> Run {
        Run { incarnation: Incarnation(incarnation), process: ProcessId(incarnation * 7) }
    }

    fn sample() -> Identity {
        let mut identity = Identity::new(GroupId(9), 3, ServerId::new(2).unwrap(), DiskId(77));
        (1..=4).for_each(|n| identity.start(run(n).process, Some(5)));
        let copies = vec![run(5), run(7)];
        identity.see(SeenDisk { disk: DiskId(5), runs: vec![run(4), run(6)], copies });
        identity
    }

    #[test]
    fn the_bytes_of_this_version_stay_the_same() {
        let bytes = sample().encode();
        // The checksum at the end would hide every difference.
        let fields = &bytes[..bytes.len() - 4];
        assert_eq!((VERSION, fields.len(), crc32c::crc32c(fields)), (5, 227, 3_399_691_833));
    }

    #[test]
    fn reads_what_it_wrote() {
        let disk = MemoryDisk::default();
        assert_eq!(Identity::read(&disk).unwrap(), Found::Nothing);
        sample().write(&disk).unwrap();
        assert_eq!(Identity::read(&disk).unwrap(), Found::Good(sample()));
    }

    #[test]
    fn every_flipped_bit_is_damage_or_a_newer_version() {
        let good = sample().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&bad), Found::Damaged(_) | Found::Newer(_)), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(matches!(decode(&good[..length]), Found::Damaged(_)), "{length} bytes");
        }
    }

    #[test]
    fn remembers_the_newest_runs_of_few_disks() {
        let mut identity = sample();
        let most: Vec<Run> = (1..=RUNS_KEPT as u64).map(run).collect();
        let copies = vec![run(9); COPIES_MAX];
        let of = |disk| SeenDisk { disk, runs: most.clone(), copies: copies.clone() };
        for disk in 100..200 {
            assert!(identity.see(of(DiskId(disk))));
        }
        assert_eq!(identity.seen().all().len(), SEEN_MAX);
        assert_eq!(identity.seen().of(DiskId(5)), None);
        assert_eq!(identity.seen().of(DiskId(199)), Some(&of(DiskId(199))));
        (5..=40).for_each(|n| identity.start(run(n).process, None));
        assert_eq!(identity.runs().len(), RUNS_KEPT);
        assert_eq!(identity.runs().last(), Some(&run(40)));
        assert_eq!((identity.incarnation, identity.process), (Incarnation(40), run(40).process));
        assert_eq!(identity.encode().len(), BYTES_MAX);
        let disk = MemoryDisk::default();
        identity.write(&disk).unwrap();
        assert_eq!(Identity::read(&disk).unwrap(), Found::Good(identity));
        let file = disk.open(FILE, true).unwrap();
        disk.write_at(&file, &[0], BYTES_MAX as u64).unwrap();
        let longer = Identity::read(&disk).unwrap();
        assert!(matches!(longer, Found::Damaged(_)), "{longer:?}");
    }

    /// A directory of an earlier version is read, and its next start writes the current version.
    #[test]
    fn the_versions_before_are_read() {
        for version in 1..VERSION {
            let mut old = MAGIC.to_vec();
            old.extend(version.to_le_bytes());
            old.extend(9u128.to_le_bytes());
            old.extend([3, 2]);
            old.extend(77u128.to_le_bytes());
            old.extend(4u64.to_le_bytes());
            old.extend(1u64.to_le_bytes());
            if version > 1 {
                old.push(1);
                old.extend(12u128.to_le_bytes());
                write_list(&[run(4)], &mut old);
            }
            old.push(1);
            old.extend(5u128.to_le_bytes());
            match version {
                1 => old.extend(6u64.to_le_bytes()),
                2 => run(6).write(&mut old),
                _ => write_list(&[run(6)], &mut old),
            }
            if version > 3 {
                write_list::<Run>(&[], &mut old);
            }
            let whole = |fields: &[u8]| [fields, &crc32c::crc32c(fields).to_le_bytes()].concat();
            let Found::Good(mut identity) = decode(&whole(&old)) else { panic!("{version}") };
            assert_eq!((identity.id.number(), identity.incarnation), (2, Incarnation(4)));
            let (process, boot) = match version {
                1 => (ProcessId::UNKNOWN, None),
                _ => (run(6).process, Some(12)),
            };
            let seen = SeenDisk::new(DiskId(5), vec![Run { process, ..run(6) }]);
            assert_eq!((identity.seen().all(), identity.boot), (&[seen][..], boot));
            identity.start(ProcessId(1), Some(8));
            assert_eq!(decode(&identity.encode()), Found::Good(identity));
            old.push(0);
            assert!(matches!(decode(&whole(&old)), Found::Damaged(_)), "{version}: one byte more");
        }
    }
}
