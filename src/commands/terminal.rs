//! The person's terminal: asked for what must not be seen, and left as it was found, however the
//! command ends.

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{panic, thread};

/// The terminal as it was before it was changed, to be put back; who has not changed it leaves it
/// alone, for it may be another one's.
static FOUND: Mutex<Option<(File, Termios)>> = Mutex::new(None);
/// A line editor has changed more of it than its modes.
static EDITED: AtomicBool = AtomicBool::new(false);
/// What to say when a signal ends the command.
static LAST_WORDS: OnceLock<Box<dyn Fn() -> Option<String> + Send + Sync>> = OnceLock::new();

/// Pastes are marked no more, and the cursor is seen.
const UNEDITED: &[u8] = b"\x1b[?2004l\x1b[?25h";

/// The exit code after a panic, Rust's own.
const PANICKED: i32 = 101;
/// The exit code after Ctrl+C.
pub(super) const INTERRUPTED: u8 = interrupted(SIGINT) as u8;

/// Ends the process on Ctrl+C and its like with the exit code of a shell, 128 and the signal's
/// number; the terminal is put back. A signal that is ignored stays so, as under `nohup`.
///
/// # Errors
/// There is no thread to be had.
pub fn end_on_signals() -> Result<(), String> {
    let failed = |error: io::Error| format!("signals: {error}");
    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_among(ignored, *signal));
    let mut signals = Signals::new(wanted).map_err(failed)?;
    let wait = move || {
        // None: all are ignored.
        let Some(signal) = signals.forever().next() else { return };
        restore();
        if let Some(words) = LAST_WORDS.get().and_then(|words| words()) {
            super::complain(&words);
        }
        std::process::exit(interrupted(signal));
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
    restore_on_panic();
    Ok(())
}

/// A panic of any thread ends the process where it stands: nothing is dropped, and nothing put back
/// by that.
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

/// What is said when a signal ends the command.
pub(super) fn set_last_words(words: impl Fn() -> Option<String> + Send + Sync + 'static) {
    LAST_WORDS.get_or_init(|| Box::new(words));
}

/// The signals that the parent wants ignored, a bit each from the lowest.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

fn is_among(signals: u64, signal: i32) -> bool {
    signals >> (signal - 1) & 1 == 1
}

const fn interrupted(signal: i32) -> i32 {
    128 + signal
}

/// From now on a line editor changes the terminal.
pub(super) fn begin_editing() {
    if let Ok(terminal) = open()
        && let Ok(modes) = tcgetattr(&terminal)
    {
        *found() = Some((terminal, modes));
        EDITED.store(true, Ordering::Relaxed);
    }
}

/// Puts the terminal back, on a new line, if it was changed.
pub(super) fn restore() {
    put_back(found().take());
}

fn put_back(found: Option<(File, Termios)>) {
    if let Some((mut terminal, modes)) = found {
        let edited = EDITED.load(Ordering::Relaxed);
        // The shell sets a terminal in order that can't be set here.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
        let _ = terminal.write_all(if edited { UNEDITED } else { b"" });
        let _ = terminal.write_all(b"\n");
    }
}

fn found() -> std::sync::MutexGuard<'static, Option<(File, Termios)>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for a line that is not shown while it is typed.
///
/// # Errors
/// Nobody sits at a terminal, or nobody answers.
pub(super) fn ask_hidden(question: &str) -> io::Result<String> {
    let terminal = open()?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
    // Suspended here, a shell would come back to it with an echo.
    hidden.special_codes[SpecialCodeIndex::VSUSP] = 0;
    *found() = Some((terminal.try_clone()?, before.clone()));
    let line = {
        let _restored = Restored { terminal: &terminal, modes: &before };
        // Before the question: who types at once is not seen either.
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        (&terminal).write_all(question.as_bytes())?;
        let mut line = String::new();
        BufReader::new(&terminal).read_line(&mut line)?;
        line
    };
    let answer = line.trim_end_matches(['\r', '\n']);
    if line.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(answer.to_owned()) }
}

/// Sets a terminal back when it is dropped.
struct Restored<'a> {
    terminal: &'a File,
    modes: &'a Termios,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, self.modes);
        *found() = None;
    }
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}
