//! The config, which lists the members, and the arithmetic of majorities. Pure data, without
//! protocol.

use crate::fields::{Field, read_all, read_list, write_list};
use crate::ids::{DiskId, Member, Position, Run, ServerId};
use std::fmt;

/// The body of a config entry. It lists the members, each id at most once, and says whether
/// clients may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    disks: [Option<DiskId>; 3],
    /// Clients may connect. Every config copies this flag from the previous one, except the one
    /// that opens the gate.
    pub gate_open: bool,
    /// Why the config was written.
    pub origin: Origin,
}

/// Why a config was written, as far as its members do not show that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Any other reason.
    #[default]
    Other,
    /// It is the first config of an epoch that branched from this entry.
    Branch(Position),
    /// It adds this server, running as this run, to the previous members.
    Added(ServerId, Run),
}

const GATE_OPEN: u8 = 1;
const BRANCH: u8 = 2;
const ADDED: u8 = 4;

impl Config {
    /// Returns the config of these members. Of two members with the same id, the later one
    /// counts.
    pub fn new(members: impl IntoIterator<Item = Member>, gate_open: bool) -> Config {
        let mut disks = [None; 3];
        for member in members {
            disks[member.id.slot()] = Some(member.disk);
        }
        Config { disks, gate_open, origin: Origin::Other }
    }

    /// Returns the members, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        ServerId::all(3).filter_map(|id| self.disks[id.slot()].map(|disk| Member { id, disk }))
    }

    /// Returns the number of members.
    pub fn count(&self) -> usize {
        self.disks.iter().flatten().count()
    }

    /// Returns the size of the smallest majority.
    pub fn majority(&self) -> usize {
        self.count() / 2 + 1
    }

    /// Returns whether this server is a member with exactly this disk.
    pub fn has(&self, member: Member) -> bool {
        self.disks[member.id.slot()] == Some(member.disk)
    }

    /// Returns the member with this id.
    pub fn member(&self, id: ServerId) -> Option<Member> {
        self.disks[id.slot()].map(|disk| Member { id, disk })
    }

    /// Returns how many members satisfy `is_so`.
    pub(crate) fn count_of(&self, is_so: impl Fn(Member) -> bool) -> usize {
        self.members().filter(|member| is_so(*member)).count()
    }

    /// Returns the highest mark that a majority has reached; `mark` is that of a member.
    pub(crate) fn reached_by_majority<T: Copy + Ord + Default>(
        &self,
        mark: impl Fn(Member) -> T,
    ) -> T {
        let mut marks = [T::default(); 3];
        for (place, member) in marks.iter_mut().zip(self.members()) {
            *place = mark(member);
        }
        let marks = &mut marks[..self.count()];
        marks.sort_unstable_by(|a, b| b.cmp(a));
        marks.get(marks.len() / 2).copied().unwrap_or_default()
    }

    /// Returns a copy of this config with `change` applied and without an origin.
    fn changed(&self, change: impl FnOnce(&mut Config)) -> Config {
        let mut next = Config { origin: Origin::Other, ..*self };
        change(&mut next);
        next
    }

    pub(crate) fn restated(&self) -> Config {
        self.changed(|_| {})
    }

    pub(crate) fn with(&self, member: Member, run: Run) -> Config {
        self.changed(|next| {
            next.disks[member.id.slot()] = Some(member.disk);
            next.origin = Origin::Added(member.id, run);
        })
    }

    pub(crate) fn without(&self, id: ServerId) -> Config {
        self.changed(|next| next.disks[id.slot()] = None)
    }

    pub(crate) fn opened(&self) -> Config {
        self.changed(|next| next.gate_open = true)
    }

    /// Returns the disk that this config adds, and its run.
    pub(crate) fn added(&self) -> Option<(DiskId, Run)> {
        let Origin::Added(id, run) = self.origin else { return None };
        self.disks[id.slot()].map(|disk| (disk, run))
    }

    /// Appends the config as an entry's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    /// Reads a config from an entry's body.
    pub fn decode(body: &[u8]) -> Option<Config> {
        read_all(body)
    }
}

impl Field for Config {
    fn write(&self, out: &mut Vec<u8>) {
        let gate = if self.gate_open { GATE_OPEN } else { 0 };
        let origin = match self.origin {
            Origin::Other => 0,
            Origin::Branch(_) => BRANCH,
            Origin::Added(..) => ADDED,
        };
        out.push(gate | origin);
        write_list(&self.members().collect::<Vec<_>>(), out);
        match self.origin {
            Origin::Other => {}
            Origin::Branch(Position { index, term }) => {
                index.write(out);
                term.write(out);
            }
            Origin::Added(id, run) => {
                id.write(out);
                run.write(out);
            }
        }
    }

    fn read(rest: &mut &[u8]) -> Option<Config> {
        let flags = u8::read(rest)?;
        let members: Vec<Member> = read_list(rest, 3)?;
        let mut config = Config::new(members.iter().copied(), flags & GATE_OPEN != 0);
        config.origin = match flags & !GATE_OPEN {
            0 => Origin::Other,
            BRANCH => {
                let index = Field::read(rest)?;
                Origin::Branch(Position { index, term: Field::read(rest)? })
            }
            ADDED => Origin::Added(config.member(Field::read(rest)?)?.id, Field::read(rest)?),
            _ => return None,
        };
        // Each id is there once.
        (config.count() == members.len() && !members.is_empty()).then_some(config)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, member) in self.members().enumerate() {
            write!(f, "{}{member}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Incarnation, Index, ProcessId, Term};

    fn member(id: u8, disk: u128) -> Member {
        Member { id: ServerId::new(id).unwrap(), disk: DiskId(disk) }
    }

    fn run() -> Run {
        Run { incarnation: Incarnation(3), process: ProcessId(5) }
    }

    #[test]
    fn majorities() {
        let table: [(&[u64], u64); 8] = [
            (&[5], 5),
            (&[5, 3], 3),
            (&[3, 5], 3),
            (&[5, 5], 5),
            (&[1, 2, 3], 2),
            (&[3, 3, 1], 3),
            (&[0, 0, 9], 0),
            (&[7, 7, 7], 7),
        ];
        for (marks, expected) in table {
            let config = Config::new((1..=marks.len() as u8).map(|id| member(id, 1)), false);
            let reached = config.reached_by_majority(|member| marks[member.id.slot()]);
            assert_eq!(reached, expected, "{marks:?}");
        }
        for (count, majority) in [(1, 1), (2, 2), (3, 2)] {
            let config = Config::new((1..=count).map(|id| member(id, 1)), false);
            assert_eq!(config.majority(), majority);
        }
    }

    #[test]
    fn the_bytes_of_configs_stay_the_same() {
        let mut config = Config::new([member(1, 7), member(3, u128::MAX)], true);
        let branch = Origin::Branch(Position { index: Index(4), term: Term(5) });
        let added = Origin::Added(config.members().last().unwrap().id, run());
        let mut bytes = Vec::new();
        for origin in [Origin::Other, branch, added] {
            config.origin = origin;
            config.encode(&mut bytes);
        }
        assert_eq!((bytes.len(), crc32c::crc32c(&bytes)), (141, 3_105_631_717));
    }

    #[test]
    fn a_config_survives_its_bytes() {
        let mut config = Config::new([member(1, 7), member(3, u128::MAX)], true);
        let branch = Origin::Branch(Position { index: Index(4), term: Term(5) });
        let added = Origin::Added(config.members().last().unwrap().id, run());
        for origin in [Origin::Other, branch, added] {
            config.origin = origin;
            let mut body = Vec::new();
            config.encode(&mut body);
            assert_eq!(Config::decode(&body), Some(config));
            for length in 0..body.len() {
                assert_eq!(Config::decode(&body[..length]), None);
            }
            body.push(0);
            assert_eq!(Config::decode(&body), None);
        }
        assert_eq!(Config::decode(&[0, 0]), None, "a config has members");
        config.origin = Origin::Added(ServerId::new(2).unwrap(), run());
        let mut body = Vec::new();
        config.encode(&mut body);
        assert_eq!(Config::decode(&body), None, "who is added is a member");
    }

    #[test]
    fn an_addition_is_named_once() {
        let two = Config::new([member(1, 7), member(3, 9)], false);
        let three = two.with(member(2, 8), run());
        assert_eq!(three.added(), Some((DiskId(8), run())));
        for next in [three.restated(), three.opened(), three.without(ServerId::new(1).unwrap())] {
            assert_eq!((next.origin, next.added()), (Origin::Other, None));
        }
    }

    #[test]
    fn one_id_stands_once() {
        let mut body = vec![0, 2];
        for _ in 0..2 {
            body.push(1);
            body.extend([0; 16]);
        }
        assert_eq!(Config::decode(&body), None);
        let config = Config::new([member(2, 1)], false);
        assert!(config.has(member(2, 1)) && !config.has(member(2, 9)));
        assert_eq!(config.with(member(2, 9), run()).count(), 1);
        assert_eq!(config.without(ServerId::new(2).unwrap()).count(), 0);
    }
}
