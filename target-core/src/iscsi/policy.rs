//! Who may log in to a target, which LUNs they see, and whether they may write.

use std::collections::BTreeMap;

pub use super::chap::Credentials;
pub use super::portals::Way;
pub use crate::scsi::Mode;

/// Who a session belongs to, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// Name it has proved by CHAP.
    pub chap_user: Option<String>,
    /// By which way it came.
    pub way: Way,
}

impl Who {
    /// Unix name of who opened the tunnel.
    fn tunnel_user(&self) -> Option<&str> {
        match &self.way {
            Way::Tunnel { user } => user.as_deref(),
            Way::Network => None,
        }
    }

    /// Whether this one may end a session of `old` to begin one in its place (RFC 7143 §6.3.5). Names of initiators
    /// are easily taken: it has to be the same CHAP user, or, where nobody has shown that, who came in by SSH as the
    /// same one.
    pub fn may_replace(&self, old: &Who) -> bool {
        let same_tunnel = old.tunnel_user().is_none() || self.tunnel_user() == old.tunnel_user();
        self.chap_user == old.chap_user && (self.chap_user.is_some() || same_tunnel)
    }
}

/// An iSCSI name, or a pattern for several: `*` stands for any number of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// A pattern; names are compared in lower case (RFC 7143 §4.2.7.1).
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_lowercase())
    }

    /// Whether a name fits.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let Some(mut name) = name.strip_prefix(first) else {
            return false;
        };
        // Every part is taken where it comes first, and the last one at the end.
        let Some((middle, last)) = rest.rsplit_once('*') else {
            return name.ends_with(rest);
        };
        for part in middle.split('*') {
            let Some(at) = name.find(part) else { return false };
            name = &name[at + part.len()..];
        }
        name.ends_with(last)
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets those in whom all of its lists name. An empty list names everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Names of initiators.
    pub initiators: Vec<NamePattern>,
    /// Names proved by CHAP.
    pub chap_users: Vec<String>,
    /// Unix names of who opened the tunnel.
    pub tunnel_users: Vec<String>,
    /// What they may do.
    pub mode: Mode,
}

impl Rule {
    /// Whether all lists name `who`.
    pub fn matches(&self, who: &Who) -> bool {
        let named = |list: &[String], name: Option<&str>| {
            list.is_empty() || name.is_some_and(|name| list.iter().any(|listed| listed == name))
        };
        (self.initiators.is_empty() || self.initiators.iter().any(|pattern| pattern.matches(&who.initiator)))
            && named(&self.chap_users, who.chap_user.as_deref())
            && named(&self.tunnel_users, who.tunnel_user())
    }
}

/// What a login to a target needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    /// Nothing.
    #[default]
    None,
    /// CHAP (RFC 7143 §12.1).
    Chap,
}

/// Who may do what at one target. The default lets everybody read and write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What a login needs.
    pub auth: Auth,
    /// Whether only connections through a tunnel are let in.
    pub tunnel_only: bool,
    /// The first that matches says what one may do; none at all: everybody reads and writes.
    pub rules: Vec<Rule>,
    /// In place of `rules` for a single LUN.
    pub lun_rules: BTreeMap<u16, Vec<Rule>>,
}

impl Policy {
    /// Whether `who` may log in: by the right way, and named by a rule of the target or of any LUN.
    pub fn admits(&self, who: &Who) -> bool {
        let by_any = |rules: &[Rule]| mode(rules, who).is_some();
        (!self.tunnel_only || who.way.is_tunnel())
            && (by_any(&self.rules) || self.lun_rules.values().any(|rules| by_any(rules)))
    }

    /// What `who` may do at a LUN; `None`: not even see it.
    pub fn lun_mode(&self, who: &Who, lun: u16) -> Option<Mode> {
        if self.tunnel_only && !who.way.is_tunnel() {
            return None;
        }
        mode(self.lun_rules.get(&lun).unwrap_or(&self.rules), who)
    }
}

fn mode(rules: &[Rule], who: &Who) -> Option<Mode> {
    if rules.is_empty() {
        return Some(Mode::ReadWrite);
    }
    rules.iter().find(|rule| rule.matches(who)).map(|rule| rule.mode)
}
