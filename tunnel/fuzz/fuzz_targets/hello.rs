//! Both halves of the hello against bytes of any kind: never a panic, and nothing agreed that is out of bounds.
#![no_main]

use std::net::Ipv4Addr;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tunnel::peer::{ClientEvent, ClientHello, MTU_MIN, OFFERS_MAX, Pair, ServerEvent, ServerHello};

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (taken, bytes) = input;
    let mut input = BytesMut::from(&bytes[..]);
    let mut client = ClientHello::new(1500, None, 0);
    let mut offers = 0;
    while let Ok(Some(event)) = client.receive(&mut input, 1) {
        let (ClientEvent::Offered(terms) | ClientEvent::Ready(terms)) = event;
        assert!((MTU_MIN..=1500).contains(&terms.mtu) && !terms.portal_ports.is_empty());
        offers += 1;
        assert!(offers <= OFFERS_MAX + 1);
        if taken { client.taken() } else { client.accept() }
    }

    let mut input = BytesMut::from(&bytes[..]);
    let mut server = ServerHello::new(1500, vec![3260], 0);
    let mut wanted = 0;
    while let Ok(Some(event)) = server.receive(&mut input, 1) {
        match event {
            ServerEvent::Wanted { .. } => {
                wanted += 1;
                assert!(wanted <= OFFERS_MAX);
                let pair = Pair::new(Ipv4Addr::new(172, 18, 0, 1), Ipv4Addr::new(172, 18, 0, 2));
                server.offer(pair.expect("private addresses"));
            }
            ServerEvent::Accepted(terms) => {
                assert!((MTU_MIN..=1500).contains(&terms.mtu));
                server.ready();
            }
        }
    }
});
