//! Portals: by which way connections come, and under which portal group (RFC 7143 §4.2.1).

use std::net::{IpAddr, SocketAddr};

/// The tag of a portal that belongs to no group in particular.
pub const DEFAULT_PORTAL_GROUP_TAG: u16 = 1;

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
}

impl Default for Portal {
    fn default() -> Self {
        Self {
            tag: DEFAULT_PORTAL_GROUP_TAG,
            way: Way::Network,
        }
    }
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
