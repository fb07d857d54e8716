//! The person's terminal: asked for what must not be seen, and left as it was found, however the
//! command ends.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::OnceLock;
use std::thread;

/// The terminal as it was found, to be put back.
static FOUND: OnceLock<(File, Termios)> = OnceLock::new();

/// The exit code after Ctrl+C.
pub(super) const INTERRUPTED: u8 = interrupted(SIGINT) as u8;

/// Ends the process on Ctrl+C and its like with the exit code of a shell, 128 and the signal's
/// number; the terminal is what it was when this was called.
///
/// # Errors
/// There is no thread to be had.
pub fn end_on_signals() -> Result<(), String> {
    let failed = |error: io::Error| format!("signals: {error}");
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    if let Ok(terminal) = open()
        && let Ok(modes) = tcgetattr(&terminal)
    {
        FOUND.get_or_init(|| (terminal, modes));
    }
    let wait = move || {
        let signal = signals.forever().next().unwrap_or(SIGINT);
        restore();
        std::process::exit(interrupted(signal));
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(())
}

/// Puts the terminal back as [`end_on_signals`] found it, on a new line.
pub(super) fn restore() {
    if let Some((terminal, modes)) = FOUND.get() {
        let mut is_changed =
            tcgetattr(terminal).is_ok_and(|now| now.local_modes != modes.local_modes);
        is_changed &= tcsetattr(terminal, OptionalActions::Now, modes).is_ok();
        if is_changed {
            let _ = (&*terminal).write_all(b"\n");
        }
    }
}

const fn interrupted(signal: i32) -> i32 {
    128 + signal
}

/// Asks for a line that is not shown while it is typed.
///
/// # Errors
/// Nobody sits at a terminal.
pub(super) fn ask_hidden(question: &str) -> io::Result<String> {
    let terminal = open()?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
    let line = {
        let _restored = Restored { terminal: &terminal, modes: &before };
        // Before the question: who types at once is not seen either.
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        (&terminal).write_all(question.as_bytes())?;
        let mut line = String::new();
        BufReader::new(&terminal).read_line(&mut line)?;
        line
    };
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Sets a terminal back when it is dropped.
struct Restored<'a> {
    terminal: &'a File,
    modes: &'a Termios,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, self.modes);
    }
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}
