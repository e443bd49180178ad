//! The filter on bytes of any kind, both sides and directions: never a panic, and what passes is between the pair.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use tunnel::filter::{Filter, Side};

const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);

fuzz_target!(|packets: Vec<(bool, Vec<u8>)>| {
    let mut client = Filter::new(Side::Client, CLIENT, SERVER, &[3260], 1500);
    let mut server = Filter::new(Side::Server, SERVER, CLIENT, &[3260], 1500);
    for (now_ms, (outbound, packet)) in packets.iter().enumerate() {
        let now_ms = now_ms as u64;
        for (filter, local, remote) in [(&mut client, CLIENT, SERVER), (&mut server, SERVER, CLIENT)] {
            let (verdict, source, destination) = if *outbound {
                (filter.outbound(packet, now_ms), local, remote)
            } else {
                (filter.inbound(packet, now_ms), remote, local)
            };
            if verdict.is_ok() {
                assert_eq!(packet[0], 0x45);
                assert_eq!(packet[12..16], source.octets());
                assert_eq!(packet[16..20], destination.octets());
                assert!(packet[9] == 1 || packet[9] == 6);
            }
        }
    }
});
