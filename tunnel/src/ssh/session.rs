//! Connecting, the handshake, and opening channels.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::{self, Handle, Msg};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{ChannelOpenFailure, ChannelStream, Preferred, cipher};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::handler::{Client, HostKeyCheck};
use super::known_hosts::{self, KnownHosts};
use super::{Destination, Invoker, Prompt, SshError, SshOptions, auth};
use crate::peer::wire::printable;

/// The window of a channel, in bytes: what may be under way on a long, fat line.
const WINDOW_BYTES: u32 = 32 << 20;
/// The largest packet of a channel, in bytes; russh allows no more.
const PACKET_MAX_BYTES: u32 = 0xffff;
/// After this long without a word of the server it is asked for one, in milliseconds.
const KEEPALIVE_MS: u64 = 10_000;
/// After this many questions without an answer the line is dead: 30 seconds in all.
const KEEPALIVES_MAX: usize = 2;
/// The kernel gives up on data not acknowledged for this long, in milliseconds.
const UNACKNOWLEDGED_MS: u32 = 30_000;
/// What may wait unsent in the kernel, in bytes; more waits in the tun's queue, where TCP sees it.
const NOT_SENT_BYTES: u32 = 0x2_0000;

/// How long logging in may take, in milliseconds; what sshd allows by default (LoginGraceTime).
const LOG_IN_MS: u64 = 120_000;
/// How long the server may take to open a channel, in milliseconds.
const CHANNEL_OPEN_MS: u64 = 15_000;

/// A logged-in session. It ends when this is dropped.
pub struct Session {
    handle: Handle<Client>,
    lost: watch::Receiver<Option<String>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

/// Why the server did not open a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelRefused {
    /// sshd's configuration or the key's options forbid it.
    #[error("sshd does not allow it (AllowStreamLocalForwarding, AllowTcpForwarding, PermitOpen or the key's options)")]
    Forbidden,
    /// sshd could not connect; for a socket it also says this when it forbids the connection.
    #[error("sshd cannot connect to it")]
    CannotConnect,
    /// The server knows no such channels.
    #[error("the SSH server knows no such channels")]
    Unsupported,
    /// Any other reason.
    #[error("the SSH server does not open it: {0}")]
    Other(String),
    /// The session is over.
    #[error("the SSH connection was lost: {0}")]
    Lost(String),
}

impl Session {
    /// Connects, checks the host key and logs in as `user`.
    ///
    /// # Errors
    /// See [`SshError`]; each says what could be done about it.
    pub async fn open(
        destination: &Destination,
        options: &SshOptions,
        invoker: &Invoker,
        prompt: Arc<dyn Prompt>,
    ) -> Result<Self, SshError> {
        let user = destination
            .user
            .clone()
            .or_else(|| invoker.name.clone())
            .ok_or(SshError::NoUser)?;
        let files = options
            .known_hosts
            .clone()
            .unwrap_or_else(|| known_hosts::usual_files(invoker));
        let known = KnownHosts::read(&files).map_err(|(file, error)| SshError::KnownHosts { file, error })?;
        let config = config(&known.key_types(&destination.host, destination.port));

        let stream = dial(&destination.host, destination.port, options.connect_timeout_ms).await?;
        let (lost_sender, lost) = watch::channel(None);
        let asking = Arc::new(AtomicBool::new(false));
        let check = HostKeyCheck {
            destination: destination.clone(),
            known,
            accept_new: options.accept_new,
            new_keys_file: files.into_iter().next(),
            invoker: invoker.clone(),
            prompt: Arc::clone(&prompt),
            asking: Arc::clone(&asking),
        };
        let handler = Client::new(check, lost_sender);
        let handshake = client::connect_stream(Arc::new(config), stream, handler);
        let in_handshake = |reason: String| SshError::Handshake {
            host: destination.host.clone(),
            port: destination.port,
            reason,
        };
        let handle = tokio::select! {
            handle = handshake => handle.map_err(|error| match error {
                SshError::Protocol(error) => in_handshake(handshake_reason(&error)),
                error => error,
            })?,
            () = patience(options.connect_timeout_ms, &asking) => {
                return Err(in_handshake(format!("it took more than {} ms", options.connect_timeout_ms)));
            }
        };
        let mut session = Self { handle, lost };
        let logging_in = auth::log_in(&mut session.handle, destination, &user, options, invoker, prompt);
        match tokio::time::timeout(Duration::from_millis(LOG_IN_MS), logging_in).await {
            Ok(result) => result?,
            Err(_) => return Err(in_handshake(format!("logging in took more than {LOG_IN_MS} ms"))),
        }
        Ok(session)
    }

    /// A stream to a Unix socket on the server (`direct-streamlocal@openssh.com`, OpenSSH's PROTOCOL §2.4).
    ///
    /// # Errors
    /// Why the server did not open it.
    pub async fn open_socket(&self, path: &str) -> Result<ChannelStream<Msg>, ChannelRefused> {
        self.within_time(self.handle.channel_open_direct_streamlocal(path))
            .await
            .map(russh::Channel::into_stream)
    }

    /// A channel to a TCP port as seen from the server (`direct-tcpip`, RFC 4254 §7.2).
    ///
    /// # Errors
    /// Why the server did not open it.
    pub async fn open_tcp(
        &self,
        host: &str,
        port: u16,
        originator: std::net::SocketAddr,
    ) -> Result<russh::Channel<Msg>, ChannelRefused> {
        let (from, from_port) = (originator.ip().to_string(), u32::from(originator.port()));
        self.within_time(
            self.handle
                .channel_open_direct_tcpip(host, u32::from(port), from, from_port),
        )
        .await
    }

    /// Waits for a channel, but not forever.
    async fn within_time<T>(
        &self,
        opening: impl Future<Output = Result<T, russh::Error>>,
    ) -> Result<T, ChannelRefused> {
        match tokio::time::timeout(Duration::from_millis(CHANNEL_OPEN_MS), opening).await {
            Ok(opened) => opened.map_err(|error| self.refused(error)),
            Err(_) => Err(ChannelRefused::Other(format!("no answer within {CHANNEL_OPEN_MS} ms"))),
        }
    }

    fn refused(&self, error: russh::Error) -> ChannelRefused {
        match error {
            russh::Error::ChannelOpenFailure(failure) => match failure {
                ChannelOpenFailure::AdministrativelyProhibited => ChannelRefused::Forbidden,
                ChannelOpenFailure::ConnectFailed => ChannelRefused::CannotConnect,
                ChannelOpenFailure::UnknownChannelType => ChannelRefused::Unsupported,
                ChannelOpenFailure::ResourceShortage => ChannelRefused::Other("it is short of resources".to_owned()),
                ChannelOpenFailure::Other { code, reason } => {
                    ChannelRefused::Other(format!("{} (code {code})", printable(&reason)))
                }
            },
            error => {
                let reason = self.lost.borrow().clone();
                ChannelRefused::Lost(reason.unwrap_or_else(|| error.to_string()))
            }
        }
    }

    /// Resolves when the session is over, with the reason.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let over = lost
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        over.unwrap_or_else(|| "the server closed it".to_owned())
    }

    /// Says goodbye to the server.
    pub async fn close(self) {
        let goodbye = self.handle.disconnect(russh::Disconnect::ByApplication, "", "");
        if tokio::time::timeout(Duration::from_secs(1), goodbye).await.is_ok() {
            let _gone = tokio::time::timeout(Duration::from_secs(1), self.handle).await;
        }
    }
}

/// Resolves once the time is used up, not counting the time a person is being asked.
async fn patience(timeout_ms: u64, asking: &AtomicBool) {
    const STEP_MS: u64 = 100;
    let mut used_ms = 0;
    while used_ms < timeout_ms {
        tokio::time::sleep(Duration::from_millis(STEP_MS)).await;
        if !asking.load(Ordering::Relaxed) {
            used_ms += STEP_MS;
        }
    }
}

async fn dial(host: &str, port: u16, timeout_ms: u64) -> Result<TcpStream, SshError> {
    let owned = host.to_owned();
    let addresses: Vec<_> = match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(SshError::Resolve { host: owned, error }),
    };
    let mut last = SshError::Resolve {
        host: owned.clone(),
        error: io::ErrorKind::NotFound.into(),
    };
    for address in addresses {
        let host = owned.clone();
        let connecting = TcpStream::connect(address);
        let error = match tokio::time::timeout(Duration::from_millis(timeout_ms), connecting).await {
            Ok(Ok(stream)) => {
                tune(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                last = SshError::Timeout { host, port, timeout_ms };
                continue;
            }
        };
        last = match error.kind() {
            io::ErrorKind::ConnectionRefused => SshError::ConnectionRefused { host, port },
            io::ErrorKind::TimedOut => SshError::Timeout { host, port, timeout_ms },
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                SshError::Unreachable { host, port, error }
            }
            _ => SshError::Connect { host, port, error },
        };
    }
    Err(last)
}

fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let results = [
        socket.set_tcp_nodelay(true),
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES),
        socket.set_tcp_user_timeout(Some(Duration::from_millis(u64::from(UNACKNOWLEDGED_MS)))),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "socket option left as it is");
    }
}

fn cpu_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn ciphers(cpu_has_aes: bool) -> Vec<cipher::Name> {
    let gcm = [cipher::AES_256_GCM, cipher::AES_128_GCM];
    let others = [cipher::AES_256_CTR, cipher::AES_192_CTR, cipher::AES_128_CTR];
    let mut order = Vec::new();
    if cpu_has_aes {
        order.extend(gcm);
        order.push(cipher::CHACHA20_POLY1305);
    } else {
        order.push(cipher::CHACHA20_POLY1305);
        order.extend(gcm);
    }
    order.extend(others);
    order
}

/// Host-key types, those of known keys first; never RSA with SHA-1.
fn host_key_order(known: &[Algorithm]) -> Vec<Algorithm> {
    let mut order = vec![Algorithm::Ed25519];
    order.extend(
        [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521].map(|curve| Algorithm::Ecdsa { curve }),
    );
    order.extend([HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }));
    let is_known = |algorithm: &Algorithm| match algorithm {
        Algorithm::Rsa { .. } => known.iter().any(|known| known.clone().is_rsa()),
        algorithm => known.contains(algorithm),
    };
    order.sort_by_key(|algorithm| !is_known(algorithm));
    order
}

fn config(known_types: &[Algorithm]) -> client::Config {
    client::Config {
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_MAX_BYTES,
        keepalive_interval: Some(Duration::from_millis(KEEPALIVE_MS)),
        keepalive_max: KEEPALIVES_MAX,
        nodelay: true,
        preferred: Preferred {
            cipher: Cow::Owned(ciphers(cpu_has_aes())),
            key: Cow::Owned(host_key_order(known_types)),
            host_key_certificates: Cow::Borrowed(&[]),
            compression: Cow::Owned(vec![russh::compression::NONE]),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    }
}

fn handshake_reason(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            let theirs = printable(&theirs.join(", "));
            format!("no {kind:?} algorithm in common, it offers {theirs}")
        }
        russh::Error::Disconnect | russh::Error::HUP => "it closed the connection".to_owned(),
        russh::Error::IO(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection".to_owned()
        }
        russh::Error::Version => "what listens there does not speak SSH".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_follow_the_cpu() {
        assert_eq!(ciphers(true)[..2], [cipher::AES_256_GCM, cipher::AES_128_GCM]);
        assert_eq!(ciphers(false)[0], cipher::CHACHA20_POLY1305);
        assert_eq!(ciphers(true).len(), ciphers(false).len());
    }

    #[test]
    fn a_known_key_type_is_asked_for_first() {
        assert_eq!(host_key_order(&[])[0], Algorithm::Ed25519);
        let rsa = host_key_order(&[Algorithm::Rsa { hash: None }]);
        assert_eq!(
            rsa[..2],
            [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) })
        );
        assert!(!rsa.contains(&Algorithm::Rsa { hash: None }), "no SHA-1");
        assert_eq!(rsa.len(), 6);
    }
}
