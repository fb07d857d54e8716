//! The person's terminal: asked for what must not be seen, and left as it was found, however the
//! command ends.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::thread;

/// Ends the process on Ctrl+C and its like with the exit code of a shell, 128 and the signal's
/// number; the terminal is what it was when this was called.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn end_on_signals() -> Result<(), String> {
    let failed = |error: io::Error| format!("signals: {error}");
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let found = open().ok().and_then(|terminal| Some((tcgetattr(&terminal).ok()?, terminal)));
    let wait = move || {
        let signal = signals.forever().next().unwrap_or(SIGINT);
        if let Some((modes, terminal)) = found {
            // The shell sets a terminal in order that can't be set here.
            let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
        }
        std::process::exit(interrupted(signal));
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(())
}

fn interrupted(signal: i32) -> i32 {
    128 + signal
}

/// Asks for a line that is not shown while it is typed.
///
/// # Errors
/// Nobody sits at a terminal.
pub(super) fn ask_hidden(question: &str) -> io::Result<String> {
    let mut terminal = open()?;
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
    write!(terminal, "{question}")?;
    let line = {
        let _restored = Restored { terminal: &terminal, modes: &before };
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
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
