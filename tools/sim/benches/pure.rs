//! The `pure` benchmark: the times of the pure parts, each alone. They compare two versions on an
//! idle machine. `cargo bench --bench count` checks a budget.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

/// The text of a short message.
const TEXT_BYTES: usize = 100;

fn main() {
    divan::main();
}

/// Measures how long `write` takes to append to an empty buffer.
fn bench_writes(bencher: Bencher<'_, '_>, mut write: impl FnMut(&mut Vec<u8>)) {
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        write(&mut out);
    });
}

fn text() -> String {
    "x".repeat(TEXT_BYTES)
}

/// The bytes of log entries.
mod record {
    use super::*;
    use crate::mailbox::message;
    use postern::ids::{Index, Position, Term};
    use postern::mailbox::Change;
    use postern::record::{self, Record};
    use postern::time::WallTime;

    /// Appends a record of a change.
    pub(super) fn write(out: &mut Vec<u8>, index: u64, change: &Change<'_>) {
        let at = Position { term: Term(1), index: Index(index) };
        record::write(out, at, WallTime(1), change.kind(), |out| change.encode(out));
    }

    #[divan::bench]
    fn encode(bencher: Bencher<'_, '_>) {
        let text = text();
        let change = message(&text, None);
        bench_writes(bencher, |out| write(out, 7, black_box(&change)));
    }

    #[divan::bench]
    fn parse(bencher: Bencher<'_, '_>) {
        let (text, mut out) = (text(), Vec::new());
        write(&mut out, 7, &message(&text, None));
        bencher.bench_local(|| Record::parse(black_box(&out)).is_ok());
    }

    #[divan::bench(args = [200, 16 * 1024])]
    fn crc32c(bencher: Bencher<'_, '_>, bytes: usize) {
        let bytes = vec![7; bytes];
        let counted = bencher.counter(BytesCount::of_slice(&bytes));
        counted.bench_local(|| ::crc32c::crc32c(black_box(&bytes)));
    }
}

/// The replicated state and its changes.
mod mailbox {
    use super::*;
    use postern::ids::{Index, Secret, UserName};
    use postern::mailbox::{Change, Mailboxes};

    fn ann() -> UserName {
        UserName::parse("ann").expect("a name")
    }

    pub(super) fn message<'a>(text: &'a str, key: Option<&'a str>) -> Change<'a> {
        Change::Message {
            to: ann(),
            from: ann(),
            sender: Index(1),
            key,
            content: postern::content::Content::plain(text),
        }
    }

    #[divan::bench]
    fn encode(bencher: Bencher<'_, '_>) {
        let text = text();
        let change = message(&text, None);
        bench_writes(bencher, |out| black_box(&change).encode(out));
    }

    #[divan::bench]
    fn decode(bencher: Bencher<'_, '_>) {
        let (text, mut body) = (text(), Vec::new());
        let change = message(&text, None);
        change.encode(&mut body);
        bencher.bench_local(|| Change::decode(change.kind(), black_box(&body)).is_some());
    }

    #[divan::bench]
    fn apply_send(bencher: Bencher<'_, '_>) {
        apply(bencher, |_| None);
    }

    #[divan::bench]
    fn apply_once(bencher: Bencher<'_, '_>) {
        apply(bencher, |n| Some(format!("key{n}")));
    }

    fn apply(bencher: Bencher<'_, '_>, key: impl Fn(u64) -> Option<String>) {
        let mut mailboxes = Mailboxes::new(&Secret::new([7; Secret::BYTES]));
        mailboxes.apply(Index(1), &Change::Create { user: ann(), hash: "h" });
        let (text, mut index) = (text(), 1);
        bencher.bench_local(|| {
            index += 1;
            let key = key(index);
            mailboxes.apply(Index(index), &message(&text, key.as_deref()))
        });
    }
}

/// Lines of clients.
mod protocol {
    use super::*;
    use postern::frontend;
    use postern::ids::UserName;
    use postern::protocol::{self, Answer, Code, Reply};
    use postern::time::WallTime;

    #[divan::bench]
    fn parse_send(bencher: Bencher<'_, '_>) {
        let line = format!("SEND box {}", text());
        bencher.bench_local(|| protocol::parse(black_box(line.as_bytes())).is_ok());
    }

    #[divan::bench]
    fn parse_login(bencher: Bencher<'_, '_>) {
        bencher.bench_local(|| protocol::parse(black_box(b"LOGIN ann correct-horse 7")).is_ok());
    }

    #[divan::bench]
    fn encode_ok(bencher: Bencher<'_, '_>) {
        encode(bencher, &Reply::Ok(Answer::Number(1_234_567)));
    }

    #[divan::bench]
    fn encode_error(bencher: Bencher<'_, '_>) {
        encode(bencher, &Reply::Error(Code::NotPrimary, "127.0.0.1:5001".into()));
    }

    #[divan::bench]
    fn encode_message(bencher: Bencher<'_, '_>) {
        let (text, time) = (text(), WallTime(1_700_000_000_000));
        let from = UserName::parse("ann").expect("a name");
        encode(
            bencher,
            &Reply::Message {
                n: 1_234_567,
                time,
                from,
                content: postern::content::Content::plain(&text),
                attributes: false,
            },
        );
    }

    fn encode(bencher: Bencher<'_, '_>, reply: &Reply<'_>) {
        bench_writes(bencher, |out| frontend::encode(black_box(reply.clone()), out));
    }
}

/// Packets between servers.
mod packet {
    use super::*;
    use crate::mailbox::message;
    use postern::ids::{Index, Position, Term};
    use postern::record;
    use postern::replica::{Append, Packet};

    fn append() -> Packet {
        let prev = Position { term: Term(1), index: Index(6) };
        let (committed, acknowledged) = (Index(6), Index(6));
        Packet::Append(Append { term: Term(1), prev, committed, acknowledged, round: 1 })
    }

    fn stored() -> Packet {
        Packet::AppendAccepted { term: Term(1), stored: Index(7), round: 1 }
    }

    #[divan::bench(args = ["append", "stored"])]
    fn encode(bencher: Bencher<'_, '_>, which: &str) {
        let packet = if which == "append" { append() } else { stored() };
        bench_writes(bencher, |out| black_box(&packet).encode(out));
    }

    #[divan::bench]
    fn decode_stored(bencher: Bencher<'_, '_>) {
        let mut bytes = Vec::new();
        stored().encode(&mut bytes);
        bencher.bench_local(|| Packet::decode(black_box(&bytes)).is_ok());
    }

    /// With its records, as a backup reads them.
    #[divan::bench(args = [1, 64])]
    fn decode_append(bencher: Bencher<'_, '_>, records: u64) {
        let (text, mut bytes) = (text(), Vec::new());
        append().encode(&mut bytes);
        for index in 7..7 + records {
            crate::record::write(&mut bytes, index, &message(&text, None));
        }
        bencher.counter(ItemsCount::new(records)).bench_local(|| {
            let (_, rest) = Packet::decode(black_box(&bytes)).expect("an encoded packet is valid");
            record::each(rest).filter(Result::is_ok).count()
        });
    }
}

/// Links between servers, encrypted.
mod channel {
    use super::*;
    use postern::ids::{GroupId, Secret};
    use postern::server::Seal;
    use postern::server::channel::Channel;

    const GROUP: GroupId = GroupId(1);
    const SIZES: [usize; 3] = [100, 16 * 1024, 256 * 1024];

    /// Returns both ends of a link after the handshake.
    fn pair() -> (Channel, Channel) {
        let secret = Secret::new([1; Secret::BYTES]);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut near = Channel::initiator(&secret, GROUP, &mut first);
        let mut far = Channel::responder(&secret, GROUP);
        far.open(&first, &mut Vec::new(), &mut second).expect("the same secret");
        near.open(&second, &mut Vec::new(), &mut Vec::new()).expect("the same secret");
        (near, far)
    }

    #[divan::bench]
    fn handshake(bencher: Bencher<'_, '_>) {
        bencher.bench_local(pair);
    }

    #[divan::bench(args = SIZES)]
    fn seal(bencher: Bencher<'_, '_>, bytes: usize) {
        let ((mut near, _far), bytes, mut out) = (pair(), vec![7; bytes], Vec::new());
        bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| {
            out.clear();
            near.seal(black_box(&bytes), &mut out);
        });
    }

    /// No message can be opened twice, so each one is sealed first.
    #[divan::bench(args = SIZES)]
    fn seal_and_open(bencher: Bencher<'_, '_>, bytes: usize) {
        let ((mut near, mut far), bytes) = (pair(), vec![7; bytes]);
        let (mut sealed, mut opened) = (Vec::new(), Vec::new());
        bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| {
            sealed.clear();
            opened.clear();
            near.seal(black_box(&bytes), &mut sealed);
            let mut used = 0;
            while used < sealed.len() {
                let taken = far.open(&sealed[used..], &mut opened, &mut Vec::new());
                used += taken.expect("the other end has sealed it");
            }
        });
    }
}

/// A cluster without sockets.
mod node {
    use super::*;
    use postern_sim::cluster::Cluster;

    /// From lines to `OK n`, stored by all three servers.
    #[divan::bench(args = [1, 64, 1024])]
    fn send(bencher: Bencher<'_, '_>, clients: usize) {
        let mut cluster = Cluster::new(clients).expect("three servers form a group");
        let request = Cluster::request(TEXT_BYTES);
        let counted = bencher.counter(ItemsCount::new(clients));
        counted.bench_local(|| cluster.batch(&request).expect("every SEND is answered"));
    }
}
