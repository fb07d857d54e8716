//! Finds settings that differ between the servers of a group. The hello refuses differences that
//! would break the group. Every server sends its other settings on each new link; differences are
//! logged and shown. If an address of a server differs, clients are sent to a wrong place. If
//! `accounts` or a timeout differs, a handover changes what clients may do.

use super::{Node, Output};
use crate::ids::{LinkId, ServerId};
use crate::protocol;
use crate::replica::Packet;
use std::fmt::Write as _;

/// The most bytes of settings that are read or sent.
const SETTINGS_BYTES_MAX: usize = 4096;

/// The comparison with the settings of the other servers.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// The link on which each server was last sent this server's settings.
    told: [Option<LinkId>; 3],
    /// The differences to each server, by id.
    differences: [Option<String>; 3],
}

impl Compared {
    /// Describes the differences to all other servers for a person; `-` when there are none.
    pub(super) fn shown(&self) -> String {
        let each = ServerId::all(3).zip(&self.differences);
        let each = each.filter_map(|(id, found)| Some(format!("server {id}: {}", found.as_ref()?)));
        let all: Vec<String> = each.collect();
        if all.is_empty() { "-".to_owned() } else { all.join("; ") }
    }
}

impl Node {
    /// Sends this server's settings to another server, once on each link.
    pub(super) fn tell_settings(&mut self, link: LinkId, out: &mut Output) {
        let Some(member) = self.replica.member_on(link) else { return };
        let told = &mut self.compared.told[member.id.slot()];
        if told.replace(link) != Some(link) {
            out.replica.send_with(link, Packet::Settings, encode(&self.setup.settings));
        }
    }

    /// Compares the settings that another server sent with this server's.
    pub(super) fn on_settings(&mut self, link: LinkId, text: &[u8]) {
        let Some(member) = self.replica.member_on(link) else { return };
        let theirs = decode(text);
        let found = differences(&self.setup.settings, &theirs);
        let slot = member.id.slot();
        if found.is_some() && found != self.compared.differences[slot] {
            let (id, address) = (member.id, self.address(member.id));
            let found = found.as_deref().unwrap_or_default();
            log::warn!("server {id} at {address} has other settings than this one: {found}");
        }
        self.compared.differences[slot] = found;
    }
}

/// Encodes settings as text, one line `key=value` each.
fn encode(settings: &[(String, String)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in settings {
        writeln!(text, "{key}={value}").expect("a string takes every line");
    }
    let mut text = text.into_bytes();
    text.truncate(SETTINGS_BYTES_MAX);
    text
}

/// Decodes the text of [`encode`], or any other bytes: lines that are no settings are ignored.
fn decode(text: &[u8]) -> Vec<(String, String)> {
    let text = &text[..text.len().min(SETTINGS_BYTES_MAX)];
    let text = String::from_utf8_lossy(text);
    let plain = |line: &&str| protocol::is_text(line);
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    text.lines().filter(plain).filter_map(pair).collect()
}

/// Describes the differences for a person. A key that only one side has is ignored: it belongs to
/// another version.
fn differences(own: &[(String, String)], theirs: &[(String, String)]) -> Option<String> {
    let found: Vec<String> = own
        .iter()
        .filter_map(|(key, here)| {
            let (_, there) = theirs.iter().find(|(other, _)| other == key)?;
            (there != here).then(|| format!("{key} = {there}, here {here}"))
        })
        .collect();
    (!found.is_empty()).then(|| found.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn differences_have_both_values() {
        let own = settings(&[("accounts", "open"), ("servers", "a:1,b:2"), ("takeover", "coin")]);
        assert_eq!(differences(&own, &decode(&encode(&own))), None);
        let theirs = settings(&[("accounts", "operator"), ("servers", "a:1,c:2"), ("new", "x")]);
        assert_eq!(
            differences(&own, &theirs).as_deref(),
            Some("accounts = operator, here open; servers = a:1,c:2, here a:1,b:2")
        );
    }

    #[test]
    fn what_is_no_setting_is_passed_over_and_nothing_is_unbounded() {
        assert_eq!(
            decode(b"\xff\xfe\nno pair\n=\n\x1b[2J=x\na=b=c"),
            settings(&[("", ""), ("a", "b=c"),])
        );
        let long = "k=v\n".repeat(SETTINGS_BYTES_MAX);
        assert_eq!(decode(long.as_bytes()).len(), SETTINGS_BYTES_MAX / 4);
    }
}
