//! Wakes the event loop with a finer resolution than the milliseconds of its poll.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// A timerfd in the readiness set. It is never read: setting it again clears it.
pub(crate) struct Timer {
    file: OwnedFd,
}

impl Timer {
    /// Creates a timer that is not set.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&file.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Timer { file })
    }

    /// Makes the poll return after this time.
    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would disable the timer.
        let after = after.max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        };
        let times = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &times)?;
        Ok(())
    }
}
