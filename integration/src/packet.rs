//! IPv4 packets made by hand, for tests that send what no honest peer sends.

use std::net::Ipv4Addr;

/// IP protocol numbers (RFC 790).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// TCP flags (RFC 9293 §3.1).
pub mod flag {
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends it at once.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// Source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Who says to have sent it.
    pub from: Ipv4Addr,
    /// Who is to get it.
    pub to: Ipv4Addr,
}

/// A TCP segment without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub from: u16,
    /// Destination port.
    pub to: u16,
    /// Sequence number.
    pub sequence: u32,
    /// What it acknowledges, if it does.
    pub acknowledged: u32,
    /// Of [`flag`].
    pub flags: u8,
}

/// A packet with a TCP segment.
pub fn tcp(route: Route, segment: Segment) -> Vec<u8> {
    let mut body = Vec::with_capacity(20);
    body.extend(segment.from.to_be_bytes());
    body.extend(segment.to.to_be_bytes());
    body.extend(segment.sequence.to_be_bytes());
    body.extend(segment.acknowledged.to_be_bytes());
    // Five words of header, the flags, a window of 1024 bytes, no checksum yet, no urgent data.
    body.extend([0x50, segment.flags, 0x04, 0x00, 0, 0, 0, 0]);
    with_pseudo_checksum(route, TCP, &mut body, 16);
    ipv4(route, TCP, &body)
}

/// A packet with a UDP datagram.
pub fn udp(route: Route, from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(from.to_be_bytes());
    body.extend(to.to_be_bytes());
    body.extend(short(8 + data.len()).to_be_bytes());
    body.extend([0, 0]);
    body.extend(data);
    with_pseudo_checksum(route, UDP, &mut body, 6);
    ipv4(route, UDP, &body)
}

/// An ICMP echo request (RFC 792).
pub fn echo_request(route: Route) -> Vec<u8> {
    let mut body = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    let sum = checksum(&body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(route, ICMP, &body)
}

/// Where an IPv4 packet comes from, where it goes and what it is, in words; for TCP with ports and flags.
pub fn describe(packet: &[u8]) -> String {
    let Some((header, body)) = packet.split_at_checked(20).filter(|(header, _)| header[0] == 0x45) else {
        return format!("not plain IPv4: {packet:02x?}");
    };
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let (from, to) = (address(12), address(16));
    match (header[9], tcp_of(body)) {
        (TCP, Some(segment)) => {
            format!(
                "tcp {from}:{} > {to}:{} flags {:#04x}",
                segment.from, segment.to, segment.flags
            )
        }
        (ICMP, _) if body.len() >= 2 => format!("icmp {from} > {to} type {} code {}", body[0], body[1]),
        (protocol, _) => format!("protocol {protocol} {from} > {to}"),
    }
}

/// The segment in a packet, when it is TCP over plain IPv4.
pub fn segment(packet: &[u8]) -> Option<Segment> {
    let (header, body) = packet.split_at_checked(20)?;
    if header[0] == 0x45 && header[9] == TCP {
        tcp_of(body)
    } else {
        None
    }
}

fn tcp_of(body: &[u8]) -> Option<Segment> {
    let header = body.first_chunk::<20>()?;
    let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let long = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some(Segment {
        from: short(0),
        to: short(2),
        sequence: long(4),
        acknowledged: long(8),
        flags: header[13],
    })
}

/// An IPv4 header (RFC 791 §3.1) in front of `body`.
fn ipv4(route: Route, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(short(20 + body.len()).to_be_bytes());
    // No identification, don't fragment, 64 hops.
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(route.from.octets());
    packet.extend(route.to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

fn with_pseudo_checksum(route: Route, protocol: u8, body: &mut [u8], at: usize) {
    let mut covered = Vec::new();
    covered.extend(route.from.octets());
    covered.extend(route.to.octets());
    covered.extend([0, protocol]);
    covered.extend(short(body.len()).to_be_bytes());
    covered.extend(&*body);
    let sum = checksum(&covered);
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("packets of tests are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route {
        from: Ipv4Addr::new(172, 18, 0, 1),
        to: Ipv4Addr::new(172, 18, 0, 2),
    };

    #[test]
    fn checksums_are_such_that_the_sum_over_all_is_zero() {
        // The example of RFC 1071 §3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        let packet = echo_request(ROUTE);
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(checksum(&packet[20..]), 0);
    }

    #[test]
    fn what_is_made_is_described_as_it_is() {
        let syn = Segment {
            from: 3260,
            to: 22,
            sequence: 7,
            acknowledged: 0,
            flags: flag::SYN,
        };
        let packet = tcp(ROUTE, syn);
        assert_eq!(describe(&packet), "tcp 172.18.0.1:3260 > 172.18.0.2:22 flags 0x02");
        assert_eq!(segment(&packet), Some(syn));
        assert_eq!(
            describe(&echo_request(ROUTE)),
            "icmp 172.18.0.1 > 172.18.0.2 type 8 code 0"
        );
        assert_eq!(describe(&udp(ROUTE, 1, 9, b"x")), "protocol 17 172.18.0.1 > 172.18.0.2");
        assert_eq!(segment(&udp(ROUTE, 1, 9, b"x")), None);
    }
}
