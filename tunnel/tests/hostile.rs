//! A server that turns on its client, and a client that is killed or goes silent.
//!
//! Needs root, `ip` and sshd. The hostile server speaks the hello as it should and then sends packets of its own
//! making; each is first shown to be answered by a kernel without the filter, so that the test can fail.

mod support;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bytes::BytesMut;
use support::{Namespace, PATIENCE, World, join};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tunnel::frame::{Decoder, Encoder, Frame};
use tunnel::link::PacketDevice;
use tunnel::peer::{Pair, ServerEvent, ServerHello};
use tunnel::tun::Device;

const SERVER_SIDE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const CLIENT_SIDE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const LAN_HOST: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);
/// Where the client's host has a service for itself.
const OWN_SERVICE: u16 = 2200;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn ip_packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload.len() as u16).to_be_bytes());
    header.extend([0, 7, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

fn tcp(source: Ipv4Addr, from: u16, destination: Ipv4Addr, to: u16, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let pseudo = [&source.octets()[..], &destination.octets()[..], &[0, 6, 0, 20]].concat();
    let sum = checksum(&[&pseudo, &segment]);
    segment[16..18].copy_from_slice(&sum);
    ip_packet(source, destination, 6, &segment)
}

fn echo_request(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
    let sum = checksum(&[&body]);
    body[2..4].copy_from_slice(&sum);
    ip_packet(source, destination, 1, &body)
}

/// What a hostile server tries.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "SYN to a service of the client's host",
            tcp(SERVER_SIDE, 3260, CLIENT_SIDE, OWN_SERVICE, SYN),
        ),
        (
            "SYN from another port",
            tcp(SERVER_SIDE, 50000, CLIENT_SIDE, OWN_SERVICE, SYN),
        ),
        (
            "ACK to find open ports",
            tcp(SERVER_SIDE, 3260, CLIENT_SIDE, OWN_SERVICE, ACK),
        ),
        ("SYN into the LAN", tcp(SERVER_SIDE, 3260, LAN_HOST, OWN_SERVICE, SYN)),
        ("ping into the LAN", echo_request(SERVER_SIDE, LAN_HOST)),
        ("ping", echo_request(SERVER_SIDE, CLIENT_SIDE)),
    ]
}

/// A client's host that forwards, with a service of its own and a LAN behind it, where a host knows the way back.
fn host_with_a_lan(world: &World) -> Namespace {
    let lan = Namespace::new("l");
    join(
        (&world.client, "lan0", "10.79.0.1"),
        (&lan, "lan0", &LAN_HOST.to_string()),
    );
    support::ip(&lan.0, "route add 172.18.0.0/24 via 10.79.0.1");
    world.client.sysctl("net/ipv4/ip_forward", "1");
    for namespace in [&world.client, &lan] {
        // Never stopped: it goes with the process.
        namespace.run(|| async {
            let listener = tokio::net::TcpListener::bind(("0.0.0.0", OWN_SERVICE)).await.unwrap();
            let _served = tokio::time::timeout(2 * PATIENCE, support::echo(listener)).await;
        });
    }
    lan
}

#[test]
fn a_hostile_server_gets_no_answer() {
    let world = World::new("");
    let _lan = host_with_a_lan(&world);
    std::thread::sleep(Duration::from_millis(300));

    // Without the filter every one of them is answered. (Half-open connections stay, and answer again through the
    // tunnel: that must not get out either.)
    let unfiltered = world.client.run(|| async {
        let device = Device::create("bare%d", CLIENT_SIDE, SERVER_SIDE, 1500).await.unwrap();
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{}/forwarding", device.name()), "1").unwrap();
        for (what, packet) in attacks() {
            device.send(&packet).await.unwrap();
            let mut answer = vec![0; 2000];
            let answered = tokio::time::timeout(Duration::from_secs(3), device.receive(&mut answer)).await;
            assert!(answered.is_ok(), "{what}: even a bare kernel does not answer");
        }
    });
    unfiltered.join().unwrap();

    let path = world.file("tunnel.sock");
    let (said, sent) = std::sync::mpsc::channel();
    let hostile = world.server.run(move || async move {
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        said.send(()).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let rest = hello(&mut stream).await;
        let mut encoder = Encoder::new();
        attacks().iter().for_each(|(_, packet)| assert!(encoder.push(packet)));
        stream.write_all(encoder.bytes()).await.unwrap();
        said.send(()).unwrap();
        let answers = answers(&mut stream, rest).await;
        assert!(answers.is_empty(), "the client's host answers: {answers:02x?}");
    });
    sent.recv_timeout(PATIENCE).unwrap();
    let holding = world.connect(world.options("root")).unwrap();
    assert_eq!(holding.addresses().0, CLIENT_SIDE.to_string());
    sent.recv_timeout(PATIENCE).unwrap();
    hostile.join().unwrap();
    let error = holding.ended().unwrap_err();
    assert!(error.contains("closed the tunnel"), "{error}");
}

async fn hello(stream: &mut UnixStream) -> BytesMut {
    let mut machine = ServerHello::new(1500, vec![3260], 0);
    let mut input = BytesMut::new();
    loop {
        match machine.receive(&mut input, 1).unwrap() {
            Some(ServerEvent::Wanted { .. }) => machine.offer(Pair::new(SERVER_SIDE, CLIENT_SIDE).unwrap()),
            Some(ServerEvent::Accepted(_)) => machine.ready(),
            None => assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0),
        }
        let output = machine.take_output();
        let ready = output.get(10) == Some(&5);
        stream.write_all(&output).await.unwrap();
        if ready {
            return input;
        }
    }
}

/// What comes back within two seconds.
async fn answers(stream: &mut UnixStream, rest: BytesMut) -> Vec<Frame> {
    let mut decoder = Decoder::new(1500, rest);
    let mut answers = Vec::new();
    let listening = async {
        while stream.read_buf(decoder.buffer()).await.unwrap() > 0 {
            while let Some(frame) = decoder.next_frame().unwrap() {
                answers.push(frame);
            }
        }
    };
    let _quiet = tokio::time::timeout(Duration::from_secs(2), listening).await;
    answers
}

#[test]
fn a_hostile_client_reaches_portals_only() {
    let world = World::new("");
    world.server.sysctl("net/ipv4/ip_forward", "1");
    let serving = world.serve(|_| {});
    let own_service = world.server.run(|| async {
        let listener = tokio::net::TcpListener::bind(("0.0.0.0", OWN_SERVICE)).await.unwrap();
        let _served = tokio::time::timeout(Duration::from_secs(5), support::echo(listener)).await;
    });
    let path = world.file("tunnel.sock");
    let client = world.server.run(move || async move {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let mut machine = tunnel::peer::ClientHello::new(1500, None, 0);
        let mut input = BytesMut::new();
        loop {
            stream.write_all(&machine.take_output()).await.unwrap();
            match machine.receive(&mut input, 1).unwrap() {
                Some(tunnel::peer::ClientEvent::Offered(_)) => machine.accept(),
                Some(tunnel::peer::ClientEvent::Ready(_)) => break,
                None => assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0),
            }
        }
        let up_link: Ipv4Addr = support::CLIENT.parse().unwrap();
        let mut encoder = Encoder::new();
        for packet in [
            tcp(CLIENT_SIDE, 40000, SERVER_SIDE, OWN_SERVICE, SYN),
            tcp(CLIENT_SIDE, 40000, support::SERVER.parse().unwrap(), OWN_SERVICE, SYN),
            tcp(CLIENT_SIDE, 40000, up_link, 22, SYN),
            tcp(up_link, 40000, SERVER_SIDE, 3260, SYN),
            tcp(CLIENT_SIDE, 40000, SERVER_SIDE, 3260, SYN),
        ] {
            assert!(encoder.push(&packet));
        }
        stream.write_all(encoder.bytes()).await.unwrap();
        answers(&mut stream, input).await
    });
    let answers = client.join().unwrap();
    assert!(!answers.is_empty(), "the portal answers");
    for answer in answers {
        let Frame::Packet(packet) = answer else { continue };
        assert_eq!(
            packet[20..24],
            [0x0c, 0xbc, 0x9c, 0x40],
            "only from port 3260 to 40000: {packet:02x?}"
        );
    }
    assert!(serving.next_event().starts_with("up farlun0"));
    assert!(
        serving.next_event().starts_with("down farlun0 4 "),
        "the four others are counted"
    );
    own_service.join().unwrap();
}
