//! Requests. One table defines their parsing, usage texts and `HELP`.

use super::LINE_BREAK;
use super::reply::Code;
use crate::content::{Attribute, AttributeList, Content};
use crate::ids::UserName;
use crate::limits::{KEY_BYTES_MAX, PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN, TEXT_BYTES_MAX};
use std::borrow::Cow;
use std::fmt;

/// The message after which to start reading a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// After the message of this number; 0 reads the entire mailbox.
    Number(u64),
    /// After the last message.
    End,
    /// Before the last `k` messages.
    Last(u64),
}

impl Default for After {
    /// As in a `LOGIN` without this word: reads the entire mailbox.
    fn default() -> After {
        After::Number(0)
    }
}

impl After {
    /// Parses a word: a number, `end`, or `-k`.
    ///
    /// # Errors
    /// The hint to a word that is not one of these.
    pub fn parse_word(word: &str) -> Result<After, &'static str> {
        let wrong = "is no number of a message, nor `end`, nor -k";
        match (word, word.strip_prefix('-')) {
            ("end", _) => Ok(After::End),
            (_, Some(digits)) => number(digits).map(After::Last).ok_or(wrong),
            (_, None) => number(word).map(After::Number).ok_or(wrong),
        }
    }

    /// The number of the message after which to start in a mailbox of `last` messages; `None`
    /// beyond its end.
    pub fn resolve(self, last: u64) -> Option<u64> {
        match self {
            After::Number(n) => (n <= last).then_some(n),
            After::End => Some(last),
            After::Last(k) => Some(last.saturating_sub(k)),
        }
    }
}

impl fmt::Display for After {
    /// Writes the word that [`After::parse_word`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            After::Number(n) => n.fmt(f),
            After::End => f.write_str("end"),
            After::Last(k) => write!(f, "-{k}"),
        }
    }
}

/// A pattern of names with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        let fits = text.len() <= 2 * UserName::BYTES_MAX;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-*?".contains(c);
        (fits && text.chars().all(plain)).then(|| Pattern(text.to_ascii_lowercase()))
    }

    /// Whether the whole name matches. Needs at most as many steps as the product of the lengths.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to continue when the last `*` has to match one byte more.
        let mut retry = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, n));
                    p += 1;
                }
                Some(&c) if c == b'?' || c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match retry {
                    Some((after, from)) => {
                        retry = Some((after, from + 1));
                        (p, n) = (after, from + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }
}

/// A request whose arguments are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `HELP [command]`
    Help(Option<&'a str>),
    /// `PING [text]`
    Ping(&'a str),
    /// `STATUS`
    Status,
    /// `SEND user text`, or `ONCE key user text`
    Send {
        /// The receiver.
        to: UserName,
        /// The key of a `ONCE`.
        key: Option<&'a str>,
        /// The message text, as it is stored.
        text: Cow<'a, str>,
    },
    /// `WITH attribute value`
    With(Attribute, &'a str),
    /// `ATTR on`, or `ATTR off`
    ShowAttributes(bool),
    /// Any other request.
    Task(Task),
}

/// A request that runs alone: after the answers to all earlier requests, and before all later
/// requests. It owns its arguments, since it may have to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// `CREATE user password`
    Create { user: UserName, password: String },
    /// `LOGIN user password [after]`
    Login { user: UserName, password: String, after: After },
    /// A [`Command::Send`] that has to wait.
    Send { to: UserName, key: Option<String>, text: String, attributes: AttributeList },
    /// `LOG [after] [limit]`
    Log { after: After, limit: Option<u64> },
    /// `SENT [after] [limit]`
    Sent { after: After, limit: Option<u64> },
    /// `LIST [pattern]`
    List { pattern: Pattern },
    /// `PASSWD old new`
    Passwd { old: String, new: String },
    /// `DELETE user password`
    Delete { user: UserName, password: String },
    /// `LOGOUT`
    Logout,
    /// `QUIT`
    Quit,
    /// `USERS [after]`
    Users { after: Option<UserName> },
    /// `RESET user password`
    Reset { user: UserName, password: String },
    /// `REMOVE user`
    Remove { user: UserName },
}

impl Task {
    /// The password with which the client proves its identity; empty for a task without one.
    pub fn password(&self) -> &str {
        match self {
            Task::Login { password, .. } | Task::Delete { password, .. } => password,
            Task::Passwd { old, .. } => old,
            _ => "",
        }
    }
}

/// The clients that may send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Anybody, on every server, in every state.
    Always,
    /// Anybody, on a primary with an open gate.
    Primary,
    /// Anybody who is not logged in, on a primary with an open gate.
    LoggedOut,
    /// Logged-in clients.
    LoggedIn,
    /// An operator, over a link to a primary with an open gate. For others the command does not
    /// exist.
    Operator,
}

/// Why a line is not a valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of the error.
    pub code: Code,
    /// The message text, for people.
    pub words: &'static str,
    /// The usage of the command, if known.
    pub usage: Option<&'static str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)?;
        self.usage.iter().try_for_each(|usage| write!(f, ": {usage}"))
    }
}

struct Spec {
    right: Right,
    /// The name, and the arguments if there are any.
    usage: &'static str,
    what: &'static str,
    parse: Parse,
}

/// Parses the words after the name.
type Parse = for<'a> fn(&mut Words<'a>) -> Result<Command<'a>, Bad>;

/// A mistake in the arguments.
type Bad = (Code, &'static str);

const USAGE: Bad = bad("usage");

const fn bad(words: &'static str) -> Bad {
    (Code::BadArgument, words)
}

const fn spec(right: Right, usage: &'static str, what: &'static str, parse: Parse) -> Spec {
    Spec { right, usage, what, parse }
}

const COMMANDS: &[Spec] = &[
    spec(Right::Always, "HELP [command]", "says what you can ask for", |words| {
        let which = words.next();
        let is_known = which.is_none_or(|name| known(name, false).is_some());
        is_known.then_some(Command::Help(which)).ok_or(bad("no such command"))
    }),
    spec(Right::Always, "PING [text]", "answers with the text", |words| {
        words.text().map(Command::Ping)
    }),
    spec(Right::Always, "STATUS", "says how this server and its group are", |_| {
        Ok(Command::Status)
    }),
    spec(Right::Always, "QUIT", "closes the connection", |_| Ok(Command::Task(Task::Quit))),
    spec(Right::Primary, "CREATE user password", "makes an account; LOGIN comes next", |words| {
        Ok(Command::Task(Task::Create { user: words.name()?, password: words.new_password()? }))
    }),
    spec(
        Right::LoggedOut,
        "LOGIN user password [after]",
        "shows your messages after number `after` (default 0; `end`: none; -5: the last 5), then \
         new ones as they come",
        |words| {
            let (user, password) = (words.name()?, words.password()?);
            Ok(Command::Task(Task::Login { user, password, after: words.after()? }))
        },
    ),
    spec(
        Right::LoggedIn,
        "SEND user text",
        "puts a message into the user's mailbox; OK means: stored on every attached server",
        |words| Ok(Command::Send { to: words.name()?, key: None, text: words.message()? }),
    ),
    spec(
        Right::LoggedIn,
        "ONCE key user text",
        "the same, but safe to repeat: with a key that was used for the same message, it gives \
         the first answer again",
        |words| {
            let key = Some(words.key()?);
            Ok(Command::Send { to: words.name()?, key, text: words.message()? })
        },
    ),
    spec(
        Right::LoggedIn,
        "WITH attribute value",
        "adds title, priority (1 to 5), tags or click (an address) to the message that follows",
        |words| {
            let attribute = words.next().ok_or(USAGE)?;
            let attribute = Attribute::named(attribute)
                .ok_or(bad("an attribute is title, priority, tags or click"))?;
            Ok(Command::With(attribute, words.value(attribute)?))
        },
    ),
    spec(
        Right::Always,
        "ATTR on|off",
        "shows the attributes of a message in lines before it, or only its title in the text",
        |words| match words.next().ok_or(USAGE)? {
            "on" => Ok(Command::ShowAttributes(true)),
            "off" => Ok(Command::ShowAttributes(false)),
            _ => Err(USAGE),
        },
    ),
    spec(Right::LoggedIn, "LOG [after] [limit]", "shows your messages again", |words| {
        Ok(Command::Task(Task::Log { after: words.after()?, limit: words.limit()? }))
    }),
    spec(
        Right::LoggedIn,
        "SENT [after] [limit]",
        "shows what you have sent, each with its number and that at its receiver",
        |words| Ok(Command::Task(Task::Sent { after: words.after()?, limit: words.limit()? })),
    ),
    spec(
        Right::LoggedIn,
        "LIST [pattern]",
        "lists users, and who is online; pattern with * and ?",
        |words| {
            let pattern = Pattern::parse(words.next().unwrap_or("*"));
            let pattern = pattern.ok_or(bad("a pattern is a name with * and ?"))?;
            Ok(Command::Task(Task::List { pattern }))
        },
    ),
    spec(
        Right::LoggedIn,
        "PASSWD old new",
        "changes your password and closes your other sessions",
        |words| {
            Ok(Command::Task(Task::Passwd { old: words.password()?, new: words.new_password()? }))
        },
    ),
    spec(
        Right::LoggedIn,
        "DELETE user password",
        "deletes your account with its messages",
        |words| {
            Ok(Command::Task(Task::Delete { user: words.name()?, password: words.password()? }))
        },
    ),
    spec(Right::LoggedIn, "LOGOUT", "ends the session; the connection may log in again", |_| {
        Ok(Command::Task(Task::Logout))
    }),
    spec(
        Right::Operator,
        "USERS [after]",
        "lists the next users behind a name, and who is online",
        |words| Ok(Command::Task(Task::Users { after: words.optional_name()? })),
    ),
    spec(
        Right::Operator,
        "RESET user password",
        "changes a password and closes the user's sessions",
        |words| {
            Ok(Command::Task(Task::Reset { user: words.name()?, password: words.new_password()? }))
        },
    ),
    spec(Right::Operator, "REMOVE user", "deletes an account with its messages", |words| {
        Ok(Command::Task(Task::Remove { user: words.name()? }))
    }),
];

impl Spec {
    fn is_named(&self, word: &str) -> bool {
        let split = self.usage.split_at_checked(word.len());
        split.is_some_and(|(name, arguments)| {
            (arguments.is_empty() || arguments.starts_with(' ')) && name.eq_ignore_ascii_case(word)
        })
    }
}

/// Finds a command by name: for an operator, who may create accounts and has commands that others
/// have not, or for a client.
fn known(name: &str, operates: bool) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| {
        let is_for_operators = spec.right == Right::Operator;
        let allowed = || is_for_operators == operates || (operates && spec.is_named("CREATE"));
        spec.is_named(name) && allowed()
    })
}

/// The lines of `HELP`: of one command, or of all.
pub fn help(which: Option<&str>) -> impl Iterator<Item = String> {
    let all = COMMANDS.iter().filter(|spec| spec.right != Right::Operator);
    let asked = all.filter(move |spec| which.is_none_or(|name| spec.is_named(name)));
    asked.map(|spec| format!("{}: {}", spec.usage, spec.what))
}

/// Parses a line without its line end. Returns the request and its right, or `None` for an empty
/// line, which requests nothing.
///
/// # Errors
/// The refusal to answer with, when the line is not a valid request.
pub fn parse(line: &[u8]) -> Result<Option<(Right, Command<'_>)>, Refusal> {
    parse_as(line, |name| known(name, false))
}

/// Parses a line of an operator.
///
/// # Errors
/// See [`parse`]; also when the line is empty.
pub fn parse_operator(line: &[u8]) -> Result<Option<(Right, Command<'_>)>, Refusal> {
    parse_as(line, |name| known(name, true))?.ok_or(unknown()).map(Some)
}

fn unknown() -> Refusal {
    Refusal { code: Code::BadCommand, words: "unknown command; HELP lists all", usage: None }
}

fn bad_text(words: &'static str) -> Refusal {
    Refusal { code: Code::BadText, words, usage: None }
}

fn parse_as(
    line: &[u8],
    find: impl FnOnce(&str) -> Option<&'static Spec>,
) -> Result<Option<(Right, Command<'_>)>, Refusal> {
    let line = std::str::from_utf8(line).map_err(|_| bad_text("the line is not UTF-8"))?;
    let mut words = Words { rest: line };
    let Some(first) = words.next() else { return Ok(None) };
    let Some(spec) = find(first) else {
        // Nobody types control characters: they are UTF-16, or the protocol of another program.
        let is_binary = first.contains(|c: char| c.is_control() && c != '\t');
        let words = "the line holds control characters; requests are UTF-8 text";
        return Err(if is_binary { bad_text(words) } else { unknown() });
    };
    let command = (spec.parse)(&mut words)
        .and_then(|command| if words.next().is_some() { Err(USAGE) } else { Ok(command) });
    let refused = |(code, words)| Refusal { code, words, usage: Some(spec.usage) };
    command.map(|command| Some((spec.right, command))).map_err(refused)
}

/// The words of a line, separated by one or more spaces.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start_matches(' ');
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        self.rest = behind;
        (!word.is_empty()).then_some(word)
    }

    fn name(&mut self) -> Result<UserName, Bad> {
        self.optional_name()?.ok_or(USAGE)
    }

    fn optional_name(&mut self) -> Result<Option<UserName>, Bad> {
        let Some(word) = self.next() else { return Ok(None) };
        let name = UserName::parse(word)
            .ok_or(bad("a name has 1 to 32 of a-z 0-9 _ . - and starts with a letter or digit"))?;
        Ok(Some(name))
    }

    fn password(&mut self) -> Result<String, Bad> {
        self.password_from(0)
    }

    fn new_password(&mut self) -> Result<String, Bad> {
        self.password_from(PASSWORD_BYTES_MIN)
    }

    fn password_from(&mut self, bytes_min: usize) -> Result<String, Bad> {
        let word = self.next().ok_or(USAGE)?;
        let fits = (bytes_min..=PASSWORD_BYTES_MAX).contains(&word.len());
        let is_valid = fits && !word.chars().any(char::is_control);
        is_valid
            .then(|| word.to_owned())
            .ok_or(bad("a password has 8 to 128 bytes without control characters"))
    }

    fn key(&mut self) -> Result<&'a str, Bad> {
        let word = self.next().ok_or(USAGE)?;
        let fits = word.len() <= KEY_BYTES_MAX && word.bytes().all(|b| b.is_ascii_graphic());
        fits.then_some(word).ok_or(bad("a key has 1 to 64 visible ASCII characters"))
    }

    fn after(&mut self) -> Result<After, Bad> {
        self.next().map_or(Ok(After::default()), After::parse_word).map_err(bad)
    }

    fn limit(&mut self) -> Result<Option<u64>, Bad> {
        let limit = self.next().map(|word| number(word).ok_or(bad("the limit is no number")));
        limit.transpose()
    }

    /// The text of a message: not empty, and not too long. Shown line breaks become real ones.
    fn message(&mut self) -> Result<Cow<'a, str>, Bad> {
        let (text, is_plain) = self.rest()?;
        match text.len() {
            0 => Err(USAGE),
            1..=TEXT_BYTES_MAX if is_plain => Ok(Cow::Borrowed(text)),
            1..=TEXT_BYTES_MAX => Ok(with_breaks(text)),
            _ => Err((Code::TooLong, "a text has at most 3840 bytes")),
        }
    }

    fn value(&mut self, attribute: Attribute) -> Result<&'a str, Bad> {
        let value = self.text()?;
        if value.is_empty() {
            return Err(USAGE);
        }
        attribute.accepts(value).then_some(value).ok_or(bad(match attribute {
            Attribute::Title => "a title has at most 250 bytes, without tabs",
            Attribute::Priority => "a priority is a number from 1 to 5",
            Attribute::Tags | Attribute::Click => "it has at most 255 bytes, without tabs",
        }))
    }

    /// The rest of the line after exactly one space, as typed.
    fn text(&mut self) -> Result<&'a str, Bad> {
        self.rest().map(|(text, _)| text)
    }

    /// The same, and whether it is visible ASCII alone.
    fn rest(&mut self) -> Result<(&'a str, bool), Bad> {
        let text = std::mem::take(&mut self.rest);
        let text = text.strip_prefix(' ').unwrap_or(text);
        let is_plain = is_plain(text.as_bytes());
        if is_plain || text.chars().all(is_allowed) {
            Ok((text, is_plain))
        } else {
            Err((Code::BadText, "control, line separator and direction characters are not allowed"))
        }
    }
}

/// Returns a text with LF for each [`LINE_BREAK`].
pub fn with_breaks(text: &str) -> Cow<'_, str> {
    if text.contains(LINE_BREAK) { text.replace(LINE_BREAK, "\n").into() } else { text.into() }
}

/// Returns a text with a [`LINE_BREAK`] for each LF: as one line.
pub fn as_line(text: &str) -> Cow<'_, str> {
    if text.contains('\n') {
        text.replace('\n', LINE_BREAK.encode_utf8(&mut [0; 4])).into()
    } else {
        text.into()
    }
}

/// Whether a title and a text keep their common bound, as a line shows them.
pub fn fits(content: Content<'_>) -> bool {
    let Some(title) = content.attributes.get(Attribute::Title) else { return true };
    title.len() + as_line(content.text).len() <= TEXT_BYTES_MAX
}

fn number(word: &str) -> Option<u64> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

/// Whether these are visible ASCII characters and spaces, as in nearly every text. Checks all
/// bytes, so that the compiler can vectorize the loop.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
}

/// Whether all characters may be part of a text that is shown to people. Nothing that a sender
/// writes can control the receiver's terminal.
pub fn is_text(text: &str) -> bool {
    text.chars().all(is_allowed)
}

fn is_allowed(c: char) -> bool {
    let separator = matches!(c, '\u{2028}' | '\u{2029}');
    let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c == '\t' || !(c.is_control() || separator || direction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LINE_BYTES_MAX;

    fn name(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    fn send<'a>(key: Option<&'a str>, text: &'a str) -> Command<'a> {
        Command::Send { to: name("bob"), key, text: text.into() }
    }

    fn code(line: &[u8]) -> Code {
        parse(line).expect_err("no request").code
    }

    #[test]
    fn requests() {
        let table: &[(&str, Command<'_>)] = &[
            ("help", Command::Help(None)),
            ("HELP send", Command::Help(Some("send"))),
            ("PING", Command::Ping("")),
            ("ping  two  spaces ", Command::Ping(" two  spaces ")),
            ("STATUS ", Command::Status),
            ("SEND bob lunch?", send(None, "lunch?")),
            ("  send   bob  a b ", send(None, " a b ")),
            ("ONCE k-1 bob a b", send(Some("k-1"), "a b")),
            ("SEND bob ␤one␤two", send(None, "\none\ntwo")),
            ("WITH title  Disk full", Command::With(Attribute::Title, " Disk full")),
            ("with click x", Command::With(Attribute::Click, "x")),
            ("ATTR on", Command::ShowAttributes(true)),
            ("ATTR off", Command::ShowAttributes(false)),
        ];
        for (line, expected) in table {
            let (_, command) = parse(line.as_bytes()).unwrap().unwrap();
            assert_eq!(command, *expected, "{line}");
        }
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"   "), Ok(None));
    }

    #[test]
    fn tasks() {
        let (user, password) = (name("ann"), "pw".to_owned());
        let login = |after| Task::Login { user, password: password.clone(), after };
        let (old, new) = ("old-password".to_owned(), "new-password".to_owned());
        let table = [
            ("CREATE Ann new-password", Task::Create { user, password: new.clone() }),
            ("LOGIN ann pw", login(After::Number(0))),
            ("LOGIN ann pw 7", login(After::Number(7))),
            ("LOGIN ann pw end", login(After::End)),
            ("LOGIN ann pw -5", login(After::Last(5))),
            ("LOG", Task::Log { after: After::Number(0), limit: None }),
            ("LOG 3 10", Task::Log { after: After::Number(3), limit: Some(10) }),
            ("SENT -3", Task::Sent { after: After::Last(3), limit: None }),
            ("SENT 3 10", Task::Sent { after: After::Number(3), limit: Some(10) }),
            ("LIST a*", Task::List { pattern: Pattern("a*".to_owned()) }),
            ("PASSWD old-password new-password", Task::Passwd { old, new }),
            ("DELETE ann pw", Task::Delete { user, password: password.clone() }),
            ("LOGOUT", Task::Logout),
            ("QUIT", Task::Quit),
        ];
        for (line, expected) in table {
            let (_, command) = parse(line.as_bytes()).unwrap().unwrap();
            assert_eq!(command, Command::Task(expected), "{line}");
        }
    }

    #[test]
    fn operators_have_commands_that_others_have_not() {
        let (user, password) = (name("ann"), "other-horse".to_owned());
        let table = [
            ("USERS", Task::Users { after: None }),
            ("USERS ann", Task::Users { after: Some(user) }),
            ("RESET ann other-horse", Task::Reset { user, password }),
            ("remove Ann", Task::Remove { user }),
        ];
        let all: String = help(None).collect();
        for (line, task) in table {
            let read = parse_operator(line.as_bytes()).unwrap();
            assert_eq!(read, Some((Right::Operator, Command::Task(task))), "{line}");
            assert_eq!(code(line.as_bytes()), Code::BadCommand);
            let word = line.split(' ').next().unwrap();
            assert_eq!(code(format!("HELP {word}").as_bytes()), Code::BadArgument);
            assert!(!all.contains(&word.to_ascii_uppercase()), "{all}");
        }
    }

    #[test]
    fn refusals() {
        let long = format!("SEND bob {}", "x".repeat(TEXT_BYTES_MAX + 1));
        let table: &[(&[u8], Code)] = &[
            (b"HELO", Code::BadCommand),
            (b"PING\tx", Code::BadCommand),
            (b"\x00\x01", Code::BadText),
            (b"PING \xff", Code::BadText),
            (b"P\0I\0N\0G\0", Code::BadText),
            (b"PING \x1b[2J", Code::BadText),
            (b"SEND bob", Code::BadArgument),
            (b"SEND bob ", Code::BadArgument),
            (b"SEND .bob hi", Code::BadArgument),
            ("SEND bob a\u{202e}b".as_bytes(), Code::BadText),
            ("SEND bob a\u{85}b".as_bytes(), Code::BadText),
            (b"SEND bob \x7f", Code::BadText),
            (b"WITH", Code::BadArgument),
            (b"WITH title", Code::BadArgument),
            (b"WITH title ", Code::BadArgument),
            (b"WITH icon x", Code::BadArgument),
            (b"WITH title a\tb", Code::BadArgument),
            ("WITH title a\u{202e}b".as_bytes(), Code::BadText),
            (b"WITH priority 6", Code::BadArgument),
            (b"ATTR", Code::BadArgument),
            (b"ATTR yes", Code::BadArgument),
            (long.as_bytes(), Code::TooLong),
            (b"CREATE ann short", Code::BadArgument),
            (b"CREATE ann", Code::BadArgument),
            (b"LOGIN ann pw x", Code::BadArgument),
            (b"LOGIN ann pw +1", Code::BadArgument),
            (b"LOGIN ann pw 99999999999999999999999", Code::BadArgument),
            (b"STATUS now", Code::BadArgument),
            (b"LIST a|b", Code::BadArgument),
            (b"HELP me", Code::BadArgument),
        ];
        for (line, expected) in table {
            assert_eq!(code(line), *expected, "{}", String::from_utf8_lossy(line));
        }
        let (_, command) = parse("SEND bob tab\tü".as_bytes()).unwrap().unwrap();
        assert_eq!(command, send(None, "tab\tü"));
    }

    #[test]
    fn each_command_is_known_by_its_name_and_usage() {
        for spec in COMMANDS {
            let (name, arguments) = spec.usage.split_once(' ').unwrap_or((spec.usage, ""));
            let given = arguments.split(' ').filter(|a| !a.is_empty() && !a.starts_with('['));
            let word = |argument| match argument {
                "attribute" => "title",
                "on|off" => "on",
                _ => "ann-ann-ann",
            };
            let words: Vec<&str> = given.map(word).collect();
            let line = format!("{} {}", name.to_lowercase(), words.join(" "));
            if spec.right == Right::Operator {
                assert!(parse_operator(line.as_bytes()).unwrap().is_some(), "{line}");
                continue;
            }
            let (right, _) = parse(line.as_bytes()).unwrap().unwrap();
            assert_eq!(right, spec.right, "{line}");
            let line = format!("HELP {name}");
            let asked = parse(line.as_bytes()).unwrap().unwrap();
            assert_eq!(asked, (Right::Always, Command::Help(Some(name))));
            let lines: Vec<String> = help(Some(name)).collect();
            assert_eq!(lines, [format!("{}: {}", spec.usage, spec.what)]);
            assert!("HELP \n".len() + lines[0].len() < LINE_BYTES_MAX);
        }
    }

    #[test]
    fn keys() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        for key in ["k", "~!\"#{}", &longest] {
            let line = format!("ONCE {key} bob hi");
            let (_, command) = parse(line.as_bytes()).unwrap().unwrap();
            assert_eq!(command, send(Some(key), "hi"));
        }
        for key in ["ü", "a\tb", &format!("{longest}k")] {
            assert_eq!(code(format!("ONCE {key} bob hi").as_bytes()), Code::BadArgument, "{key}");
        }
    }

    #[test]
    fn patterns() {
        let table = [
            ("*", "ann", true),
            ("a*", "ann", true),
            ("*n", "ann", true),
            ("a?n", "ann", true),
            ("a?", "ann", false),
            ("*b*", "abba", true),
            ("*ab", "aab", true),
            ("b*", "ann", false),
            ("ann", "ann", true),
            ("an", "ann", false),
            ("ann*", "ann", true),
            ("a*a*a", "aba", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(
                Pattern::parse(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
        assert!(!Pattern("*a".repeat(30)).matches(&"a".repeat(29)));
    }

    #[test]
    fn where_a_reading_begins() {
        assert_eq!(After::Number(3).resolve(3), Some(3));
        assert_eq!(After::Number(4).resolve(3), None);
        assert_eq!(After::End.resolve(3), Some(3));
        assert_eq!(After::Last(2).resolve(3), Some(1));
        assert_eq!(After::Last(9).resolve(3), Some(0));
        for word in ["7", "end", "-5"] {
            assert_eq!(After::parse_word(word).unwrap().to_string(), word);
        }
    }
}
