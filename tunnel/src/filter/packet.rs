//! One gate from bytes to an IPv4 packet whose lengths are right.
//!
//! What passes here is a whole packet: no fragment, no IP options, no byte too few or too many, and a transport
//! header that is really there.

use std::net::Ipv4Addr;

use super::DropReason;

/// IPv4 header without options, in bytes (RFC 791 §3.1).
const IPV4_HEADER_BYTES: usize = 20;
/// TCP header without options, in bytes (RFC 9293 §3.1).
const TCP_HEADER_BYTES: usize = 20;
/// ICMP header, in bytes (RFC 792).
const ICMP_HEADER_BYTES: usize = 8;
/// What an ICMP error quotes of the transport header at the very least, in bytes (RFC 792: "64 bits of data").
const QUOTED_TRANSPORT_BYTES: usize = 8;

/// IP protocol number of ICMP (RFC 790).
pub(super) const PROTOCOL_ICMP: u8 = 0x01;
/// IP protocol number of TCP (RFC 790).
pub(super) const PROTOCOL_TCP: u8 = 0x06;

/// TCP flags (RFC 9293 §3.1).
pub(super) const FIN: u8 = 0x01;
/// See [`FIN`].
pub(super) const SYN: u8 = 0x02;
/// See [`FIN`].
pub(super) const RST: u8 = 0x04;
/// See [`FIN`].
pub(super) const ACK: u8 = 0x10;

/// ICMP types (RFC 792).
pub(super) const ICMP_ECHO_REPLY: u8 = 0;
/// See [`ICMP_ECHO_REPLY`].
pub(super) const ICMP_UNREACHABLE: u8 = 3;
/// See [`ICMP_ECHO_REPLY`].
pub(super) const ICMP_ECHO_REQUEST: u8 = 8;
/// See [`ICMP_ECHO_REPLY`].
pub(super) const ICMP_TIME_EXCEEDED: u8 = 11;
/// See [`ICMP_ECHO_REPLY`].
pub(super) const ICMP_PARAMETER_PROBLEM: u8 = 12;

/// A packet that passed the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) transport: Transport<'a>,
}

/// What the packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport<'a> {
    Tcp {
        source_port: u16,
        destination_port: u16,
        flags: u8,
    },
    Icmp {
        kind: u8,
        body: &'a [u8],
    },
    Other,
}

/// The packet that an ICMP error is about, as far as it is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quoted {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    /// The first four bytes of its transport header: for TCP the two ports, for ICMP type, code and checksum.
    pub(super) head: [u8; 4],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| Ipv4Addr::from(*four))
}

/// Reads one packet as it came from the device or the peer.
pub(super) fn parse(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    let first = *bytes.first().ok_or(DropReason::Truncated)?;
    if first >> 4 != 4 {
        return Err(DropReason::NotIpv4);
    }
    let header = bytes.first_chunk::<IPV4_HEADER_BYTES>().ok_or(DropReason::Truncated)?;
    match first & 0x0f {
        0..5 => return Err(DropReason::BadHeader),
        5 => {}
        _ => return Err(DropReason::IpOptions),
    }
    if u16_at(header, 2).map(usize::from) != Some(bytes.len()) {
        return Err(DropReason::BadLength);
    }
    // More-fragments flag and fragment offset (RFC 791 §3.1): a first fragment is of no use without the others.
    if u16_at(header, 6).is_none_or(|word| word & 0x3fff != 0) {
        return Err(DropReason::Fragment);
    }
    let (Some(source), Some(destination)) = (address_at(header, 12), address_at(header, 16)) else {
        return Err(DropReason::Truncated);
    };
    let payload = &bytes[IPV4_HEADER_BYTES..];
    let transport = match header[9] {
        PROTOCOL_TCP => parse_tcp(payload)?,
        PROTOCOL_ICMP => parse_icmp(payload)?,
        _ => Transport::Other,
    };
    Ok(Packet {
        source,
        destination,
        transport,
    })
}

fn parse_tcp(payload: &[u8]) -> Result<Transport<'_>, DropReason> {
    let header = payload.first_chunk::<TCP_HEADER_BYTES>().ok_or(DropReason::Truncated)?;
    let data_offset = usize::from(header[12] >> 4) * 4;
    if data_offset < TCP_HEADER_BYTES || data_offset > payload.len() {
        return Err(DropReason::BadHeader);
    }
    let flags = header[13];
    // Never sent by a real TCP: no flag that places the segment anywhere, or an opening that also closes.
    if flags & (SYN | RST | ACK) == 0 || (flags & SYN != 0 && flags & (FIN | RST) != 0) {
        return Err(DropReason::BadTcpFlags);
    }
    Ok(Transport::Tcp {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        flags,
    })
}

fn parse_icmp(payload: &[u8]) -> Result<Transport<'_>, DropReason> {
    let header = payload
        .first_chunk::<ICMP_HEADER_BYTES>()
        .ok_or(DropReason::Truncated)?;
    Ok(Transport::Icmp {
        kind: header[0],
        body: &payload[ICMP_HEADER_BYTES..],
    })
}

/// Reads what an ICMP error quotes. Its total length says more than is there, which is right for a quotation.
pub(super) fn parse_quoted(body: &[u8]) -> Result<Quoted, DropReason> {
    let header = body.first_chunk::<IPV4_HEADER_BYTES>().ok_or(DropReason::Truncated)?;
    if header[0] != 0x45 {
        return Err(DropReason::BadHeader);
    }
    let transport = &body[IPV4_HEADER_BYTES..];
    let (Some(source), Some(destination)) = (address_at(header, 12), address_at(header, 16)) else {
        return Err(DropReason::Truncated);
    };
    match transport.first_chunk::<4>() {
        Some(head) if transport.len() >= QUOTED_TRANSPORT_BYTES => Ok(Quoted {
            source,
            destination,
            protocol: header[9],
            head: *head,
        }),
        _ => Err(DropReason::Truncated),
    }
}
