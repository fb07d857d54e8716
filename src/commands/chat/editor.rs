//! The input line that the user edits. A pipe, or a terminal without cursor movements, delivers
//! plain lines.

use super::screen::Screen;
use super::{Desk, Named, Order, terminal, typed};
use crate::limits::LINE_BYTES_MAX;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, ColorMode, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event,
    EventContext, EventHandler, Helper, KeyCode, KeyEvent, Modifiers, Movement,
};
use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a completion waits for names from the servers.
const COMPLETION_TIME: Duration = Duration::from_millis(300);
/// Number of lines that the arrow keys recall.
const HISTORY_MAX: usize = 1000;
/// The escape sequences that begin and end dimmed text.
const DIM: (&str, &str) = ("\x1b[2m", "\x1b[0m");

/// The source of lines.
pub(super) enum Input {
    /// A terminal that can edit lines.
    Edited {
        /// The line editor.
        editor: Box<Editor<Assistant, MemHistory>>,
        /// The thread that shows lines above the prompt.
        screen: JoinHandle<()>,
    },
    /// A pipe, a file, or a terminal without cursor movements.
    Plain,
}

/// The result of reading a line.
pub(super) enum Read {
    /// A line without its end; a paste may have more than one.
    Line(String),
    /// A line that cannot be read, and why.
    Bad(String),
    /// The end of the input.
    End,
    /// Ctrl+C.
    Interrupted,
}

impl Input {
    /// Opens a line editor if this is a terminal that can edit lines.
    pub(super) fn open(screen: &Arc<Screen>, desk: &Desk) -> Result<Input, String> {
        if !Input::is_terminal() {
            return Ok(Input::Plain);
        }
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .auto_add_history(false)
            .max_history_size(HISTORY_MAX)
            .named("the terminal")?
            // Makes rustyline call `highlight_prompt` each time it shows the prompt. The colors
            // are our own.
            .color_mode(ColorMode::Forced)
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).named("the terminal")?;
        terminal::begin_editing();
        let printer = editor.create_external_printer().named("the terminal")?;
        let above = screen.show_above(printer).named("no thread")?;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let (screen, desk) = (Arc::clone(screen), desk.clone());
        let dim = if plain { ("", "") } else { DIM };
        let hides = Arc::new(AtomicBool::new(false));
        let gate = EventHandler::Conditional(Box::new(Gate { hides: Arc::clone(&hides) }));
        editor.bind_sequence(Event::Any, gate);
        editor.set_helper(Some(Assistant { screen, desk, dim, hides }));
        Ok(Input::Edited { editor: Box::new(editor), screen: above })
    }

    /// Releases the terminal, and shows the lines that remain.
    pub(super) fn close(self, screen: &Screen) {
        screen.end();
        if let Input::Edited { editor, screen } = self {
            // Dropping the editor unblocks a line above the prompt that may still wait for it.
            drop(editor);
            let _ = screen.join();
        }
    }

    /// Returns whether lines can be edited here.
    pub(super) fn is_terminal() -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        !dumb && io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Waits for a line.
    pub(super) fn read(&mut self, screen: &Screen) -> Read {
        let Input::Edited { editor, .. } = self else { return read_plain(io::stdin().lock()) };
        let line = editor.readline(&prompt(screen));
        screen.set_prompted(false);
        match line {
            Ok(line) => {
                // A full history drops its oldest line.
                let _ = editor.add_history_entry(&line);
                Read::Line(line)
            }
            Err(ReadlineError::Interrupted) => Read::Interrupted,
            // A letter from an 8-bit terminal. The text typed before it is lost, too.
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Read::Bad("that key sent no UTF-8: set the terminal to UTF-8".to_owned())
            }
            Err(ReadlineError::Eof | ReadlineError::Io(_) | ReadlineError::Errno(_)) => Read::End,
            Err(error) => Read::Bad(error.to_string()),
        }
    }

    /// Asks for a password. Uses the line editor if there is one, so that text typed ahead is not
    /// mistaken for something else. Returns `None` if there is no answer.
    pub(super) fn ask_hidden(&mut self, screen: &Screen, question: &str) -> Option<String> {
        let Input::Edited { editor, .. } = self else { return terminal::ask_hidden(question).ok() };
        let hides = editor.helper().map(|assistant| Arc::clone(&assistant.hides));
        let hide = |on| hides.iter().for_each(|hides| hides.store(on, Ordering::Relaxed));
        hide(true);
        let line = editor.readline(question);
        screen.set_prompted(false);
        hide(false);
        // A paste may end with a line end.
        line.ok().map(|line| line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// Reads a line of a pipe, of at most `LINE_BYTES_MAX` bytes.
fn read_plain(mut input: impl BufRead) -> Read {
    let mut line = Vec::new();
    let bound = LINE_BYTES_MAX as u64 + 1;
    match (&mut input).take(bound).read_until(b'\n', &mut line) {
        Ok(1..) => {}
        _ => return Read::End,
    }
    if line.pop_if(|byte| *byte == b'\n').is_none() && line.len() > LINE_BYTES_MAX {
        return match input.skip_until(b'\n') {
            Ok(_) => Read::Bad("a line is too long".to_owned()),
            Err(_) => Read::End,
        };
    }
    line.pop_if(|byte| *byte == b'\r');
    String::from_utf8(line).map_or_else(|_| Read::Bad("a line is not UTF-8".to_owned()), Read::Line)
}

/// Returns the prompt: the connection status, and the receiver of messages.
fn prompt(screen: &Screen) -> String {
    format!("{} {}> ", screen.status(), screen.peer().unwrap_or_default())
}

/// Shortens the first part of a status, the server's name, so that the whole fits into `width`
/// characters.
fn fit(status: &str, width: usize) -> String {
    let surplus = status.chars().count().saturating_sub(width);
    if surplus == 0 {
        return status.to_owned();
    }
    let (name, rest) = status.split_at(status.find(", ").unwrap_or(status.len()));
    let kept = name.chars().count().saturating_sub(surplus + 1).max(1);
    let whole: String = name.chars().take(kept).chain(['…']).chain(rest.chars()).collect();
    whole.chars().take(width).collect()
}

/// Completes names and commands, masks passwords, and updates the prompt.
pub(super) struct Assistant {
    screen: Arc<Screen>,
    desk: Desk,
    dim: (&'static str, &'static str),
    /// Set while a password is typed.
    hides: Arc<AtomicBool>,
}

/// Filters keys. While a password is typed it passes only plain typing: other keys could keep the
/// password for later, or show it. Also decides what Ctrl+C does.
struct Gate {
    hides: Arc<AtomicBool>,
}

impl ConditionalEventHandler for Gate {
    fn handle(&self, event: &Event, _: u16, _: bool, at: &EventContext<'_>) -> Option<Cmd> {
        let hides = self.hides.load(Ordering::Relaxed);
        // As in a shell, Ctrl+C clears a line that has text, and leaves at an empty one.
        if event.get(0) == Some(&KeyEvent::ctrl('C')) && !hides && !at.line().is_empty() {
            return Some(Cmd::Kill(Movement::WholeBuffer));
        }
        let is_plain = |key: &KeyEvent| match key.0 {
            KeyCode::Char(_) => {
                key.1.difference(Modifiers::SHIFT).is_empty()
                    || ['C', 'D', 'H', 'J', 'M'].map(KeyEvent::ctrl).contains(key)
            }
            KeyCode::Backspace | KeyCode::Enter | KeyCode::BracketedPasteStart => true,
            _ => false,
        };
        (hides && !event.get(0).is_some_and(is_plain)).then_some(Cmd::Noop)
    }
}

impl Assistant {
    fn hides(&self) -> bool {
        self.hides.load(Ordering::Relaxed)
    }

    /// Returns the names that begin with `prefix`: those that were shown, and those that the
    /// servers know.
    fn names(&self, prefix: &str) -> Vec<String> {
        if prefix.is_empty() {
            // The names of all users would be too many.
            return self.screen.names(prefix);
        }
        let (sender, names) = channel();
        self.desk.give(Order::Complete { prefix: prefix.to_owned(), names: sender });
        let known = names.recv_timeout(COMPLETION_TIME).unwrap_or_default();
        let mut all = [known, self.screen.names(prefix)].concat();
        all.sort();
        all.dedup();
        all
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if self.hides() {
            return Ok((at, Vec::new()));
        }
        let line = &line[..at];
        let pair = |word: &str| Pair { display: word.to_owned(), replacement: format!("{word} ") };
        let begin = ["@", "/to "].into_iter().find(|begin| line.starts_with(begin));
        if let Some(begin) = begin
            && !line[begin.len()..].contains(' ')
        {
            let names = self.names(&line[begin.len()..].to_ascii_lowercase());
            return Ok((begin.len(), names.iter().map(|name| pair(name)).collect()));
        }
        let commands = typed::COMMANDS.iter().map(|(name, ..)| *name);
        let fits = |name: &&str| line.starts_with('/') && name.starts_with(line);
        Ok((0, commands.filter(fits).map(pair).collect()))
    }
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        match self.hides() {
            true => Cow::Owned("*".repeat(line.chars().count())),
            false => Cow::Borrowed(line),
        }
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        self.hides()
    }

    /// Called each time the prompt is shown. Inserts the current status in the width of the old
    /// one.
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        self.screen.set_prompted(true);
        let (begin, end) = self.dim;
        match prompt.trim_end().rsplit_once(' ') {
            Some((status, peer)) if !self.hides() => {
                let width = status.chars().count();
                let now = fit(&self.screen.status(), width);
                Cow::Owned(format!("{begin}{now:width$}{end} {peer} "))
            }
            _ => Cow::Borrowed(prompt),
        }
    }
}

impl Hinter for Assistant {
    type Hint = String;
}
impl Validator for Assistant {}
impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_does_not_fit_keeps_the_number_of_copies() {
        for (status, width, shown) in [
            ("lab1, 3 copies", 14, "lab1, 3 copies"),
            ("a-long-name, 3 copies", 16, "a-lon…, 3 copies"),
            ("lab1, 3 copies", 12, "l…, 3 copies"),
            ("no server", 5, "no s…"),
        ] {
            assert_eq!(fit(status, width), shown, "{status} {width}");
        }
    }

    #[test]
    fn lines_of_a_pipe_are_bounded() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = [b"one\r\n", long.as_bytes(), b"\ncaf\xe9\n\nlast"].concat();
        let mut input = &text[..];
        let mut said = Vec::new();
        loop {
            match read_plain(&mut input) {
                Read::Line(line) => said.push(line),
                Read::Bad(why) => said.push(why),
                Read::End | Read::Interrupted => break,
            }
        }
        assert_eq!(said, ["one", "a line is too long", "a line is not UTF-8", "", "last"]);
    }
}
