//! One system under load: what it acknowledges, and what that takes of the machine.

use super::peer::NewDialect;
use crate::run::dialect::Dialect;
use crate::run::driver::drive;
use crate::run::parts::{Load, Observer, Outcome, Part};
use crate::run::text::Sizes;
use postern_testkit::process;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Connections, and the requests that each has outstanding.
pub(crate) const SETTINGS: [(usize, usize); 3] = [(1, 1), (64, 1), (64, 16)];
/// The length of all messages.
pub(crate) const TEXT_BYTES: usize = 100;
/// Before each measurement.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// Longer than any system here lets anybody wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Figures of one system with one of the settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Acknowledged messages per second.
    pub(crate) acks_per_second: f64,
    /// The latency that half of them did not exceed.
    pub(crate) p50: Duration,
    /// The same for 99 of 100.
    pub(crate) p99: Duration,
    /// Processor time of all servers for 100,000 acknowledgements.
    pub(crate) cpu_per_100k: Duration,
    /// Refusals, and lost connections, by what they say.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Drives the load on one server, with the processes of its system.
///
/// # Errors
/// It can't be driven, or nothing was acknowledged.
pub(crate) fn measure(
    server: SocketAddr,
    pids: &[u32],
    part: Part,
    time: Duration,
) -> Result<Figures, String> {
    let load = Load { warm_up: WARM_UP, measured: time, patience: PATIENCE, parts: vec![part] };
    let mut meter = Meter { pids: pids.to_vec(), readings: Vec::new() };
    let outcome = drive(load, &[server], &AtomicBool::new(false), &mut meter)?;
    let readings = meter.readings.into_iter().collect::<Result<Vec<_>, _>>()?;
    let [begin, end] = readings[..] else { return Err("the load has no end".to_owned()) };
    figures(outcome, end.saturating_sub(begin))
}

fn figures(outcome: Outcome, cpu: Duration) -> Result<Figures, String> {
    let ledger = outcome.ledger;
    if let Some(finding) = outcome.finding {
        return Err(finding);
    }
    let seconds = Duration::from_nanos(ledger.measured).as_secs_f64();
    if ledger.acked == 0 || seconds == 0.0 {
        return Err(format!("nothing was acknowledged; errors: {:?}", ledger.errors));
    }
    let quantile = |of| Duration::from_nanos(ledger.latencies.value_at_quantile(of));
    Ok(Figures {
        acks_per_second: ledger.acked as f64 / seconds,
        p50: quantile(0.5),
        p99: quantile(0.99),
        cpu_per_100k: cpu.mul_f64(1e5 / ledger.acked as f64),
        errors: ledger.errors,
    })
}

/// Clients of a system with one of the settings; `connections` counts those of all settings, so
/// that none has the name of another.
pub(crate) fn part(
    new: NewDialect,
    connections: &Rc<Cell<usize>>,
    (senders, depth): (usize, usize),
) -> Part {
    let connections = Rc::clone(connections);
    let dialect = Rc::new(move || -> Box<dyn Dialect> {
        connections.set(connections.get() + 1);
        new(connections.get())
    });
    Part {
        dialect,
        senders,
        depth,
        sizes: Sizes::fixed(TEXT_BYTES),
        rate: 0,
        mailboxes: senders,
        repeats: false,
        idle: 0,
        receivers: Vec::new(),
        storm: None,
        read_back: None,
    }
}

/// Reads the processor time of servers when the measured time begins and when it ends.
struct Meter {
    pids: Vec<u32>,
    readings: Vec<Result<Duration, String>>,
}

impl Meter {
    fn read(&mut self) {
        self.readings.push(self.pids.iter().map(|pid| process::cpu(*pid)).sum());
    }
}

impl Observer for Meter {
    fn begin(&mut self) {
        self.read();
    }

    fn end(&mut self) {
        self.read();
    }
}
