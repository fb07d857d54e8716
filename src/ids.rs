//! The identifiers and numbers that every module may use. Each has its own type, so that they
//! can't be mixed up.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// A server's id: its position, from 1, in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u8);

impl ServerId {
    /// The id `n`, if it is 1, 2 or 3.
    pub fn new(n: u8) -> Option<ServerId> {
        (1..=3).contains(&n).then_some(ServerId(n))
    }

    /// The id as a number, 1 to 3.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The id as an index into a table, 0 to 2.
    pub fn slot(self) -> usize {
        usize::from(self.0) - 1
    }

    /// The ids of a group of `servers` servers, in order.
    pub fn all(servers: u8) -> impl Iterator<Item = ServerId> {
        (1..=servers.min(3)).map(ServerId)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random number drawn when a data directory is created. It is shown as its first 8 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub u128);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// The number of a group, drawn by `postern init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(pub u128);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The origin of a client: its IPv4 address, or the first half of its IPv6 address, since one
/// host has many of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(u128);

impl Origin {
    /// The origin of all operators, whatever their address: they know the group's secret.
    pub const OPERATOR: Origin = Origin(u128::MAX);
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        match address.to_canonical() {
            IpAddr::V4(address) => Origin(u128::from(address.to_bits())),
            IpAddr::V6(address) => Origin(address.to_bits() >> 64 << 64),
        }
    }
}

/// The secret that the servers of a group share. It is never shown.
#[derive(Clone)]
pub struct Secret([u8; Secret::BYTES]);

impl Secret {
    /// The length of a secret in bytes.
    pub const BYTES: usize = 32;

    /// The secret of these bytes.
    pub fn new(bytes: [u8; Secret::BYTES]) -> Secret {
        Secret(bytes)
    }

    /// The secret's bytes.
    pub fn bytes(&self) -> &[u8; Secret::BYTES] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A server with its disk. After losing its disk, a server is a different member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its place in the configured list.
    pub id: ServerId,
    /// Its data directory.
    pub disk: DiskId,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.disk)
    }
}

/// The number of starts of a disk. It is increased durably before the process sends anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// A random number of one server process. It distinguishes a process from one that runs on a copy
/// of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId(pub u64);

impl ProcessId {
    /// The number of a start that has recorded none.
    pub const UNKNOWN: ProcessId = ProcessId(0);
}

/// One start of a server on a disk. A directory and a copy of it each have starts that the other
/// lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The disk's count of starts, this one included.
    pub incarnation: Incarnation,
    /// The number that this start has drawn.
    pub process: ProcessId,
}

/// An entry's place in the log. The first entry has index 1; 0 is the place before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Index(pub u64);

impl Index {
    /// The place before the first entry.
    pub const ZERO: Index = Index(0);

    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; 0 for 0.
    pub fn before(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a log segment: its place in the log, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentId(NonZeroU32);

impl SegmentId {
    /// The first segment of a log.
    pub const FIRST: SegmentId = SegmentId(NonZeroU32::MIN);

    /// The segment of this number, from 1.
    pub fn new(number: u32) -> Option<SegmentId> {
        NonZeroU32::new(number).map(SegmentId)
    }

    /// The number, from 1.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

/// A Raft term. The upper 16 bits are the epoch, which is compared first. The others count terms
/// within the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term(pub u64);

/// The bits of a term below those of its epoch.
const EPOCH_SHIFT: u32 = 48;
/// The last term of an epoch, without the bits of the epoch.
const COUNT_MAX: u64 = (1 << EPOCH_SHIFT) - 1;
/// See [`Term::is_credible`].
const COUNT_CREDIBLE: u64 = 1 << (EPOCH_SHIFT - 1);
/// How many terms ahead of its own a server accepts a term beyond `COUNT_CREDIBLE`.
const TERMS_NEAR: u64 = 1 << 10;
/// The highest epoch that is accepted. Operators begin only a few.
const EPOCH_CREDIBLE: u16 = 0xf000;

impl Term {
    /// The term of the formation's entry, before any election.
    pub const ZERO: Term = Term(0);

    /// The epoch. It grows whenever an operator overrules an election (`recover`).
    pub fn epoch(self) -> u16 {
        (self.0 >> EPOCH_SHIFT) as u16
    }

    /// The next term of the same epoch.
    ///
    /// # Panics
    /// When the epoch has no next term: see [`Term::has_next`].
    pub fn next(self) -> Term {
        assert!(self.has_next(), "terms of an epoch ran out");
        Term(self.0 + 1)
    }

    /// Whether the epoch has a next term. An epoch has 2^48 terms.
    pub fn has_next(self) -> bool {
        self.count() < COUNT_MAX
    }

    fn count(self) -> u64 {
        self.0 & COUNT_MAX
    }

    /// Whether a server whose own term is `known` may believe that this term was reached. No
    /// number of elections comes near the end of an epoch, and no operator near the last epoch.
    /// Accepting a term beyond that would use up the terms.
    pub fn is_credible(self, known: Term) -> bool {
        let near = self.epoch() == known.epoch() && self.count() <= known.count() + TERMS_NEAR;
        self.epoch() <= EPOCH_CREDIBLE && (self.count() <= COUNT_CREDIBLE || near)
    }

    /// The term of the entry that begins the next epoch of the server `founder`. The epoch modulo
    /// 4 is the server's id, so that no two servers begin the same epoch.
    ///
    /// # Panics
    /// After 16,000 epochs.
    pub fn next_epoch(self, founder: ServerId) -> Term {
        let next = (self.epoch() + 1..=u16::MAX).find(|n| n % 4 == u16::from(founder.number()));
        Term(u64::from(next.expect("epochs ran out")) << EPOCH_SHIFT)
    }

    /// The term of the entry that begins this term's epoch.
    pub fn beginning(self) -> Term {
        Term(u64::from(self.epoch()) << EPOCH_SHIFT)
    }

    /// Whether this is the term of an entry that begins an epoch, before any election in it.
    pub fn begins_epoch(self) -> bool {
        self.epoch() > 0 && self.count() == 0
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch() {
            0 => self.0.fmt(f),
            epoch => write!(f, "{epoch}.{}", self.count()),
        }
    }
}

/// The end of a log, as "at least as up to date" compares it: term first (Raft §5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The term of the last entry.
    pub term: Term,
    /// The index of the last entry.
    pub index: Index,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of term {}", self.index, self.term)
    }
}

/// A server's durable vote: its current term and the member that it voted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The highest term that this server has received.
    pub term: Term,
    /// The member that has this server's vote in that term.
    pub given: Option<Member>,
    /// The disk of the server that began the term's epoch; `None` in the first epoch.
    pub founder: Option<DiskId>,
}

/// The id of a connection to another server. It is never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// The id of a text client or of an operator's request. It is never reused within a process. Like
/// a [`LinkId`], it is the number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The session of an operator whose request came on a link. No client has this id, because a
    /// connection belongs to either a link or a client.
    pub(crate) fn of_operator(link: LinkId) -> SessionId {
        SessionId(link.0)
    }

    /// The link on which the operator waits.
    pub(crate) fn operator_link(self) -> LinkId {
        LinkId(self.0)
    }
}

/// An account's name: 1 to 32 of `a-z 0-9 _ . -`, starting with a letter or digit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName {
    // Zero bytes after the name sort as the end of a string does.
    bytes: [u8; UserName::BYTES_MAX],
    length: u8,
}

impl UserName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 32;

    /// Parses a name, folding upper case; `None` when it is invalid.
    pub fn parse(text: &str) -> Option<UserName> {
        UserName::from_bytes(text.as_bytes())
    }

    /// Parses a name from text that may not be UTF-8; a name is ASCII only.
    pub fn from_bytes(text: &[u8]) -> Option<UserName> {
        let mut bytes = [0; Self::BYTES_MAX];
        let length = text.len();
        if length == 0 || length > Self::BYTES_MAX {
            return None;
        }
        for (at, (to, from)) in bytes.iter_mut().zip(text).enumerate() {
            let folded = from.to_ascii_lowercase();
            let inner = matches!(folded, b'_' | b'.' | b'-') && at > 0;
            if !(folded.is_ascii_lowercase() || folded.is_ascii_digit() || inner) {
                return None;
            }
            *to = folded;
        }
        Some(UserName { bytes, length: length as u8 })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a name is made of ASCII only")
    }

    /// The name as bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "0", "ann", "a.b-c_d", &"x".repeat(32)] {
            assert_eq!(UserName::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(UserName::parse("AnN").unwrap().as_str(), "ann");
        for bad in ["", ".a", "-a", "_a", "a b", "ä", "a\0", "a\n", &"x".repeat(33)] {
            assert_eq!(UserName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_sort_as_text() {
        let texts = ["0", "a", "a-b", "a.b", "aa", "ab", "b"];
        let names: Vec<_> = texts.iter().map(|t| UserName::parse(t).unwrap()).collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn terms_order_by_epoch_first() {
        let old = Term((1 << 48) - 2);
        let new = Term(1 << 48);
        assert!(old < new);
        assert_eq!((old.epoch(), new.epoch()), (0, 1));
        assert_eq!(Term((3 << 48) | 7).to_string(), "3.7");
        let begun = |term: u64, id| Term(term).next_epoch(ServerId::new(id).unwrap()).epoch();
        assert_eq!([begun(7, 1), begun(7, 3), begun(1 << 48, 1), begun(2 << 48, 1)], [1, 3, 5, 5]);
        assert!(Term(1 << 48).begins_epoch() && !new.next().begins_epoch());
        assert!(!Term::ZERO.begins_epoch());
    }

    #[test]
    fn terms_near_the_end_of_a_epoch_are_not_believed() {
        let last = Term(COUNT_MAX);
        assert!(!last.has_next() && Term(COUNT_MAX - 1).has_next());
        assert!(!last.is_credible(Term(7)) && last.is_credible(Term(COUNT_MAX - 5)));
        assert!(Term(COUNT_CREDIBLE).is_credible(Term(7)));
        assert!(!Term(COUNT_CREDIBLE + 1).is_credible(Term(7)));
        assert!(Term(COUNT_CREDIBLE + 1).is_credible(Term(COUNT_CREDIBLE + 1 - TERMS_NEAR)));
        assert!(!Term(COUNT_CREDIBLE + 1).is_credible(Term(COUNT_CREDIBLE - TERMS_NEAR)));
        assert!(!Term((0xf001 << 48) | 1).is_credible(Term(7)));
        assert!(!Term((1 << 48) | COUNT_MAX).is_credible(last), "of another epoch");
    }

    #[test]
    fn positions_compare_term_first() {
        let at = |term, index| Position { term: Term(term), index: Index(index) };
        assert!(at(3, 100) < at(4, 5));
        assert!(at(4, 5) < at(4, 6));
    }
}
