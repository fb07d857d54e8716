//! A terminal of 80 by 24 with a command that believes that a person uses it, and the screen that
//! the person sees.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use crate::common::{DEADLINE, run_by, wait_child, wait_for, with_signals};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

pub struct Terminal {
    /// The user's end.
    master: File,
    /// The command's end, kept open so that the terminal outlives the command.
    slave: File,
    bytes: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// Everything that was ever shown, as bytes.
    pub shown: Vec<u8>,
    child: Child,
}

impl Terminal {
    /// Runs a command in a new terminal, as the leader of its own session.
    pub fn run(command: &Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let master = master.expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let name = PathBuf::from(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let no_control = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
        let slave = File::options().read(true).write(true).custom_flags(no_control).open(name);
        let slave = slave.expect("its other end");
        let [rows, columns] = [24, 80].map(|n| NonZero::new(n).expect("it has a size"));
        let (ws_row, ws_col) = (rows.get(), columns.get());
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("it takes a size");
        let mut session = Command::new("setsid");
        session.arg("--ctty").env("TERM", "xterm").env("TZ", "UTC0").env_remove("NO_COLOR");
        let mut session = run_by(session, &with_signals(command));
        let end = || slave.try_clone().expect("it can be shared");
        session.stdin(end()).stdout(end()).stderr(end());
        let child = session.spawn().expect("util-linux is installed");
        let master = File::from(master);
        let mut reader = master.try_clone().expect("it can be shared");
        let (sender, bytes) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = vt100::Parser::new(rows, columns, 0);
        Terminal { master, slave, bytes, screen, shown: Vec::new(), child }
    }

    /// Types a text.
    pub fn type_in(&mut self, text: &str) {
        self.type_bytes(text.as_bytes());
    }

    /// Types bytes that need not be UTF-8.
    pub fn type_bytes(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("the terminal is there");
    }

    /// Returns the current screen without trailing blanks and empty lines.
    pub fn text(&self) -> String {
        let rows = self.screen.screen().contents();
        rows.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    /// Waits until the screen satisfies `done`.
    pub fn wait(&mut self, what: &str, done: impl Fn(&str) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !done(&self.text()) {
            let left = end.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left.min(Duration::from_millis(50))) {
                Ok(bytes) => {
                    self.screen.process(&bytes);
                    self.shown.extend(bytes);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the terminal is gone"),
            }
            assert!(!left.is_zero(), "not {what}:\n{}", self.text());
        }
    }

    /// Waits until the screen contains a text.
    pub fn see(&mut self, text: &str) {
        self.wait(text, |screen| screen.contains(text));
    }

    /// Waits until the last line of the screen equals `line`.
    pub fn see_last(&mut self, line: &str) {
        self.wait(line, |screen| screen.lines().last() == Some(line));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits until the command handles a signal, which would otherwise just kill it.
    pub fn listens_for(&self, signal: Signal) {
        let bit = 1u64 << (signal.as_raw() - 1);
        let path = format!("/proc/{}/status", self.child.id());
        let listens = || {
            let status = std::fs::read_to_string(&path).expect("it runs");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16).unwrap_or(0);
            (caught & bit != 0).then_some(())
        };
        wait_for(listens, || format!("it does not listen for {signal:?}"));
    }

    /// Waits until the command ends, and returns its exit status.
    pub fn end(&mut self) -> ExitStatus {
        let text = self.text();
        wait_child(&mut self.child, || format!("it does not end:\n{text}"))
    }

    /// Returns whether the terminal is as a shell expects it: echo and line editing are on.
    pub fn is_sane(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("it is a terminal").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
