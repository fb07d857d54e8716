//! Talks to the servers, and says what a person has to know of that.

use super::screen::Screen;
use super::{Order, terminal};
use crate::client::{Client, Error, Event, Ticket};
use crate::commands::{complain, person};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// A takeover that takes no longer is told in one line, when it is over.
const NOTICE_TIME: Duration = Duration::from_millis(500);
/// That line waits until the new primary knows how many copies it makes.
const COPIES_TIME: Duration = Duration::from_millis(250);
/// How often the number of copies is looked at.
const LOOK_TIME: Duration = Duration::from_secs(1);
/// A message that took longer is confirmed.
const CONFIRM_TIME: Duration = Duration::from_millis(300);

/// A message whose outcome is awaited.
struct UnderWay {
    ticket: Ticket,
    to: String,
    text: String,
    since: Instant,
    done: Sender<()>,
}

/// See the module.
pub(super) struct Talk {
    client: Client,
    orders: Receiver<Order>,
    screen: Arc<Screen>,
    under_way: VecDeque<UnderWay>,
    /// Who was the server, and since when it is lost; whether that was said.
    lost: Option<(String, Instant, bool)>,
    server: Option<String>,
    copies: usize,
    /// What is to be said of the last takeover, and when.
    notice: Option<(Instant, String)>,
    /// Messages were missed: they are marked when they come.
    away: bool,
    leaving: bool,
    all_stored: bool,
    /// Somebody looks at it: things that change are told.
    watched: bool,
}

impl Talk {
    pub(super) fn new(
        client: Client,
        orders: Receiver<Order>,
        screen: Arc<Screen>,
        watched: bool,
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
            away: false,
            leaving: false,
            all_stored: true,
            watched,
        }
    }

    /// Talks until the person leaves; whether all messages were stored. Ends the process when it
    /// can't go on.
    pub(super) fn run(mut self) -> bool {
        match self.turn_around() {
            Ok(()) => self.all_stored,
            Err(error) => {
                terminal::restore();
                complain(&person::said(error));
                std::process::exit(1);
            }
        }
    }

    fn turn_around(&mut self) -> Result<(), Error> {
        loop {
            self.take_orders()?;
            if self.leaving && self.under_way.is_empty() {
                return Ok(());
            }
            if let Some(event) = self.client.next(Some(self.patience()))? {
                self.on_event(event);
            }
            self.look();
        }
    }

    /// How long nothing has to be said unless something happens.
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
            Order::Say { to, text, done } => match self.client.submit(&to, &text) {
                Ok(ticket) => {
                    let since = Instant::now();
                    self.under_way.push_back(UnderWay { ticket, to, text, since, done });
                    self.screen.set_under_way(self.under_way.len());
                }
                Err(Error::Refused(why)) => self.not_stored(&to, &text, &why.words),
                Err(error) => return Err(error),
            },
            Order::Who { pattern, done } => {
                if let Some(users) = self.list(&pattern)? {
                    self.show_users(&users);
                }
                let _ = done.send(());
            }
            Order::Complete { prefix, names } => {
                // Nobody waits for names while there is no server.
                let asked = self.server.is_some() && self.lost.is_none();
                let users = if asked { self.list(&format!("{prefix}*"))? } else { None };
                let users = users.unwrap_or_default().into_iter().map(|(name, _)| name);
                let _ = names.send(users.collect());
            }
            Order::Passwd { old, new, done } => {
                match self.client.change_password(&old, &new) {
                    Ok(()) => self.screen.note("the password is changed"),
                    Err(Error::Refused(why)) => self.screen.note(&why.words),
                    Err(Error::Unknown) => {
                        self.screen.note("the password may be changed, or not: try both");
                    }
                    Err(error) => return Err(error),
                }
                let _ = done.send(());
            }
            Order::Leave => self.leaving = true,
        }
        Ok(())
    }

    /// The users that fit; `None` when that was refused, which is said.
    fn list(&mut self, pattern: &str) -> Result<Option<Vec<(String, bool)>>, Error> {
        match self.client.list(pattern) {
            Ok(users) => Ok(Some(users)),
            Err(Error::Refused(why)) => {
                self.screen.note(&why.words);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn show_users(&self, users: &[(String, bool)]) {
        let named = |online: bool| {
            let names = users.iter().filter(|user| user.1 == online).map(|user| &user.0[..]);
            let names: Vec<&str> = names.collect();
            if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
        };
        self.screen.note(&format!("online: {}", named(true)));
        self.screen.note(&format!("offline: {}", named(false)));
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                if std::mem::take(&mut self.away) {
                    self.screen.note("unread:");
                }
                self.screen.message(&message);
            }
            Event::Connected { server, .. } => self.on_connected(server),
            Event::Lost { server, .. } => {
                self.lost.get_or_insert((server, Instant::now(), false));
                self.away = true;
                self.screen.set_server(None);
            }
            Event::Stored { .. } | Event::Refused { .. } | Event::Unknown { .. } => {
                self.settle(&event);
            }
        }
    }

    /// The unread ones came before this.
    fn on_connected(&mut self, server: String) {
        let name = |server: &str| self.screen.name(server);
        self.away = false;
        self.copies = self.client.copies();
        self.screen.set_server(Some((&server, self.copies)));
        // Once let in, it goes on for as long as it takes.
        self.client.set_patience(None);
        self.notice = self.lost.take().map(|(before, _, said)| {
            let note = match before == server {
                true => format!("connected to {} again", name(&server)),
                false => format!("{} has taken over from {}", name(&server), name(&before)),
            };
            (Instant::now() + if said { Duration::ZERO } else { COPIES_TIME }, note)
        });
        self.server = Some(server);
    }

    fn settle(&mut self, event: &Event) {
        let front = self.under_way.front().map(|under_way| under_way.ticket);
        if front.is_none() || front != event.ticket() {
            return;
        }
        let Some(UnderWay { to, text, since, done, .. }) = self.under_way.pop_front() else {
            return;
        };
        self.screen.set_under_way(self.under_way.len());
        match event {
            Event::Stored { .. } => {
                self.screen.learn(&to);
                if self.watched && since.elapsed() > CONFIRM_TIME {
                    self.screen.note(&format!("stored now: {text}"));
                }
            }
            Event::Refused { why, .. } => self.not_stored(&to, &text, &why.words),
            _ => {
                self.all_stored = false;
                self.screen.note(&format!("nobody knows whether {to} has got: {text}"));
            }
        }
        let _ = done.send(());
    }

    fn not_stored(&mut self, to: &str, text: &str, why: &str) {
        self.all_stored = false;
        self.screen.note(&format!("not sent to {to}, {why}: {text}"));
    }

    /// Says what has changed, or lasts too long.
    fn look(&mut self) {
        if let Some((server, since, said)) = &mut self.lost {
            if !*said && since.elapsed() >= NOTICE_TIME {
                *said = true;
                let server = self.screen.name(server);
                let note = format!("lost {server}; what you type is sent when a server is back");
                self.screen.note(&note);
            }
            return;
        }
        let (Some(server), copies) = (&self.server, self.client.copies()) else { return };
        let changed = std::mem::replace(&mut self.copies, copies) != copies;
        self.screen.set_server(Some((server, copies)));
        match &self.notice {
            Some((at, _)) if Instant::now() < *at => {}
            Some((_, note)) => {
                self.screen.note(note);
                self.notice = None;
            }
            None if changed && self.watched => self.screen.note(&self.screen.status()),
            None => {}
        }
    }
}
