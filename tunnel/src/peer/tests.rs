//! Both halves of the hello against each other, and against nonsense.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::pool::{Lease, Occupied, Pool, Walk};
use super::wire::{BODY_MAX_BYTES, HEADER_BYTES, MAGIC, Message, REASON_MAX_BYTES, Role, printable};
use super::*;

/// Lets both ends talk until one is done; `client_has` and `server_has` are what is in use on each side.
fn talk(
    client_has: &Occupied,
    server_has: &Occupied,
    pool: &Pool,
    wished: Option<Pair>,
) -> (Result<Terms, HelloError>, Result<(Terms, Lease), HelloError>) {
    let mut client = ClientHello::new(MTU_DEFAULT, wished, 0);
    let mut server = ServerHello::new(9000, vec![3260], 0);
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let (mut walk, mut lease, mut agreed) = (Walk::default(), None, None);
    for _ in 0..4 * OFFERS_MAX {
        to_server.unsplit(client.take_output());
        match server.receive(&mut to_server, 1) {
            Ok(Some(ServerEvent::Wanted { wished })) => {
                lease = pool.lease(&mut walk, wished, server_has);
                match &lease {
                    Some(lease) => server.offer(lease.pair()),
                    None => server.refuse(Refusal::NoAddresses, "all in use"),
                }
            }
            Ok(Some(ServerEvent::Accepted(terms))) => {
                agreed = Some(terms);
                server.ready();
            }
            Ok(None) => {}
            Err(error) => {
                to_client.unsplit(server.take_output());
                return (
                    client.receive(&mut to_client, 1).map(|_| panic!("no refusal")),
                    Err(error),
                );
            }
        }
        to_client.unsplit(server.take_output());
        match client.receive(&mut to_client, 1) {
            Ok(Some(ClientEvent::Offered(terms))) if client_has.has_any(terms.pair) => client.taken(),
            Ok(Some(ClientEvent::Offered(_))) => client.accept(),
            Ok(Some(ClientEvent::Ready(terms))) => return (Ok(terms), Ok((agreed.unwrap(), lease.unwrap()))),
            Ok(None) => {}
            Err(error) => return (Err(error), Err(HelloError::HungUp)),
        }
    }
    panic!("the ends talk forever");
}

fn occupied(networks: &[([u8; 4], u8)]) -> Occupied {
    let mut occupied = Occupied::default();
    networks
        .iter()
        .for_each(|(address, bits)| occupied.add(Ipv4Addr::from(*address), *bits));
    occupied
}

fn agreed(client_has: &Occupied, server_has: &Occupied) -> String {
    let (client, server) = talk(client_has, server_has, &Pool::default(), None);
    let (terms, (servers_terms, lease)) = (client.unwrap(), server.unwrap());
    assert_eq!(terms, servers_terms);
    assert_eq!(terms.pair, lease.pair());
    assert_eq!(terms.mtu, 9000, "the smaller of both");
    assert_eq!(terms.portal_ports, [3260]);
    terms.pair.to_string()
}

#[test]
fn the_usual_pair_and_the_next_ones() {
    let free = Occupied::default();
    let default_routes = occupied(&[([0, 0, 0, 0], 0), ([0, 0, 0, 0], 1), ([128, 0, 0, 0], 1)]);
    let first = occupied(&[([172, 18, 0, 1], 32)]);
    let bridge = occupied(&[([172, 18, 0, 1], 16)]);
    let twelve = occupied(&[([172, 16, 0, 0], 12)]);
    let most = occupied(&[([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)]);
    assert_eq!(agreed(&free, &free), "172.18.0.2 <-> 172.18.0.1");
    assert_eq!(agreed(&default_routes, &default_routes), "172.18.0.2 <-> 172.18.0.1");
    assert_eq!(agreed(&first, &free), "172.18.0.6 <-> 172.18.0.5");
    assert_eq!(agreed(&free, &first), "172.18.0.6 <-> 172.18.0.5");
    assert_eq!(agreed(&bridge, &free), "172.30.253.2 <-> 172.30.253.1");
    assert_eq!(agreed(&free, &bridge), "172.30.253.2 <-> 172.30.253.1");
    assert_eq!(agreed(&twelve, &free), "192.168.219.2 <-> 192.168.219.1");
    assert_eq!(agreed(&twelve, &bridge), "192.168.219.2 <-> 192.168.219.1");
    assert_eq!(agreed(&most, &free), "10.218.43.2 <-> 10.218.43.1");
}

#[test]
fn nothing_free_is_said_on_both_ends() {
    let all = occupied(&[([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([10, 0, 0, 0], 8)]);
    let free = Occupied::default();
    for (client_has, server_has) in [(&all, &free), (&free, &all)] {
        let (client, server) = talk(client_has, server_has, &Pool::default(), None);
        assert!(
            matches!(
                client,
                Err(HelloError::Refused {
                    refusal: Refusal::NoAddresses,
                    ..
                })
            ),
            "{client:?}"
        );
        assert!(server.is_err());
    }
}

#[test]
fn clients_of_one_server_get_different_pairs() {
    let (pool, free) = (Pool::default(), Occupied::default());
    let leases: Vec<_> = (0..100).map(|_| talk(&free, &free, &pool, None).1.unwrap().1).collect();
    let pairs: std::collections::HashSet<_> = leases.iter().map(Lease::pair).collect();
    assert_eq!(pairs.len(), 100);
    drop(leases);
    assert_eq!(
        talk(&free, &free, &pool, None).0.unwrap().pair.to_string(),
        "172.18.0.2 <-> 172.18.0.1"
    );
}

#[test]
fn a_wish_is_granted_when_free() {
    let (pool, free) = (Pool::default(), Occupied::default());
    let wish = Pair::new(Ipv4Addr::new(10, 97, 6, 9), Ipv4Addr::new(10, 97, 6, 10));
    let (first, _lease) = talk(&free, &free, &pool, wish).1.unwrap();
    assert_eq!(Some(first.pair), wish);
    let (second, _) = talk(&free, &free, &pool, wish).1.unwrap();
    assert_eq!(second.pair.to_string(), "172.18.0.2 <-> 172.18.0.1");
}

/// Else a client could wish for an address that the server reaches by its default route, and cut it off from there.
#[test]
fn a_wish_that_is_not_on_the_list_is_not_granted() {
    let (pool, free) = (Pool::default(), Occupied::default());
    let wishes = [
        ([192, 168, 77, 1], [10, 0, 5, 17]),
        ([10, 1, 2, 3], [10, 1, 2, 4]),
        ([172, 18, 0, 1], [10, 0, 5, 17]),
        ([172, 18, 0, 2], [172, 18, 0, 1]),
        ([172, 18, 0, 253], [172, 18, 0, 254]),
    ];
    for (server, client) in wishes {
        let wish = Pair::new(server.into(), client.into());
        assert!(wish.is_some());
        let (terms, _lease) = talk(&free, &free, &pool, wish).1.unwrap();
        assert_eq!(terms.pair.to_string(), "172.18.0.2 <-> 172.18.0.1", "{wish:?}");
    }
}

#[test]
fn what_the_pool_leases_is_on_the_list() {
    let (pool, mut walk, free) = (Pool::default(), Walk::default(), Occupied::default());
    let leases: Vec<_> = std::iter::from_fn(|| pool.lease(&mut walk, None, &free)).collect();
    assert_eq!(leases.len(), 6 * 3, "three of each block for one client");
    assert!(leases.iter().all(|lease| super::pool::on_the_list(lease.pair())));
    assert!(leases.len() <= OFFERS_MAX);
}

#[test]
fn addresses_that_make_no_pair() {
    let private = Ipv4Addr::new(10, 0, 0, 1);
    for other in [
        private,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(8, 8, 8, 8),
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
    ] {
        assert_eq!(Pair::new(private, other), None);
        assert_eq!(Pair::new(other, private), None);
    }
}

fn offer(mtu: u16, portal_ports: Vec<u16>, addresses: ([u8; 4], [u8; 4])) -> Message {
    let addresses = (addresses.0.into(), addresses.1.into());
    Message::Offer {
        capabilities: capability::ALL,
        mtu,
        addresses,
        portal_ports,
    }
}

#[test]
fn bad_offers() {
    let good = ([172, 18, 0, 1], [172, 18, 0, 2]);
    let cases = [
        (offer(1501, vec![3260], good), "a packet size"),
        (offer(575, vec![3260], good), "a packet size"),
        (offer(1500, vec![], good), "no usable list"),
        (offer(1500, vec![0], good), "no usable list"),
        (
            offer(1500, vec![3260], ([127, 0, 0, 1], [172, 18, 0, 2])),
            "addresses that are not",
        ),
        (
            offer(1500, vec![3260], ([1, 1, 1, 1], [172, 18, 0, 2])),
            "addresses that are not",
        ),
        (
            offer(1500, vec![3260], ([10, 0, 0, 53], [10, 0, 0, 54])),
            "neither on the list",
        ),
        (
            offer(1500, vec![3260], ([172, 18, 0, 1], [172, 18, 0, 3])),
            "neither on the list",
        ),
        (
            offer(1500, vec![3260], ([172, 18, 0, 253], [172, 18, 0, 254])),
            "neither on the list",
        ),
        (
            offer(1500, vec![3260], ([172, 18, 0, 2], [172, 18, 0, 3])),
            "neither on the list",
        ),
        (
            offer(1500, vec![3260], ([172, 18, 0, 2], [172, 18, 0, 2])),
            "addresses that are not",
        ),
    ];
    for (message, expected) in cases {
        let mut input = BytesMut::new();
        message.emit(Role::Server, &mut input);
        let error = ClientHello::new(1500, None, 0).receive(&mut input, 1).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn another_version_is_told_so() {
    let mut client = ClientHello::new(1500, None, 0);
    let mut input = client.take_output();
    input[9] = 7;
    let mut server = ServerHello::new(1500, vec![3260], 0);
    let error = server.receive(&mut input, 1).unwrap_err();
    assert_eq!(error, HelloError::Version { ours: 1, theirs: 7 });
    let mut answer = server.take_output();
    answer[9] = 7;
    let error = client.receive(&mut answer, 1).unwrap_err();
    assert!(
        matches!(
            &error,
            HelloError::Refused {
                refusal: Refusal::Version,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("version 1"), "{error}");
}

#[test]
fn strangers_and_nonsense() {
    let mut header = BytesMut::from(&MAGIC[..]);
    header.put_slice(&[0, 1, 1, 1]);
    header.put_u16(BODY_MAX_BYTES as u16 + 1);
    let cases: [(&[u8], HelloError); 5] = [
        (b"SSH-2.0-OpenSSH_9.2\r\n", HelloError::NotFarlun),
        (b"FARLUNTX", HelloError::NotFarlun),
        (b"F\n", HelloError::NotFarlun),
        (
            &header,
            HelloError::TooLong {
                length: BODY_MAX_BYTES + 1,
            },
        ),
        (
            b"FARLUNTN\0\x01\x09\x01\0\0",
            HelloError::Malformed("message: its kind is unknown"),
        ),
    ];
    for (bytes, expected) in cases {
        let mut server = ServerHello::new(1500, vec![3260], 0);
        assert_eq!(server.receive(&mut BytesMut::from(bytes), 1), Err(expected));
    }
    let mut echo = ClientHello::new(1500, None, 0);
    let mut own = echo.take_output();
    assert!(
        matches!(echo.receive(&mut own, 1), Err(HelloError::Malformed(_))),
        "an echo is not a server"
    );
}

#[test]
fn out_of_order_and_late() {
    for message in [Message::Ready, Message::Answer { accepted: true }] {
        let mut input = BytesMut::new();
        message.emit(Role::Client, &mut input);
        let error = ServerHello::new(1500, vec![3260], 0)
            .receive(&mut input, 1)
            .unwrap_err();
        assert!(matches!(error, HelloError::Unexpected { .. }), "{error}");
    }
    let mut server = ServerHello::new(1500, vec![3260], 5);
    assert_eq!(server.receive(&mut BytesMut::new(), 5 + HELLO_TIMEOUT_MS - 1), Ok(None));
    assert_eq!(
        server.receive(&mut BytesMut::new(), 5 + HELLO_TIMEOUT_MS),
        Err(HelloError::TimedOut)
    );
}

#[test]
fn frames_behind_ready_stay() {
    let mut client = ClientHello::new(1500, None, 0);
    let mut input = BytesMut::new();
    offer(1500, vec![3260], ([172, 18, 0, 1], [172, 18, 0, 2])).emit(Role::Server, &mut input);
    assert!(matches!(
        client.receive(&mut input, 1),
        Ok(Some(ClientEvent::Offered(_)))
    ));
    client.accept();
    Message::Ready.emit(Role::Server, &mut input);
    input.put_slice(b"\x00\x01x");
    assert!(matches!(client.receive(&mut input, 1), Ok(Some(ClientEvent::Ready(_)))));
    assert_eq!(&input[..], b"\x00\x01x");
}

#[test]
fn reasons_are_safe_to_print() {
    let nasty = format!("no\x1b[2J\r\n\u{202e}{}", "ü".repeat(300));
    let mut out = BytesMut::new();
    Message::Refused {
        refusal: Refusal::Other,
        text: nasty,
    }
    .emit(Role::Server, &mut out);
    assert!(out.len() <= HEADER_BYTES + 2 + REASON_MAX_BYTES);
    let error = ClientHello::new(1500, None, 0).receive(&mut out, 1).unwrap_err();
    let HelloError::Refused { text, .. } = error else {
        panic!("{error}")
    };
    assert!(
        text.starts_with("no?[2J???üü") && text.len() <= REASON_MAX_BYTES,
        "{text}"
    );
    assert_eq!(printable("plain ascii"), "plain ascii");
}

fn message() -> impl Strategy<Value = (Role, Message)> {
    let addresses = || (any::<u32>(), any::<u32>()).prop_map(|(a, b)| (Ipv4Addr::from(a), Ipv4Addr::from(b)));
    let hello = (any::<u32>(), any::<u16>(), addresses()).prop_map(|(capabilities, mtu, wished)| Message::Hello {
        capabilities,
        mtu,
        wished,
    });
    let offer = (
        any::<u32>(),
        any::<u16>(),
        addresses(),
        prop::collection::vec(any::<u16>(), 0..=8),
    )
        .prop_map(|(capabilities, mtu, addresses, portal_ports)| Message::Offer {
            capabilities,
            mtu,
            addresses,
            portal_ports,
        });
    let refused = (0u8..7, "[a-z ]{0,150}").prop_map(|(code, text)| Message::Refused {
        refusal: Refusal::from(code),
        text,
    });
    let answer = any::<bool>().prop_map(|accepted| Message::Answer { accepted });
    let role = prop_oneof![Just(Role::Client), Just(Role::Server)];
    (role, prop_oneof![hello, offer, refused, answer, Just(Message::Ready)])
}

proptest! {
    #[test]
    fn messages_round_trip((role, message) in message(), cut in any::<prop::sample::Index>()) {
        let mut bytes = BytesMut::new();
        message.emit(role, &mut bytes);
        let mut part = BytesMut::from(&bytes[..cut.index(bytes.len())]);
        prop_assert_eq!(Message::take(role, &mut part), Ok(None));
        prop_assert_eq!(Message::take(role, &mut bytes), Ok(Some(message)));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn any_bytes_end_or_wait(
        bytes in prop::collection::vec(any::<u8>(), 0..600), framed in any::<bool>(), kind in 0u8..7,
    ) {
        let mut input = BytesMut::new();
        if framed {
            input.put_slice(&MAGIC);
            input.put_slice(&[0, 1, kind, 1]);
            input.put_u16(bytes.len() as u16);
        }
        input.put_slice(&bytes);
        let mut server = ServerHello::new(1500, vec![3260], 0);
        let verdict = server.receive(&mut input.clone(), 1);
        if let Ok(Some(event)) = verdict {
            prop_assert!(framed && kind == 1);
            let wanted = matches!(event, ServerEvent::Wanted { .. });
            prop_assert!(wanted);
        }
        if framed { input[11] = 2; }
        let verdict = ClientHello::new(1500, None, 0).receive(&mut input, 1);
        if let Ok(Some(ClientEvent::Offered(terms))) = verdict {
            prop_assert!(framed && kind == 2 && (MTU_MIN..=1500).contains(&terms.mtu));
        }
    }
}
