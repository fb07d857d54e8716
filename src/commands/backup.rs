//! `postern backup` and `postern restore`: all acknowledged entries of a running group as one file,
//! and a new group from such a file.
//!
//! The file: `postbak` and the version `02`, and the group `u128`; the records from entry 1 on, as
//! the log has them; four zero bytes, the last entry `u64`, and the checksum (CRC-32C) of all bytes
//! before it.

use super::directory::{hold_or_make, identity, label, random};
use super::operator::{Failure, ask, name};
use super::{Named, ask as status, stderr};
use crate::ids::{DiskId, GroupId, Index, Member, Position, ServerId, Term};
use crate::limits::{FILE_PIECE_BYTES, RECORD_BYTES_MAX};
use crate::mailbox::Mailboxes;
use crate::options;
use crate::record::{self, Kind, Record};
use crate::replica::{Beginning, LogSummary, Packet};
use crate::settings::Settings;
use crate::store::disk::RealDisk;
use crate::store::{Opening, Store};
use crate::time::{WallTime, in_words};
use byteorder::{ByteOrder, LE, ReadBytesExt};
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const MAGIC: &[u8; 8] = b"postbak\x02";
const HEAD_BYTES: usize = 8 + 16;
/// In the place of a record's length: there are no more.
const END: [u8; 4] = [0; 4];
/// The length of an answer before its records: the last acknowledged entry, and the size of the
/// log, each `u64`.
const ANSWER_BYTES: usize = 16;
/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Copies all acknowledged entries of a group to a file, or to standard output.
///
/// # Errors
/// Returns a one-line message that states why there is no backup. A file is complete or missing.
#[cold]
pub fn run(options: &options::Backup) -> Result<ExitCode, String> {
    let settings = Settings::read(&options.config)?;
    let mut source = Source { settings: &settings, slots: order(&settings) };
    let rate = options.rate * 1024 * 1024;
    if options.out == Path::new("-") {
        let mut out = io::stdout().lock();
        source.copy(rate, &mut out)?;
        out.flush().named("stdout")?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = options.out.display();
    if options.out.exists() {
        return Err(format!("{shown}: exists, and is not overwritten"));
    }
    let part = with_ending(&options.out, "part");
    let mut file = File::create(&part).named(part.display())?;
    let copied = source.copy(rate, &mut file).and_then(|last| {
        file.sync_all().and_then(|()| fs::rename(&part, &options.out)).named(shown)?;
        Ok(last)
    });
    let last = copied.inspect_err(|_| drop(fs::remove_file(&part)))?;
    super::print(format!("{}: all entries up to {last}\n", options.out.display()))
}

/// Returns a path with another ending added.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The servers from which entries come.
struct Source<'a> {
    settings: &'a Settings,
    /// The places of the servers in the list, in the order in which they are asked.
    slots: Vec<usize>,
}

/// Returns the places of all servers, the backups first: a copy must not slow the primary.
fn order(settings: &Settings) -> Vec<usize> {
    let answers = status::ask_all(&settings.servers, Duration::from_secs(2));
    let is_backup = |slot: &usize| {
        let answer = answers[*slot].as_ref();
        answer.is_ok_and(|answer| status::is(answer, "role", "backup"))
    };
    let mut slots: Vec<usize> = (0..settings.servers.len()).collect();
    slots.sort_by_key(|slot| !is_backup(slot));
    slots
}

/// An answer to a request for entries.
struct Part {
    /// The last acknowledged entry.
    acknowledged: Index,
    /// The size of the log in bytes.
    log_bytes: u64,
    /// The first ones of the entries that were asked for, if it has them.
    records: Vec<u8>,
}

impl Source<'_> {
    /// Asks a server for entries. An error names the server.
    fn ask(&self, slot: usize, first: Index) -> Result<Part, String> {
        let line = format!("BACKUP {first}");
        let request = Packet::Request { group: self.settings.shared.group };
        let why = match ask(self.settings, slot, (request, line.as_bytes()), PATIENCE) {
            Ok((Packet::Answer, bytes)) if bytes.len() >= ANSWER_BYTES => {
                let (head, records) = bytes.split_at(ANSWER_BYTES);
                return Ok(Part {
                    acknowledged: Index(LE::read_u64(head)),
                    log_bytes: LE::read_u64(&head[8..]),
                    records: records.to_vec(),
                });
            }
            Ok(_) => "invalid response".to_owned(),
            Err(
                Failure::Unasked(why)
                | Failure::Elsewhere(why)
                | Failure::Refused(why)
                | Failure::Lost(why),
            ) => why,
        };
        Err(format!("{}: {why}", name(self.settings, slot)))
    }

    /// Returns the last acknowledged entry, and the size of the log. A backup server learns a
    /// moment after the primary what is acknowledged, so all are asked.
    fn newest(&self) -> Result<(Index, u64), String> {
        let asked = self.slots.iter().map(|slot| self.ask(*slot, Index::ZERO));
        let (heard, failed): (Vec<_>, Vec<_>) = asked.partition(Result::is_ok);
        let newest = heard.into_iter().flatten().max_by_key(|part| part.acknowledged);
        let newest = newest.map(|part| (part.acknowledged, part.log_bytes));
        newest.ok_or_else(|| {
            failed.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; ")
        })
    }

    /// Asks for entries, one server after the other until one has them. That one is asked first
    /// the next time.
    fn fetch(&mut self, first: Index) -> Result<Part, String> {
        let mut excuses = Vec::new();
        for _ in 0..self.slots.len() {
            let slot = self.slots[0];
            excuses.push(match self.ask(slot, first) {
                Ok(part) if !part.records.is_empty() => return Ok(part),
                Ok(_) => format!("{}: entry {first} is not there", name(self.settings, slot)),
                Err(why) => why,
            });
            self.slots.rotate_left(1);
        }
        Err(excuses.join("; "))
    }

    /// Writes a backup of all entries that are acknowledged now. Returns the last one.
    fn copy(&mut self, rate: u64, out: &mut dyn Write) -> Result<Index, String> {
        let (newest, group) = (self.newest()?, self.settings.shared.group);
        let mut fetch = |first| {
            let mut part = self.fetch(first)?;
            let is_emptied =
                |record: Result<Record<'_>, _>| record.is_ok_and(|r| r.kind == Kind::EMPTIED);
            if record::each(&part.records).any(is_emptied) {
                // A server that is being filled has them long before it knows why.
                part.acknowledged = part.acknowledged.max(self.newest()?.0);
            }
            Ok(part)
        };
        copy(group, newest, &mut fetch, rate, out)
    }
}

/// A writer that computes the checksum of what it writes.
struct Summed<'a> {
    out: &'a mut dyn Write,
    sum: u32,
    bytes: u64,
}

impl Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).named("the backup can't be written")
    }
}

/// Writes a backup of all entries up to `last`, the last acknowledged one. `log_bytes` is the size
/// of the log, `rate` the speed in bytes a second. Returns the last entry of the backup.
///
/// If messages are emptied while it is being written, it goes on up to the entries that are
/// acknowledged then: with these, no mailbox keeps such a message.
fn copy(
    group: GroupId,
    (mut last, log_bytes): (Index, u64),
    fetch: &mut dyn FnMut(Index) -> Result<Part, String>,
    rate: u64,
    out: &mut dyn Write,
) -> Result<Index, String> {
    if last == Index::ZERO {
        return Err("the group has no acknowledged entries".to_owned());
    }
    let mut out = Summed { out, sum: 0, bytes: 0 };
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&group.0.to_le_bytes());
    out.write(&head)?;
    let (mut next, mut term, began) = (Index(1), Term::ZERO, Instant::now());
    let mut shown = Shown::new(log_bytes);
    while next <= last {
        let Part { acknowledged, records, .. } = fetch(next)?;
        let mut rest = &records[..];
        while !rest.is_empty() && next <= last {
            let record =
                Record::parse(rest).map_err(|why| format!("entry {next}: {}", why.as_str()));
            let record = record?;
            if record.index != next {
                return Err(format!("entry {next}: another one was sent"));
            }
            if record.term < term {
                return Err(format!("entry {next}: the servers have different logs"));
            }
            if record.kind == Kind::EMPTIED {
                last = last.max(acknowledged);
            }
            term = record.term;
            out.write(record.bytes)?;
            rest = &rest[record.bytes.len()..];
            next = next.next();
        }
        shown.show(out.bytes);
        // The rate is bounded, so that clients of the group notice nothing.
        let due = began + Duration::from_secs_f64(out.bytes as f64 / rate as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    out.write(&END)?;
    out.write(&last.0.to_le_bytes())?;
    let sum = out.sum.to_le_bytes();
    out.write(&sum)?;
    Ok(last)
}

/// What a terminal shows of the progress.
struct Shown {
    total: u64,
    began: Instant,
    at: Instant,
    is_wanted: bool,
}

impl Shown {
    fn new(total: u64) -> Shown {
        let is_wanted = log::log_enabled!(log::Level::Info) && io::stderr().is_terminal();
        Shown { total, began: Instant::now(), at: Instant::now(), is_wanted }
    }

    fn show(&mut self, bytes: u64) {
        if !self.is_wanted || self.at.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.at = Instant::now();
        let per_second = bytes as f64 / self.began.elapsed().as_secs_f64();
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let left = self.total.saturating_sub(bytes) as f64 / per_second.max(1.0);
        stderr::show_progress(format!(
            "{:.0} of {:.0} MiB, {:.1} MiB/s, {} left",
            mib(bytes as f64),
            mib(self.total as f64),
            mib(per_second),
            in_words(Duration::from_secs_f64(left))
        ));
    }
}

/// Makes a new group from a backup: its config file, and the directory of its server 1.
///
/// # Errors
/// Returns a one-line message that states why nothing was made.
#[cold]
pub fn restore(options: &options::Restore) -> Result<ExitCode, String> {
    let shown = options.data.display();
    let is_used = fs::read_dir(&options.data).is_ok_and(|mut names| names.next().is_some());
    if is_used {
        return Err(format!("{shown}: is not empty, and is not overwritten"));
    }
    let mut input: Box<dyn Read> = match options.file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&options.file).named(options.file.display())?),
    };
    // What is not complete has another name.
    let part = with_ending(&options.data, "part");
    if part.exists() {
        return Err(format!("{}: an earlier restore has left it; remove it", part.display()));
    }
    Settings::init(&options.out, &options.servers, false)?;
    let made = fill(options, &part, &mut input).and_then(|last| {
        fs::rename(&part, &options.data).named(shown)?;
        let parent = options.data.parent().filter(|parent| *parent != Path::new(""));
        let parent = File::open(parent.unwrap_or(Path::new(".")));
        parent.and_then(|parent| parent.sync_all()).named(options.data.display())?;
        Ok(last)
    });
    let last = made.inspect_err(|_| {
        let _ = fs::remove_dir_all(&part);
        let _ = fs::remove_file(&options.out);
    })?;
    let (config, data) = (options.out.display(), options.data.display());
    let mut text = format!(
        "{data} holds all entries up to {last}, for server 1 of a new group; {config} is its \
         config.\nStart server 1 first; the others, with empty directories, join it:\n"
    );
    for id in 1..=options.servers.len() {
        let data = if id == 1 { data.to_string() } else { "DIRECTORY".to_owned() };
        text += &format!("  postern serve --config {config} --id {id} --data {data}\n");
    }
    super::print(text)
}

/// Fills a new directory with the entries of a backup, and lets server 1 of the new group continue
/// them alone.
fn fill(options: &options::Restore, data: &Path, input: &mut dyn Read) -> Result<Index, String> {
    let file = options.file.display();
    let settings = Settings::read(&options.out)?;
    let _lock = hold_or_make(data)?;
    let disk = RealDisk::open(data).named(data.display())?;
    let me = Member { id: ServerId::new(1).expect("1 to 3"), disk: DiskId(random()?) };
    let expected = identity(&settings.shared, me.id, me.disk)?;
    let (label, empty) = (label(), Mailboxes::new(&settings.secret));
    let opening = Opening { expected: &expected, label: &label, empty: &empty };
    let opened = Store::open(disk, &opening, &mut |_| {});
    let mut store = opened.named(data.display())?.store;
    let mut entries = Entries::begin(input).named(&file)?;
    let (mut summary, mut batch) = (LogSummary::default(), Vec::new());
    while let Some(record) = entries.next().named(&file)? {
        let record = Record::trust(record);
        summary.push(&record).named(&file)?;
        batch.extend_from_slice(record.bytes);
        if batch.len() >= FILE_PIECE_BYTES {
            store.append(&batch).and_then(|()| store.flush()).named(data.display())?;
            batch.clear();
        }
    }
    let last: Position = summary.last();
    let gate_open = summary.config().is_some_and(|(_, config)| config.gate_open);
    let begin = Beginning::new(me, last.term, last, gate_open);
    let time = WallTime::from_system(SystemTime::now()).max(summary.last_time());
    store.persist(begin.vote).named(data.display())?;
    batch.extend_from_slice(&begin.entry(time));
    let stored = store.append(&batch).and_then(|()| store.flush()).and_then(|()| store.seal());
    stored.named(data.display())?;
    Ok(last.index)
}

/// The entries of a backup, which is read once.
struct Entries<'a> {
    input: BufReader<&'a mut dyn Read>,
    sum: u32,
    next: Index,
    record: Vec<u8>,
}

impl<'a> Entries<'a> {
    fn begin(input: &'a mut dyn Read) -> io::Result<Entries<'a>> {
        let mut input = BufReader::with_capacity(FILE_PIECE_BYTES, input);
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head).map_err(cut_off)?;
        if !head.starts_with(MAGIC) {
            return Err(invalid("it is no backup of this version"));
        }
        let sum = crc32c::crc32c(&head);
        Ok(Entries { input, sum, next: Index(1), record: Vec::new() })
    }

    /// Reads what follows the records.
    fn end(&mut self) -> io::Result<()> {
        let mut last = [0; 8];
        self.input.read_exact(&mut last).map_err(cut_off)?;
        let sum = crc32c::crc32c_append(crc32c::crc32c_append(self.sum, &END), &last);
        let read = self.input.read_u32::<LE>().map_err(cut_off)?;
        if read != sum || self.input.read(&mut [0])? > 0 {
            return Err(invalid("its checksum is wrong"));
        }
        if Index(LE::read_u64(&last)).next() != self.next {
            return Err(invalid("entries are missing at its end"));
        }
        Ok(())
    }

    /// Returns the next record; `None` at the end, if all of the backup is as it was written.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(cut_off)?;
        if length == END {
            return self.end().map(|()| None);
        }
        let bytes = LE::read_u32(&length) as usize;
        if !(length.len()..=RECORD_BYTES_MAX).contains(&bytes) {
            return Err(invalid(&format!("entry {} has an impossible length", self.next)));
        }
        self.record.clear();
        self.record.extend_from_slice(&length);
        self.record.resize(bytes, 0);
        self.input.read_exact(&mut self.record[length.len()..]).map_err(cut_off)?;
        let record = Record::parse(&self.record);
        let record =
            record.map_err(|why| invalid(&format!("entry {}: {}", self.next, why.as_str())))?;
        if record.index != self.next {
            return Err(invalid(&format!("entry {} is missing", self.next)));
        }
        self.sum = crc32c::crc32c_append(self.sum, &self.record);
        self.next = self.next.next();
        Ok(Some(&self.record))
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.to_owned())
}

fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => invalid("it ends early"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of 100 bytes of the entry with this index.
    fn entry(index: u64, term: u64, kind: Kind) -> Vec<u8> {
        let mut bytes = Vec::new();
        let at = Position { index: Index(index), term: Term(term) };
        record::write(&mut bytes, at, WallTime(index), kind, |out| out.resize(100, 0));
        bytes
    }

    /// Copies a log of which a server has 20 entries and acknowledges one more with each answer,
    /// which holds two. The backup begins when ten are acknowledged.
    fn copied(make: impl Fn(u64) -> Vec<u8>) -> Result<(Index, Vec<u8>), String> {
        let (mut out, mut acknowledged) = (Vec::new(), Index(10));
        let mut fetch = |first: Index| {
            acknowledged = acknowledged.next();
            let records = [make(first.0), make(first.0 + 1)].concat();
            Ok(Part { acknowledged, log_bytes: 0, records })
        };
        let last = copy(GroupId(7), (Index(10), 0), &mut fetch, u64::MAX, &mut out)?;
        Ok((last, out))
    }

    fn indexes(mut backup: &[u8]) -> io::Result<Vec<u64>> {
        let (mut entries, mut indexes) = (Entries::begin(&mut backup)?, Vec::new());
        while let Some(record) = entries.next()? {
            indexes.push(Record::trust(record).index.0);
        }
        Ok(indexes)
    }

    /// The entry that lets go of a message may be newer than the backup: it is in it all the same
    /// if a server has emptied the message meanwhile.
    #[test]
    fn a_backup_with_emptied_messages_holds_what_was_acknowledged_then() {
        for (emptied, expected) in [(99, 10), (1, 11), (6, 13), (10, 15), (11, 10)] {
            let kind = |index| if index == emptied { Kind::EMPTIED } else { Kind::MESSAGE };
            let (last, backup) = copied(|index| entry(index, 1, kind(index))).unwrap();
            assert_eq!(last, Index(expected), "{emptied}");
            let all: Vec<u64> = (1..=expected).collect();
            assert_eq!(indexes(&backup).unwrap(), all, "{emptied}");
        }
    }

    #[test]
    fn a_backup_is_of_one_log() {
        let term = |index| if index < 6 { 3 } else { 2 };
        let why = copied(|index| entry(index, term(index), Kind::MESSAGE)).unwrap_err();
        assert!(why.contains("entry 6"), "{why}");
    }

    /// Its end says how many entries it has.
    #[test]
    fn a_backup_that_lacks_entries_at_its_end_is_not_used() {
        let (_, backup) = copied(|index| entry(index, 1, Kind::MESSAGE)).unwrap();
        let (record, end) = (entry(10, 1, Kind::MESSAGE).len(), backup.len() - 16);
        let mut short = [&backup[..end - record], &backup[end..end + 12]].concat();
        let sum = crc32c::crc32c(&short);
        short.extend_from_slice(&sum.to_le_bytes());
        assert!(indexes(&short).unwrap_err().to_string().contains("missing at its end"));
    }
}
