//! Inspects a directory without changing it: what it holds, and what is damaged.

use super::disk::Disk;
use super::former::{self, Former};
use super::identity::{self, Found, Identity};
use super::recovery::{self, Known, Torn};
use super::segment::{first_index, path};
use super::vote::{self, VoteFile};
use super::{BAD_VOTE, LOG, LONE_VOTE, NO_LOG, OLD_VOTE, OpenError};
use crate::ids::{Index, Position, Vote};
use crate::replica::Config;
use crate::time::WallTime;
use std::io;

/// The contents of a directory.
#[derive(Debug)]
pub struct Findings {
    /// Its identity, if readable.
    pub identity: Option<Identity>,
    /// Its vote, if readable.
    pub vote: Option<Vote>,
    /// The segments of its log, in order.
    pub segments: Vec<SegmentFindings>,
    /// The last entry before the first damage. `last_time` is its time.
    pub last: Position,
    /// See `last`.
    pub last_time: WallTime,
    /// The newest readable config and its position.
    pub config: Option<(Position, Config)>,
    /// The index of a newer config that is unreadable.
    pub unread_config: Option<Index>,
    /// The torn tail that the next start cuts.
    pub torn: Option<Torn>,
    /// What is damaged, and where.
    pub damage: Vec<String>,
    /// The directories that were quarantined before.
    pub former: Vec<Former>,
}

/// The contents of a segment.
#[derive(Debug)]
pub struct SegmentFindings {
    /// Its path, relative to the directory.
    pub file: String,
    /// Its first index, which names the file.
    pub first: Index,
    /// The last entry found in it, before or after damage.
    pub last: Index,
    /// The number of entries found.
    pub entries: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Whether a folder holds a part of a server's directory, or a quarantined tail of a log.
///
/// # Errors
/// The folder can't be read.
pub fn is_of_server<D: Disk>(disk: &D) -> io::Result<bool> {
    let names = disk.list(".")?;
    let parts = [identity::FILE, vote::FILE, LOG];
    Ok(is_tail(&names) || names.iter().any(|name| parts.contains(&name.as_str())))
}

/// Whether these are the files of a quarantined tail: segments alone.
fn is_tail(names: &[String]) -> bool {
    names.iter().any(|name| first_index(name).is_some())
}

/// Reads all files of a directory that no server uses, or of a quarantined one.
///
/// # Errors
/// When a file can't be read, or needs a newer version.
pub fn check<D: Disk>(disk: &D) -> Result<Findings, OpenError> {
    let found = Identity::read(disk)?;
    let vote = VoteFile::open(disk)?.map(|(_, vote)| vote);
    let is_tail = is_tail(&disk.list(".")?);
    let folder = if is_tail { "." } else { LOG };
    let mut damage = Vec::new();
    match &found {
        Found::Newer(version) => return Err(OpenError::newer(*version)),
        Found::Damaged(why) => damage.push(format!("identity: {why}")),
        Found::Nothing | Found::Good(_) => {}
    }
    let identity = found.good().cloned();
    let known = Known { is_tail, ..Known::new(disk, identity.as_ref()) };
    let reading = recovery::read(disk, folder, known, None, &mut |_| {})?;
    let is_new = found == Found::Nothing && !reading.holds_records();
    if identity.is_none() && damage.is_empty() && !is_new && !is_tail {
        damage.push("identity: it is missing, the log is not".to_owned());
    }
    if is_new && vote.is_some_and(|vote| vote != Vote::default()) {
        damage.push(LONE_VOTE.to_owned());
    }
    match vote {
        None if !is_new && !is_tail => damage.push(BAD_VOTE.to_owned()),
        Some(vote) if vote.term < reading.last.term => damage.push(OLD_VOTE.to_owned()),
        _ => {}
    }
    if identity.is_some() && reading.segments.is_empty() {
        damage.push(NO_LOG.to_owned());
    }
    let unread_config = reading.unread_config();
    damage.extend(reading.damage);
    let segments = reading.segments.into_iter().map(|found| SegmentFindings {
        file: path(folder, found.good.first),
        first: found.good.first,
        last: found.last,
        entries: found.records,
        bytes: found.size,
    });
    let segments = segments.collect();
    Ok(Findings {
        identity,
        vote,
        segments,
        last: reading.last,
        last_time: reading.last_time,
        config: reading.config,
        unread_config,
        torn: reading.torn,
        damage,
        former: former::read(disk)?,
    })
}
