//! Settings that differ between the servers of a group. What would break the group is refused in
//! the hello; everything else each server tells the others on each new link, and differences are
//! logged and shown: with another address for one server, clients are led nowhere, and with
//! `accounts` or a timeout that differ a handover changes what clients may do.

use super::Node;
use crate::ids::{LinkId, ServerId};
use crate::protocol;
use crate::replica::Packet;
use std::fmt::Write as _;

/// The longest text of settings that is read, in bytes.
const SETTINGS_BYTES_MAX: usize = 4096;

/// What the other servers say of their settings.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// On which link each server was told this one's settings.
    told: [Option<LinkId>; 3],
    /// What each server has that is different here, by id.
    differences: [Option<String>; 3],
}

impl Compared {
    /// The differences to all others, for a person; `-` when there are none.
    pub(super) fn shown(&self) -> String {
        let each = ServerId::all(3).zip(&self.differences);
        let each = each.filter_map(|(id, found)| Some(format!("server {id}: {}", found.as_ref()?)));
        let all: Vec<String> = each.collect();
        if all.is_empty() { "-".to_owned() } else { all.join("; ") }
    }
}

impl Node {
    /// Tells a server this one's settings, once on each link.
    pub(super) fn tell_settings(
        &mut self,
        link: LinkId,
        packets: &mut Vec<(LinkId, Packet, Vec<u8>)>,
    ) {
        let Some(member) = self.replica.member_on(link) else { return };
        let told = &mut self.compared.told[member.id.slot()];
        if told.replace(link) != Some(link) {
            packets.push((link, Packet::Settings, encode(&self.setup.settings)));
        }
    }

    /// Another server has told its settings.
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

/// Each setting a line, `key=value`.
fn encode(settings: &[(String, String)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in settings {
        writeln!(text, "{key}={value}").expect("a string takes every line");
    }
    let mut text = text.into_bytes();
    text.truncate(SETTINGS_BYTES_MAX);
    text
}

/// Reads what [`encode`] has written, or anything else: what is no setting is passed over.
fn decode(text: &[u8]) -> Vec<(String, String)> {
    let text = &text[..text.len().min(SETTINGS_BYTES_MAX)];
    let text = String::from_utf8_lossy(text);
    let plain = |line: &&str| protocol::is_text(line);
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    text.lines().filter(plain).filter_map(pair).collect()
}

/// What differs, for a person. A key that one side does not know is that of another version.
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
