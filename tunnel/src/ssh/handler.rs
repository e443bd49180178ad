//! What russh asks of its user: the judgement on the host key, and a refusal of every channel a server opens.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use russh::client::{self, DisconnectReason, Msg};
use russh::keys::{HashAlg, PublicKey, PublicKeyOrCertificate};
use tokio::sync::watch;

use super::known_hosts::{self, KnownHosts, Verdict, host_name};
use super::{Destination, HostKeyQuestion, Invoker, Prompt, SshError};
use crate::peer::wire::printable;

/// What is needed to judge the host key.
pub(super) struct HostKeyCheck {
    pub(super) destination: Destination,
    pub(super) known: KnownHosts,
    pub(super) accept_new: bool,
    pub(super) new_keys_file: Option<PathBuf>,
    pub(super) invoker: Invoker,
    pub(super) prompt: Arc<dyn Prompt>,
    pub(super) asking: Arc<AtomicBool>,
}

impl HostKeyCheck {
    async fn judge(self, key: &PublicKey) -> Result<(), SshError> {
        let Destination { host: bare, port, .. } = &self.destination;
        let host = host_name(bare, *port);
        let key_type = key.algorithm().to_string();
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let (other, authority) = match self.known.check(bare, *port, key) {
            Verdict::Known(place) => {
                tracing::debug!(%place, "host key is known");
                return Ok(());
            }
            Verdict::Revoked(place) => {
                return Err(SshError::HostKeyRevoked {
                    host,
                    key_type,
                    fingerprint,
                    place,
                });
            }
            Verdict::Changed(place) => {
                return Err(SshError::HostKeyChanged {
                    host,
                    key_type,
                    fingerprint,
                    place,
                });
            }
            Verdict::Unknown { other, authority } => (other, authority),
        };
        let mut notes = Vec::new();
        if let Some(place) = &other {
            notes.push(format!("{place} has a key of another type for this host."));
        }
        if let Some(place) = &authority {
            notes.push(format!(
                "{place} names a certificate authority for it; host certificates are not supported."
            ));
        }
        // A host that had another key and now shows one of a new type is not a new host: somebody has to look.
        let accepted = if self.accept_new && other.is_none() {
            true
        } else {
            let question = HostKeyQuestion {
                host: host.clone(),
                key_type,
                fingerprint,
                notes,
            };
            let (prompt, asked) = (self.prompt, question.clone());
            self.asking.store(true, Ordering::Relaxed);
            let answer = tokio::task::spawn_blocking(move || prompt.accept_host_key(&asked)).await;
            self.asking.store(false, Ordering::Relaxed);
            answer.ok().flatten().ok_or_else(|| {
                let HostKeyQuestion {
                    host,
                    key_type,
                    fingerprint,
                    notes,
                } = question;
                SshError::HostKeyUnknown {
                    host,
                    key_type,
                    fingerprint,
                    notes,
                }
            })?
        };
        if !accepted {
            return Err(SshError::HostKeyDeclined { host });
        }
        if let Some(file) = &self.new_keys_file {
            match known_hosts::append(file, bare, *port, key, &self.invoker) {
                Ok(()) => tracing::info!(%host, file = %file.display(), "host key added"),
                Err(error) => tracing::warn!(%host, file = %file.display(), %error, "host key accepted, but not added"),
            }
        }
        Ok(())
    }
}

/// The event handler that russh calls.
pub(super) struct Client {
    check: Option<HostKeyCheck>,
    known_key: Option<PublicKey>,
    lost: watch::Sender<Option<String>>,
}

impl Client {
    /// `lost` is given the reason when the session ends.
    pub(super) fn new(check: HostKeyCheck, lost: watch::Sender<Option<String>>) -> Self {
        Self {
            check: Some(check),
            known_key: None,
            lost,
        }
    }

    fn lose(&self, reason: String) {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(reason);
            first
        });
    }
}

impl client::Handler for Client {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key,
            PublicKeyOrCertificate::Certificate(_) => {
                let host = self
                    .check
                    .as_ref()
                    .map(|check| check.destination.host.clone())
                    .unwrap_or_default();
                return Err(SshError::HostCertificate { host });
            }
        };
        if let Some(check) = self.check.take() {
            check.judge(key).await?;
            self.known_key = Some(key.clone());
            return Ok(true);
        }
        // Keys are exchanged anew now and then: it must be the same host.
        Ok(self
            .known_key
            .as_ref()
            .is_some_and(|known| known.key_data() == key.key_data()))
    }

    async fn disconnected(&mut self, reason: DisconnectReason<SshError>) -> Result<(), SshError> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.lose(format!("the server says: {}", printable(&info.message)));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.lose(match &error {
                    SshError::Protocol(russh::Error::KeepaliveTimeout) => {
                        "nothing was heard from the server for 30 seconds".to_owned()
                    }
                    SshError::Protocol(russh::Error::Disconnect | russh::Error::HUP) => {
                        "the server closed it".to_owned()
                    }
                    SshError::Protocol(russh::Error::IO(error)) => error.to_string(),
                    error => error.to_string(),
                });
                Err(error)
            }
        }
    }

    // The server has nothing to open on a client. Dropping the reply refuses.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: russh::Channel<Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: russh::Channel<Msg>,
        _socket_path: &str,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: russh::Channel<Msg>,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: russh::Channel<Msg>,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: russh::Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: russh::Channel<Msg>,
        _socket_path: &str,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), SshError> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: russh::Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), SshError> {
        Ok(())
    }
}
