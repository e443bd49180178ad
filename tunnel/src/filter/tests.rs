//! Table tests and properties of the filter.

use proptest::prelude::*;

use super::packet::{ACK, FIN, RST, SYN};
use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);

fn client() -> Filter {
    Filter::new(Side::Client, CLIENT, SERVER, &[3260], 1500)
}

fn server() -> Filter {
    Filter::new(Side::Server, SERVER, CLIENT, &[3260, 3261], 1500)
}

fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

fn tcp(source: Ipv4Addr, from: u16, destination: Ipv4Addr, to: u16, flags: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(from.to_be_bytes());
    payload.extend(to.to_be_bytes());
    payload.extend([0; 8]);
    payload.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    payload.extend(b"data");
    ip(source, destination, 6, &payload)
}

fn icmp(source: Ipv4Addr, destination: Ipv4Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(body);
    ip(source, destination, 1, &payload)
}

fn with(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

#[test]
fn a_connection_and_a_ping_pass_both_filters() {
    let (mut client, mut server) = (client(), server());
    let steps: [(bool, Vec<u8>); 8] = [
        (true, tcp(CLIENT, 40000, SERVER, 3260, SYN)),
        (false, tcp(SERVER, 3260, CLIENT, 40000, SYN | ACK)),
        (true, tcp(CLIENT, 40000, SERVER, 3260, ACK)),
        (false, tcp(SERVER, 3260, CLIENT, 40000, ACK)),
        (true, tcp(CLIENT, 40000, SERVER, 3260, FIN | ACK)),
        (false, tcp(SERVER, 3260, CLIENT, 40000, FIN | ACK)),
        (true, icmp(CLIENT, SERVER, 8, b"ping")),
        (false, icmp(SERVER, CLIENT, 0, b"ping")),
    ];
    for (n, (up, bytes)) in steps.into_iter().enumerate() {
        let (from, to) = if up {
            (&mut client, &mut server)
        } else {
            (&mut server, &mut client)
        };
        assert_eq!(from.outbound(&bytes, 0), Ok(()), "step {n} leaves");
        assert_eq!(to.inbound(&bytes, 0), Ok(()), "step {n} arrives");
    }
}

/// Lets in connections from even ports.
#[derive(Debug)]
struct Even;

impl Openers for Even {
    fn may_open(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> bool {
        assert_eq!((from.ip(), to), (&CLIENT, SocketAddrV4::new(SERVER, 3260)));
        from.port().is_multiple_of(2)
    }
}

#[test]
fn connections_of_other_users_do_not_begin() {
    let mut client = client().with_openers(Box::new(Even));
    for flags in [SYN, ACK, FIN | ACK] {
        let theirs = tcp(CLIENT, 40001, SERVER, 3260, flags);
        assert_eq!(client.outbound(&theirs, 0), Err(DropReason::OtherUser), "{flags:#x}");
    }
    let answer = tcp(SERVER, 3260, CLIENT, 40001, SYN | ACK);
    assert_eq!(client.inbound(&answer, 0), Err(DropReason::UnknownFlow));
    for flags in [SYN, ACK, FIN | ACK] {
        assert_eq!(client.outbound(&tcp(CLIENT, 40000, SERVER, 3260, flags), 0), Ok(()));
    }
    let elsewhere = tcp(CLIENT, 40001, SERVER, 22, SYN);
    assert_eq!(client.outbound(&elsewhere, 0), Err(DropReason::NotAPortal));
}

#[test]
fn a_port_taken_over_by_another_user_is_asked_about_again() {
    #[derive(Debug)]
    struct Once(bool);
    impl Openers for Once {
        fn may_open(&mut self, _: SocketAddrV4, _: SocketAddrV4) -> bool {
            std::mem::replace(&mut self.0, false)
        }
    }
    let mut client = client().with_openers(Box::new(Once(true)));
    let opening = tcp(CLIENT, 40000, SERVER, 3260, SYN);
    assert_eq!(client.outbound(&opening, 0), Ok(()));
    assert_eq!(client.outbound(&tcp(CLIENT, 40000, SERVER, 3260, ACK), 1), Ok(()));
    assert_eq!(client.outbound(&opening, 2), Err(DropReason::OtherUser));
}

#[test]
fn what_a_hostile_server_sends() {
    use DropReason as R;
    let opened = tcp(CLIENT, 40000, SERVER, 3260, SYN);
    let ours = tcp(CLIENT, 40000, SERVER, 3260, ACK);
    let v6 = with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 0, 0x60);
    let cases: Vec<(&str, Vec<u8>, Result<(), R>)> = vec![
        ("answer", tcp(SERVER, 3260, CLIENT, 40000, ACK), Ok(())),
        (
            "SYN to the client's sshd",
            tcp(SERVER, 3260, CLIENT, 22, SYN),
            Err(R::BareSyn),
        ),
        (
            "SYN from another port",
            tcp(SERVER, 50000, CLIENT, 22, SYN),
            Err(R::NotAPortal),
        ),
        (
            "SYN on the open connection",
            tcp(SERVER, 3260, CLIENT, 40000, SYN),
            Err(R::BareSyn),
        ),
        (
            "ACK for nothing",
            tcp(SERVER, 3260, CLIENT, 22, ACK),
            Err(R::UnknownFlow),
        ),
        (
            "SYN ACK for nothing",
            tcp(SERVER, 3260, CLIENT, 22, SYN | ACK),
            Err(R::UnknownFlow),
        ),
        (
            "RST for nothing",
            tcp(SERVER, 3260, CLIENT, 22, RST),
            Err(R::UnknownFlow),
        ),
        (
            "from another port on the open one",
            tcp(SERVER, 3261, CLIENT, 40000, ACK),
            Err(R::NotAPortal),
        ),
        (
            "for the LAN",
            tcp(SERVER, 3260, LAN, 40000, ACK),
            Err(R::WrongDestination),
        ),
        ("as the LAN", tcp(LAN, 3260, CLIENT, 40000, ACK), Err(R::WrongSource)),
        (
            "as the client",
            tcp(CLIENT, 3260, CLIENT, 40000, ACK),
            Err(R::WrongSource),
        ),
        ("null flags", tcp(SERVER, 3260, CLIENT, 40000, 0), Err(R::BadTcpFlags)),
        (
            "SYN FIN",
            tcp(SERVER, 3260, CLIENT, 40000, SYN | FIN | ACK),
            Err(R::BadTcpFlags),
        ),
        ("echo request", icmp(SERVER, CLIENT, 8, b""), Err(R::IcmpType)),
        ("redirect", icmp(SERVER, CLIENT, 5, &ours), Err(R::IcmpType)),
        ("timestamp", icmp(SERVER, CLIENT, 13, b""), Err(R::IcmpType)),
        ("unreachable about ours", icmp(SERVER, CLIENT, 3, &ours), Ok(())),
        (
            "unreachable, 28 bytes quoted",
            icmp(SERVER, CLIENT, 3, &ours[..28]),
            Ok(()),
        ),
        (
            "unreachable, too little quoted",
            icmp(SERVER, CLIENT, 3, &ours[..27]),
            Err(R::Truncated),
        ),
        (
            "about our ping",
            icmp(SERVER, CLIENT, 11, &icmp(CLIENT, SERVER, 8, b"")),
            Ok(()),
        ),
        (
            "about a ping we do not send",
            icmp(SERVER, CLIENT, 11, &icmp(CLIENT, SERVER, 0, b"")),
            Err(R::NotOurs),
        ),
        (
            "about a connection to elsewhere",
            icmp(SERVER, CLIENT, 3, &tcp(CLIENT, 40000, LAN, 3260, ACK)),
            Err(R::NotOurs),
        ),
        (
            "about a connection not opened",
            icmp(SERVER, CLIENT, 3, &tcp(CLIENT, 41000, SERVER, 3260, ACK)),
            Err(R::NotOurs),
        ),
        ("UDP", ip(SERVER, CLIENT, 17, &[0; 8]), Err(R::Protocol)),
        ("IP in IP", ip(SERVER, CLIENT, 4, &ours), Err(R::Protocol)),
        ("IPv6", v6, Err(R::NotIpv4)),
        ("nothing", Vec::new(), Err(R::Truncated)),
        ("half a header", ours[..19].to_vec(), Err(R::Truncated)),
        (
            "header too short",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 0, 0x44),
            Err(R::BadHeader),
        ),
        (
            "options",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 0, 0x46),
            Err(R::IpOptions),
        ),
        (
            "total length too long",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 3, 45),
            Err(R::BadLength),
        ),
        (
            "total length too short",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 3, 43),
            Err(R::BadLength),
        ),
        (
            "first fragment",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 6, 0x20),
            Err(R::Fragment),
        ),
        (
            "later fragment",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 7, 0x01),
            Err(R::Fragment),
        ),
        (
            "data offset over the end",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 32, 0xf0),
            Err(R::BadHeader),
        ),
        (
            "data offset in the header",
            with(tcp(SERVER, 3260, CLIENT, 40000, ACK), 32, 0x40),
            Err(R::BadHeader),
        ),
        ("TCP cut short", ip(SERVER, CLIENT, 6, &[0; 19]), Err(R::Truncated)),
        ("ICMP cut short", ip(SERVER, CLIENT, 1, &[0; 7]), Err(R::Truncated)),
        ("over the MTU", ip(SERVER, CLIENT, 1, &[0; 1481]), Err(R::TooLong)),
    ];
    for (name, bytes, expected) in cases {
        let mut filter = client();
        assert_eq!(filter.outbound(&opened, 0), Ok(()));
        assert_eq!(filter.inbound(&bytes, 0), expected, "{name}");
    }
}

#[test]
fn what_a_hostile_client_sends() {
    use DropReason as R;
    let answer = tcp(SERVER, 3260, CLIENT, 40000, ACK);
    let cases: Vec<(&str, Vec<u8>, Result<(), R>)> = vec![
        ("opening", tcp(CLIENT, 40000, SERVER, 3260, SYN), Ok(())),
        (
            "opening to the second portal",
            tcp(CLIENT, 40000, SERVER, 3261, SYN),
            Ok(()),
        ),
        (
            "sshd on the tun address",
            tcp(CLIENT, 40000, SERVER, 22, SYN),
            Err(R::NotAPortal),
        ),
        (
            "another client",
            tcp(CLIENT, 40000, Ipv4Addr::new(172, 18, 0, 6), 3260, SYN),
            Err(R::WrongDestination),
        ),
        (
            "as another client",
            tcp(Ipv4Addr::new(172, 18, 0, 6), 1, SERVER, 3260, SYN),
            Err(R::WrongSource),
        ),
        (
            "the world",
            tcp(CLIENT, 40000, Ipv4Addr::new(8, 8, 8, 8), 3260, SYN),
            Err(R::WrongDestination),
        ),
        (
            "loopback",
            tcp(CLIENT, 40000, Ipv4Addr::LOCALHOST, 3260, SYN),
            Err(R::WrongDestination),
        ),
        ("ping", icmp(CLIENT, SERVER, 8, b""), Ok(())),
        ("echo reply", icmp(CLIENT, SERVER, 0, b""), Err(R::IcmpType)),
        ("redirect", icmp(CLIENT, SERVER, 5, &answer), Err(R::IcmpType)),
        ("unreachable", icmp(CLIENT, SERVER, 3, &answer), Ok(())),
        (
            "about another service",
            icmp(CLIENT, SERVER, 3, &tcp(SERVER, 22, CLIENT, 4, ACK)),
            Err(R::NotOurs),
        ),
        (
            "about another peer",
            icmp(CLIENT, SERVER, 3, &tcp(SERVER, 3260, LAN, 4, ACK)),
            Err(R::NotOurs),
        ),
        ("UDP", ip(CLIENT, SERVER, 17, &[0; 8]), Err(R::Protocol)),
        (
            "IPv6",
            with(tcp(CLIENT, 40000, SERVER, 3260, SYN), 0, 0x65),
            Err(R::NotIpv4),
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(server().inbound(&bytes, 0), expected, "{name}");
    }
}

#[test]
fn what_our_own_kernel_must_not_send() {
    use DropReason as R;
    let cases = [
        (
            Side::Client,
            "a LAN packet",
            tcp(LAN, 40000, SERVER, 3260, SYN),
            Err(R::WrongSource),
        ),
        (
            Side::Client,
            "forwarded",
            tcp(CLIENT, 40000, LAN, 3260, SYN),
            Err(R::WrongDestination),
        ),
        (
            Side::Client,
            "to sshd",
            tcp(CLIENT, 40000, SERVER, 22, SYN),
            Err(R::NotAPortal),
        ),
        (
            Side::Client,
            "an answer of the client's own service",
            tcp(CLIENT, 22, SERVER, 3260, SYN | ACK),
            Err(R::BareSyn),
        ),
        (
            Side::Client,
            "echo reply",
            icmp(CLIENT, SERVER, 0, b""),
            Err(R::IcmpType),
        ),
        (
            Side::Server,
            "an opening",
            tcp(SERVER, 3260, CLIENT, 22, SYN),
            Err(R::BareSyn),
        ),
        (
            Side::Server,
            "from sshd",
            tcp(SERVER, 22, CLIENT, 40000, ACK),
            Err(R::NotAPortal),
        ),
        (Side::Server, "ping", icmp(SERVER, CLIENT, 8, b""), Err(R::IcmpType)),
        (
            Side::Server,
            "multicast",
            ip(SERVER, Ipv4Addr::new(224, 0, 0, 22), 2, &[]),
            Err(R::WrongDestination),
        ),
    ];
    for (side, name, bytes, expected) in cases {
        let mut filter = if side == Side::Client { client() } else { server() };
        assert_eq!(filter.outbound(&bytes, 0), expected, "{name}");
    }
}

#[test]
fn drops_are_counted_by_reason() {
    let mut drops = Drops::default();
    for (n, reason) in DropReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, n);
        drops.note(reason);
    }
    drops.note(DropReason::BareSyn);
    assert_eq!(drops.count(DropReason::BareSyn), 2);
    assert_eq!(drops.total(), 19);
    assert_eq!(drops.iter().count(), 18);
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        Just(CLIENT),
        Just(SERVER),
        Just(LAN),
        any::<[u8; 4]>().prop_map(Ipv4Addr::from)
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(3260), Just(22), Just(40000), any::<u16>()]
}

proptest! {
    #[test]
    fn nothing_of_a_stranger_passes_unopened(
        source in address(), destination in address(), from in port(), to in port(), flags in any::<u8>(),
    ) {
        let bytes = tcp(source, from, destination, to, flags);
        prop_assert!(client().inbound(&bytes, 0).is_err(), "no TCP comes in before anything was opened");
        if server().inbound(&bytes, 0).is_ok() {
            prop_assert!((source, destination) == (CLIENT, SERVER) && (to == 3260 || to == 3261));
        }
        if server().outbound(&bytes, 0).is_ok() {
            prop_assert!((source, destination) == (SERVER, CLIENT) && flags & (SYN | ACK) != SYN);
        }
    }

    #[test]
    fn only_the_opened_connection_is_answered(
        local in any::<u16>(), to in port(), from in port(), flags in any::<u8>(),
    ) {
        let mut filter = client();
        prop_assert_eq!(filter.outbound(&tcp(CLIENT, local, SERVER, 3260, SYN), 0), Ok(()));
        if filter.inbound(&tcp(SERVER, from, CLIENT, to, flags), 0).is_ok() {
            prop_assert!(to == local && from == 3260 && flags & (SYN | ACK) != SYN);
        }
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200), v4 in any::<bool>()) {
        let mut bytes = bytes;
        if v4 && bytes.len() >= 20 {
            // Right up to the transport header, so that the deeper checks are reached.
            bytes[0] = 0x45;
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes[2..4].copy_from_slice(&length);
            bytes[6..8].copy_from_slice(&[0, 0]);
            bytes[9] = if bytes[9] & 1 == 0 { 6 } else { 1 };
            bytes[12..16].copy_from_slice(&SERVER.octets());
            bytes[16..20].copy_from_slice(&CLIENT.octets());
        }
        let verdict = client().inbound(&bytes, 0);
        if verdict.is_ok() {
            prop_assert_eq!(bytes[9], 1, "only ICMP can pass unopened");
            prop_assert!(matches!(bytes[20], 0 | 3 | 11 | 12));
        }
        let _judged_too = (client().outbound(&bytes, 0), server().inbound(&bytes, 0), server().outbound(&bytes, 0));
    }
}
