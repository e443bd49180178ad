//! SendTargets (RFC 7143 appendix C).

use iscsi_pdu::text::{CollectorLimits, Duplicates, Key, Pair, TextCollector, TextLimits, TextWriter, parse};
use iscsi_pdu::{Lun, RESERVED_TAG};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Error, PeerError, Session};

/// All of an answer, in bytes: room for a few thousand targets.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// PDUs of an answer.
const MAX_ANSWER_SEGMENTS: usize = 1024;
/// Targets and addresses in an answer.
const MAX_ANSWER_KEYS: usize = 16 * 1024;
/// `SendTargets=` and the longest name.
const MAX_REQUEST_BYTES: usize = 512;
/// Longest TargetAddress, in bytes: a host name of 255 and its trimmings.
const MAX_VALUE_BYTES: usize = 512;

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendTargets {
    /// Every target we may see; in discovery sessions only.
    All,
    /// This one.
    Named(String),
    /// The one of this session.
    This,
}

/// A target and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredTarget {
    /// Its iSCSI name.
    pub name: String,
    /// Its addresses; none means the one that was asked.
    pub addresses: Vec<TargetAddress>,
}

/// `host[:port],tag` (RFC 7143 §13.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetAddress {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Target portal group tag.
    pub portal_group: u16,
}

impl std::fmt::Display for TargetAddress {
    /// As it is written on the wire (RFC 7143 §13.8).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{},{}", self.host, self.port, self.portal_group)
    }
}

impl TargetAddress {
    fn parse(value: &str) -> Option<TargetAddress> {
        let (place, tag) = value.rsplit_once(',')?;
        let (host, port) = match place.strip_prefix('[') {
            Some(inside) => {
                let (host, after) = inside.split_once(']')?;
                (
                    host,
                    if after.is_empty() {
                        None
                    } else {
                        Some(after.strip_prefix(':')?)
                    },
                )
            }
            None => place
                .split_once(':')
                .map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Some(crate::DEFAULT_PORT), |port| port.parse().ok())?;
        let portal_group = tag.parse().ok()?;
        (!host.is_empty()).then(|| TargetAddress {
            host: host.to_owned(),
            port,
            portal_group,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Asks the target which targets there are and where.
    pub async fn send_targets(&mut self, which: &SendTargets) -> Result<Vec<DiscoveredTarget>, Error> {
        let mut writer = TextWriter::new(MAX_REQUEST_BYTES);
        let value = match which {
            SendTargets::All => "All",
            SendTargets::Named(name) => name,
            SendTargets::This => "",
        };
        writer
            .push(Key::SendTargets.name(), value)
            .map_err(|_| Error::Misuse("the target's name is too long"))?;
        let mut collector = TextCollector::new(CollectorLimits {
            max_bytes: MAX_ANSWER_BYTES,
            max_segments: MAX_ANSWER_SEGMENTS,
        });
        let (mut lun, mut ttt, mut text) = (Lun::default(), RESERVED_TAG, writer.into_bytes());
        loop {
            let answer = self.text(lun, ttt, text).await?;
            // A target that has more to say but no C bit set (F clear) is asked on in the same way.
            let goes_on = answer.continue_ || !answer.final_bit;
            match collector.feed(&answer.segment, goes_on).map_err(PeerError::from)? {
                Some(text) => return targets(&text),
                None if answer.ttt == RESERVED_TAG => {
                    return Err(PeerError::Unexpected {
                        what: "Text Response that goes on without a tag",
                    }
                    .into());
                }
                None => (lun, ttt, text) = (answer.lun, answer.ttt, Vec::new()),
            }
        }
    }
}

fn targets(text: &[u8]) -> Result<Vec<DiscoveredTarget>, Error> {
    let limits = TextLimits {
        max_keys: MAX_ANSWER_KEYS,
        max_value_bytes: MAX_VALUE_BYTES,
    };
    let mut targets: Vec<DiscoveredTarget> = Vec::new();
    for Pair { key, value } in parse(text, &limits, Duplicates::Allowed).map_err(PeerError::from)? {
        match (Key::from_name(key), targets.last_mut()) {
            (Some(Key::TargetName), _) => {
                targets.push(DiscoveredTarget {
                    name: value.to_owned(),
                    addresses: Vec::new(),
                });
            }
            (Some(Key::TargetAddress), Some(target)) => {
                let address = TargetAddress::parse(value).ok_or(PeerError::Malformed { what: "TargetAddress" })?;
                target.addresses.push(address);
            }
            (Some(Key::SendTargets), _) => {
                return Err(Error::Negotiation {
                    key: key.to_owned(),
                    value: value.to_owned(),
                });
            }
            // Aliases and extensions are of no use here.
            _ => {}
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = |host: &str, port, portal_group| {
            Some(TargetAddress {
                host: host.to_owned(),
                port,
                portal_group,
            })
        };
        assert_eq!(TargetAddress::parse("10.0.0.1:860,1"), address("10.0.0.1", 860, 1));
        assert_eq!(
            TargetAddress::parse("nas.example,65535"),
            address("nas.example", 3260, 65535)
        );
        assert_eq!(
            TargetAddress::parse("[2001:db8::1]:3261,2"),
            address("2001:db8::1", 3261, 2)
        );
        for written in ["10.0.0.1:860,1", "nas.example:3260,65535", "[2001:db8::1]:3261,2"] {
            let parsed = TargetAddress::parse(written).expect("as it is written");
            assert_eq!(parsed.to_string(), written);
        }
        for value in [
            "10.0.0.1:860",
            ":860,1",
            "10.0.0.1:99999,1",
            "[::1,1",
            "[::1]3260,1",
            "a,b",
        ] {
            assert_eq!(TargetAddress::parse(value), None, "{value}");
        }
    }
}
