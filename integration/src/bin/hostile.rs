//! A server that farlun's client should not trust: it opens a tunnel as it should and then sends what it should not.
//! Prints a line for each packet that comes back.
//!
//! `serve` is that server, behind a stock `sshd`. `bare` sends the same packets into a tun device that nobody filters:
//! there each of them is answered, which is how a test knows that they are worth something. `listen` is what they are
//! after.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use clap::Parser;
use integration::packet::{self, Route, Segment, flag};
use tunnel::frame::{Decoder, Encoder, Frame};
use tunnel::peer::{Pair, ServerEvent, ServerHello};

const SERVER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const PORTAL_PORT: u16 = 3260;
const MTU: u16 = 1400;
/// Time for answers to each packet.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);

/// Send what a client must not take from its server.
#[derive(Parser)]
enum Mode {
    /// Take the place of farlun's socket.
    Serve {
        /// Where.
        socket: PathBuf,
        #[command(flatten)]
        victims: Victims,
    },
    /// Be a service that accepts connections on all addresses, and closes them.
    Listen {
        /// On this port.
        port: u16,
    },
    /// Send into a tun device made for it.
    Bare {
        #[command(flatten)]
        victims: Victims,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Victims {
    /// A port that the client listens on.
    port: u16,
    /// A host on the client's LAN that listens on the same port.
    lan: Ipv4Addr,
}

impl Victims {
    /// Each packet by name; each is answered by a host that does not filter.
    fn attacks(self) -> Vec<(&'static str, Vec<u8>)> {
        let to_client = Route {
            from: SERVER,
            to: CLIENT,
        };
        let to_lan = Route {
            from: SERVER,
            to: self.lan,
        };
        let segment = |from: u16, flags: u8| Segment {
            from,
            to: self.port,
            sequence: 1000,
            acknowledged: 1,
            flags,
        };
        vec![
            ("syn to the client", packet::tcp(to_client, segment(40_000, flag::SYN))),
            (
                "syn to the client from the portal's port",
                packet::tcp(to_client, segment(PORTAL_PORT, flag::SYN)),
            ),
            (
                "ack for no connection",
                packet::tcp(to_client, segment(PORTAL_PORT, flag::ACK)),
            ),
            (
                "syn to the client's lan",
                packet::tcp(to_lan, segment(40_001, flag::SYN)),
            ),
            (
                "syn to the client's lan from the portal's port",
                packet::tcp(to_lan, segment(PORTAL_PORT, flag::SYN)),
            ),
            ("echo request to the client", packet::echo_request(to_client)),
            ("echo request to the client's lan", packet::echo_request(to_lan)),
            ("udp to the client", packet::udp(to_client, 40_002, 9, b"hello")),
        ]
    }
}

fn main() -> Result<()> {
    match Mode::parse() {
        Mode::Serve { socket, victims } => serve(&socket, victims),
        Mode::Listen { port } => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
            println!("ready");
            loop {
                listener.accept()?;
            }
        }
        Mode::Bare { victims } => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(bare(victims)),
    }
}

fn serve(socket: &std::path::Path, victims: Victims) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let already_read = hello(&mut stream)?;
    let mut writer = stream.try_clone()?;
    std::thread::spawn(move || -> Result<()> {
        for (name, packet) in victims.attacks() {
            println!("sent {name}");
            send(&mut writer, &packet)?;
            std::thread::sleep(ANSWER_PAUSE);
        }
        println!("all sent");
        Ok(())
    });
    let mut decoder = Decoder::new(usize::from(MTU), already_read);
    loop {
        while let Some(frame) = decoder.next_frame()? {
            if let Frame::Packet(bytes) = frame {
                println!("came {}", packet::describe(&bytes));
                answer(&mut stream, &bytes)?;
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => decoder.buffer().extend_from_slice(&buffer[..count]),
        }
    }
}

/// The hello of an honest server; what came behind it is returned.
fn hello(stream: &mut UnixStream) -> Result<BytesMut> {
    let mut machine = ServerHello::new(MTU, vec![PORTAL_PORT], 0);
    let mut input = BytesMut::new();
    loop {
        let accepted = match machine.receive(&mut input, 0)? {
            Some(ServerEvent::Wanted { .. }) => {
                machine.offer(Pair::new(SERVER, CLIENT).context("constants")?);
                false
            }
            Some(ServerEvent::Accepted(_)) => {
                machine.ready();
                true
            }
            None => {
                let mut buffer = [0; 1024];
                match stream.read(&mut buffer)? {
                    0 => bail!("the client hung up"),
                    count => input.extend_from_slice(&buffer[..count]),
                }
                continue;
            }
        };
        stream.write_all(&machine.take_output())?;
        if accepted {
            println!("tunnel open");
            return Ok(input);
        }
    }
}

/// The one thing an honest server without a portal would say: a reset for the client's own SYN. It shows that what is
/// allowed gets through.
fn answer(stream: &mut UnixStream, bytes: &[u8]) -> Result<()> {
    if let Some(syn) = packet::segment(bytes).filter(|segment| segment.flags == flag::SYN) {
        let reset = Segment {
            from: syn.to,
            to: syn.from,
            sequence: 0,
            acknowledged: syn.sequence.wrapping_add(1),
            flags: flag::RST | flag::ACK,
        };
        send(
            stream,
            &packet::tcp(
                Route {
                    from: SERVER,
                    to: CLIENT,
                },
                reset,
            ),
        )?;
    }
    Ok(())
}

fn send(stream: &mut UnixStream, packet: &[u8]) -> Result<()> {
    let mut encoder = Encoder::new();
    anyhow::ensure!(encoder.push(packet), "a packet too long to say");
    Ok(stream.write_all(encoder.bytes())?)
}

async fn bare(victims: Victims) -> Result<()> {
    let device = tokio_tun::Tun::builder()
        .name("bare%d")
        .address(CLIENT)
        .destination(SERVER)
        .up()
        .build()?;
    let device = device.into_iter().next().context("no device")?;
    let mut buffer = [0; 2048];
    for (name, packet) in victims.attacks() {
        println!("sent {name}");
        device.send_all(&packet).await?;
        while let Ok(count) = tokio::time::timeout(ANSWER_PAUSE, device.recv(&mut buffer)).await {
            println!("came {}", packet::describe(&buffer[..count?]));
        }
    }
    println!("all sent");
    Ok(())
}
