//! Who a data directory is: the file `identity`, replaced as a whole whenever it changes.

use super::disk::Disk;
use crate::names::{DiskId, GroupId, Incarnation, Index, ServerId};
use byteorder::{LE, ReadBytesExt, WriteBytesExt};
use std::io;

const FILE: &str = "identity";
const MAGIC: &[u8; 8] = b"postern\0";
/// The format of all files of a data directory.
const VERSION: u32 = 1;
/// Disks whose incarnations are remembered: the group's own and the last few that it lost.
const SEEN_MAX: usize = 16;

/// What a data directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group it belongs to.
    pub group: GroupId,
    /// How many servers the group has.
    pub servers: u8,
    /// Whose directory it is.
    pub id: ServerId,
    /// Its number, drawn when it was made.
    pub disk: DiskId,
    /// How often it was started.
    pub incarnation: Incarnation,
    /// The first index of the newest segment of the log: one that must be there.
    pub segment: Index,
    /// The highest incarnations seen of other disks, the latest seen last.
    seen: Vec<(DiskId, Incarnation)>,
}

/// What was found where `identity` should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Damaged(&'static str),
    Newer(u32),
    Good(Identity),
}

impl Identity {
    /// The identity of a directory that has never been started.
    pub fn new(group: GroupId, servers: u8, id: ServerId, disk: DiskId) -> Identity {
        let incarnation = Incarnation(0);
        Identity { group, servers, id, disk, incarnation, segment: Index(1), seen: Vec::new() }
    }

    /// The highest incarnation seen of `disk`.
    pub fn seen(&self, disk: DiskId) -> Option<Incarnation> {
        self.seen.iter().find(|(known, _)| *known == disk).map(|(_, incarnation)| *incarnation)
    }

    /// Notes an incarnation of another disk; whether that was news.
    pub(super) fn see(&mut self, disk: DiskId, incarnation: Incarnation) -> bool {
        if self.seen(disk).is_some_and(|known| known >= incarnation) {
            return false;
        }
        self.seen.retain(|(known, _)| *known != disk);
        self.seen.push((disk, incarnation));
        let surplus = self.seen.len().saturating_sub(SEEN_MAX);
        self.seen.drain(..surplus);
        true
    }

    /// All of [`Identity::seen`].
    pub fn all_seen(&self) -> &[(DiskId, Incarnation)] {
        &self.seen
    }

    pub(super) fn read<D: Disk>(disk: &D) -> io::Result<Found> {
        let file = match disk.open(FILE, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            file => file?,
        };
        let mut bytes = [0; 1024];
        let length = disk.read_at(&file, &mut bytes, 0)?;
        Ok(decode(&bytes[..length]))
    }

    pub(super) fn write<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let new = format!("{FILE}.new");
        let file = disk.open(&new, true)?;
        disk.truncate(&file, 0)?;
        disk.write_at(&file, &self.encode(), 0)?;
        disk.sync(&file)?;
        disk.rename(&new, FILE)?;
        disk.sync_folder(".")
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let done = (|| -> io::Result<()> {
            out.write_u32::<LE>(VERSION)?;
            out.write_u128::<LE>(self.group.0)?;
            out.write_u8(self.servers)?;
            out.write_u8(self.id.number())?;
            out.write_u128::<LE>(self.disk.0)?;
            out.write_u64::<LE>(self.incarnation.0)?;
            out.write_u64::<LE>(self.segment.0)?;
            out.write_u8(self.seen.len() as u8)?;
            for (disk, incarnation) in &self.seen {
                out.write_u128::<LE>(disk.0)?;
                out.write_u64::<LE>(incarnation.0)?;
            }
            let sum = crc32c::crc32c(&out);
            out.write_u32::<LE>(sum)
        })();
        done.expect("a vector takes every byte");
        out
    }
}

fn decode(bytes: &[u8]) -> Found {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Found::Damaged("it does not begin as an identity does");
    };
    // The version stands outside the checksum's reach: a newer format may end differently.
    match rest.read_u32::<LE>() {
        Ok(VERSION) => {}
        Ok(version) if version > VERSION => return Found::Newer(version),
        _ => return Found::Damaged("its version is unreadable"),
    }
    let Some(end) = bytes.len().checked_sub(4).filter(|end| *end > MAGIC.len()) else {
        return Found::Damaged("it is too short");
    };
    let mut sum = &bytes[end..];
    if sum.read_u32::<LE>().ok() != Some(crc32c::crc32c(&bytes[..end])) {
        return Found::Damaged("its checksum is wrong");
    }
    let fields = |mut rest: &[u8]| -> io::Result<Option<Identity>> {
        let group = GroupId(rest.read_u128::<LE>()?);
        let servers = rest.read_u8()?;
        let Some(id) = ServerId::new(rest.read_u8()?) else { return Ok(None) };
        let disk = DiskId(rest.read_u128::<LE>()?);
        let mut identity = Identity::new(group, servers, id, disk);
        identity.incarnation = Incarnation(rest.read_u64::<LE>()?);
        identity.segment = Index(rest.read_u64::<LE>()?);
        for _ in 0..rest.read_u8()? {
            let disk = DiskId(rest.read_u128::<LE>()?);
            identity.seen.push((disk, Incarnation(rest.read_u64::<LE>()?)));
        }
        Ok(Some(identity))
    };
    match fields(rest) {
        Ok(Some(identity)) => Found::Good(identity),
        _ => Found::Damaged("its fields are unreadable"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    fn sample() -> Identity {
        let mut identity = Identity::new(GroupId(9), 3, ServerId::new(2).unwrap(), DiskId(77));
        identity.incarnation = Incarnation(4);
        identity.see(DiskId(5), Incarnation(6));
        identity
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
    fn remembers_the_highest_incarnations_of_few_disks() {
        let mut identity = sample();
        assert!(!identity.see(DiskId(5), Incarnation(6)));
        assert!(!identity.see(DiskId(5), Incarnation(1)));
        assert!(identity.see(DiskId(5), Incarnation(7)));
        for disk in 100..200 {
            identity.see(DiskId(disk), Incarnation(1));
        }
        assert_eq!(identity.all_seen().len(), SEEN_MAX);
        assert_eq!(identity.seen(DiskId(5)), None);
        assert_eq!(identity.seen(DiskId(199)), Some(Incarnation(1)));
    }
}
