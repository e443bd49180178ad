//! The tokio shell around the state machines: listeners, connection tasks, worker threads.
//!
//! [`Server`] serves one [`Node`] on any number of portals, and on any stream that is handed to it: a TCP
//! connection, a channel of a tunnel, a pipe in a test. It knows how bytes move; what they mean is decided
//! in [`crate::iscsi`].

mod closing;
mod connection;
mod places;
mod workers;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::iscsi::mailbox::{CloseReason, Mailbox, Notice};
use crate::iscsi::{Connection, Ended, Node, Origin, Portal};
pub use closing::{CloseError, close};
use connection::Door;
use places::{Places, Refused};
use workers::Workers;

/// Connections over all portals. One more is closed at once.
const CONNECTIONS_MAX: usize = 4096;
/// How long initiators have to log out when the server stops, in milliseconds.
const LOGOUT_WAIT_MS: u64 = 1_000;
/// How long connections have to end after that, in milliseconds.
const CLOSE_WAIT_MS: u64 = 2_000;
/// How long a portal rests after `accept` failed, for want of file descriptors perhaps, in milliseconds.
const ACCEPT_RETRY_MS: u64 = 100;

/// Bytes that the kernel takes ahead of what it has sent: what goes ahead of bulk data cannot go ahead of these.
const NOT_SENT_MAX_BYTES: u32 = 256 * 1024;

/// A connection's task.
type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves a node.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Arc<Node>,
    workers: Workers,
    places: Arc<Semaphore>,
    /// Those of connections that have not logged in.
    guests: Arc<Places>,
    /// Everyone who is to be told when the server stops.
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
    stopping: watch::Sender<bool>,
}

impl Server {
    /// A server without portals.
    pub fn new(node: Arc<Node>) -> Self {
        let shared = Shared {
            node,
            workers: Workers::new(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            guests: Arc::default(),
            mailboxes: Mutex::default(),
            stopping: watch::Sender::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The node being served.
    pub fn node(&self) -> &Arc<Node> {
        &self.shared.node
    }

    /// Accepts connections on a portal until `until` is over or the server stops; connections already
    /// accepted go on. Returns when no new one can come.
    pub async fn serve(&self, listener: TcpListener, portal: Portal, until: impl Future<Output = ()>) {
        let spawn = |connection| {
            tokio::spawn(connection);
        };
        self.accept_until(listener, portal, until, spawn).await;
    }

    /// The same for a portal on a device that goes away: its connections end with it, for nobody can reach
    /// them any more.
    pub async fn serve_while_there(&self, listener: TcpListener, portal: Portal, until: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let spawn = |connection| {
            while connections.try_join_next().is_some() {}
            connections.spawn(connection);
        };
        self.accept_until(listener, portal, until, spawn).await;
    }

    async fn accept_until(
        &self,
        listener: TcpListener,
        portal: Portal,
        until: impl Future<Output = ()>,
        mut spawn: impl FnMut(BoxFuture),
    ) {
        let mut stopping = self.shared.stopping.subscribe();
        tokio::pin!(until);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut until => return,
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => spawn(Box::pin(self.clone().serve_tcp(stream, portal.clone(), peer))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                }
            }
        }
    }

    async fn serve_tcp(self, stream: TcpStream, portal: Portal, peer: SocketAddr) {
        // Not vital: without it an answer may wait behind what fills the socket's buffer.
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(NOT_SENT_MAX_BYTES) {
            tracing::debug!(%peer, %error, "cannot bound what waits in the socket");
        }
        match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local) => {
                let origin = Origin {
                    portal,
                    local: Some(local),
                    peer: peer.to_string(),
                };
                self.serve_stream(stream, origin).await;
            }
            // The peer is gone already.
            Err(error) => tracing::debug!(%peer, %error, "connection lost before it began"),
        }
    }

    /// Serves one connection that came by any way, to its end.
    pub async fn serve_stream<S>(&self, stream: S, origin: Origin)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let peer = origin.peer.clone();
        let now = std::time::Instant::now();
        let Ok(_place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
            if let Some(unlogged) = self.shared.guests.may_log(now) {
                tracing::warn!(peer, unlogged, "refused: {CONNECTIONS_MAX} connections are open");
            }
            return;
        };
        let mailbox = Mailbox::new();
        let guest = match self.shared.guests.take(now, &peer, &mailbox) {
            Ok(guest) => guest,
            Err(Refused) => {
                if let Some(unlogged) = self.shared.guests.may_log(now) {
                    tracing::warn!(
                        peer,
                        unlogged,
                        "refused: too many connections from there that do not log in"
                    );
                }
                return;
            }
        };
        self.register(&mailbox);
        if *self.shared.stopping.borrow() {
            return;
        }
        tracing::debug!(peer, local = ?origin.local, tag = origin.portal.tag, "connected");
        let connection = Connection::new(Arc::clone(self.node()), &mailbox, origin, now);
        let door = Door {
            mailbox,
            guest: Some(guest),
        };
        let outcome = connection::run(stream, connection, door, &self.shared.workers).await;
        if matches!(&outcome.ended, Ok(Ended::LoginRefused(_))) {
            self.node().count_refused_login();
        }
        let unlogged = match &outcome.session {
            Some(_) => 0,
            None => match self.shared.guests.may_log(std::time::Instant::now()) {
                Some(unlogged) => unlogged,
                None => return,
            },
        };
        if unlogged > 0 {
            tracing::warn!(
                unlogged,
                "more connections without a session have ended than are logged"
            );
        }
        match &outcome.ended {
            Ok(Ended::Logout) => tracing::info!(peer, session = outcome.session, "logged out"),
            Ok(ended) => tracing::warn!(peer, session = outcome.session, "connection ended: {ended}"),
            Err(error) => tracing::info!(peer, session = outcome.session, "connection lost: {error}"),
        }
    }

    fn tell_everyone(&self, notice: impl Fn() -> Notice) {
        let mailboxes = self.shared.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        for mailbox in mailboxes.iter().filter_map(Weak::upgrade) {
            mailbox.post(notice());
        }
    }

    async fn everyone_is_gone(&self, within_ms: u64) -> bool {
        let everyone = self.shared.places.acquire_many(CONNECTIONS_MAX as u32);
        tokio::time::timeout(Duration::from_millis(within_ms), everyone)
            .await
            .is_ok()
    }

    fn register(&self, mailbox: &Arc<Mailbox>) {
        let mut mailboxes = self.shared.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        mailboxes.push(Arc::downgrade(mailbox));
    }

    /// Asks every initiator to log out (RFC 7143 §11.9.1), ends the connections of those that do not, and flushes
    /// every LUN. Returns the errors of the flushes: what a caller must
    /// not keep to itself, for it may mean lost writes.
    pub async fn stop(&self) -> Vec<FlushError> {
        self.shared.stopping.send_replace(true);
        self.tell_everyone(|| Notice::AskLogout {
            within_ms: LOGOUT_WAIT_MS,
            reason: CloseReason::Stopping,
        });
        if !self.everyone_is_gone(LOGOUT_WAIT_MS).await {
            self.tell_everyone(|| Notice::Close(CloseReason::Stopping));
            // What they were writing is to be part of the flush. A medium that hangs cannot be waited for.
            if !self.everyone_is_gone(CLOSE_WAIT_MS).await {
                tracing::warn!("some connections are still open; flushing all the same");
            }
        }
        let mut flushes = JoinSet::new();
        for target in self.node().targets() {
            for (number, unit) in target.device.luns() {
                let name = target.name().to_string();
                flushes.spawn_blocking(move || {
                    let flushed = unit.medium().flush(crate::lun::Wait::Allowed);
                    flushed.map_err(|error| FlushError {
                        target: name,
                        lun: number,
                        error,
                    })
                });
            }
        }
        let flushed = flushes.join_all().await;
        flushed.into_iter().filter_map(Result::err).collect()
    }
}

/// A LUN whose last writes may not be on stable storage.
#[derive(Debug, thiserror::Error)]
#[error("flushing LUN {lun} of {target} failed: {error}")]
pub struct FlushError {
    /// Name of the target.
    pub target: String,
    /// The LUN.
    pub lun: u16,
    /// What the medium said.
    #[source]
    pub error: crate::lun::MediumError,
}
