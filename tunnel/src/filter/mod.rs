//! What may pass between tun device and peer: pure functions on packet bytes, on both ends and in both directions.
//!
//! Neither end trusts the other. Source and destination are exactly the pair. The client takes from the server only
//! TCP from a portal's port that answers what the client itself opened, echo replies, and ICMP errors about its own
//! packets; and it lets only some users of its host open anything ([`Openers`]). The server takes from the client only TCP to a portal's port, echo requests, and ICMP errors. Nothing
//! else passes, and each reason has a counter. What our own kernel sends out is held to the same rules, so a
//! misplaced route cannot leak into the tunnel.

mod flows;
mod packet;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddrV4};

use flows::{Flow, Flows};
use packet::{ACK, Packet, Quoted, SYN, Transport};

pub use flows::{CLOSED_FLOW_MS, FLOWS_MAX};

/// Portal ports a server can name, at most.
pub const PORTAL_PORTS_MAX: usize = 8;

/// Which end of the tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Opens connections to the portals.
    Client,
    /// Has the portals.
    Server,
}

/// Whose connections a client takes.
pub trait Openers: std::fmt::Debug + Send {
    /// Whether the one who opens the connection between these two may; asked for every opening, and for the first word
    /// on a connection that the filter does not know.
    fn may_open(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> bool;
}

/// Why a packet did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// IPv6 or nothing known.
    NotIpv4,
    /// Shorter than its headers.
    Truncated,
    /// Header length that cannot be.
    BadHeader,
    /// IP options.
    IpOptions,
    /// The total length is not the packet's.
    BadLength,
    /// A fragment, first ones included.
    Fragment,
    /// The source is not the one address it must be.
    WrongSource,
    /// The destination is not the one address it must be.
    WrongDestination,
    /// TCP flags that do not go together.
    BadTcpFlags,
    /// TCP from or to something that is not a portal.
    NotAPortal,
    /// An opening from the end that must not open connections, or the answer to one.
    BareSyn,
    /// A connection that was opened by a user who must not.
    OtherUser,
    /// TCP for a connection that was not opened here.
    UnknownFlow,
    /// An ICMP type that has no business here.
    IcmpType,
    /// An ICMP error about a packet that we did not send.
    NotOurs,
    /// Neither TCP nor ICMP.
    Protocol,
    /// Over the agreed MTU.
    TooLong,
    /// The device did not take it.
    Device,
}

impl DropReason {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 18] = [
        Self::NotIpv4,
        Self::Truncated,
        Self::BadHeader,
        Self::IpOptions,
        Self::BadLength,
        Self::Fragment,
        Self::WrongSource,
        Self::WrongDestination,
        Self::BadTcpFlags,
        Self::NotAPortal,
        Self::BareSyn,
        Self::OtherUser,
        Self::UnknownFlow,
        Self::IcmpType,
        Self::NotOurs,
        Self::Protocol,
        Self::TooLong,
        Self::Device,
    ];

    /// A short name for logs and counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotIpv4 => "not IPv4",
            Self::Truncated => "truncated",
            Self::BadHeader => "bad header length",
            Self::IpOptions => "IP options",
            Self::BadLength => "wrong total length",
            Self::Fragment => "fragment",
            Self::WrongSource => "wrong source",
            Self::WrongDestination => "wrong destination",
            Self::BadTcpFlags => "bad TCP flags",
            Self::NotAPortal => "not a portal's port",
            Self::BareSyn => "connection from the wrong end",
            Self::OtherUser => "connection of another user",
            Self::UnknownFlow => "unknown connection",
            Self::IcmpType => "ICMP type",
            Self::NotOurs => "ICMP error about a foreign packet",
            Self::Protocol => "neither TCP nor ICMP",
            Self::TooLong => "over the MTU",
            Self::Device => "not taken by the device",
        }
    }
}

/// The filter of one link on one end.
#[derive(Debug)]
pub struct Filter {
    side: Side,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    portal_ports: Vec<u16>,
    mtu: usize,
    flows: Flows,
    openers: Option<Box<dyn Openers>>,
}

impl Filter {
    /// A filter for the pair, from this end's view. Ports past [`PORTAL_PORTS_MAX`] are left out, `mtu` is in bytes.
    pub fn new(side: Side, local: Ipv4Addr, remote: Ipv4Addr, portal_ports: &[u16], mtu: u16) -> Self {
        let portal_ports = portal_ports.iter().copied().take(PORTAL_PORTS_MAX).collect();
        Self {
            side,
            local,
            remote,
            portal_ports,
            mtu: usize::from(mtu),
            flows: Flows::default(),
            openers: None,
        }
    }

    /// Lets only some users of this host open connections; without this all of them may.
    #[must_use]
    pub fn with_openers(mut self, openers: Box<dyn Openers>) -> Self {
        self.openers = Some(openers);
        self
    }

    /// Whether a packet that our kernel sends may go to the peer. `now_ms` is any clock that does not go back.
    ///
    /// # Errors
    /// The reason why it must not.
    pub fn outbound(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), DropReason> {
        let packet = self.gate(bytes, self.local, self.remote)?;
        match (self.side, packet.transport) {
            (
                Side::Client,
                Transport::Tcp {
                    source_port,
                    destination_port,
                    flags,
                },
            ) => {
                self.portal(destination_port)?;
                if flags & (SYN | ACK) == SYN | ACK {
                    // The answer to an opening that should never have come in.
                    return Err(DropReason::BareSyn);
                }
                let flow = Flow {
                    local_port: source_port,
                    remote_port: destination_port,
                };
                self.openers_let(flow, flags)?;
                self.flows.sent(flow, flags, now_ms);
                Ok(())
            }
            (Side::Server, Transport::Tcp { source_port, flags, .. }) => {
                self.portal(source_port)?;
                not_opening(flags)
            }
            (
                Side::Client,
                Transport::Icmp {
                    kind: packet::ICMP_ECHO_REQUEST,
                    ..
                },
            )
            | (
                Side::Server,
                Transport::Icmp {
                    kind: packet::ICMP_ECHO_REPLY,
                    ..
                },
            ) => Ok(()),
            (_, Transport::Icmp { kind, body }) => self.icmp_error(kind, body, self.remote, self.local).map(drop),
            (_, Transport::Other) => Err(DropReason::Protocol),
        }
    }

    /// Whether a packet from the peer may go to our kernel. `now_ms` as in [`Self::outbound`].
    ///
    /// # Errors
    /// The reason why it must not.
    pub fn inbound(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), DropReason> {
        let packet = self.gate(bytes, self.remote, self.local)?;
        match (self.side, packet.transport) {
            (
                Side::Client,
                Transport::Tcp {
                    source_port,
                    destination_port,
                    flags,
                },
            ) => {
                self.portal(source_port)?;
                not_opening(flags)?;
                let flow = Flow {
                    local_port: destination_port,
                    remote_port: source_port,
                };
                if self.flows.admits(flow, flags, now_ms) {
                    Ok(())
                } else {
                    Err(DropReason::UnknownFlow)
                }
            }
            (Side::Server, Transport::Tcp { destination_port, .. }) => self.portal(destination_port),
            (
                Side::Client,
                Transport::Icmp {
                    kind: packet::ICMP_ECHO_REPLY,
                    ..
                },
            )
            | (
                Side::Server,
                Transport::Icmp {
                    kind: packet::ICMP_ECHO_REQUEST,
                    ..
                },
            ) => Ok(()),
            (side, Transport::Icmp { kind, body }) => {
                let quoted = self.icmp_error(kind, body, self.local, self.remote)?;
                match side {
                    Side::Client => self.quotes_our_own(quoted, now_ms),
                    Side::Server => self.quotes_a_portal(quoted),
                }
            }
            (_, Transport::Other) => Err(DropReason::Protocol),
        }
    }

    fn gate<'a>(&self, bytes: &'a [u8], source: Ipv4Addr, destination: Ipv4Addr) -> Result<Packet<'a>, DropReason> {
        if bytes.len() > self.mtu {
            return Err(DropReason::TooLong);
        }
        let packet = packet::parse(bytes)?;
        if packet.source != source {
            return Err(DropReason::WrongSource);
        }
        if packet.destination != destination {
            return Err(DropReason::WrongDestination);
        }
        Ok(packet)
    }

    fn openers_let(&mut self, flow: Flow, flags: u8) -> Result<(), DropReason> {
        let Some(openers) = &mut self.openers else {
            return Ok(());
        };
        if !self.flows.begins(flow, flags) {
            return Ok(());
        }
        let from = SocketAddrV4::new(self.local, flow.local_port);
        let to = SocketAddrV4::new(self.remote, flow.remote_port);
        if openers.may_open(from, to) {
            Ok(())
        } else {
            Err(DropReason::OtherUser)
        }
    }

    fn portal(&self, port: u16) -> Result<(), DropReason> {
        if self.portal_ports.contains(&port) {
            Ok(())
        } else {
            Err(DropReason::NotAPortal)
        }
    }

    /// An ICMP error about a packet from `source` to `destination`. Redirects are not errors: they would move routes.
    fn icmp_error(&self, kind: u8, body: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> Result<Quoted, DropReason> {
        match kind {
            packet::ICMP_UNREACHABLE | packet::ICMP_TIME_EXCEEDED | packet::ICMP_PARAMETER_PROBLEM => {}
            _ => return Err(DropReason::IcmpType),
        }
        let quoted = packet::parse_quoted(body)?;
        if quoted.source != source || quoted.destination != destination {
            return Err(DropReason::NotOurs);
        }
        Ok(quoted)
    }

    fn quotes_our_own(&mut self, quoted: Quoted, now_ms: u64) -> Result<(), DropReason> {
        let [a, b, c, d] = quoted.head;
        let ours = match quoted.protocol {
            packet::PROTOCOL_TCP => {
                let flow = Flow {
                    local_port: u16::from_be_bytes([a, b]),
                    remote_port: u16::from_be_bytes([c, d]),
                };
                self.flows.knows(flow, now_ms)
            }
            packet::PROTOCOL_ICMP => a == packet::ICMP_ECHO_REQUEST,
            _ => false,
        };
        if ours { Ok(()) } else { Err(DropReason::NotOurs) }
    }

    fn quotes_a_portal(&self, quoted: Quoted) -> Result<(), DropReason> {
        let [a, b, ..] = quoted.head;
        let ours = match quoted.protocol {
            packet::PROTOCOL_TCP => self.portal_ports.contains(&u16::from_be_bytes([a, b])),
            packet::PROTOCOL_ICMP => a == packet::ICMP_ECHO_REPLY,
            _ => false,
        };
        if ours { Ok(()) } else { Err(DropReason::NotOurs) }
    }
}

fn not_opening(flags: u8) -> Result<(), DropReason> {
    if flags & (SYN | ACK) == SYN {
        Err(DropReason::BareSyn)
    } else {
        Ok(())
    }
}

/// Packets and bytes of one link, from this end's view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that went to the peer.
    pub sent_packets: u64,
    /// Their bytes, IP headers included.
    pub sent_bytes: u64,
    /// Packets from the peer that went to our kernel.
    pub received_packets: u64,
    /// Their bytes, IP headers included.
    pub received_bytes: u64,
    /// Packets of our own kernel that were dropped, by [`DropReason`].
    pub outbound_drops: Drops,
    /// Packets of the peer that were dropped, by [`DropReason`].
    pub inbound_drops: Drops,
}

/// Dropped packets by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Counts one more.
    pub fn note(&mut self, reason: DropReason) {
        let count = &mut self.0[reason as usize];
        *count = count.saturating_add(1);
    }

    /// How many were dropped for this reason.
    pub fn count(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were dropped at all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons there were, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.count(reason)))
            .filter(|(_, count)| *count > 0)
    }
}
