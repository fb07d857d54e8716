//! Builds the answer to `STATUS`. Every server shows every key in every state.

use super::{Context, Node};
use crate::ids::ServerId;
use crate::replica::RoleView;
use crate::time::WallTime;
use std::fmt::Display;

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Node {
    /// Returns every key and its value, in the order in which `STATUS` shows them.
    pub(super) fn status(&mut self, world: &Context<'_>) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut stat = |key: &str, value: String| all.push((key.to_owned(), value));
        self.add_group(world, &mut stat);
        self.add_counts(world, &mut stat);
        self.add_peers(world, &mut stat);
        all
    }

    fn add_group(&self, world: &Context<'_>, stat: &mut impl FnMut(&str, String)) {
        let replica = &self.replica;
        let role = match replica.role() {
            RoleView::Blank => "blank",
            RoleView::Learner => "learner",
            RoleView::Backup => "backup",
            RoleView::Candidate => "candidate",
            RoleView::Primary => "primary",
        };
        let primary = replica.primary(world.now);
        let missing = ServerId::all(self.setup.addresses.len() as u8)
            .filter(|id| replica.config().and_then(|config| config.member(*id)).is_none());
        let missing: Vec<String> = missing.map(|id| id.to_string()).collect();
        let missing = (!missing.is_empty()).then(|| missing.join(","));
        stat("version", env!("CARGO_PKG_VERSION").to_owned());
        stat("server", replica.me().to_string());
        stat("role", role.to_owned());
        stat("primary", or_dash(primary.map(|at| format!("{} {}", at.id, self.address(at.id)))));
        stat("servers", self.setup.addresses.join(","));
        stat("term", replica.term().to_string());
        stat("members", or_dash(replica.config()));
        stat("missing", or_dash(missing));
        stat("gate", if replica.gate_open() { "open" } else { "closed" }.to_owned());
        let trouble = self.trouble(world.now);
        let (waiting, servers) = trouble.map_or((None, Vec::new()), |t| (Some(t.words), t.servers));
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        stat("waiting", or_dash(waiting));
        stat("waiting_for", or_dash((!servers.is_empty()).then(|| servers.join(","))));
        stat("set_aside", self.quarantine());
        stat("settings_differ", self.compared.shown());
        stat("last_index", replica.last().to_string());
        stat("committed_index", replica.committed().to_string());
        stat("acknowledged_index", replica.acknowledged().to_string());
        stat("applied_index", self.applied.to_string());
    }

    fn add_counts(&mut self, world: &Context<'_>, stat: &mut impl FnMut(&str, String)) {
        let now = world.now;
        let mut gauges = (world.gauges)();
        let sessions = self.delivery.online.values().map(Vec::len).sum::<usize>();
        let (commits, window) = self.commits.count(now);
        let (syncs, _) = gauges.syncs.count(now);
        let rate = |count: u64, per: f64| if per > 0.0 { count as f64 / per } else { 0.0 };
        stat("accounts", self.mailboxes.accounts().to_string());
        stat("sessions", sessions.to_string());
        stat("connections", gauges.connections.to_string());
        stat("messages", self.mailboxes.messages().to_string());
        stat("log_bytes", gauges.log_bytes.to_string());
        stat("log_repaired", gauges.repaired.to_string());
        stat("log_damaged", gauges.unrepaired.to_string());
        stat("log_checked", or_dash(gauges.scrubbed.map(WallTime::rfc3339)));
        stat("disk_free_bytes", or_dash(gauges.disk_free_bytes));
        stat("memory_bytes", or_dash(gauges.memory_bytes));
        stat("uptime_seconds", (now - self.began).as_secs().to_string());
        stat("turns", gauges.turns.to_string());
        stat("commits_per_second", format!("{:.0}", rate(commits, window.as_secs_f64())));
        stat("commits_per_sync", format!("{:.1}", rate(commits, syncs as f64)));
        stat("commit_p50_us", or_dash(self.commits.quantile_us(now, 0.5)));
        stat("commit_p99_us", or_dash(self.commits.quantile_us(now, 0.99)));
        stat("sync_p50_us", or_dash(gauges.syncs.quantile_us(now, 0.5)));
        stat("sync_p99_us", or_dash(gauges.syncs.quantile_us(now, 0.99)));
        let skew = self.replica.clock_skew(now);
        stat("clock_skew_ms", or_dash(skew.map(|skew| skew.as_millis())));
        stat("sync_worst_us", gauges.syncs.worst().as_micros().to_string());
    }

    fn add_peers(&self, world: &Context<'_>, stat: &mut impl FnMut(&str, String)) {
        for id in ServerId::all(3) {
            stat(&format!("peer_{id}_lag"), or_dash(self.replica.peer_lag(id)));
            stat(&format!("peer_{id}_state"), self.replica.peer_state(id, world.now).to_owned());
        }
    }
}
