//! One client on the server: hello, device, link.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Event, Link, ServerOptions};
use crate::filter::{Counters, Side};
use crate::link;
use crate::peer::pool::{Lease, Pool, Walk};
use crate::peer::{HELLO_TIMEOUT_MS, HelloError, Refusal, ServerEvent, ServerHello, Terms};
use crate::tun::{self, Device};

/// What is read from the stream at once during the hello, in bytes.
const HELLO_READ_BYTES: usize = 1024;
/// How long the owner may take to start its portals, in milliseconds.
const PORTALS_MS: u64 = 5000;
/// How long telling a client why it is refused may take, in milliseconds.
const LAST_WORD_MS: u64 = 1000;

pub(super) struct Client {
    pub(super) id: u64,
    pub(super) options: Arc<ServerOptions>,
    pub(super) pool: Pool,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stopping: watch::Receiver<bool>,
}

/// A client that has come through the hello.
struct Admitted {
    device: Device,
    terms: Terms,
    already_read: BytesMut,
    announced: Announced,
    _lease: Lease,
}

/// A link that the owner has been told about: it is told of the end as well, whatever happens in between.
struct Announced {
    link: Link,
    events: mpsc::Sender<Event>,
    end: Option<(Option<String>, Counters)>,
}

impl Announced {
    fn ends(mut self, error: Option<String>, counters: Counters) {
        self.end = Some((error, counters));
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let (error, counters) = self
            .end
            .take()
            .unwrap_or_else(|| (Some("it was cut off".to_owned()), Counters::default()));
        let (events, event) = (
            self.events.clone(),
            Event::LinkDown {
                link: self.link.clone(),
                error,
                counters: Box::new(counters),
            },
        );
        if let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
            // The sender lives on in the task, so the owner sees this before the end of all events.
            tokio::spawn(async move {
                let _owner_gone = events.send(event).await;
            });
        }
    }
}

/// Why a client was not admitted.
#[derive(Debug, thiserror::Error)]
enum Turned {
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("{0}")]
    Refused(String),
}

impl Client {
    pub(super) async fn serve(mut self, mut stream: UnixStream) {
        let credentials = match stream.peer_cred() {
            Ok(credentials) => credentials,
            Err(error) => {
                tracing::warn!(%error, "cannot tell who opened a tunnel");
                return;
            }
        };
        let (uid, pid) = (credentials.uid(), credentials.pid());
        tracing::info!(uid, pid, "tunnel opened");
        let limit = Duration::from_millis(HELLO_TIMEOUT_MS);
        let mut stopping = self.stopping.clone();
        let admitted = tokio::select! {
            admitted = tokio::time::timeout(limit, self.admit(&mut stream, credentials)) => {
                admitted.unwrap_or(Err(HelloError::TimedOut.into()))
            }
            _ = stopping.wait_for(|stop| *stop) => Err(Turned::Refused("the server is stopping".to_owned())),
        };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(reason) => {
                tracing::warn!(uid, %reason, "no tunnel came of it");
                return;
            }
        };
        let Admitted {
            device,
            terms,
            already_read,
            announced,
            _lease,
        } = admitted;
        let ifname = announced.link.ifname.clone();
        tracing::info!(uid, ifname, pair = %terms.pair, mtu = terms.mtu, "tunnel is up");
        let stop = async {
            let _or_gone = self.stopping.wait_for(|stop| *stop).await;
        };
        let report = link::run(Side::Server, None, &terms, &device, stream, already_read, stop).await;
        let error = report.end.err().map(|error| error.to_string());
        tracing::info!(uid, ifname, error, "tunnel is down");
        announced.ends(error, report.counters);
        drop(device);
    }

    async fn admit(&self, stream: &mut UnixStream, credentials: UCred) -> Result<Admitted, Turned> {
        let start = Instant::now();
        let now_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut machine = ServerHello::new(self.options.mtu, self.options.portal_ports.clone(), now_ms());
        let (mut input, mut walk, mut lease) = (BytesMut::new(), Walk::default(), None);
        loop {
            match machine.receive(&mut input, now_ms()) {
                Ok(Some(ServerEvent::Wanted { wished })) => {
                    let occupied = match tun::occupied().await {
                        Ok(occupied) => occupied,
                        Err(error) => return Err(refuse(machine, stream, Refusal::Other, error.to_string()).await),
                    };
                    // The pair called taken is given back only now, so that it is not chosen again.
                    lease = self.pool.lease(&mut walk, wished, &occupied);
                    match &lease {
                        Some(lease) => machine.offer(lease.pair()),
                        None => {
                            let text = "no address pair is free on both ends".to_owned();
                            return Err(refuse(machine, stream, Refusal::NoAddresses, text).await);
                        }
                    }
                }
                Ok(Some(ServerEvent::Accepted(terms))) => {
                    let lease = lease.ok_or(HelloError::Malformed("answer"))?;
                    return self.bring_up(machine, stream, terms, input, lease, credentials).await;
                }
                Ok(None) => {
                    input.reserve(HELLO_READ_BYTES);
                    match stream.read_buf(&mut input).await {
                        Ok(0) | Err(_) => return Err(HelloError::HungUp.into()),
                        Ok(_) => {}
                    }
                }
                Err(error) => {
                    last_word(&mut machine, stream).await;
                    return Err(error.into());
                }
            }
            let output = machine.take_output();
            if !output.is_empty() && stream.write_all(&output).await.is_err() {
                return Err(HelloError::HungUp.into());
            }
        }
    }

    async fn bring_up(
        &self,
        mut machine: ServerHello,
        stream: &mut UnixStream,
        terms: Terms,
        already_read: BytesMut,
        lease: Lease,
        credentials: UCred,
    ) -> Result<Admitted, Turned> {
        let (local, peer) = (terms.pair.server(), terms.pair.client());
        let device = match Device::create(&self.options.device_name, local, peer, terms.mtu).await {
            Ok(device) => device,
            Err(error) => return Err(refuse(machine, stream, Refusal::NoDevice, error.to_string()).await),
        };
        let link = Link {
            id: self.id,
            ifname: device.name().to_owned(),
            local,
            peer,
            mtu: terms.mtu,
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
        };
        let announced = match self.announce(link).await {
            Ok(announced) => announced,
            Err(reason) => return Err(refuse(machine, stream, Refusal::Other, reason).await),
        };
        machine.ready();
        if stream.write_all(&machine.take_output()).await.is_err() {
            announced.ends(Some(HelloError::HungUp.to_string()), Counters::default());
            return Err(HelloError::HungUp.into());
        }
        Ok(Admitted {
            device,
            terms,
            already_read,
            announced,
            _lease: lease,
        })
    }

    /// Tells the owner of the link and has it start its portals.
    async fn announce(&self, link: Link) -> Result<Announced, String> {
        let (ready, started) = oneshot::channel();
        let nobody = || "the target takes no connections".to_owned();
        let room = self.events.reserve().await.map_err(|_| nobody())?;
        room.send(Event::LinkUp {
            link: link.clone(),
            ready,
        });
        let announced = Announced {
            link,
            events: self.events.clone(),
            end: None,
        };
        let reason = match tokio::time::timeout(Duration::from_millis(PORTALS_MS), started).await {
            Ok(Ok(Ok(()))) => return Ok(announced),
            Ok(Ok(Err(reason))) => reason,
            Ok(Err(_)) => nobody(),
            Err(_) => "the target did not open its portal in time".to_owned(),
        };
        announced.ends(Some(reason.clone()), Counters::default());
        Err(reason)
    }
}

async fn refuse(mut machine: ServerHello, stream: &mut UnixStream, refusal: Refusal, text: String) -> Turned {
    machine.refuse(refusal, &text);
    last_word(&mut machine, stream).await;
    Turned::Refused(text)
}

async fn last_word(machine: &mut ServerHello, stream: &mut UnixStream) {
    let output = machine.take_output();
    let say = async {
        stream.write_all(&output).await?;
        stream.shutdown().await
    };
    let said: io::Result<()> = tokio::time::timeout(Duration::from_millis(LAST_WORD_MS), say)
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = said {
        tracing::debug!(%error, "the client did not hear why");
    }
}
