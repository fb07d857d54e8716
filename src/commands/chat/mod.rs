//! `postern chat`: a person's client. One thread edits the line, one talks to the servers.
//!
//! `typed` reads what the person types, `editor` lets it be edited and completed, `screen` shows
//! lines above it, `talk` follows the primary.

mod editor;
mod screen;
mod talk;
mod typed;

use super::{person, terminal};
use crate::client::{After, Waker};
use crate::options;
use editor::{Input, Read};
use screen::Screen;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;
use talk::Talk;
use typed::Typed;

/// How long a primary is looked for before the first login.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the next prompt waits for the answer to a message: usually it means "stored".
const ANSWER_TIME: Duration = Duration::from_millis(300);
/// Lines that wait for the servers, after which the next one is not read.
const ORDERS_MAX: usize = 64;

/// What the person wants done.
enum Order {
    /// Sends a message; told when it is known what became of it.
    Say { to: String, text: String, done: Sender<()> },
    /// Shows who there is.
    Who { pattern: String, done: Sender<()> },
    /// The names that begin so.
    Complete { prefix: String, names: Sender<Vec<String>> },
    /// Changes the password.
    Passwd { old: String, new: String, done: Sender<()> },
    /// Waits for what is under way, and ends.
    Leave,
}

/// Takes orders to the thread that talks.
#[derive(Clone)]
struct Desk {
    orders: SyncSender<Order>,
    waker: Waker,
}

impl Desk {
    /// Hands an order over, unless that thread has ended: it says why itself.
    fn give(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            self.waker.wake();
        }
    }

    /// The same, and waits a moment until it is done.
    fn await_done(&self, order: impl FnOnce(Sender<()>) -> Order) {
        let (done, is_done) = channel();
        self.give(order(done));
        let _ = is_done.recv_timeout(ANSWER_TIME);
    }
}

/// Chats until the person leaves.
///
/// # Errors
/// One line that says why that is not possible.
pub fn run(options: &options::Chat) -> Result<ExitCode, String> {
    let login = &options.login;
    let open = |account: crate::client::Account| {
        let account = account.after(After::Last(options.last));
        if options.create { account.created() } else { account }
    };
    let client = person::client(login, open, PATIENCE)?;
    let (orders, todo) = sync_channel(ORDERS_MAX);
    let desk = Desk { orders, waker: client.waker() };
    let screen = Arc::new(Screen::new(&login.user, &person::servers(&login.group)?));
    let mut input = Input::open(&screen, &desk)?;
    let talk = Talk::new(client, todo, Arc::clone(&screen), input.is_edited());
    let talk = thread::Builder::new().name("talk".to_owned()).spawn(move || talk.run());
    let talk = talk.map_err(|error| format!("no thread: {error}"))?;
    screen.await_login();
    loop {
        match input.read(&screen) {
            Read::Line(line) => {
                if !obey(&line, &screen, &desk) {
                    break;
                }
            }
            Read::End => break,
            Read::Interrupted => return Ok(terminal::INTERRUPTED.into()),
        }
    }
    desk.give(Order::Leave);
    let all_stored = talk.join().map_err(|_| "the thread that talks panicked".to_owned())?;
    input.close(&screen);
    Ok(if all_stored { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does what a line asks for; whether the chat goes on.
fn obey(line: &str, screen: &Screen, desk: &Desk) -> bool {
    match typed::read(line) {
        Typed::Nothing => {}
        Typed::Say { to, text } => {
            if let Some(to) = &to {
                screen.set_peer(to);
            }
            match screen.peer() {
                Some(to) => desk.await_done(|done| Order::Say { to, text: text.to_owned(), done }),
                None => screen.reply("to whom? Begin with @name, or choose one: /to name"),
            }
        }
        Typed::To(name) => screen.set_peer(&name),
        Typed::Who(pattern) => {
            desk.await_done(|done| Order::Who { pattern: pattern.to_owned(), done });
        }
        Typed::Passwd => change_password(screen, desk),
        Typed::Help => typed::help().lines().for_each(|line| screen.reply(line)),
        Typed::Quit => return false,
        Typed::Wrong(why) => screen.reply(&why),
    }
    true
}

fn change_password(screen: &Screen, desk: &Desk) {
    let ask = || -> std::io::Result<Option<(String, String)>> {
        let old = terminal::ask_hidden("Old password: ")?;
        let new = terminal::ask_hidden("New password: ")?;
        let again = terminal::ask_hidden("The new one again: ")?;
        Ok((new == again).then_some((old, new)))
    };
    match ask() {
        Ok(Some((old, new))) => desk.await_done(|done| Order::Passwd { old, new, done }),
        Ok(None) => screen.reply("the new passwords differ; nothing was changed"),
        Err(error) => screen.reply(&format!("nobody can be asked: {error}")),
    }
}
