//! Only what is stored as safely as a system promises counts as acknowledged, in answers as redis
//! 7.0, NATS 2.9 and beanstalkd 1.12 gave them. Each installed system acknowledges messages; the
//! test of a missing system passes.

use super::*;
use crate::run::protocol::Event::{self, Acked, Ready, Rejected};
use crate::run::protocol::Parsed;

const REDIS_READY: &str = "+PONG\r\n";
const XADD: &str = "*5\r\n$4\r\nXADD\r\n$4\r\nbox7\r\n$1\r\n*\r\n$1\r\nt\r\n$5\r\nhello\r\n";
const WAIT: &str = "*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$4\r\n1000\r\n";
const ADDED: &str = "$15\r\n1795650503174-0\r\n";
const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";
const NO_WAIT: &str = "-ERR WAIT cannot be used with replica instances.\r\n";

const INFO: &str = "INFO {\"server_id\":\"NAT5\",\"version\":\"2.9.10\",\"proto\":1} \r\n";
const ACK: &str = "MSG _INBOX.box.7 1  25\r\n{\"stream\":\"box\", \"seq\":1}\r\n";
const NEXT: &str = "MSG _INBOX.box.7 1  25\r\n{\"stream\":\"box\", \"seq\":9}\r\n";
const NO_RESPONDERS: &str = "HMSG _INBOX.box.7 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";
const FULL: &str = "MSG _INBOX.box.7 1 53\r\n\
                    {\"error\":{\"code\":503,\"description\":\"insufficient\"}}  \r\n";

fn parse(protocol: &mut dyn Protocol, input: &str) -> (Parsed, String, Vec<Event>) {
    let (mut out, mut events) = (Vec::new(), Vec::new());
    let parsed = protocol.parse(input.as_bytes(), &mut out, &mut events);
    (parsed, String::from_utf8(out).expect("text"), events)
}

/// Opens a connection, parses `ready` and sends a batch of messages. Returns what was written.
fn open(system: &System, ready: &str, messages: usize) -> (Box<dyn Protocol>, [String; 2]) {
    let mut protocol = (system.protocol)(7);
    let (mut opening, mut batch) = (Vec::new(), Vec::new());
    protocol.open(&mut opening);
    assert_eq!(parse(&mut *protocol, ready).0, Ok(ready.len()));
    (0..messages).for_each(|_| protocol.request(b"hello", &mut batch));
    protocol.end_batch(&mut batch);
    (protocol, [opening, batch].map(|bytes| String::from_utf8(bytes).expect("text")))
}

fn rejected(code: &str) -> Event {
    Rejected(code.to_owned())
}

fn acked() -> Event {
    Acked(None)
}

#[test]
fn requests_are_those_of_the_protocols() {
    let connect = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\
                   \"no_responders\":true}\r\nSUB _INBOX.box.7 1\r\nPING\r\n";
    let publish = "PUB box.7 _INBOX.box.7 5\r\nhello\r\n";
    let ping = "*1\r\n$4\r\nPING\r\n";
    let two = [XADD, WAIT, XADD, WAIT].concat();
    let batch = [XADD, XADD, WAIT].concat();
    let table: [(System, &str, usize, &str, &str); 5] = [
        (redis::PER_MESSAGE, REDIS_READY, 2, ping, &two),
        (redis::PER_BATCH, REDIS_READY, 2, ping, &batch),
        (redis::PER_BATCH, REDIS_READY, 0, ping, ""),
        (nats::SYSTEM, "", 1, connect, publish),
        (beanstalkd::SYSTEM, "", 1, "use box7\r\n", "put 0 0 60 5\r\nhello\r\n"),
    ];
    for (system, ready, messages, opening, batch) in table {
        assert_eq!(open(&system, ready, messages).1, [opening, batch], "{}", system.key);
    }
}

#[test]
fn redis_counts_a_message_when_the_copies_exist() {
    let (one, batch) = (redis::PER_MESSAGE, redis::PER_BATCH);
    let readonly = || rejected("readonly");
    let table = [
        (&one, [ADDED, ":2\r\n", ADDED, ":2\r\n"], vec![acked(), acked()]),
        (&one, [ADDED, ":1\r\n", ADDED, ":3\r\n"], vec![rejected("copies-1"), acked()]),
        (&one, [READONLY, NO_WAIT, READONLY, NO_WAIT], vec![readonly(), readonly()]),
        (&one, [ADDED, NO_WAIT, ADDED, ""], vec![rejected("err")]),
        (&batch, [ADDED, ADDED, "", ""], vec![]),
        (&batch, [ADDED, ADDED, ":2\r\n", ""], vec![acked(), acked()]),
        (&batch, [ADDED, READONLY, ":2\r\n", ""], vec![acked(), readonly()]),
        (&batch, [READONLY, ADDED, ":0\r\n", ""], vec![readonly(), rejected("copies-0")]),
    ];
    for (system, answers, expected) in table {
        let (mut redis, _) = open(system, REDIS_READY, 2);
        let input = answers.concat();
        assert_eq!(parse(&mut *redis, &input), (Ok(input.len()), String::new(), expected));
    }
}

#[test]
fn answers_become_events() {
    let nats = [
        (vec![INFO], "", vec![]),
        (vec![INFO, "PONG\r\n"], "", vec![Ready]),
        (vec!["PONG\r\n", "PONG\r\n", "+OK\r\n"], "", vec![Ready]),
        (vec!["PONG\r\n", ACK, NEXT], "", vec![Ready, acked(), acked()]),
        (vec!["PING\r\n", ACK, "PING\r\n"], "PONG\r\nPONG\r\n", vec![acked()]),
        (vec![NO_RESPONDERS, ACK], "", vec![rejected("no-responders"), acked()]),
        (vec![FULL], "", vec![rejected("503")]),
    ];
    let full = vec![rejected("draining"), rejected("out-of-memory")];
    let beanstalkd = [
        (vec!["USING box7\r\n", "INSERTED 1\r\n"], "", vec![Ready, acked()]),
        (vec!["INSERTED 1\r\n", "INSERTED 3\r\n"], "", vec![acked(), acked()]),
        (vec!["JOB_TOO_BIG\r\n", "INSERTED 2\r\n"], "", vec![rejected("job-too-big"), acked()]),
        (vec!["DRAINING\r\n", "OUT_OF_MEMORY\r\n"], "", full),
        (vec!["BURIED 4\r\n"], "", vec![rejected("buried")]),
    ];
    let nats = nats.into_iter().map(|row| (nats::SYSTEM, row));
    for (system, row) in nats.chain(beanstalkd.into_iter().map(|row| (beanstalkd::SYSTEM, row))) {
        let (parts, output, events) = row;
        let input = parts.concat();
        let expected = (Ok(input.len()), output.to_owned(), events);
        assert_eq!(parse(&mut *(system.protocol)(7), &input), expected, "{input}");
    }
}

#[test]
fn answers_may_arrive_in_parts() {
    let table: [(System, &str, usize, &[&str]); 3] = [
        (redis::PER_MESSAGE, REDIS_READY, 1, &[ADDED, ":2\r\n"]),
        (nats::SYSTEM, "", 0, &[INFO, "PONG\r\n", ACK, NO_RESPONDERS]),
        (beanstalkd::SYSTEM, "", 0, &["USING box7\r\n", "INSERTED 1\r\n"]),
    ];
    for (system, ready, messages, parts) in table {
        let input = parts.concat();
        let (_, _, whole) = parse(&mut *open(&system, ready, messages).0, &input);
        assert!(!whole.is_empty());
        for at in 0..input.len() {
            let (mut protocol, _) = open(&system, ready, messages);
            let (parsed, _, mut events) = parse(&mut *protocol, &input[..at]);
            events.extend(parse(&mut *protocol, &input[parsed.expect("answers")..]).2);
            assert_eq!(events, whole, "{}, cut at {at}", system.key);
        }
    }
}

#[test]
fn invalid_answers_end_the_connection() {
    let twice = [ACK, ACK].concat();
    let redis = [":2\r\n", "+OK\r\n", "hello\r\n", "\r\n", "$x\r\n", "$1\r\nabc", ":x\r\n"];
    let nats = [
        "-ERR 'Unknown Protocol Operation'\r\n",
        "hello\r\n",
        "MSG _INBOX.box.7 1 x\r\n",
        "MSG _INBOX.box.7 1 2\r\n{}\r\n",
        "MSG _INBOX.box.7 1 5\r\nhello\r\n",
        &twice,
    ];
    let beanstalkd = [
        "USING box2\r\n",
        "INSERTED x\r\n",
        "INSERTED 2\r\nINSERTED 2\r\n",
        "UNKNOWN_COMMAND\r\n",
        "EXPECTED_CRLF\r\n",
        "\r\n",
    ];
    let table: [(System, &str, usize, &[&str]); 4] = [
        (redis::PER_MESSAGE, REDIS_READY, 1, &redis),
        (redis::PER_MESSAGE, REDIS_READY, 0, &[":2\r\n"]),
        (nats::SYSTEM, "", 0, &nats),
        (beanstalkd::SYSTEM, "", 0, &beanstalkd),
    ];
    for (system, ready, messages, inputs) in table {
        for input in inputs {
            let (mut protocol, _) = open(&system, ready, messages);
            assert!(parse(&mut *protocol, input).0.is_err(), "{}: {input}", system.key);
        }
    }
}

fn store_one(system: &System) {
    let Some(program) = servers::find(system.program) else {
        eprintln!("{} is not installed: nothing was tested", system.program);
        return;
    };
    version(&program, system.version).expect("a version");
    let servers = (system.start)(&program, group::folder("compare").expect("a folder"));
    let servers = servers.unwrap_or_else(|why| panic!("{}: {why}", system.name));
    let new = || (system.protocol)(7);
    let mut client = Client::new(servers.address(), &new, TIMEOUT);
    for text in ["0.0 hello", "0.1"] {
        assert_eq!(client.store(text.as_bytes()), Ok(()), "{}", servers.last_lines());
    }
}

#[test]
fn redis_acknowledges_messages_and_batches() {
    store_one(&redis::PER_MESSAGE);
    store_one(&redis::PER_BATCH);
}

#[test]
fn nats_acknowledges() {
    store_one(&nats::SYSTEM);
}

#[test]
fn beanstalkd_acknowledges() {
    store_one(&beanstalkd::SYSTEM);
}

#[test]
fn versions_are_found_in_what_programs_print() {
    let cases = [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n", "7.0.15"),
        ("nats-server: v2.9.10\n", "2.9.10"),
        ("beanstalkd 1.12\n", "1.12"),
        ("postern 0.1.0\n", "0.1.0"),
    ];
    for (text, version) in cases {
        assert_eq!(find_version(text).as_deref(), Some(version), "{text}");
    }
    assert_eq!(find_version("usage: it -v\n"), None);
}
