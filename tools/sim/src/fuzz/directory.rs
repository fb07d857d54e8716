//! A data directory with damaged files, opened as the start of a server does.
//!
//! The first pieces write a log. Pieces that begin with `F`, `S`, `T`, `Z`, `G`, `D`, `W`, `R` or
//! `O` then damage its files.

use super::case::{Args, Case, pick};
use crate::require;
use crate::simulate::{GROUP, open_store};
use postern::content::Content;
use postern::ids::{
    DiskId, Incarnation, Index, Member, Position, ProcessId, Run, ServerId, Term, UserName, Vote,
};
use postern::mailbox::Change;
use postern::record::{self, Kind, Record};
use postern::replica::{Config, LogReader, SeenDisk};
use postern::rng::Rng;
use postern::store::check::check as check_directory;
use postern::store::disk::Disk;
use postern::store::memory::MemoryDisk;
use postern::store::{Identity, OpenError, Store};
use postern::time::WallTime;
use std::collections::BTreeMap;

/// Letters of pieces that damage files.
const DAMAGES: &[u8] = b"FSTZGDWRO";

/// Makes a case: some batches and segments, then some damage.
pub(super) fn generate(rng: &mut Rng) -> Case {
    let mut pieces = vec![vec![b'i', rng.below(4) as u8]];
    for _ in 0..1 + rng.below(10) {
        pieces.push(match rng.below(10) {
            0 => vec![b'r'],
            1 => vec![b's'],
            2 => vec![b'v', rng.below(9) as u8],
            3 => vec![b'n', rng.below(20) as u8],
            4 => vec![b'c', rng.below(256) as u8, rng.below(256) as u8],
            _ => vec![b'b', rng.below(6) as u8, rng.below(256) as u8, rng.below(40) as u8],
        });
    }
    for _ in 0..rng.below(4) {
        let letter = DAMAGES[pick(rng, DAMAGES.len())];
        // The file, the place in it, the length, and another file.
        let mut piece = vec![letter, rng.below(16) as u8];
        piece.extend((0..6).map(|_| rng.below(256) as u8));
        if rng.below(2) == 0 {
            piece[2] = 0; // near the start of the file
            piece[3] = 0;
        }
        pieces.push(piece);
    }
    Case(pieces)
}

/// A directory and its records.
struct World {
    disk: MemoryDisk,
    identity: Identity,
    /// The bytes of every written record.
    written: Vec<Vec<u8>>,
    term: u64,
    /// Records with correct checksums were forged, so that the contents can't be checked.
    forged: bool,
}

/// Plays a case.
pub(super) fn check(case: &Case) -> Result<(), String> {
    let servers = if case.0.first().is_some_and(|p| p.get(1) == Some(&0)) { 1 } else { 3 };
    let me = ServerId::new(1).expect("1 to 3");
    let mut world = World {
        disk: MemoryDisk::default(),
        identity: Identity::new(GROUP, servers, me, DiskId(1)),
        written: Vec::new(),
        term: 1,
        forged: false,
    };
    world.write(&case.0)?;
    for piece in case.0.iter().filter(|piece| is_damage(piece)) {
        world.damage(piece);
    }
    world.open()
}

fn is_damage(piece: &[u8]) -> bool {
    piece.first().is_some_and(|letter| DAMAGES.contains(letter))
}

impl World {
    fn write(&mut self, pieces: &[Vec<u8>]) -> Result<(), String> {
        let opened = open_store(self.disk.clone(), &self.identity, "0");
        let mut store = opened.map_err(|error| format!("a new directory: {error}"))?.store;
        let fails = |error| format!("the disk works, but a write fails: {error}");
        let mut empty = true;
        for piece in pieces.iter().filter(|piece| !is_damage(piece)) {
            let mut args = Args(piece);
            match args.byte() {
                b'b' => {
                    let batch = self.batch(&mut args);
                    empty = false;
                    store.append(&batch).and_then(|()| store.flush()).map_err(fails)?;
                }
                b'c' => {
                    let config = self.config(&mut args);
                    empty = false;
                    store.append(&config).and_then(|()| store.flush()).map_err(fails)?;
                }
                // A new segment begins only after one that is not empty.
                b'r' if !std::mem::replace(&mut empty, true) => store.roll().map_err(fails)?,
                b's' => store.seal().map_err(fails)?,
                b'v' => {
                    self.term += u64::from(args.byte());
                    let vote = Vote { term: Term(self.term), ..Vote::default() };
                    store.persist(vote).map_err(fails)?;
                }
                b'n' => {
                    let run = Run { incarnation: Incarnation(1), process: ProcessId(1) };
                    store.see(SeenDisk::new(DiskId(args.byte().into()), vec![run]));
                    store.seal().map_err(fails)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let index = Index(self.written.len() as u64 + 1);
        let at = Position { index, term: Term(self.term) };
        let mut bytes = Vec::new();
        record::write(&mut bytes, at, WallTime(index.0), kind, body);
        self.written.push(bytes.clone());
        bytes
    }

    fn batch(&mut self, args: &mut Args<'_>) -> Vec<u8> {
        let (count, fill, length) = (1 + args.byte() % 16, args.byte(), args.byte());
        let user = UserName::parse("ann").expect("a name");
        // Some texts resemble the header of a batch.
        let fill = ["x", "\u{fe}", "\0", "log"][usize::from(fill % 4)];
        let text = fill.repeat(usize::from(length) * 8);
        let mut batch = Vec::new();
        for _ in 0..count {
            let change = Change::Message {
                to: user,
                from: user,
                sender: Index(1),
                key: None,
                content: Content::plain(&text),
            };
            batch.extend(self.add(Kind::MESSAGE, |out| change.encode(out)));
        }
        batch
    }

    fn config(&mut self, args: &mut Args<'_>) -> Vec<u8> {
        let (mask, disk) = (args.byte() | 1, args.byte());
        let members = ServerId::all(3).filter(|id| mask >> id.slot() & 1 != 0);
        let members = members.map(|id| Member { id, disk: DiskId(u128::from(disk % 2) + 1) });
        let config = Config::new(members, mask & 8 != 0);
        self.add(Kind::CONFIG, |out| config.encode(out))
    }

    fn damage(&mut self, piece: &[u8]) {
        let mut args = Args(piece);
        let letter = args.byte();
        let paths = self.disk.paths();
        let Some(path) = paths.get(usize::from(args.byte()) % paths.len().max(1)) else { return };
        let (at, count) = (usize::from(args.short()), usize::from(args.byte()) + 1);
        let detail = args.byte();
        let other = &paths[usize::from(args.byte()) % paths.len()];
        let copied = bytes_of(&self.disk, other);
        let forged = self.forge(detail);
        match letter {
            b'D' => drop(self.disk.remove(path)),
            b'W' => {
                let old = bytes_of(&self.disk, path);
                self.disk.edit(path, |bytes| *bytes = copied);
                self.disk.edit(other, |bytes| *bytes = old);
            }
            b'O' => {
                // A segment that the store has not written.
                let name = format!("log/{:020}.log", u64::from(detail % 32));
                let file = self.disk.open(&name, true).expect("the disk works");
                self.disk.write_at(&file, &copied, 0).expect("the disk works");
            }
            _ => self.disk.edit(path, |bytes| {
                let at = at.min(bytes.len());
                let end = (at + count).min(bytes.len());
                match letter {
                    b'F' if at < bytes.len() => bytes[at] ^= 1 << (detail % 8),
                    b'S' => {
                        let end = (at + count).min(copied.len());
                        bytes.splice(at..at, copied[at.min(end)..end].to_vec());
                    }
                    b'T' => bytes.truncate(at),
                    b'Z' => bytes[at..end].fill(if detail & 1 == 0 { 0 } else { 0xff }),
                    b'G' => bytes.resize(bytes.len() + count * 8, detail),
                    b'R' => {
                        bytes.splice(at..end, forged.clone());
                    }
                    _ => {}
                }
            }),
        }
        self.forged |= letter == b'R';
        for folder in [".", "log"] {
            self.disk.sync_folder(folder).expect("the disk works");
        }
    }

    /// Makes a record with a correct checksum that was never written.
    fn forge(&self, detail: u8) -> Vec<u8> {
        let index = [1, self.written.len() as u64 + 1, u64::MAX, 0][usize::from(detail % 4)];
        let term = Term([self.term, 0, u64::MAX, 1 << 48][usize::from(detail / 4 % 4)]);
        let mut bytes = Vec::new();
        let at = Position { index: Index(index), term };
        record::write(&mut bytes, at, WallTime(u64::MAX), Kind(detail / 16), |out| {
            out.extend([3, 255, 1]);
        });
        bytes
    }

    /// Opens the directory and checks the result.
    fn open(&self) -> Result<(), String> {
        let checked = check_directory(&self.disk);
        let before = files(&self.disk);
        let disk = self.disk.copied();
        match open_store(disk.clone(), &self.identity, "1") {
            Err(OpenError::Io(error)) => Err(format!("the disk works, but opening fails: {error}")),
            Err(OpenError::Refused(_)) => unchanged(&before, &disk),
            Err(OpenError::Damaged(what)) => {
                require(!checked.is_ok_and(|findings| findings.damage.is_empty()), || {
                    format!("check finds no damage, but a start does: {what}")
                })?;
                unchanged(&before, &disk)
            }
            Ok(opened) if opened.quarantined.is_some() => {
                let kept = files(&disk);
                let lost = before.iter().find(|(path, bytes)| {
                    let moved = |(to, kept): (&String, &Vec<u8>)| {
                        to.starts_with("quarantine/") && to.ends_with(*path) && kept == *bytes
                    };
                    path.starts_with("log/") && !kept.iter().any(moved)
                });
                match lost {
                    Some((path, _)) => Err(format!("a quarantined file is lost: {path}")),
                    None => self.extend(&disk, opened.store, Vec::new()),
                }
            }
            Ok(opened) => {
                let found = records_of(&opened.store)?;
                if !self.forged && !self.written.starts_with(&found) {
                    let same = self.written.iter().zip(&found).take_while(|(a, b)| a == b).count();
                    return Err(format!(
                        "an opened log differs from the written one: entry {} of {}",
                        same + 1,
                        self.written.len()
                    ));
                }
                self.extend(&disk, opened.store, found)
            }
        }
    }

    /// Appends records, stores a vote, and opens the directory again.
    fn extend(
        &self,
        disk: &MemoryDisk,
        mut store: Store<MemoryDisk>,
        mut records: Vec<Vec<u8>>,
    ) -> Result<(), String> {
        let fails = |error| format!("an opened log can't be written: {error}");
        require(store.last().0 == records.len() as u64, || {
            format!("the last entry is wrong: {}, {}", store.last(), records.len())
        })?;
        // Terms never decrease, and a forged record may have a high one.
        let newest = records.last().map_or(Term::ZERO, |bytes| Record::trust(bytes).term);
        let term = newest.max(Term(1 << 40));
        for _ in 0..2 {
            let mut bytes = Vec::new();
            let at = Position { index: store.last().next(), term };
            record::write(&mut bytes, at, WallTime(1), Kind::DELETE, |out| out.extend([1; 9]));
            store.append(&bytes).and_then(|()| store.flush()).map_err(fails)?;
            records.push(bytes);
        }
        let vote = Vote { term, ..Vote::default() };
        store.persist(vote).map_err(fails)?;
        drop(store);
        let again = open_store(disk.clone(), &self.identity, "2");
        let again = again.map_err(|error| format!("an extended log can't be opened: {error}"))?;
        let found = records_of(&again.store)?;
        require(again.quarantined.is_none() && found == records && again.vote == vote, || {
            format!("an extended log is lost: {:?}", again.quarantined)
        })?;
        Ok(())
    }
}

/// Returns the records of a log.
fn records_of(store: &Store<MemoryDisk>) -> Result<Vec<Vec<u8>>, String> {
    let mut records = Vec::new();
    let keep = &mut |record: &Record<'_>| records.push(record.bytes.to_vec());
    let read = store.for_each(Index(1), store.last(), keep);
    read.map(|()| records).map_err(|error| format!("an opened log can't be read: {error}"))
}

/// Reads a file. Returns no bytes if it does not exist.
fn bytes_of(disk: &MemoryDisk, path: &str) -> Vec<u8> {
    let Ok(file) = disk.open(path, false) else { return Vec::new() };
    let mut bytes = vec![0; disk.size(&file).unwrap_or(0) as usize];
    let length = disk.read_at(&file, &mut bytes, 0).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

fn files(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    disk.paths().into_iter().map(|path| (path.clone(), bytes_of(disk, &path))).collect()
}

fn unchanged(before: &BTreeMap<String, Vec<u8>>, disk: &MemoryDisk) -> Result<(), String> {
    require(files(disk) == *before, || {
        "a refused directory was changed: its files differ".to_owned()
    })
}
