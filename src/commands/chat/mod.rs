//! `postern chat`: a person's client. One thread edits the line, one talks to the servers, one
//! shows lines above the one that is edited; none of them waits for another without an end.
//!
//! `typed` reads what the person types, `editor` lets it be edited and completed, `screen` shows
//! lines above it, `talk` follows the primary.

mod editor;
mod screen;
mod talk;
mod typed;

use super::{person, terminal};
use crate::client::{After, Waker, check_message};
use crate::options;
use editor::{Input, Read};
use screen::Screen;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;
use talk::Talk;
use typed::Typed;

/// How long a primary is looked for before the first login.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the next prompt waits for the answer to a message: usually it means "stored".
const ANSWER_TIME: Duration = Duration::from_millis(300);
/// How long somebody who wants room there waits at a time.
const ROOM_TIME: Duration = Duration::from_millis(2);
/// Lines that wait for the servers, after which the next one is not read.
const ORDERS_MAX: usize = 64;

/// What the person wants done.
enum Order {
    /// Sends a message; told when it is known what became of it. `before` is the receiver again
    /// when this one is refused.
    Say { to: String, before: Option<String>, text: String, done: Sender<()> },
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
    /// Hands an order over; whether there was room.
    fn give(&self, order: Order) -> bool {
        let given = self.orders.try_send(order).is_ok();
        self.waker.wake();
        given
    }

    /// The same, and waits a moment until it is done.
    fn await_done(&self, order: impl FnOnce(Sender<()>) -> Order) -> bool {
        let (done, is_done) = channel();
        let given = self.give(order(done));
        let _ = is_done.recv_timeout(ANSWER_TIME);
        given
    }

    /// Waits for room, as the lines of a pipe and of a paste do.
    fn give_in_turn(&self, mut order: Order, screen: &Screen) {
        loop {
            match self.orders.try_send(order) {
                Err(TrySendError::Full(back)) => order = back,
                _ => return self.waker.wake(),
            }
            // What comes meanwhile must not wait for a prompt.
            screen.flush();
            thread::sleep(ROOM_TIME);
        }
    }
}

/// Chats until the person leaves.
///
/// # Errors
/// One line that says why that is not possible.
#[cold]
pub fn run(options: &options::Chat) -> Result<ExitCode, String> {
    let login = &options.login;
    let open = |account: crate::client::Account| {
        let account = account.after(After::Last(options.last));
        if options.create { account.created() } else { account }
    };
    let client = person::client(login, options.create, open, PATIENCE)?;
    let (orders, todo) = sync_channel(ORDERS_MAX);
    let edited = Input::is_terminal();
    let desk = Desk { orders, waker: client.waker() };
    let screen = Arc::new(Screen::new(&login.user, &person::servers(&login.group)?));
    let input = Input::open(&screen, &desk)?;
    let last = Arc::clone(&screen);
    terminal::set_last_words(move || last.given_up());
    let talk = Talk::new(client, todo, Arc::clone(&screen), edited);
    let talk = thread::Builder::new().name("talk".to_owned()).spawn(move || talk.run());
    let talk = talk.map_err(|error| format!("no thread: {error}"))?;
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
    // There is no room only as long as that thread takes orders.
    while !desk.give(Order::Leave) && !talk.is_finished() {
        thread::sleep(ANSWER_TIME);
    }
    let all_stored = talk.join().map_err(|_| "the thread that talks panicked".to_owned())?;
    let done = all_stored && (all_sent || edited);
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The thread that edits.
struct Chat {
    input: Input,
    screen: Arc<Screen>,
    desk: Desk,
    /// A person types.
    edited: bool,
    /// Every line was one that could be sent, or a command.
    all_sent: bool,
}

impl Chat {
    /// Takes lines until the person leaves; whether by Ctrl+C.
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

    /// Sends each line of a paste, and waits a moment for the last one.
    fn paste(&mut self, pasted: &str) {
        let lines: Vec<&str> = pasted.split(['\n', '\r']).filter(|line| !line.is_empty()).collect();
        for (at, line) in lines.iter().enumerate() {
            let Typed::Say { to, text } = typed::read_pasted(line, at == 0) else { continue };
            self.say(to.as_deref(), text, at + 1 == lines.len());
            self.screen.flush();
        }
    }

    /// Does what a line asks for; whether the chat goes on.
    fn obey(&mut self, typed: Typed<'_>) -> bool {
        match typed {
            Typed::Nothing => {}
            Typed::Say { to, text } => self.say(to.as_deref(), text, true),
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

    /// Sends a message, to somebody else than before if it says so, and waits a moment for what
    /// becomes of it if that is to be seen.
    fn say(&mut self, to: Option<&str>, text: &str, awaited: bool) {
        let before = self.screen.peer();
        if let Some(to) = to {
            self.screen.set_peer(to);
        }
        let Some(to) = self.screen.peer() else {
            return self.refuse("to whom? Begin with @name, or choose one: /to name");
        };
        if let Err(why) = check_message(&to, text) {
            self.screen.take_peer_back(&to, before);
            let text = screen::brief(text);
            return self.refuse(&format!("not sent to {to}, {}: {text}", why.words));
        }
        self.screen.begin_message(&to, text);
        let order = |done| Order::Say { to, before, text: text.to_owned(), done };
        if !self.edited || !awaited {
            let (done, _) = channel();
            return self.desk.give_in_turn(order(done), &self.screen);
        }
        if !self.desk.await_done(order) {
            self.screen.take_message_back();
            self.refuse(&format!("not sent, too much waits already: {}", screen::brief(text)));
        }
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
