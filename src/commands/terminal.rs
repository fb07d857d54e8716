//! The user's terminal: asks for hidden input, and restores the terminal however the command
//! ends.

use super::Named;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{panic, thread};

/// `None` if this process has not changed the terminal's modes: it then leaves the terminal alone,
/// which another process may have changed.
static FOUND: Mutex<Option<Found>> = Mutex::new(None);
/// Returns the message to print when a signal ends the command.
static LAST_WORDS: OnceLock<Box<dyn Fn() -> Option<String> + Send + Sync>> = OnceLock::new();

struct Found {
    terminal: File,
    /// The original modes.
    modes: Termios,
    /// A line editor may have changed more of the terminal than its modes.
    edited: bool,
}

/// Disables bracketed paste, and shows the cursor.
const UNEDITED: &[u8] = b"\x1b[?2004l\x1b[?25h";

/// The exit code after a panic, Rust's own.
const PANICKED: i32 = 101;
/// The exit code after Ctrl+C.
pub(super) const INTERRUPTED: u8 = interrupted(SIGINT) as u8;

/// Ends the process on SIGINT, SIGTERM and SIGHUP with the exit code of a shell, 128 plus the
/// signal's number. Restores the terminal first. Ignored signals stay ignored, as under `nohup`.
///
/// # Errors
/// Signals cannot be handled, or the thread cannot be started.
pub fn end_on_signals() -> Result<(), String> {
    let ignored = ignored_signals();
    let is_wanted = |signal: &i32| ignored >> (signal - 1) & 1 == 0;
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(is_wanted);
    let mut signals = Signals::new(wanted).named("signals")?;
    let wait = move || {
        // `None`: all of the signals are ignored.
        let Some(signal) = signals.forever().next() else { return };
        restore();
        if let Some(words) = LAST_WORDS.get().and_then(|words| words()) {
            super::complain(&words);
        }
        std::process::exit(interrupted(signal));
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).named("signals")?;
    restore_on_panic();
    Ok(())
}

/// Makes a panic of any thread restore the terminal and end the process at once. No destructor
/// runs then, so none could restore the terminal.
fn restore_on_panic() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if let Ok(mut found) = FOUND.try_lock() {
            put_back(found.take());
        }
        say(info);
        std::process::exit(PANICKED);
    }));
}

/// Sets the message to print when a signal ends the command.
pub(super) fn set_last_words(words: impl Fn() -> Option<String> + Send + Sync + 'static) {
    LAST_WORDS.get_or_init(|| Box::new(words));
}

/// Returns the signals that the parent process left ignored, one bit each, the lowest for signal
/// 1.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

const fn interrupted(signal: i32) -> i32 {
    128 + signal
}

/// Saves the terminal's modes before a line editor changes them.
pub(super) fn begin_editing() {
    if let Ok(terminal) = open()
        && let Ok(modes) = tcgetattr(&terminal)
    {
        *found() = Some(Found { terminal, modes, edited: true });
    }
}

/// Restores the terminal if it was changed, and begins a new line.
pub(super) fn restore() {
    put_back(found().take());
}

fn put_back(found: Option<Found>) {
    if let Some(Found { mut terminal, modes, edited }) = found {
        // If this fails, the shell restores the terminal.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
        let _ = terminal.write_all(if edited { UNEDITED } else { b"" });
        let _ = terminal.write_all(b"\n");
    }
}

fn found() -> std::sync::MutexGuard<'static, Option<Found>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for a line that is not echoed while it is typed.
///
/// # Errors
/// There is no terminal, or the input ends without an answer.
pub(super) fn ask_hidden(question: &str) -> io::Result<String> {
    let terminal = open()?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
    // Disables suspending: after that, a shell would resume the command with echo.
    hidden.special_codes[SpecialCodeIndex::VSUSP] = 0;
    *found() =
        Some(Found { terminal: terminal.try_clone()?, modes: before.clone(), edited: false });
    let ask = || {
        // Disables echo before asking, so that text typed early is hidden, too.
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        (&terminal).write_all(question.as_bytes())?;
        let mut line = String::new();
        BufReader::new(&terminal).read_line(&mut line)?;
        Ok(line)
    };
    let line: io::Result<String> = ask();
    let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    *found() = None;
    let line = line?;
    let answer = line.trim_end_matches(['\r', '\n']);
    if line.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(answer.to_owned()) }
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}
