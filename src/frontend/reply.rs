//! Replies as lines of the text protocol.

use crate::content::{Attribute, Content};
use crate::limits::LINE_BYTES_MAX;
use crate::protocol::{self, Answer, Reply};
use std::fmt;
use std::io::Write;

/// Appends a reply as a line to `out`.
pub fn encode(reply: Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Ok(answer) => encode_answer(answer, out),
        Reply::Error(code, words) => encode_bounded(format!("ERR {code} {words}"), out),
        Reply::Note(note) => write(out, format_args!("NOTE {} {note}\n", note.code())),
        Reply::Message { n, time, from, content, attributes } => {
            let head = format_args!("MSG {n} {} {from} ", time.rfc3339());
            encode_message(n, head, content, attributes, out);
        }
        Reply::Sent { i, n, time, to, content, attributes } => {
            let head = format_args!("SENT {i} {n} {} {to} ", time.rfc3339());
            encode_message(i, head, content, attributes, out);
        }
        Reply::Gone(first, last) => write(out, format_args!("GONE {first} {last}\n")),
        Reply::KeptFrom(n) => {
            write(out, format_args!("NOTE kept-from {n} older messages are no longer kept\n"));
        }
        Reply::User { name, online } => {
            out.extend_from_slice(b"USER ");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(if online { b" online\n" } else { b" offline\n" });
        }
        Reply::Stat(key, value) => encode_bounded(format!("STAT {key} {value}"), out),
        Reply::Help(line) => write(out, format_args!("HELP {line}\n")),
    }
}

/// Appends a message whose line begins with `head`; with `attributes`, after a line for each of
/// them.
fn encode_message(
    number: u64,
    head: fmt::Arguments<'_>,
    content: Content<'_>,
    attributes: bool,
    out: &mut Vec<u8>,
) {
    if attributes {
        for (attribute, value) in content.attributes.known() {
            write(out, format_args!("ATTR {number} {attribute} {value}\n"));
        }
    }
    write(out, head);
    if let Some(title) = content.attributes.get(Attribute::Title).filter(|_| !attributes) {
        write(out, format_args!("{title}: "));
    }
    out.extend_from_slice(protocol::as_line(content.text).as_bytes());
    out.push(b'\n');
}

fn encode_answer(answer: Answer<'_>, out: &mut Vec<u8>) {
    match answer {
        Answer::Done | Answer::Echo("") => out.extend_from_slice(b"OK\n"),
        Answer::Number(number) => write(out, format_args!("OK {number}\n")),
        Answer::User(user) => write(out, format_args!("OK {user}\n")),
        Answer::Login(user, last) => write(out, format_args!("OK {user} {last}\n")),
        Answer::Echo(text) => write(out, format_args!("OK {text}\n")),
        Answer::Bye => out.extend_from_slice(b"OK bye\n"),
    }
}

/// Appends a line, or as much of it as the protocol allows.
fn encode_bounded(mut line: String, out: &mut Vec<u8>) {
    let fits = (0..=line.len().min(LINE_BYTES_MAX - 1)).rev().find(|at| line.is_char_boundary(*at));
    line.truncate(fits.unwrap_or(0));
    write(out, format_args!("{line}\n"));
}

fn write(out: &mut Vec<u8>, line: fmt::Arguments<'_>) {
    out.write_fmt(line).expect("a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Attributes;
    use crate::ids::UserName;
    use crate::protocol::{Code, Note};
    use crate::time::WallTime;

    fn line(reply: Reply<'_>) -> String {
        let mut out = b"before\n".to_vec();
        encode(reply, &mut out);
        let line = String::from_utf8(out).unwrap();
        line.strip_prefix("before\n").unwrap().to_owned()
    }

    #[test]
    fn each_reply_is_a_line() {
        let ann = UserName::parse("ann").unwrap();
        let titled = Content {
            text: "a\nb\n",
            attributes: Attributes::decode(b"\x01\x02hi\x02\x015\x09\x01x").unwrap(),
        };
        let message = |content, attributes| Reply::Message {
            n: 7,
            time: WallTime(0),
            from: ann,
            content,
            attributes,
        };
        let table = [
            (Reply::Ok(Answer::Done), "OK"),
            (Reply::Ok(Answer::Number(7)), "OK 7"),
            (Reply::Ok(Answer::User(ann)), "OK ann"),
            (Reply::Ok(Answer::Login(ann, 3)), "OK ann 3"),
            (Reply::Ok(Answer::Echo("")), "OK"),
            (Reply::Ok(Answer::Echo("a ")), "OK a "),
            (Reply::Ok(Answer::Bye), "OK bye"),
            (Reply::Error(Code::Busy, "try again".into()), "ERR busy try again"),
            (
                Reply::Note(Note::Stopping),
                "NOTE stopping this server stops; connect to another one",
            ),
            (message(Content::plain("a  b"), false), "MSG 7 1970-01-01T00:00:00.000Z ann a  b"),
            (message(Content::plain("a  b"), true), "MSG 7 1970-01-01T00:00:00.000Z ann a  b"),
            (message(titled, false), "MSG 7 1970-01-01T00:00:00.000Z ann hi: a␤b␤"),
            (
                message(titled, true),
                "ATTR 7 title hi\nATTR 7 priority 5\nMSG 7 1970-01-01T00:00:00.000Z ann a␤b␤",
            ),
            (
                Reply::Sent {
                    i: 9,
                    n: 7,
                    time: WallTime(0),
                    to: ann,
                    content: titled,
                    attributes: false,
                },
                "SENT 9 7 1970-01-01T00:00:00.000Z ann hi: a␤b␤",
            ),
            (Reply::Gone(3, 5), "GONE 3 5"),
            (Reply::KeptFrom(7), "NOTE kept-from 7 older messages are no longer kept"),
            (Reply::User { name: ann, online: true }, "USER ann online"),
            (Reply::User { name: ann, online: false }, "USER ann offline"),
            (Reply::Stat("role", "primary"), "STAT role primary"),
            (Reply::Help("QUIT: ends"), "HELP QUIT: ends"),
        ];
        for (reply, expected) in table {
            assert_eq!(line(reply), format!("{expected}\n"));
        }
    }

    #[test]
    fn what_is_too_long_for_a_line_is_cut() {
        let words = "ü".repeat(LINE_BYTES_MAX);
        let long = line(Reply::Error(Code::NotPrimary, (&words).into()));
        assert!(long.starts_with("ERR not-primary ü") && long.ends_with("ü\n"));
        assert!((LINE_BYTES_MAX - 1..=LINE_BYTES_MAX).contains(&long.len()), "{}", long.len());
        assert!(line(Reply::Stat("settings_differ", &words)).len() <= LINE_BYTES_MAX);
    }
}
