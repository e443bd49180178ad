//! The loop between a tun device and the stream to the other end.
//!
//! What waits, waits in the device's short queue where TCP sees it: towards the stream there is one batch of packets
//! at a time (see [`crate::frame::COALESCE_BYTES`]), and nothing is read from the device until that is written; from
//! the stream nothing more is read until the packets at hand are in the device.

mod engine;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::filter::{Counters, Filter, Openers, Side};
use crate::frame::{Decoder, Encoder, FrameError, MAX_PACKET_BYTES};
use crate::peer::{Terms, capability};

pub use engine::{ALIVE_AFTER_MS, DEAD_AFTER_MS, Engine};

/// How much is read from the stream at once, in bytes: two of the largest packets.
const READ_BYTES: usize = 0x2_0000;

/// How long saying goodbye may take, in milliseconds.
const GOODBYE_MS: u64 = 1000;

/// Where packets come from and go to; a tun device, or a fake one in tests.
pub trait PacketDevice: Send + Sync {
    /// Waits for the next packet of our kernel; its length in bytes. Must be safe to drop while it waits.
    fn receive(&self, packet: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
    /// The next packet if there is one, [`io::ErrorKind::WouldBlock`] if not.
    fn try_receive(&self, packet: &mut [u8]) -> io::Result<usize>;
    /// Hands a packet to our kernel.
    fn send(&self, packet: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

/// Why a link came to an end in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// This end was told to stop.
    Stopped,
    /// The other end closed the stream between two packets.
    Closed,
}

/// Why a link broke.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer sent something that is no frame.
    #[error("the other end broke the tunnel protocol: {0}")]
    Frame(#[from] FrameError),
    /// The stream ended inside a packet.
    #[error("the connection was cut off in the middle of a packet")]
    CutOff,
    /// Nothing was heard for [`DEAD_AFTER_MS`].
    #[error("the line is dead: nothing was heard from the other end for {} seconds", DEAD_AFTER_MS / 1000)]
    Dead,
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Stream(#[source] io::Error),
    /// The device failed, or somebody removed it.
    #[error("the tun device failed: {0}")]
    Device(#[source] io::Error),
}

/// How a link went.
#[derive(Debug)]
pub struct Report {
    /// Why it ended.
    pub end: Result<LinkEnd, LinkError>,
    /// What passed and what did not.
    pub counters: Counters,
}

/// Carries packets until `shutdown` resolves, the peer closes, or something breaks. `openers` may open connections on
/// this end (`None`: everybody who can), `already_read` is what came behind the hello.
pub async fn run<D, S>(
    side: Side,
    openers: Option<Box<dyn Openers>>,
    terms: &Terms,
    device: &D,
    stream: S,
    already_read: BytesMut,
    shutdown: impl Future<Output = ()>,
) -> Report
where
    D: PacketDevice,
    S: AsyncRead + AsyncWrite,
{
    let (local, remote) = match side {
        Side::Client => (terms.pair.client(), terms.pair.server()),
        Side::Server => (terms.pair.server(), terms.pair.client()),
    };
    let mut filter = Filter::new(side, local, remote, &terms.portal_ports, terms.mtu);
    if let Some(openers) = openers {
        filter = filter.with_openers(openers);
    }
    let clock = Clock(Instant::now());
    let engine = Engine::new(filter, terms.capabilities & capability::ALIVE != 0, clock.now_ms());
    let shared = Shared {
        engine: Mutex::new(engine),
        clock,
    };
    let decoder = Decoder::new(usize::from(terms.mtu), already_read);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let end = tokio::select! {
        error = shared.send_loop(device, &mut writer) => Err(error),
        end = shared.receive_loop(device, &mut reader, decoder) => end,
        () = shutdown => Ok(LinkEnd::Stopped),
    };
    // Best effort: the other end notices a dropped stream as well, and the report is about what went before.
    let _late = tokio::time::timeout(Duration::from_millis(GOODBYE_MS), writer.shutdown()).await;
    let counters = shared.engine().counters().clone();
    for (reason, count) in counters.inbound_drops.iter() {
        tracing::info!(reason = reason.name(), count, "packets of the other end were dropped");
    }
    for (reason, count) in counters.outbound_drops.iter() {
        tracing::debug!(reason = reason.name(), count, "own packets were dropped");
    }
    Report { end, counters }
}

struct Clock(Instant);

impl Clock {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn sleep_until(&self, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => tokio::time::sleep_until(self.0 + Duration::from_millis(at_ms)).await,
            None => std::future::pending().await,
        }
    }
}

struct Shared {
    engine: Mutex<Engine>,
    clock: Clock,
}

impl Shared {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_loop<D: PacketDevice>(&self, device: &D, writer: &mut (impl AsyncWrite + Unpin)) -> LinkError {
        let mut encoder = Encoder::new();
        let mut packet = vec![0; MAX_PACKET_BYTES];
        loop {
            let due_ms = self.engine().alive_due_ms();
            tokio::select! {
                received = device.receive(&mut packet) => match received {
                    Ok(length) => self.engine().outbound(&packet[..length], self.clock.now_ms(), &mut encoder),
                    Err(error) => return LinkError::Device(error),
                },
                () = self.clock.sleep_until(due_ms) => encoder.push_alive(),
            }
            while !encoder.is_full() {
                match device.try_receive(&mut packet) {
                    Ok(length) => self
                        .engine()
                        .outbound(&packet[..length], self.clock.now_ms(), &mut encoder),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return LinkError::Device(error),
                }
            }
            if encoder.is_empty() {
                continue;
            }
            let written = match writer.write_all(encoder.bytes()).await {
                Ok(()) => writer.flush().await,
                error => error,
            };
            if let Err(error) = written {
                return LinkError::Stream(error);
            }
            encoder.clear();
            self.engine().wrote(self.clock.now_ms());
        }
    }

    async fn receive_loop<D: PacketDevice>(
        &self,
        device: &D,
        reader: &mut (impl AsyncRead + Unpin),
        mut decoder: Decoder,
    ) -> Result<LinkEnd, LinkError> {
        loop {
            while let Some(frame) = decoder.next_frame()? {
                let Some(packet) = self.engine().inbound(frame, self.clock.now_ms()) else {
                    continue;
                };
                if let Err(error) = device.send(&packet).await {
                    // EINVAL: the kernel dislikes this packet, the next may be better.
                    if error.kind() != io::ErrorKind::InvalidInput {
                        return Err(LinkError::Device(error));
                    }
                    self.engine().not_taken(&packet);
                }
            }
            let dead_ms = self.engine().dead_ms();
            decoder.buffer().reserve(READ_BYTES);
            let read = tokio::select! {
                // After the device was blocked for long the line only looks dead: what has come meanwhile counts.
                biased;
                read = reader.read_buf(decoder.buffer()) => read.map_err(LinkError::Stream)?,
                () = self.clock.sleep_until(dead_ms) => return Err(LinkError::Dead),
            };
            if read == 0 {
                return if decoder.buffer().is_empty() {
                    Ok(LinkEnd::Closed)
                } else {
                    Err(LinkError::CutOff)
                };
            }
            self.engine().heard(self.clock.now_ms());
        }
    }
}
