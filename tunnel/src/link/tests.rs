//! The loop over in-memory streams and fake devices.

use std::net::Ipv4Addr;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::filter::DropReason;
use crate::peer::Pair;

/// Packets with this time to live block the fake device for longer than a line may be silent.
const SLOW_TTL: u8 = 2;

struct FakeDevice {
    from_kernel: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
    to_kernel: mpsc::UnboundedSender<Vec<u8>>,
}

struct Kernel {
    to_device: mpsc::Sender<Vec<u8>>,
    from_device: mpsc::UnboundedReceiver<Vec<u8>>,
}

fn fake_device() -> (FakeDevice, Kernel) {
    let (to_device, from_kernel) = mpsc::channel(4);
    let (to_kernel, from_device) = mpsc::unbounded_channel();
    let device = FakeDevice {
        from_kernel: tokio::sync::Mutex::new(from_kernel),
        to_kernel,
    };
    (device, Kernel { to_device, from_device })
}

impl PacketDevice for FakeDevice {
    async fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        let next = self.from_kernel.lock().await.recv().await;
        let next = next.ok_or_else(|| io::Error::other("device is gone"))?;
        packet[..next.len()].copy_from_slice(&next);
        Ok(next.len())
    }

    fn try_receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        let next = self
            .from_kernel
            .try_lock()
            .ok()
            .and_then(|mut queue| queue.try_recv().ok());
        let next = next.ok_or(io::ErrorKind::WouldBlock)?;
        packet[..next.len()].copy_from_slice(&next);
        Ok(next.len())
    }

    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        if packet[8] == 1 {
            // What this kernel dislikes: a time to live of 1.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if packet[8] == SLOW_TTL {
            tokio::time::sleep(Duration::from_millis(DEAD_AFTER_MS + 1)).await;
        }
        self.to_kernel.send(packet.to_vec()).map_err(io::Error::other)
    }
}

fn terms() -> Terms {
    let pair = Pair::new(Ipv4Addr::new(172, 18, 0, 1), Ipv4Addr::new(172, 18, 0, 2)).unwrap();
    Terms {
        pair,
        mtu: 1500,
        portal_ports: vec![3260],
        capabilities: capability::ALL,
    }
}

fn echo(from_client: bool, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    bytes[8] = 64;
    bytes[9] = 1;
    let (client, server) = ([172, 18, 0, 2], [172, 18, 0, 1]);
    bytes[12..16].copy_from_slice(if from_client { &client } else { &server });
    bytes[16..20].copy_from_slice(if from_client { &server } else { &client });
    bytes[20] = if from_client { 8 } else { 0 };
    bytes
}

fn spawn<S: AsyncRead + AsyncWrite + Send + 'static>(side: Side, stream: S) -> (Kernel, JoinHandle<Report>) {
    let (device, kernel) = fake_device();
    let running = async move {
        run(
            side,
            None,
            &terms(),
            &device,
            stream,
            BytesMut::new(),
            std::future::pending(),
        )
        .await
    };
    (kernel, tokio::spawn(running))
}

#[tokio::test]
async fn packets_cross_both_ways_through_a_narrow_stream() {
    let (here, there) = tokio::io::duplex(100);
    let (mut client, _running) = spawn(Side::Client, here);
    let (mut server, _serving) = spawn(Side::Server, there);
    for length in [28, 29, 600, 1500] {
        for _ in 0..20 {
            client.to_device.send(echo(true, length)).await.unwrap();
            assert_eq!(server.from_device.recv().await.unwrap(), echo(true, length));
            server.to_device.send(echo(false, length)).await.unwrap();
            assert_eq!(client.from_device.recv().await.unwrap(), echo(false, length));
        }
    }
}

#[tokio::test]
async fn what_must_not_pass_is_counted() {
    let (here, mut wire) = tokio::io::duplex(10_000);
    let (mut kernel, running) = spawn(Side::Server, here);
    let mut encoder = Encoder::new();
    let mut disliked = echo(true, 40);
    disliked[8] = 1;
    for packet in [&echo(false, 40)[..], &disliked, &[6; 3], &echo(true, 60)] {
        assert!(encoder.push(packet));
    }
    encoder.push_alive();
    wire.write_all(encoder.bytes()).await.unwrap();
    assert_eq!(
        kernel.from_device.recv().await.unwrap(),
        echo(true, 60),
        "the good one behind the bad ones"
    );
    kernel.to_device.send(echo(true, 40)).await.unwrap();
    kernel.to_device.send(echo(false, 40)).await.unwrap();
    let mut got = [0; 42];
    wire.read_exact(&mut got).await.unwrap();
    assert_eq!(got[2..], echo(false, 40), "only the right one goes out");
    drop(wire);
    let report = running.await.unwrap();
    assert!(matches!(report.end, Ok(LinkEnd::Closed)), "{report:?}");
    let counters = report.counters;
    assert_eq!((counters.received_packets, counters.received_bytes), (1, 60));
    assert_eq!((counters.sent_packets, counters.sent_bytes), (1, 40));
    assert_eq!(counters.inbound_drops.total(), 3);
    for reason in [DropReason::WrongSource, DropReason::NotIpv4, DropReason::Device] {
        assert_eq!(counters.inbound_drops.count(reason), 1, "{}", reason.name());
    }
    assert_eq!(counters.outbound_drops.total(), 1);
}

#[tokio::test]
async fn a_misbehaving_peer_ends_the_link_with_a_reason() {
    let cases: [(&[u8], &str); 3] = [
        (
            b"SSH-2.0",
            "broke the tunnel protocol: a packet of 21331 bytes was announced, but 1500",
        ),
        (b"\x05\xdd", "a packet of 1501 bytes was announced"),
        (b"\x00\x20\x45", "in the middle of a packet"),
    ];
    for (bytes, expected) in cases {
        let (here, mut wire) = tokio::io::duplex(1000);
        let (_kernel, running) = spawn(Side::Client, here);
        wire.write_all(bytes).await.unwrap();
        wire.shutdown().await.unwrap();
        let error = running.await.unwrap().end.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_and_noticed() {
    let (here, mut wire) = tokio::io::duplex(1000);
    let (_kernel, running) = spawn(Side::Client, here);
    let start = Instant::now();
    let mut alive = [1; 2];
    wire.read_exact(&mut alive).await.unwrap();
    assert_eq!(alive, [0, 0]);
    assert_eq!(start.elapsed().as_millis() as u64, ALIVE_AFTER_MS);
    wire.write_all(&[0, 0]).await.unwrap();
    let report = running.await.unwrap();
    assert!(matches!(report.end, Err(LinkError::Dead)), "{report:?}");
    let waited_ms = start.elapsed().as_millis() as u64;
    assert!(
        (ALIVE_AFTER_MS + DEAD_AFTER_MS..ALIVE_AFTER_MS + DEAD_AFTER_MS + 100).contains(&waited_ms),
        "{waited_ms}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_blocked_device_is_no_dead_line() {
    // Too narrow for two packets, so that after each there is another to read.
    let (here, mut wire) = tokio::io::duplex(42);
    let (mut kernel, _running) = spawn(Side::Server, here);
    let mut packet = echo(true, 40);
    packet[8] = SLOW_TTL;
    let mut encoder = Encoder::new();
    assert!(encoder.push(&packet));
    let _writing = tokio::spawn(async move {
        // What comes back, "alive" only, is left to the other half of the loop.
        while wire.write_all(encoder.bytes()).await.is_ok() {}
    });
    for count in 0..30 {
        assert_eq!(
            kernel.from_device.recv().await,
            Some(packet.clone()),
            "after {count} packets"
        );
    }
}

#[tokio::test]
async fn a_blocked_stream_stops_the_device() {
    let (here, _wire) = tokio::io::duplex(64);
    let (kernel, _running) = spawn(Side::Client, here);
    let flood = async {
        for _ in 0..10_000 {
            kernel.to_device.send(echo(true, 1500)).await.unwrap();
        }
    };
    let flooded = tokio::time::timeout(Duration::from_millis(300), flood).await;
    assert!(flooded.is_err(), "packets piled up between device and stream");
}

#[tokio::test]
async fn stops_when_told_and_says_goodbye() {
    let (here, mut wire) = tokio::io::duplex(64);
    let (device, _kernel) = fake_device();
    let report = run(Side::Client, None, &terms(), &device, here, BytesMut::new(), async {}).await;
    assert!(matches!(report.end, Ok(LinkEnd::Stopped)));
    let mut rest = Vec::new();
    wire.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}
