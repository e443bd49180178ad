//! Portals: by which way connections come, and under which portal group (RFC 7143 §4.2.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The tag of a portal that belongs to no group in particular.
pub const DEFAULT_PORTAL_GROUP_TAG: u16 = 1;

/// Longest host name, and longest part of it between dots, in bytes (RFC 1123 §2.1, RFC 1035 §2.3.4).
const NAME_MAX_BYTES: usize = 253;
const LABEL_MAX_BYTES: usize = 63;

/// By which way a connection comes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Way {
    /// A listener on an address of this machine.
    #[default]
    Network,
    /// A tunnel; `user` is the Unix name of who opened it, where that is known.
    Tunnel {
        /// Unix name of who came in by SSH.
        user: Option<String>,
    },
}

impl Way {
    /// Whether it is a tunnel.
    pub fn is_tunnel(&self) -> bool {
        matches!(self, Self::Tunnel { .. })
    }
}

/// What a portal is, wherever it listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Portal {
    /// TargetPortalGroupTag (RFC 7143 §13.9), never 0.
    pub tag: u16,
    /// By which way its connections come.
    pub way: Way,
    /// What initiators are told in place of the address where it listens.
    pub announce: Option<Announced>,
}

impl Default for Portal {
    fn default() -> Self {
        Self {
            tag: DEFAULT_PORTAL_GROUP_TAG,
            way: Way::Network,
            announce: None,
        }
    }
}

/// An address as initiators are told it (TargetAddress, RFC 7143 §13.8): `host:port`, the host being a name or an
/// address, IPv6 in brackets. For portals behind a translation of addresses, and for initiators that need to be told
/// one where it would be left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Announced(String);

/// What is no `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address to tell initiators: write host:port, with a name, 192.0.2.1 or [2001:db8::1] as host")]
pub struct NoAddress(String);

impl FromStr for Announced {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let no_address = || NoAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(no_address)?;
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
        let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match ipv6 {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_name_or_ipv4(host),
        };
        if is_port && is_host {
            Ok(Self(text.to_owned()))
        } else {
            Err(no_address())
        }
    }
}

impl Announced {
    /// Whether it is a loopback address: only good on the machine of who has forwarded it there.
    pub fn is_loopback(&self) -> bool {
        self.0
            .parse::<SocketAddr>()
            .is_ok_and(|address| is_loopback(address.ip()))
    }
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 1123 §2.1. What consists of digits and dots only has to be an address.
fn is_name_or_ipv4(host: &str) -> bool {
    let is_label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=LABEL_MAX_BYTES).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= NAME_MAX_BYTES && host.split('.').all(is_label)
}

/// A portal that can be reached now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listening {
    /// Where it listens; may be a wildcard.
    pub address: SocketAddr,
    /// What it is.
    pub portal: Portal,
}

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The portal it came to.
    pub portal: Portal,
    /// The address it came to, where it has one.
    pub local: Option<SocketAddr>,
    /// Who is on the other end, for logs and lists: `host:port` of a TCP connection.
    pub peer: String,
}

impl Origin {
    /// Whether the connection was forwarded, by `ssh -L` for example: it comes from loopback to loopback. What
    /// the initiator knows as our address is then not the one we see.
    pub fn is_forwarded(&self) -> bool {
        let peer = self.peer.parse::<SocketAddr>().map(|peer| peer.ip());
        match (self.local, peer) {
            (Some(local), Ok(peer)) => is_loopback(local.ip()) && is_loopback(peer),
            _ => false,
        }
    }
}

/// Loopback, written as IPv4, IPv6, or the one in the other.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_address_is_one_that_initiators_can_read() {
        let long = "a".repeat(LABEL_MAX_BYTES);
        for good in [
            "192.0.2.1:3260",
            "[2001:db8::1]:3260",
            "nas:860",
            "ec2-192-0-2-1.compute.example.com:65535",
            &format!("{long}.example:1"),
        ] {
            assert_eq!(good.parse::<Announced>().expect(good).to_string(), good);
        }
        for bad in [
            "",
            "nas",
            "nas:",
            ":3260",
            "nas:0",
            "nas:+1",
            "nas:65536",
            "192.0.2:3260",
            "192.0.2.256:3260",
            "2001:db8::1:3260",
            "[192.0.2.1]:3260",
            "[fe80::1%eth0]:3260",
            "two words:3260",
            "nas,2:3260",
            "a..b:3260",
            "-a:3260",
            "n\0s:3260",
            "nas:3260,1",
            &format!("{long}a:1"),
            &format!("{}:1", [long.as_str(); 4].join(".")),
        ] {
            assert_eq!(bad.parse::<Announced>(), Err(NoAddress(bad.to_owned())), "{bad}");
        }
    }
}
