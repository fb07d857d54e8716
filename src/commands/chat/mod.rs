//! `postern chat`: the interactive client. One thread edits the input line, one talks to the
//! servers, and one shows lines above the input line. No thread waits for another one forever.
//!
//! `typed` parses what the user types, `editor` edits and completes the input line, `screen`
//! shows lines above it, and `talk` follows the primary.

mod editor;
mod screen;
mod talk;
mod typed;

use super::{Named, person, terminal};
use crate::client::{After, Waker, check_message};
use crate::options;
use editor::{Input, Read};
use screen::Screen;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;
use talk::Talk;
use typed::Typed;

/// How long the client looks for a primary before the first login.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the next prompt waits for the outcome of a message, which usually is "stored".
const ANSWER_TIME: Duration = Duration::from_millis(300);
/// How long a sender that waits for room in the queue sleeps between two attempts.
const ROOM_TIME: Duration = Duration::from_millis(2);
/// Maximum number of orders in the queue. When it is full, a typed message is refused, and no
/// further line of a pipe or a paste is read.
const ORDERS_MAX: usize = 64;

/// An order of the user to the thread that talks to the servers. When nobody can give one any more,
/// that thread waits for the messages under way, and ends.
enum Order {
    /// Sends a message. `done` is dropped when the outcome is known. `before` is the previous
    /// receiver, which is restored if this message is refused.
    Say { to: String, before: Option<String>, text: String, done: Sender<()> },
    /// Shows the users that match `pattern`.
    Who { pattern: String, done: Sender<()> },
    /// Asks for the names that begin with `prefix`.
    Complete { prefix: String, names: Sender<Vec<String>> },
    /// Changes the password.
    Passwd { old: String, new: String, done: Sender<()> },
}

/// Passes orders to the thread that talks to the servers.
#[derive(Clone)]
struct Desk {
    orders: SyncSender<Order>,
    waker: Waker,
}

impl Desk {
    /// Submits an order. Returns whether the queue had room for it.
    fn give(&self, order: Order) -> bool {
        let given = self.orders.try_send(order).is_ok();
        self.waker.wake();
        given
    }

    /// Submits an order and waits up to `ANSWER_TIME` until it is done.
    fn await_done(&self, order: impl FnOnce(Sender<()>) -> Order) {
        let (done, outcome) = channel();
        self.give(order(done));
        await_outcome(Some(outcome));
    }

    /// Submits an order, and waits for room in the queue. Lines of a pipe or a paste use this.
    fn give_in_turn(&self, mut order: Order, screen: &Screen) {
        loop {
            match self.orders.try_send(order) {
                Err(TrySendError::Full(back)) => order = back,
                _ => return self.waker.wake(),
            }
            // Lines that arrive meanwhile must not wait for a prompt.
            screen.flush();
            thread::sleep(ROOM_TIME);
        }
    }
}

/// Waits up to `ANSWER_TIME` for the outcome of an order.
fn await_outcome(outcome: Option<Receiver<()>>) {
    // An order that was dropped has no outcome, and one that is late is shown later.
    let _ = outcome.map(|outcome| outcome.recv_timeout(ANSWER_TIME));
}

/// Runs the chat until the user leaves.
///
/// # Errors
/// Returns a one-line message that states why the chat cannot run.
#[cold]
pub fn run(options: &options::Chat) -> Result<ExitCode, String> {
    let login = &options.login;
    let client = person::client(login, After::Last(options.last), options.create, PATIENCE)?;
    let (orders, todo) = sync_channel(ORDERS_MAX);
    let edited = Input::is_terminal();
    let desk = Desk { orders, waker: client.waker() };
    let screen = Arc::new(Screen::new(&login.user, &person::servers(&login.group)?));
    let input = Input::open(&screen, &desk)?;
    let last = Arc::clone(&screen);
    terminal::set_last_words(move || last.given_up());
    let talk = Talk::new(client, todo, Arc::clone(&screen), edited, options.last);
    let talk = thread::Builder::new().name("talk".to_owned()).spawn(move || talk.run());
    let talk = talk.named("no thread")?;
    screen.await_login();
    let mut chat = Chat { input, screen, desk, edited, all_sent: true };
    let interrupted = chat.run();
    let Chat { input, screen, desk, all_sent, .. } = chat;
    input.close(&screen);
    terminal::restore();
    if interrupted {
        screen.given_up().iter().for_each(|words| super::complain(words));
        return Ok(terminal::INTERRUPTED.into());
    }
    let under_way = screen.under_way();
    if under_way > 0 {
        screen.reply(&format!("not stored yet: {under_way}; waiting, Ctrl+C gives up"));
    }
    drop(desk.orders);
    desk.waker.wake();
    let all_stored = talk.join().map_err(|_| "the thread that talks panicked".to_owned())?;
    Ok(super::exit_code(all_stored && (all_sent || edited)))
}

/// The state of the thread that edits.
struct Chat {
    input: Input,
    screen: Arc<Screen>,
    desk: Desk,
    /// Whether a user edits the lines at a terminal.
    edited: bool,
    /// Whether every line was a command, or a message that could be sent.
    all_sent: bool,
}

impl Chat {
    /// Executes lines until the user leaves. Returns whether the user left by Ctrl+C.
    fn run(&mut self) -> bool {
        loop {
            match self.input.read(&self.screen) {
                Read::Line(pasted) if pasted.contains(['\n', '\r']) => self.paste(&pasted),
                Read::Line(line) => {
                    if !self.obey(typed::read(&line)) {
                        return false;
                    }
                }
                Read::Bad(why) => self.refuse(&why),
                Read::End => return false,
                Read::Interrupted => return true,
            }
        }
    }

    /// Sends each line of a paste, and waits up to `ANSWER_TIME` for the outcome of the last one.
    fn paste(&mut self, pasted: &str) {
        let lines = pasted.split(['\n', '\r']).filter(|line| !line.is_empty());
        let mut outcome = None;
        for (at, line) in lines.enumerate() {
            let Typed::Say { to, text } = typed::read_pasted(line, at == 0) else { continue };
            outcome = self.say(to.as_deref(), text, true);
            self.screen.flush();
        }
        await_outcome(outcome);
    }

    /// Executes a line. Returns whether the chat continues.
    fn obey(&mut self, typed: Typed<'_>) -> bool {
        match typed {
            Typed::Nothing => {}
            Typed::Say { to, text } => {
                let outcome = self.say(to.as_deref(), text, !self.edited);
                if self.edited {
                    await_outcome(outcome);
                }
            }
            Typed::To(name) => self.screen.set_peer(&name),
            Typed::Who(pattern) => {
                self.desk.await_done(|done| Order::Who { pattern: pattern.to_owned(), done });
            }
            Typed::Passwd => self.change_password(),
            Typed::Help => typed::help().lines().for_each(|line| self.screen.reply(line)),
            Typed::Quit => return false,
            Typed::Wrong(why) => self.refuse(&why),
        }
        true
    }

    /// Sends a message to `to`, or to the current receiver if `to` is `None`. If the queue is full,
    /// this waits for room (`waits`), or refuses the message, so that the user can type on.
    /// Returns what is notified of the outcome.
    fn say(&mut self, to: Option<&str>, text: &str, waits: bool) -> Option<Receiver<()>> {
        let before = self.screen.peer();
        if let Some(to) = to {
            self.screen.set_peer(to);
        }
        let Some(to) = self.screen.peer() else {
            self.refuse("to whom? Begin with @name, or choose one: /to name");
            return None;
        };
        if let Err(why) = check_message(&to, text) {
            self.screen.take_peer_back(&to, before);
            let text = screen::brief(text);
            self.refuse(&format!("not sent to {to}, {}: {text}", why.words));
            return None;
        }
        self.screen.begin_message(&to, text);
        let (done, outcome) = channel();
        let order = Order::Say { to, before, text: text.to_owned(), done };
        if waits {
            self.desk.give_in_turn(order, &self.screen);
        } else if !self.desk.give(order) {
            self.screen.take_message_back();
            self.refuse(&format!("not sent, too much waits already: {}", screen::brief(text)));
            return None;
        }
        Some(outcome)
    }

    fn refuse(&mut self, why: &str) {
        self.all_sent = false;
        self.screen.reply(why);
    }

    fn change_password(&mut self) {
        let mut ask = |question| self.input.ask_hidden(&self.screen, question);
        let asked = ask("Old password: ").and_then(|old| {
            let new = ask("New password: ")?;
            Some((old, new.clone(), ask("The new one again: ")? == new))
        });
        match asked {
            Some((old, new, true)) => {
                self.desk.await_done(|done| Order::Passwd { old, new, done });
            }
            Some(_) => self.screen.reply("the new passwords differ; nothing was changed"),
            None => self.screen.reply("nothing was changed"),
        }
    }
}
