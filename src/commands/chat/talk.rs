//! Talks to the servers, and reports what the user must know about the connection.

use super::screen::{Screen, brief};
use super::{Order, terminal};
use crate::client::{After, Client, Error, Event, Message, SentMessage, Ticket};
use crate::commands::{complain, person};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// A takeover that is shorter than this is reported in one line, when it is over.
const NOTICE_TIME: Duration = Duration::from_millis(500);
/// How long that line is delayed, until the new primary knows how many copies it makes.
const COPIES_TIME: Duration = Duration::from_millis(250);
/// How often the number of copies is checked.
const LOOK_TIME: Duration = Duration::from_secs(1);
/// How long a question to the servers may block everything else.
const QUESTION_TIME: Duration = Duration::from_secs(3);
/// How long the thread waits at a time for the screen to accept more lines.
const SCREEN_TIME: Duration = Duration::from_millis(20);
/// After this time without a first login, a note says that no server has let the user in yet.
const FIRST_TIME: Duration = Duration::from_secs(1);
/// Maximum width of lists of names, in columns.
const LIST_WIDTH: usize = 76;
/// After this time without an answer, a note says that the server does not answer. Equals the
/// default peer timeout of a group.
const SILENT_TIME: Duration = Duration::from_secs(2);
/// A message that takes longer to store is confirmed by a note.
const CONFIRM_TIME: Duration = Duration::from_millis(300);

/// A message whose outcome is awaited.
struct UnderWay {
    ticket: Ticket,
    to: String,
    before: Option<String>,
    text: String,
    since: Instant,
    done: Sender<()>,
}

/// The thread that talks to the servers.
pub(super) struct Talk {
    client: Client,
    orders: Receiver<Order>,
    screen: Arc<Screen>,
    under_way: VecDeque<UnderWay>,
    /// The lost connection, if any: its server, when it was lost, and whether that was reported.
    lost: Option<(String, Instant, bool)>,
    server: Option<String>,
    copies: usize,
    /// The note on the last takeover, and when to show it.
    notice: Option<(Instant, String)>,
    /// The last message whose late answer was reported.
    silent: Option<Ticket>,
    /// Whether the connection was lost. Messages that arrive before the next `Event::Connected`
    /// were missed: a note marks them as unread.
    away: bool,
    leaving: bool,
    all_stored: bool,
    /// When the wait for the first server began. `None` once that wait is over or was reported.
    awaits_first: Option<Instant>,
    /// Whether a user watches the output, so that changes are reported.
    watched: bool,
    /// The received messages that the conversation begins with, until the first login.
    history: Option<Vec<Message>>,
    /// How many messages the conversation begins with.
    last: u64,
}

/// A message with which the conversation begins.
enum Earlier {
    Received(Message),
    Sent(SentMessage),
}

impl Earlier {
    fn time(&self) -> &str {
        match self {
            Earlier::Received(message) => &message.time,
            Earlier::Sent(sent) => &sent.time,
        }
    }
}

/// Returns the last `count` of these messages in order of time, without the copies of what went to
/// oneself.
fn merged(received: Vec<Message>, sent: Vec<SentMessage>, count: u64) -> Vec<Earlier> {
    let is_copy = |sent: &SentMessage| {
        let is_it = |message: &Message| message.number == sent.number && message.time == sent.time;
        let is_own = |message: &Message| message.from == sent.to && message.text == sent.text;
        received.iter().any(|message| is_it(message) && is_own(message))
    };
    let sent: Vec<_> = sent.into_iter().filter(|sent| !is_copy(sent)).map(Earlier::Sent).collect();
    let mut all: Vec<_> = received.into_iter().map(Earlier::Received).chain(sent).collect();
    // Times are RFC 3339 in UTC: their order is that of their text. Within a millisecond an answer
    // comes after what it answers.
    all.sort_by_key(|one| (one.time().to_owned(), matches!(one, Earlier::Received(_))));
    let surplus = all.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    all.split_off(surplus)
}

impl Talk {
    pub(super) fn new(
        client: Client,
        orders: Receiver<Order>,
        screen: Arc<Screen>,
        watched: bool,
        last: u64,
    ) -> Talk {
        Talk {
            client,
            orders,
            screen,
            under_way: VecDeque::new(),
            lost: None,
            server: None,
            copies: 0,
            notice: None,
            silent: None,
            away: false,
            leaving: false,
            all_stored: true,
            awaits_first: Some(Instant::now()),
            watched,
            history: Some(Vec::new()),
            last,
        }
    }

    /// Talks to the servers until the user leaves. Returns whether all messages were stored. Ends
    /// the process when it cannot continue.
    pub(super) fn run(mut self) -> bool {
        let why = match self.turn_around() {
            Ok(()) => return self.all_stored,
            Err(Error::NotLetIn(_)) if self.server.is_some() => {
                "your password was changed, or your account deleted; log in again".to_owned()
            }
            Err(Error::NotLetIn(why)) if why.code == "wrong-password" => {
                format!("{}; --create makes an account that is not there", why.words)
            }
            Err(error) => person::said(&error),
        };
        self.screen.end();
        terminal::restore();
        complain(&why);
        self.screen.given_up().iter().for_each(|words| complain(words));
        std::process::exit(1);
    }

    fn turn_around(&mut self) -> Result<(), Error> {
        loop {
            self.take_orders()?;
            if self.leaving && self.under_way.is_empty() {
                return Ok(());
            }
            if !self.screen.has_room(SCREEN_TIME) {
                // Messages that are not received now wait at the server.
                continue;
            }
            if let Some(event) = self.client.next(Some(self.patience()))? {
                self.on_event(event);
            }
            self.look();
        }
    }

    /// Returns how long to wait for an event before the next note or check is due.
    fn patience(&self) -> Duration {
        let lost = self.lost.as_ref().filter(|lost| !lost.2).map(|lost| lost.1 + NOTICE_TIME);
        let due = lost.into_iter().chain(self.notice.as_ref().map(|notice| notice.0)).min();
        due.map_or(LOOK_TIME, |due| due.saturating_duration_since(Instant::now()))
    }

    fn take_orders(&mut self) -> Result<(), Error> {
        while self.client.has_room() && !self.leaving {
            match self.orders.try_recv() {
                Ok(order) => self.obey(order)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.leaving = true,
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<(), Error> {
        match order {
            Order::Say { to, before, text, done } => {
                // The message was checked before it was queued, so every error is fatal.
                let submitted = self.client.submit(&to, &text);
                let ticket = submitted.inspect_err(|_| self.screen.end_message())?;
                let since = Instant::now();
                self.under_way.push_back(UnderWay { ticket, to, before, text, since, done });
            }
            Order::Who { .. } | Order::Passwd { .. } if !self.is_connected() => {
                self.screen.note("there is no server to ask; try again later");
            }
            Order::Who { pattern, done: _done } => {
                if let Some(users) = self.list(&pattern)? {
                    self.show_users(&users);
                }
            }
            Order::Complete { prefix, names } => {
                // Completion must not wait for a server that is not connected.
                let asked = self.is_connected();
                let users = if asked { self.list(&format!("{prefix}*"))? } else { None };
                let users = users.unwrap_or_default().into_iter().map(|(name, _)| name);
                let _ = names.send(users.collect());
            }
            Order::Passwd { old, new, done: _done } => {
                match self.client.change_password(&old, &new) {
                    Ok(()) => self.screen.note("the password is changed"),
                    Err(Error::Refused(why)) => self.screen.note(&why.words),
                    Err(Error::Unknown) => {
                        self.screen.note("the password may be changed, or not: try both");
                    }
                    Err(Error::NoPrimary(_)) => {
                        self.screen.note("no server answers; nothing was changed");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn is_connected(&self) -> bool {
        self.server.is_some() && self.lost.is_none()
    }

    /// Returns the users that match `pattern`; `None` if the servers refused or did not answer,
    /// which a note then reports.
    fn list(&mut self, pattern: &str) -> Result<Option<Vec<(String, bool)>>, Error> {
        match self.client.list(pattern) {
            Ok(users) => return Ok(Some(users)),
            Err(Error::Refused(why)) => self.screen.note(&why.words),
            Err(Error::NoPrimary(_)) => self.screen.note("no server answers; try again later"),
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn show_users(&self, users: &[(String, bool)]) {
        for (state, is_online) in [("online", true), ("offline", false)] {
            let names = users.iter().filter(|user| user.1 == is_online).map(|user| &user.0[..]);
            let names: Vec<&str> = names.collect();
            let mut line = format!("{} {state}", names.len());
            for (at, name) in names.into_iter().enumerate() {
                line += if at == 0 { ": " } else { ", " };
                if line.len() + name.len() > LIST_WIDTH {
                    self.screen.note(line.trim_end());
                    line = "    ".to_owned();
                }
                line += name;
            }
            self.screen.note(&line);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                if let Some(history) = &mut self.history {
                    return history.push(message);
                }
                if std::mem::take(&mut self.away) {
                    self.screen.note("unread:");
                }
                self.screen.message(&message);
            }
            Event::KeptFrom { .. } => self.screen.note("older messages are no longer kept"),
            Event::Connected { server, .. } => self.on_connected(server),
            Event::Lost { server, .. } => {
                self.lost.get_or_insert((server, Instant::now(), false));
                self.away = true;
                self.screen.set_server(None);
            }
            outcome => self.settle(&outcome),
        }
    }

    /// Handles a login. The unread messages arrived before it.
    fn on_connected(&mut self, server: String) {
        self.away = false;
        // After the first login the client waits for servers without a time limit; a question has
        // one.
        self.client.set_patience(None);
        self.client.set_answer_patience(Some(QUESTION_TIME));
        if let Some(received) = self.history.take() {
            self.begin_conversation(received);
        }
        self.copies = self.client.copies();
        self.screen.set_server(Some((&server, self.copies)));
        self.notice = self.lost.take().map(|(before, _, said)| {
            let name = |server: &str| self.screen.name(server);
            let note = match before == server {
                true => format!("connected to {} again", name(&server)),
                // Where their hosts are equal, the ports tell them apart.
                false if host(&server) == host(&before) => {
                    format!("{server} has taken over from {before}")
                }
                false => format!("{} has taken over from {}", name(&server), name(&before)),
            };
            (Instant::now() + if said { Duration::ZERO } else { COPIES_TIME }, note)
        });
        self.server = Some(server);
    }

    /// Shows what the user has received and sent before.
    fn begin_conversation(&mut self, received: Vec<Message>) {
        let sent = match self.last {
            0 => Vec::new(),
            // Without an answer only what came is shown; the next login does not ask again.
            last => self.client.sent(After::Last(last), last).unwrap_or_default(),
        };
        for message in merged(received, sent, self.last) {
            match message {
                Earlier::Received(message) => self.screen.message(&message),
                Earlier::Sent(sent) => self.screen.sent(&sent),
            }
        }
    }

    fn settle(&mut self, event: &Event) {
        let front = self.under_way.front().map(|under_way| under_way.ticket);
        assert_eq!(front, event.ticket(), "messages are answered in their order");
        let Some(sent) = self.under_way.pop_front() else { return };
        self.screen.end_message();
        let (to, text) = (&sent.to, brief(&sent.text));
        match event {
            Event::Stored { .. } => {
                self.screen.learn(to);
                if self.watched && sent.since.elapsed() > CONFIRM_TIME {
                    self.screen.note(&format!("stored now: {text}"));
                }
            }
            Event::Refused { why, .. } => {
                self.screen.take_peer_back(to, sent.before);
                self.screen.note(&format!("not sent to {to}, {}: {text}", why.words));
            }
            _ => self.screen.note(&format!("nobody knows whether {to} has got: {text}")),
        }
        self.all_stored &= matches!(event, Event::Stored { .. });
        drop(sent.done);
    }

    /// Reports, once for each message, that the oldest one has no answer yet: its server may be
    /// cut off.
    fn look_for_answers(&mut self) {
        if let Some(oldest) = self.under_way.front()
            && oldest.since.elapsed() >= SILENT_TIME
            && self.silent.replace(oldest.ticket) != Some(oldest.ticket)
        {
            self.screen.set_waiting();
            let name = self.screen.name(self.server.as_deref().unwrap_or_default());
            self.screen.note(&format!("{name} does not answer; what you sent is not lost"));
        }
    }

    /// Reports what has changed, or lasts too long.
    fn look(&mut self) {
        let is_late = |since: &mut Instant| since.elapsed() >= FIRST_TIME;
        if self.server.is_some() {
            self.awaits_first = None;
        } else if self.awaits_first.take_if(is_late).is_some() {
            let why = self.client.excuses();
            self.screen.note(&format!("no server has let you in yet, trying on: {why}"));
        }
        if let Some((server, since, said)) = &mut self.lost {
            if !*said && since.elapsed() >= NOTICE_TIME {
                *said = true;
                let server = self.screen.name(server);
                let note = format!("lost {server}; what you type is sent when a server is back");
                self.screen.note(&note);
            }
            return;
        }
        self.look_for_answers();
        let (Some(server), copies) = (&self.server, self.client.copies()) else { return };
        let changed = std::mem::replace(&mut self.copies, copies) != copies;
        self.screen.set_server(Some((server, copies)));
        if let Some((_, note)) = self.notice.take_if(|(at, _)| Instant::now() >= *at) {
            self.screen.note(&note);
        } else if self.notice.is_none() && changed && self.watched {
            self.screen.note(&self.screen.status());
        }
    }
}

fn host(server: &str) -> &str {
    server.rsplit_once(':').map_or(server, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Attributes;

    #[test]
    fn a_conversation_begins_with_both_sides_in_order_of_time() {
        let time = |second: u64| format!("2026-11-23T11:58:{second:02}.120Z");
        let received = |number, second| {
            let (from, text) = ("bob".to_owned(), format!("r{number}"));
            let attributes = Attributes::default();
            Message { number, time: time(second), from, text, attributes }
        };
        let sent = |place, number, second, text: &str| {
            let (to, text, attributes) = ("bob".to_owned(), text.to_owned(), Attributes::default());
            SentMessage { place, number, time: time(second), to, text, attributes }
        };
        let all = || {
            let received = vec![received(1, 3), received(2, 5), received(3, 5)];
            // The second one went to oneself.
            let sent = vec![
                sent(1, 7, 1, "s1"),
                sent(2, 2, 5, "r2"),
                sent(3, 8, 5, "s3"),
                sent(4, 9, 9, "s4"),
            ];
            (received, sent)
        };
        let texts = |count| -> Vec<String> {
            let (received, sent) = all();
            let merged = merged(received, sent, count).into_iter();
            let text = |one| match one {
                Earlier::Received(message) => message.text,
                Earlier::Sent(sent) => sent.text,
            };
            merged.map(text).collect()
        };
        assert_eq!(texts(20), ["s1", "r1", "s3", "r2", "r3", "s4"]);
        assert_eq!(texts(2), ["r3", "s4"]);
        assert!(texts(0).is_empty());
    }
}
