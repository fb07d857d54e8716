//! The line that a person edits; in a pipe or a terminal without cursor movements, just lines.

use super::screen::Screen;
use super::{Desk, Order, typed};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, Helper};
use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a completion waits for the names that the servers know.
const COMPLETION_TIME: Duration = Duration::from_millis(300);
/// Lines that the arrow keys bring back.
const HISTORY_MAX: usize = 1000;
/// What begins and ends a part that is not to be looked at.
const DIM: (&str, &str) = ("\x1b[2m", "\x1b[0m");

/// Where lines come from.
pub(super) enum Input {
    /// A terminal.
    Edited {
        /// The terminal.
        editor: Box<Editor<Assistant, MemHistory>>,
        /// Shows lines above.
        screen: JoinHandle<()>,
    },
    /// Anything else.
    Plain,
}

/// What came.
pub(super) enum Read {
    /// A line without its end.
    Line(String),
    /// There will be no more.
    End,
    /// Ctrl+C.
    Interrupted,
}

impl Input {
    /// Edits lines if this is a terminal that can do it.
    pub(super) fn open(screen: &Arc<Screen>, desk: &Desk) -> Result<Input, String> {
        let failed = |error: ReadlineError| format!("the terminal: {error}");
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if dumb || !terminal {
            return Ok(Input::Plain);
        }
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .auto_add_history(true)
            .max_history_size(HISTORY_MAX)
            .map_err(failed)?
            // Asks for the prompt each time it is shown, not for colours: those are ours.
            .color_mode(ColorMode::Forced)
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(failed)?;
        let printer = editor.create_external_printer().map_err(failed)?;
        let above = screen.show_above(printer).map_err(|error| format!("no thread: {error}"))?;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let (screen, desk) = (Arc::clone(screen), desk.clone());
        editor.set_helper(Some(Assistant {
            screen,
            desk,
            dim: if plain { ("", "") } else { DIM },
        }));
        Ok(Input::Edited { editor: Box::new(editor), screen: above })
    }

    /// Shows what is left.
    pub(super) fn close(self, screen: &Screen) {
        screen.end();
        if let Input::Edited { screen, .. } = self {
            let _ = screen.join();
        }
    }

    /// Whether a person sees a prompt.
    pub(super) fn is_edited(&self) -> bool {
        matches!(self, Input::Edited { .. })
    }

    /// Waits for a line.
    pub(super) fn read(&mut self, screen: &Screen) -> Read {
        match self {
            Input::Edited { editor, .. } => {
                let line = editor.readline(&prompt(screen));
                screen.set_prompted(false);
                match line {
                    Ok(line) => Read::Line(line),
                    Err(ReadlineError::Interrupted) => Read::Interrupted,
                    Err(_) => Read::End,
                }
            }
            Input::Plain => {
                let mut line = String::new();
                match io::stdin().lock().read_line(&mut line) {
                    Ok(1..) => Read::Line(line.trim_end_matches(['\r', '\n']).to_owned()),
                    _ => Read::End,
                }
            }
        }
    }
}

/// How things are, and to whom messages go.
fn prompt(screen: &Screen) -> String {
    format!("{} {}> ", screen.status(), screen.peer().unwrap_or_default())
}

/// Helps to edit.
pub(super) struct Assistant {
    screen: Arc<Screen>,
    desk: Desk,
    dim: (&'static str, &'static str),
}

impl Assistant {
    /// The names that begin so: those that were seen, and those that the servers know.
    fn names(&self, prefix: &str) -> Vec<String> {
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
    /// Each time the prompt is shown: with how things are by now, in the room that there was.
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        self.screen.set_prompted(true);
        let (begin, end) = self.dim;
        match prompt.trim_end().rsplit_once(' ') {
            Some((status, peer)) => {
                let width = status.chars().count();
                let mut now = self.screen.status();
                if now.chars().count() > width {
                    now = now.chars().take(width - 1).chain(['…']).collect();
                }
                Cow::Owned(format!("{begin}{now:width$}{end} {peer} "))
            }
            None => Cow::Borrowed(prompt),
        }
    }
}

impl Hinter for Assistant {
    type Hint = String;
}
impl Validator for Assistant {}
impl Helper for Assistant {}
