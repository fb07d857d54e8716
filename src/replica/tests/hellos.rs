//! First packets on links: hellos with a past, and the answers to them.

pub(super) use super::lockstep::*;

/// Opens a link that this server or the other one dialled.
pub(super) fn open(server: &mut Server, link: LinkId, dialled: bool) -> Effects {
    let mut out = Effects::default();
    let event = match dialled {
        true => Event::Dialled { link, to: id(peer(link)) },
        false => Event::Accepted { link },
    };
    server.handle(event, &mut out);
    out
}

/// Receives a packet on a link, and the bytes after it.
pub(super) fn receive_on(
    server: &mut Server,
    link: LinkId,
    packet: Packet,
    records: &[u8],
) -> Effects {
    let mut out = Effects::default();
    server.handle(Event::Received { link, packet, records }, &mut out);
    out
}

/// Opens a link, and returns the effects of the first packet on it. The past after a hello lists
/// the sender's current run alone.
pub(super) fn first(server: &mut Server, link: LinkId, dialled: bool, packet: Packet) -> Effects {
    open(server, link, dialled);
    let records = match packet {
        Packet::Hello(hello) => past(&[hello.run]),
        _ => Vec::new(),
    };
    receive_on(server, link, packet, &records)
}

/// Returns the effects of a hello with its past on a link that its sender dialled.
pub(super) fn greet(server: &mut Server, link: LinkId, (hello, past): &(Hello, Past)) -> Effects {
    open(server, link, false);
    let mut records = Vec::new();
    past.encode(&mut records);
    receive_on(server, link, Packet::Hello(*hello), &records)
}

/// Returns the hello of server `n` at its second start, and the past that follows it.
pub(super) fn next_start(to: &Server, n: u8) -> (Hello, Past) {
    let new = Run { incarnation: Incarnation(2), process: ProcessId(77) };
    let hello = Hello { run: new, last: to.last(), ..to.hello_of(n) };
    (hello, Past { runs: vec![run(n), new], ..Past::default() })
}

/// Returns the refusal that was sent, if one was.
pub(super) fn refusal(out: &Effects) -> Option<Refusal> {
    out.0.effects.iter().find_map(|effect| match effect {
        Effect::Send(_, Packet::Refused(why)) => Some(*why),
        _ => None,
    })
}

/// Returns the hello that was sent on this link, and the encoded past after it.
pub(super) fn greeting(out: &Effects, link: LinkId) -> Option<(Hello, Vec<u8>)> {
    out.0.effects.iter().find_map(|effect| match effect {
        Effect::SendWith(to, sent) if *to == link => match &**sent {
            (Packet::Hello(hello), past) => Some((*hello, past.clone())),
            _ => None,
        },
        _ => None,
    })
}

/// Returns how often server `n` was dialled.
pub(super) fn dials(out: &Effects, n: u8) -> usize {
    out.0.effects.iter().filter(|effect| **effect == Effect::Dial(id(n))).count()
}

/// Returns the position of the entry before the last one.
pub(super) fn before_end(server: &Server) -> Position {
    let records = &server.log.0;
    Record::trust(&records[records.len() - 2]).position()
}

/// Returns an append after `prev` that reports no committed entry.
pub(super) fn append(term: Term, prev: Position) -> Append {
    Append { term, prev, committed: Index::ZERO, acknowledged: Index::ZERO, round: 0 }
}

/// Returns the request of a candidate whose log equals that of `server`, for the next term.
pub(super) fn ask(server: &Server) -> Ask {
    let config = *server.replica.config().expect("it has a config");
    Ask { term: server.replica.term().next(), last: server.last(), config }
}

/// Returns whether a server grants a pre-vote that server `n` asks for.
pub(super) fn grants_pre_vote(server: &Server, n: u8) -> bool {
    let mut server = server.clone();
    let out = server.receive(n, Packet::AskPreVote(ask(&server)));
    out.sent(n).iter().any(|packet| matches!(packet, Packet::PreVote { granted: true, .. }))
}

/// Returns whether a pre-vote was asked for.
pub(super) fn campaigns(out: &Effects) -> bool {
    let asks = |effect: &Effect| matches!(effect, Effect::Send(_, Packet::AskPreVote(_)));
    out.0.effects.iter().any(asks)
}
