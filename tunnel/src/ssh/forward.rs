//! Plain port forwarding: a loopback listener here, `direct-tcpip` to the target there.
//!
//! Any user of this host can reach a loopback port, so connections are taken from some users only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use russh::ChannelMsg;
use russh::client::Msg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{ChannelRefused, Session};
use crate::owner::owner;

/// Connections forwarded at once, at most.
pub const FORWARDS_MAX: usize = 64;
/// What is read from a local connection at once, in bytes.
const READ_BYTES: usize = 0x8000;
/// How long to wait after a failed accept (no file descriptors left), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;

/// What is forwarded where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardOptions {
    /// Where to listen on this end; loopback only. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The target's host as seen from the SSH server.
    pub remote_host: String,
    /// The target's port there.
    pub remote_port: u16,
    /// Who may connect to the listener, by user id, beside root and the invoking user.
    pub users: Vec<u32>,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3260);
        Self {
            listen,
            remote_host: Ipv4Addr::LOCALHOST.to_string(),
            remote_port: 3260,
            users: Vec::new(),
        }
    }
}

impl ForwardOptions {
    /// Whether this is permitted at all.
    ///
    /// # Errors
    /// [`ForwardError::NotLoopback`].
    pub fn check(&self) -> Result<(), ForwardError> {
        if self.listen.ip().is_loopback() {
            Ok(())
        } else {
            Err(ForwardError::NotLoopback(self.listen))
        }
    }
}

/// Why there is no forwarding.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The listener would be open to others.
    #[error("forwarding listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The local port cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The target cannot be reached from the server.
    #[error("{host}:{port} cannot be reached from the SSH server: {reason}")]
    Remote {
        /// The target's host.
        host: String,
        /// The target's port.
        port: u16,
        /// What the server said.
        reason: ChannelRefused,
    },
}

/// A listener whose target was reachable a moment ago.
#[derive(Debug)]
pub struct Forward {
    listener: TcpListener,
    local: SocketAddr,
    options: ForwardOptions,
}

impl Forward {
    /// Opens the listener and tries the target once.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn open(session: &Session, options: ForwardOptions) -> Result<Self, ForwardError> {
        options.check()?;
        let listen = |error| ForwardError::Listen {
            address: options.listen,
            error,
        };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let local = listener.local_addr().map_err(listen)?;
        let (host, port) = (options.remote_host.clone(), options.remote_port);
        match session.open_tcp(&host, port, local).await {
            Ok(channel) => {
                let _closed = channel.close().await;
            }
            Err(reason) => return Err(ForwardError::Remote { host, port, reason }),
        }
        Ok(Self {
            listener,
            local,
            options,
        })
    }

    /// Where the listener is.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn may_connect(&self, from: SocketAddr) -> bool {
        match owner(from, self.local) {
            Ok(Some(uid)) if uid == 0 || self.options.users.contains(&uid) => true,
            Ok(uid) => {
                tracing::warn!(%from, uid, "a connection of another user was refused");
                false
            }
            Err(error) => {
                tracing::warn!(%from, %error, "a connection was refused: cannot tell whose it is");
                false
            }
        }
    }

    /// Forwards connections until dropped; all of them end with it.
    pub async fn run(self, session: &Arc<Session>) {
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(FORWARDS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            if !self.may_connect(from) {
                continue;
            }
            let (session, options) = (Arc::clone(session), self.options.clone());
            connections.spawn(async move {
                let _permit = permit;
                match session.open_tcp(&options.remote_host, options.remote_port, from).await {
                    Ok(channel) => match carry(stream, channel).await {
                        Ok(()) => tracing::debug!(%from, "forwarded connection closed"),
                        Err(error) => tracing::debug!(%from, %error, "forwarded connection ended"),
                    },
                    Err(reason) => tracing::warn!(%from, %reason, "cannot forward a connection"),
                }
            });
        }
    }
}

/// Copies both ways. Each direction ends on its own; a closed channel ends both.
async fn carry(mut stream: TcpStream, channel: russh::Channel<Msg>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut from_local, mut to_local) = stream.split();
    let (mut from_channel, channel) = channel.split();
    let mut to_channel = channel.make_writer();
    let up = async {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = from_local.read(&mut buffer).await?;
            if read == 0 {
                return to_channel.shutdown().await;
            }
            to_channel.write_all(&buffer[..read]).await?;
        }
    };
    let down = async {
        loop {
            match from_channel.wait().await {
                Some(ChannelMsg::Data { data }) => to_local.write_all(&data).await?,
                Some(ChannelMsg::Eof) => to_local.shutdown().await?,
                Some(ChannelMsg::Close) | None => return Ok(()),
                Some(_) => {}
            }
        }
    };
    let mut up = std::pin::pin!(up);
    let mut down = std::pin::pin!(down);
    let result = tokio::select! {
        result = &mut down => result,
        result = &mut up => match result {
            Ok(()) => down.await,
            error => error,
        },
    };
    let _closed = channel.close().await;
    result
}
