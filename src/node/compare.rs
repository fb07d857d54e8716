//! Finds settings that differ between the servers of a group. The hello refuses differences that
//! would break the group. Every server sends its other settings on each new link; differences are
//! logged and shown. If an address of a server differs, clients are sent to a wrong place. If
//! `accounts` or a timeout differs, a handover changes what clients may do.

use super::{Node, Output};
use crate::ids::{LinkId, ServerId};
use crate::protocol;
use crate::replica::Packet;

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
            let settings = self.setup.settings.bytes().take(SETTINGS_BYTES_MAX).collect();
            out.replica.send_with(link, Packet::Settings, settings);
        }
    }

    /// Compares the settings that another server sent with this server's.
    pub(super) fn on_settings(&mut self, link: LinkId, text: &[u8]) {
        let Some(member) = self.replica.member_on(link) else { return };
        let found = differences(&self.setup.settings, text);
        let slot = member.id.slot();
        if found.is_some() && found != self.compared.differences[slot] {
            let (id, address) = (member.id, self.address(member.id));
            let found = found.as_deref().unwrap_or_default();
            log::warn!("server {id} at {address} has other settings than this one: {found}");
        }
        self.compared.differences[slot] = found;
    }
}

/// Describes the differences for a person. A key that only one side has is ignored: it belongs to
/// another version. The other server may have sent any bytes; lines that are no settings are
/// ignored, too.
fn differences(own: &str, theirs: &[u8]) -> Option<String> {
    let theirs = String::from_utf8_lossy(&theirs[..theirs.len().min(SETTINGS_BYTES_MAX)]);
    let plain = |line: &&str| protocol::is_text(line);
    let theirs = || theirs.lines().filter(plain).filter_map(|line| line.split_once('='));
    let own = own.lines().filter_map(|line| line.split_once('='));
    let found = own.filter_map(|(key, here)| {
        let (_, there) = theirs().find(|(other, _)| *other == key)?;
        (there != here).then(|| format!("{key} = {there}, here {here}"))
    });
    let found: Vec<String> = found.collect();
    (!found.is_empty()).then(|| found.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_both_values() {
        let own = "accounts=open\nservers=a:1,b:2\ntakeover=coin\n";
        assert_eq!(differences(own, own.as_bytes()), None);
        let theirs = b"accounts=operator\nservers=a:1,c:2\nnew=x\n";
        assert_eq!(
            differences(own, theirs).as_deref(),
            Some("accounts = operator, here open; servers = a:1,c:2, here a:1,b:2")
        );
    }

    #[test]
    fn what_is_no_setting_is_passed_over_and_nothing_is_unbounded() {
        let own = "a=b\nc=d\ne=f\n";
        assert_eq!(
            differences(own, b"\xff\xfe\nno pair\n=\nc=\x1b[2J\na=b=c").as_deref(),
            Some("a = b=c, here b")
        );
        let within = "k=v\n".repeat(SETTINGS_BYTES_MAX / 4 - 1) + "e=g\n";
        assert_eq!(differences(own, within.as_bytes()).as_deref(), Some("e = g, here f"));
        assert_eq!(differences(own, ("k=v\n".to_owned() + &within).as_bytes()), None);
    }
}
