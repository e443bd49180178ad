//! The server's side: a Unix socket that sshd connects to on behalf of its users, and a tun device per client.
//!
//! farlun's target is not known here: when a link comes up or goes down its owner is told, and starts or stops a
//! portal that takes only what arrives on that device (see [`listen_on_link`]).

mod client;
mod portal;
mod socket;

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::filter::Counters;
use crate::peer::pool::Pool;
use crate::peer::wire::{Message, Role};
use crate::peer::{MTU_DEFAULT, Refusal};
use crate::tun::{self, TunError};

pub use portal::listen_on_link;
pub use socket::{ServerSocket, check_socket, group_id};

/// How long to wait after a failed accept (no file descriptors left), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;
/// How long links may take to end when the server stops, in milliseconds.
const STOP_MS: u64 = 5000;

/// How to serve tunnels.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The socket's path; its directory is made when missing.
    pub socket: PathBuf,
    /// The group that may open the socket, by id; see [`group_id`]. The owner only, when not given.
    pub group: Option<u32>,
    /// Name of the tun devices, with one `%d` for the kernel to number.
    pub device_name: String,
    /// The largest packet to agree to, in bytes.
    pub mtu: u16,
    /// TCP ports of the portals that the owner starts on each device, one to
    /// [`crate::filter::PORTAL_PORTS_MAX`].
    pub portal_ports: Vec<u16>,
    /// Clients at a time, those still saying hello included.
    pub clients_max: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(crate::client::SOCKET_PATH),
            group: None,
            device_name: "farlun%d".to_owned(),
            mtu: MTU_DEFAULT,
            portal_ports: vec![3260],
            clients_max: 16,
        }
    }
}

/// Why tunnels cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Tun devices cannot be made here.
    #[error("tunnels cannot be served: {0}")]
    NoDevice(#[from] TunError),
    /// Another farlun has the socket.
    #[error("another farlun has the socket {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} is there already and is not a socket", .0.display())]
    InTheWay(PathBuf),
    /// The socket could not be made.
    #[error("cannot {what} {}: {error}", path.display())]
    Socket {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The options make no sense.
    #[error("portal ports: one to {} of them, none 0", crate::filter::PORTAL_PORTS_MAX)]
    PortalPorts,
}

/// A client's link, as the owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Different for each link of this server.
    pub id: u64,
    /// The device on this end.
    pub ifname: String,
    /// The address on this end, where a portal belongs.
    pub local: Ipv4Addr,
    /// The client's address.
    pub peer: Ipv4Addr,
    /// The largest packet in bytes.
    pub mtu: u16,
    /// The Unix user behind the socket (SO_PEERCRED): who logged in over SSH.
    pub uid: u32,
    /// Their primary group.
    pub gid: u32,
    /// The process that connected, sshd's most likely.
    pub pid: Option<i32>,
}

/// What happens on the server.
#[derive(Debug)]
pub enum Event {
    /// A device is up and its client waits. It is let in when `ready` is sent `Ok`, and turned away with the reason
    /// when it is sent `Err` or dropped.
    LinkUp {
        /// The link.
        link: Link,
        /// Whether the portals are there.
        ready: oneshot::Sender<Result<(), String>>,
    },
    /// A link has ended and its device goes now. Follows every `LinkUp`.
    LinkDown {
        /// The link.
        link: Link,
        /// Why, when it was neither this end's nor the client's decision.
        error: Option<String>,
        /// What passed and what did not.
        counters: Box<Counters>,
    },
}

/// A server that has its socket and does not accept yet.
#[derive(Debug)]
pub struct TunnelServer {
    socket: ServerSocket,
    options: Arc<ServerOptions>,
}

impl TunnelServer {
    /// Looks whether devices can be made, and takes the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`ServerError`]; nothing has been changed then, but for a directory that was made.
    pub fn bind(options: ServerOptions) -> Result<Self, ServerError> {
        let ports = &options.portal_ports;
        if ports.is_empty() || ports.len() > crate::filter::PORTAL_PORTS_MAX || ports.contains(&0) {
            return Err(ServerError::PortalPorts);
        }
        tun::check()?;
        let socket = ServerSocket::bind(&options.socket, options.group)?;
        Ok(Self {
            socket,
            options: Arc::new(options),
        })
    }

    /// Serves clients until `shutdown` resolves; then all links end and the socket is removed. The owner must keep
    /// taking events until this returns.
    pub async fn run(self, events: mpsc::Sender<Event>, shutdown: impl Future<Output = ()>) {
        let (stop, stopping) = watch::channel(false);
        let room = Arc::new(Semaphore::new(self.options.clients_max));
        let (pool, ids) = (Pool::default(), AtomicU64::new(1));
        let mut clients = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                Some(_) = clients.join_next() => continue,
                () = &mut shutdown => break,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a tunnel");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                turn_away(&stream, self.options.clients_max);
                continue;
            };
            let client = client::Client {
                id: ids.fetch_add(1, Ordering::Relaxed),
                options: Arc::clone(&self.options),
                pool: pool.clone(),
                events: events.clone(),
                stopping: stopping.clone(),
            };
            clients.spawn(async move {
                client.serve(stream).await;
                drop(permit);
            });
        }
        // No receiver is left when there is no client, which is no error.
        let _none = stop.send(true);
        let all_gone = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_millis(STOP_MS), all_gone)
            .await
            .is_err()
        {
            tracing::warn!("tunnels did not end in time and are cut off");
            clients.shutdown().await;
        }
    }
}

/// Tells a client that there is no room, without waiting for it.
fn turn_away(stream: &UnixStream, clients_max: usize) {
    tracing::warn!(clients_max, "a client was turned away: too many");
    let mut refusal = BytesMut::new();
    let text = format!("the server already has {clients_max} clients");
    Message::Refused {
        refusal: Refusal::TooManyClients,
        text,
    }
    .emit(Role::Server, &mut refusal);
    // A fresh socket's buffer takes it; if not, the client sees the socket close.
    let _unheard = stream.try_write(&refusal);
}
