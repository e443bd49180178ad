//! The client's side: through the host's sshd to its farlun, or to any target behind it.
//!
//! The *socket* way opens a channel to farlun's socket on the server and carries IP packets on it, between a tun
//! device here and one there. Where that is not possible the *forward* way listens on loopback and forwards to a
//! port behind the server. Dropping a [`Connected`] (or cancelling its `run`) takes down device, address and route,
//! or the listener, with the SSH session.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::filter::{Counters, Openers, Side};
use crate::link::{self, LinkEnd, LinkError};
use crate::owner::Users;
use crate::peer::{ClientEvent, ClientHello, HELLO_TIMEOUT_MS, HelloError, MTU_DEFAULT, Pair, Refusal, Terms};
use crate::ssh::forward::{Forward, ForwardError, ForwardOptions};
use crate::ssh::{ChannelRefused, Destination, Invoker, Prompt, Session, SshError, SshOptions};
use crate::tun::{self, Device, TunError};

/// Where farlun listens on the server for tunnels.
pub const SOCKET_PATH: &str = "/run/farlun/tunnel.sock";

/// What is read from the stream at once during the hello, in bytes.
const HELLO_READ_BYTES: usize = 1024;

/// Which ways to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ways {
    /// The socket, and forwarding when that is not possible.
    #[default]
    Auto,
    /// The socket or nothing.
    Socket,
    /// Forwarding at once.
    Forward,
}

/// Where to connect and how.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The SSH server.
    pub destination: Destination,
    /// Keys and known hosts.
    pub ssh: SshOptions,
    /// Which ways to try.
    pub ways: Ways,
    /// The path of farlun's socket on the server.
    pub socket_path: String,
    /// The largest packet to take, in bytes; the smaller of both ends' counts.
    pub mtu: u16,
    /// An address pair the server should try first; one that is not of the fixed list is not granted.
    pub wished: Option<Pair>,
    /// The tun device's name, with one `%d` for the kernel to number.
    pub device_name: String,
    /// Where to forward when it comes to that.
    pub forward: ForwardOptions,
}

impl ConnectOptions {
    /// The usual options.
    pub fn new(destination: Destination) -> Self {
        Self {
            destination,
            ssh: SshOptions::default(),
            ways: Ways::default(),
            socket_path: SOCKET_PATH.to_owned(),
            mtu: MTU_DEFAULT,
            wished: None,
            device_name: "farlun%d".to_owned(),
            forward: ForwardOptions::default(),
        }
    }
}

/// Why the socket way is not possible.
#[derive(Debug, thiserror::Error)]
pub enum SocketRefused {
    /// No tun device on this end.
    #[error("no tun device on this end: {0}")]
    NoDevice(#[from] TunError),
    /// sshd does not open the socket.
    #[error("{path} on the server: {reason} ({hint})", hint = socket_hint(reason))]
    Channel {
        /// The socket's path.
        path: String,
        /// What sshd said.
        reason: ChannelRefused,
    },
    /// The two ends do not agree.
    #[error("{0}")]
    Hello(#[from] HelloError),
}

fn socket_hint(reason: &ChannelRefused) -> &'static str {
    match reason {
        ChannelRefused::CannotConnect => {
            "farlun does not serve tunnels there, or you are not in the group of the socket, or sshd has \
             AllowStreamLocalForwarding off"
        }
        ChannelRefused::Forbidden => "ask the server's administrator",
        ChannelRefused::Unsupported => "it is not OpenSSH, or older than 6.7",
        ChannelRefused::Other(_) | ChannelRefused::Lost(_) => "try again",
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No SSH session.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The socket way was asked for and is not possible.
    #[error(transparent)]
    Socket(SocketRefused),
    /// Forwarding is not possible either.
    #[error("{error}{}", instead_of.as_ref().map(|reason| format!("\n(forwarding was tried because: {reason})")).unwrap_or_default())]
    Forward {
        /// What is wrong with it.
        error: ForwardError,
        /// Why it was tried.
        instead_of: Option<Box<SocketRefused>>,
    },
}

/// Why a connection that was up is not any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The SSH session ended.
    #[error("the SSH connection was lost: {0}")]
    Lost(String),
    /// The server closed the tunnel, but not the session.
    #[error("the server closed the tunnel")]
    Closed,
    /// The tunnel broke.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// A tun device.
    Tunnel {
        /// The device's name.
        ifname: String,
        /// The address on this end.
        local: Ipv4Addr,
        /// The address of the server, where its portals are.
        remote: Ipv4Addr,
        /// The largest packet in bytes.
        mtu: u16,
        /// The TCP ports of the portals.
        portal_ports: Vec<u16>,
    },
    /// A listener.
    Forward {
        /// Where it is.
        listen: SocketAddr,
        /// The target's host as seen from the server.
        remote_host: String,
        /// The target's port.
        remote_port: u16,
    },
}

impl Up {
    /// Where initiators on this host find portals.
    pub fn portals(&self) -> Vec<SocketAddr> {
        match self {
            Self::Tunnel {
                remote, portal_ports, ..
            } => portal_ports
                .iter()
                .map(|port| SocketAddr::new(IpAddr::V4(*remote), *port))
                .collect(),
            Self::Forward { listen, .. } => vec![*listen],
        }
    }
}

enum Way {
    Tunnel {
        device: Device,
        stream: ChannelStream<Msg>,
        terms: Terms,
        already_read: BytesMut,
        users: Box<Users>,
    },
    Forward(Forward),
}

/// A connection that is up.
pub struct Connected {
    session: Arc<Session>,
    way: Way,
    up: Up,
    instead_of: Option<SocketRefused>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("up", &self.up)
            .field("instead_of", &self.instead_of)
            .finish_non_exhaustive()
    }
}

/// Connects and brings up tunnel or forwarding.
///
/// # Errors
/// See [`ConnectError`]; nothing is left behind.
pub async fn connect(options: &ConnectOptions, prompt: Arc<dyn Prompt>) -> Result<Connected, ConnectError> {
    // Before anybody is asked for a passphrase; by the tunnel it does not matter.
    if options.ways == Ways::Forward {
        options.forward.check().map_err(|error| ConnectError::Forward {
            error,
            instead_of: None,
        })?;
    }
    let invoker = Invoker::current().ok_or(SshError::NoHome)?;
    let session = Session::open(&options.destination, &options.ssh, &invoker, prompt).await?;
    let session = Arc::new(session);
    let instead_of = if options.ways == Ways::Forward {
        None
    } else {
        match open_tunnel(&session, options, &invoker).await {
            Ok((way, up)) => {
                return Ok(Connected {
                    session,
                    way,
                    up,
                    instead_of: None,
                });
            }
            Err(SocketRefused::Channel {
                reason: ChannelRefused::Lost(reason),
                ..
            }) => {
                return Err(SshError::Lost(reason).into());
            }
            Err(reason) if options.ways == Ways::Socket => return Err(ConnectError::Socket(reason)),
            Err(reason) => Some(reason),
        }
    };
    let mut forward = options.forward.clone();
    forward.users.push(invoker.uid);
    match Forward::open(&session, forward).await {
        Ok(forward) => {
            let ForwardOptions {
                remote_host,
                remote_port,
                ..
            } = options.forward.clone();
            let up = Up::Forward {
                listen: forward.local_addr(),
                remote_host,
                remote_port,
            };
            Ok(Connected {
                session,
                way: Way::Forward(forward),
                up,
                instead_of,
            })
        }
        Err(error) => Err(ConnectError::Forward {
            error,
            instead_of: instead_of.map(Box::new),
        }),
    }
}

async fn open_tunnel(
    session: &Session,
    options: &ConnectOptions,
    invoker: &Invoker,
) -> Result<(Way, Up), SocketRefused> {
    tun::check()?;
    let path = &options.socket_path;
    let mut stream = session
        .open_socket(path)
        .await
        .map_err(|reason| SocketRefused::Channel {
            path: path.clone(),
            reason,
        })?;
    let (device, terms, already_read) = hello(&mut stream, options).await?;
    let up = Up::Tunnel {
        ifname: device.name().to_owned(),
        local: terms.pair.client(),
        remote: terms.pair.server(),
        mtu: terms.mtu,
        portal_ports: terms.portal_ports.clone(),
    };
    Ok((
        Way::Tunnel {
            device,
            stream,
            terms,
            already_read,
            users: Box::new(Users::new(vec![invoker.uid])),
        },
        up,
    ))
}

/// Says hello on a stream and brings up the device for what comes of it; also what was read behind the hello.
async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    options: &ConnectOptions,
) -> Result<(Device, Terms, BytesMut), SocketRefused> {
    let start = Instant::now();
    let now_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut machine = ClientHello::new(options.mtu, options.wished, now_ms());
    let talk = async {
        let mut input = BytesMut::new();
        let mut device = None;
        loop {
            let output = machine.take_output();
            if !output.is_empty() && stream.write_all(&output).await.is_err() {
                return Err(HelloError::HungUp.into());
            }
            match machine.receive(&mut input, now_ms())? {
                Some(ClientEvent::Offered(terms)) => {
                    if tun::occupied().await?.has_any(terms.pair) {
                        tracing::debug!(pair = %terms.pair, "offered addresses are in use here");
                        machine.taken();
                        continue;
                    }
                    let pair = terms.pair;
                    match Device::create(&options.device_name, pair.client(), pair.server(), terms.mtu).await {
                        Ok(created) => {
                            device = Some(created);
                            machine.accept();
                        }
                        Err(error) => {
                            machine.refuse(Refusal::NoDevice, "the client cannot make a tun device");
                            let _told = stream.write_all(&machine.take_output()).await;
                            return Err(error.into());
                        }
                    }
                    continue;
                }
                Some(ClientEvent::Ready(terms)) => {
                    // Ready follows only after an accepted offer, and that only after the device was made.
                    let device = device.ok_or(HelloError::Malformed("\"ready\""))?;
                    return Ok((device, terms, input));
                }
                None => {}
            }
            input.reserve(HELLO_READ_BYTES);
            match stream.read_buf(&mut input).await {
                Ok(0) | Err(_) => return Err(HelloError::HungUp.into()),
                Ok(_) => {}
            }
        }
    };
    let limit = Duration::from_millis(HELLO_TIMEOUT_MS);
    tokio::time::timeout(limit, talk)
        .await
        .unwrap_or(Err(HelloError::TimedOut.into()))
}

impl Connected {
    /// What came up.
    pub fn up(&self) -> &Up {
        &self.up
    }

    /// Why it is forwarding although the socket way was tried first.
    pub fn instead_of(&self) -> Option<&SocketRefused> {
        self.instead_of.as_ref()
    }

    /// Carries until `shutdown` resolves, then takes everything down; what a tunnel counted comes back.
    ///
    /// # Errors
    /// When the connection ends by itself. Everything is down then, too.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Option<Counters>, RunError> {
        let Self { session, way, .. } = self;
        let result = match way {
            Way::Tunnel {
                device,
                stream,
                terms,
                already_read,
                users,
            } => {
                let lost = session.lost();
                let mut lost_reason = None;
                let stop = async {
                    tokio::select! {
                        reason = lost => lost_reason = Some(reason),
                        () = shutdown => {}
                    }
                };
                let openers: Option<Box<dyn Openers>> = Some(users);
                let report = link::run(Side::Client, openers, &terms, &device, stream, already_read, stop).await;
                drop(device);
                match (report.end, lost_reason) {
                    (_, Some(reason)) => Err(RunError::Lost(reason)),
                    (Ok(LinkEnd::Stopped), None) => Ok(Some(report.counters)),
                    (Ok(LinkEnd::Closed), None) => {
                        // The channel of a lost session closes a moment before the session says why.
                        match tokio::time::timeout(Duration::from_millis(200), session.lost()).await {
                            Ok(reason) => Err(RunError::Lost(reason)),
                            Err(_) => Err(RunError::Closed),
                        }
                    }
                    (Err(error), None) => Err(error.into()),
                }
            }
            Way::Forward(forward) => tokio::select! {
                () = forward.run(&session) => Err(RunError::Closed),
                reason = session.lost() => Err(RunError::Lost(reason)),
                () = shutdown => Ok(None),
            },
        };
        if let Ok(session) = Arc::try_unwrap(session) {
            session.close().await;
        }
        result
    }
}
