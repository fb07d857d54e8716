//! The file `vote`: two slots in separate sectors, written in turn. One sync stores a vote, and a
//! crash leaves the previous vote readable.

use super::disk::Disk;
use super::whole;
use crate::ids::{DiskId, Member, ServerId, Term, Vote};
use crate::record::checksum;
use byteorder::{ByteOrder, LE};
use std::io;

pub(super) const FILE: &str = "vote";
/// The distance of the slots in bytes: no disk writes larger sectors.
const SLOT_DISTANCE: u64 = 4096;
const SLOT_BYTES: usize = 58;
const MAGIC: u32 = u32::from_le_bytes(*b"vote");

/// The open file and the number of its newest slot.
#[derive(Debug)]
pub(super) struct VoteFile<F> {
    file: F,
    number: u64,
}

impl<F> VoteFile<F> {
    /// Creates the file with this vote, or rewrites an existing file.
    pub(super) fn create<D: Disk<File = F>>(disk: &D, vote: Vote) -> io::Result<VoteFile<F>> {
        let file = disk.open(FILE, true)?;
        disk.write_at(&file, &encode(0, vote), 0)?;
        disk.write_at(&file, &encode(1, vote), SLOT_DISTANCE)?;
        disk.sync(&file)?;
        disk.sync_folder(".")?;
        Ok(VoteFile { file, number: 1 })
    }

    /// Opens the file; `None` when it is missing or either slot is damaged.
    pub(super) fn open<D: Disk<File = F>>(disk: &D) -> io::Result<Option<(VoteFile<F>, Vote)>> {
        let Some(file) = whole::open(disk, FILE)? else { return Ok(None) };
        let read = |slot: u64| -> io::Result<Option<(u64, Vote)>> {
            let mut bytes = [0; SLOT_BYTES];
            let length = disk.read_at(&file, &mut bytes, slot * SLOT_DISTANCE)?;
            Ok(decode(&bytes[..length]).filter(|(number, _)| number % 2 == slot))
        };
        let (Some(even), Some(odd)) = (read(0)?, read(1)?) else { return Ok(None) };
        let (number, vote) = if even.0 > odd.0 { even } else { odd };
        Ok(Some((VoteFile { file, number }, vote)))
    }

    /// Stores a vote; it is durable on return.
    pub(super) fn write<D: Disk<File = F>>(&mut self, disk: &D, vote: Vote) -> io::Result<()> {
        self.number += 1;
        let slot = self.number % 2 * SLOT_DISTANCE;
        disk.write_at(&self.file, &encode(self.number, vote), slot)?;
        disk.sync(&self.file)
    }
}

fn encode(number: u64, vote: Vote) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    LE::write_u32(&mut slot, MAGIC);
    LE::write_u64(&mut slot[8..], number);
    LE::write_u64(&mut slot[16..], vote.term.0);
    if let Some(member) = vote.given {
        slot[24] = member.id.number();
        LE::write_u128(&mut slot[25..], member.disk.0);
    }
    if let Some(disk) = vote.founder {
        slot[41] = 1;
        LE::write_u128(&mut slot[42..], disk.0);
    }
    let sum = checksum(&slot);
    LE::write_u32(&mut slot[4..], sum);
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Vote)> {
    if slot.len() != SLOT_BYTES || LE::read_u32(slot) != MAGIC {
        return None;
    }
    if LE::read_u32(&slot[4..]) != checksum(slot) {
        return None;
    }
    let disk = DiskId(LE::read_u128(&slot[25..]));
    let given = ServerId::new(slot[24]).map(|id| Member { id, disk });
    let founder = (slot[41] == 1).then(|| DiskId(LE::read_u128(&slot[42..])));
    let term = Term(LE::read_u64(&slot[16..]));
    Some((LE::read_u64(&slot[8..]), Vote { term, given, founder }))
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    fn vote(term: u64) -> Vote {
        let member = Member { id: ServerId::new(3).unwrap(), disk: DiskId(8) };
        Vote { term: Term(term), given: Some(member), founder: Some(DiskId(term.into())) }
    }

    #[test]
    fn keeps_the_newest() {
        let disk = MemoryDisk::default();
        let mut file = VoteFile::create(&disk, Vote::default()).unwrap();
        assert_eq!(VoteFile::open(&disk).unwrap().unwrap().1, Vote::default());
        for term in 1..6 {
            file.write(&disk, vote(term)).unwrap();
            assert_eq!(VoteFile::open(&disk).unwrap().unwrap().1, vote(term));
        }
    }

    /// A torn write damages only its own slot. The other slot holds the previous vote.
    #[test]
    fn votes_are_written_to_both_slots_in_turn() {
        let disk = MemoryDisk::default();
        let mut file = VoteFile::create(&disk, Vote::default()).unwrap();
        for term in 1..6 {
            file.write(&disk, vote(term)).unwrap();
            let slot = |at: u64| {
                let mut bytes = [0; SLOT_BYTES];
                disk.read_at(&file.file, &mut bytes, at).unwrap();
                decode(&bytes).unwrap().1.term.0
            };
            let mut terms = [slot(0), slot(SLOT_DISTANCE)];
            terms.sort_unstable();
            assert_eq!(terms, [term - 1, term]);
        }
    }

    #[test]
    fn a_crash_in_a_write_leaves_the_vote_before_or_the_new_one() {
        for kept in [false, true] {
            let disk = MemoryDisk::default();
            let mut file = VoteFile::create(&disk, Vote::default()).unwrap();
            file.write(&disk, vote(1)).unwrap();
            disk.fail(|failures| failures.syncs = true);
            file.write(&disk, vote(2)).unwrap_err();
            let found = VoteFile::open(&disk.crash(|| kept)).unwrap().unwrap().1;
            assert_eq!(found, vote(if kept { 2 } else { 1 }));
        }
    }

    #[test]
    fn a_flipped_bit_in_either_slot_is_damage() {
        for at in (0..SLOT_BYTES).flat_map(|at| [at, at + SLOT_DISTANCE as usize]) {
            let disk = MemoryDisk::default();
            VoteFile::create(&disk, Vote::default()).unwrap();
            disk.edit(FILE, |bytes| bytes[at] ^= 4);
            assert!(VoteFile::open(&disk).unwrap().is_none(), "byte {at}");
        }
    }
}
