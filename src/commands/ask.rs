//! Asks servers for their `STATUS`, as a text client does.

pub use crate::client::Unreached;
use crate::client::dial;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// The answer of a server to `STATUS`, by key.
pub type Answer = BTreeMap<String, String>;

/// Maximum size of an answer, in bytes: many times what a server sends.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Returns whether a server reports this value of `key`.
pub fn is(answer: &Answer, key: &str, value: &str) -> bool {
    answer.get(key).is_some_and(|found| found == value)
}

/// Returns whether a server is the primary and accepts changes.
pub(super) fn takes_changes(answer: &Answer) -> bool {
    is(answer, "role", "primary") && is(answer, "waiting", "-")
}

/// Asks one server, and waits at most `patience` for its whole answer.
///
/// # Errors
/// Returns why no answer arrived.
pub fn ask_status(server: &str, patience: Duration) -> Result<Answer, Unreached> {
    let until = Instant::now() + patience;
    let mut stream = dial(server, patience)?;
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    stream.set_write_timeout(left()?)?;
    stream.write_all(b"STATUS\nQUIT\n")?;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        stream.set_read_timeout(left()?)?;
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        text.extend_from_slice(&buffer[..count]);
        match parse(&text) {
            Some(answer) => return Ok(answer),
            None if count == 0 => return Err(Unreached::Failed(no_status(&text))),
            None if text.len() > ANSWER_BYTES_MAX => return Err(Unreached::Failed(no_status(b""))),
            None => {}
        }
    }
}

fn no_status(text: &[u8]) -> String {
    match String::from_utf8_lossy(text).lines().next() {
        // Such as `ERR busy`.
        Some(line) if line.starts_with("ERR ") || line.starts_with("NOTE ") => {
            line.split_once(' ').map_or("", |(_, words)| words).replace(char::is_control, " ")
        }
        _ => "it does not speak as a postern server does".to_owned(),
    }
}

/// Parses an answer to `STATUS`. Returns `None` until it is complete.
fn parse(text: &[u8]) -> Option<Answer> {
    let mut answer = Answer::new();
    for line in std::str::from_utf8(text).ok()?.split_inclusive('\n') {
        if line == "OK\n" {
            return Some(answer);
        }
        let (key, value) = line.strip_suffix('\n')?.strip_prefix("STAT ")?.split_once(' ')?;
        if value.contains(char::is_control) {
            return None;
        }
        answer.insert(key.to_owned(), value.to_owned());
    }
    None
}

/// Asks all of these servers at once.
pub(super) fn ask_all<'a>(
    servers: &'a [String],
    patience: Duration,
) -> Vec<Result<Answer, Unreached>> {
    thread::scope(|scope| {
        let ask = |server: &'a String| scope.spawn(move || ask_status(server, patience));
        let asked: Vec<_> = servers.iter().map(ask).collect();
        let failed = || Unreached::Failed("the thread that asked it has panicked".to_owned());
        asked.into_iter().map(|asked| asked.join().unwrap_or_else(|_| Err(failed()))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_answer_is_whole_or_none() {
        let text = "STAT role primary\nSTAT waiting for a primary\nOK\nOK bye\n";
        let answer = parse(text.as_bytes()).unwrap();
        assert_eq!((&answer["role"][..], &answer["waiting"][..]), ("primary", "for a primary"));
        for part in
            ["", "STAT role", "STAT role primary\n", "STAT role primary\nOK", "ERR busy x\n"]
        {
            assert_eq!(parse(part.as_bytes()), None, "{part}");
        }
        assert_eq!(parse(b"STAT role \x1b[2J\nOK\n"), None);
    }

    /// Asks a server that answers with `bytes` again and again.
    fn answer(bytes: &'static [u8]) -> Result<Answer, Unreached> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(bytes).is_ok() && !bytes.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_secs(20));
        });
        ask_status(&server, Duration::from_millis(300))
    }

    #[test]
    fn nobody_holds_up_who_asks() {
        assert_eq!(answer(b""), Err(Unreached::NoAnswer));
        assert_eq!(answer(b"STAT role primary\n"), Err(Unreached::NoAnswer));
        let long = vec![b'x'; ANSWER_BYTES_MAX].leak();
        assert!(matches!(answer(long), Err(Unreached::Failed(_))));
    }
}
