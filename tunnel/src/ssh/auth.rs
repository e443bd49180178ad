//! Logging in with the agent's keys, the usual key files, or the ones named.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::{AgentClient, AgentStream};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};

use super::handler::Client;
use super::{Destination, Invoker, Prompt, SshError, SshOptions};

/// The files OpenSSH looks at, under `~/.ssh`, in this order.
const USUAL_FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// The longest key file, in bytes.
const KEY_FILE_MAX_BYTES: u64 = 0x1_0000;
/// How many keys of an agent are tried; sshd hangs up after six by default (MaxAuthTries).
const AGENT_KEYS_MAX: usize = 16;

type Agent = AgentClient<Box<dyn AgentStream + Send + Unpin>>;

/// The state of one attempt to log in.
struct LogIn<'a> {
    handle: &'a mut Handle<Client>,
    user: &'a str,
    prompt: Arc<dyn Prompt>,
    rsa_hash: Option<HashAlg>,
    tried: Vec<String>,
}

/// Tries one key after the other.
pub(super) async fn log_in(
    handle: &mut Handle<Client>,
    destination: &Destination,
    user: &str,
    options: &SshOptions,
    invoker: &Invoker,
    prompt: Arc<dyn Prompt>,
) -> Result<(), SshError> {
    let mut attempt = LogIn {
        handle,
        user,
        prompt,
        rsa_hash: None,
        tried: Vec::new(),
    };
    let (mut agent, agent_keys) = attempt.agent(invoker, options.agent.as_deref()).await;
    let named = !options.identities.is_empty();
    let mut offered = Vec::new();

    if let (false, Some(agent)) = (named, &mut agent) {
        for (key, comment) in agent_keys.iter().take(AGENT_KEYS_MAX) {
            offered.push(key.clone());
            if attempt.with_agent(agent, key, &format!("agent key {comment}")).await? {
                return Ok(());
            }
        }
    }
    let files: Vec<PathBuf> = if named {
        options.identities.clone()
    } else {
        USUAL_FILES
            .iter()
            .map(|name| invoker.ssh_file(name))
            .filter(|file| file.exists())
            .collect()
    };
    if files.is_empty() {
        attempt.tried.push(format!(
            "no key file ({} in {})",
            USUAL_FILES.join(", "),
            invoker.ssh_file("").display()
        ));
    }
    for file in files {
        let public = public_half(&file);
        let in_agent = public
            .as_ref()
            .filter(|key| agent_keys.iter().any(|(held, _)| held.key_data() == key.key_data()));
        if let (true, Some(agent), Some(key)) = (named, &mut agent, in_agent) {
            if attempt
                .with_agent(agent, key, &format!("{} (by the agent)", file.display()))
                .await?
            {
                return Ok(());
            }
            continue;
        }
        if public
            .as_ref()
            .is_some_and(|key| offered.iter().any(|other| other.key_data() == key.key_data()))
        {
            continue;
        }
        if attempt.with_file(&file, public, invoker, named).await? {
            return Ok(());
        }
    }
    let closed = attempt.handle.is_closed();
    let hint = if closed {
        "\nThe server hung up: perhaps after too many keys; name the right one with -i."
    } else {
        ""
    };
    Err(SshError::Authentication {
        host: destination.host.clone(),
        user: user.to_owned(),
        tried: attempt.tried,
        hint: hint.to_owned(),
    })
}

impl LogIn<'_> {
    /// The agent and its keys; why there is none goes to the list of what was tried.
    async fn agent(&mut self, invoker: &Invoker, socket: Option<&Path>) -> (Option<Agent>, Vec<(PublicKey, String)>) {
        let from_environment = || std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        let Some(socket) = socket
            .map(|socket| socket.as_os_str().to_owned())
            .or_else(from_environment)
        else {
            self.tried.push(if invoker.through_sudo {
                "no agent: sudo removes SSH_AUTH_SOCK (sudo --preserve-env=SSH_AUTH_SOCK keeps it)".to_owned()
            } else {
                "no agent: SSH_AUTH_SOCK is not set".to_owned()
            });
            return (None, Vec::new());
        };
        let mut agent = match AgentClient::connect_uds(&socket).await {
            Ok(agent) => agent.dynamic(),
            Err(error) => {
                self.tried
                    .push(format!("no agent at {}: {error}", socket.to_string_lossy()));
                return (None, Vec::new());
            }
        };
        match agent.request_identities().await {
            Ok(identities) => {
                let plain = identities.into_iter().filter_map(|identity| match identity {
                    AgentIdentity::PublicKey { key, comment } => Some((key, comment)),
                    AgentIdentity::Certificate { .. } => None,
                });
                let keys: Vec<_> = plain.collect();
                if keys.is_empty() {
                    self.tried.push("the agent holds no keys".to_owned());
                }
                (Some(agent), keys)
            }
            Err(error) => {
                self.tried.push(format!("the agent does not list its keys: {error}"));
                (None, Vec::new())
            }
        }
    }

    /// The hash for a key; `Err` when the server takes RSA with SHA-1 only.
    async fn hash_for(&mut self, key: &PublicKey) -> Result<Option<HashAlg>, SshError> {
        if !key.algorithm().is_rsa() {
            return Ok(None);
        }
        if self.rsa_hash.is_none() {
            let best = self.handle.best_supported_rsa_hash().await?;
            // A server that does not say takes SHA-256 if it takes anything better than SHA-1.
            self.rsa_hash = Some(best.flatten().unwrap_or(HashAlg::Sha256));
        }
        Ok(self.rsa_hash)
    }

    async fn with_agent(&mut self, agent: &mut Agent, key: &PublicKey, what: &str) -> Result<bool, SshError> {
        if self.handle.is_closed() {
            return Ok(false);
        }
        let hash = self.hash_for(key).await?;
        let result = self
            .handle
            .authenticate_publickey_with(self.user, key.clone(), hash, agent)
            .await;
        Ok(match result {
            Ok(result) => self.note(what, key, &result),
            Err(error) => {
                self.tried.push(format!("{what}: the agent did not sign ({error})"));
                false
            }
        })
    }

    async fn with_file(
        &mut self,
        file: &Path,
        public: Option<PublicKey>,
        invoker: &Invoker,
        named: bool,
    ) -> Result<bool, SshError> {
        if self.handle.is_closed() {
            return Ok(false);
        }
        let what = file.display().to_string();
        let text = match read_key(file, invoker, named) {
            Ok(text) => text,
            Err(reason) => {
                self.tried.push(format!("{what}: {reason}"));
                return Ok(false);
            }
        };
        let key = match russh::keys::decode_secret_key(&text, None) {
            Ok(key) => key,
            Err(russh::keys::Error::KeyIsEncrypted) => match self.decrypt(file, &text, public).await? {
                Some(key) => key,
                None => return Ok(false),
            },
            Err(error) => {
                self.tried.push(format!("{what}: not a private key ({error})"));
                return Ok(false);
            }
        };
        let public = key.public_key().clone();
        let hash = self.hash_for(&public).await?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        let result = self.handle.authenticate_publickey(self.user, key).await?;
        Ok(self.note(&what, &public, &result))
    }

    /// Asks for the passphrase, but only when the server would take the key.
    async fn decrypt(
        &mut self,
        file: &Path,
        text: &str,
        public: Option<PublicKey>,
    ) -> Result<Option<PrivateKey>, SshError> {
        if let Some(public) = public {
            let hash = self.hash_for(&public).await?;
            let asked = self
                .handle
                .authenticate_publickey_with(self.user, public.clone(), hash, &mut Wanted)
                .await;
            if let Ok(result) = asked {
                self.note(&file.display().to_string(), &public, &result);
                return Ok(None);
            }
        }
        let (prompt, owned) = (Arc::clone(&self.prompt), file.to_owned());
        let answer = tokio::task::spawn_blocking(move || prompt.passphrase(&owned))
            .await
            .ok()
            .flatten();
        let what = file.display();
        let Some(passphrase) = answer else {
            self.tried.push(format!(
                "{what}: it has a passphrase and there is no terminal to ask (ssh-add it before)"
            ));
            return Ok(None);
        };
        match russh::keys::decode_secret_key(text, Some(&passphrase)) {
            Ok(key) => Ok(Some(key)),
            Err(_) => {
                self.tried.push(format!("{what}: wrong passphrase"));
                Ok(None)
            }
        }
    }

    fn note(&mut self, what: &str, key: &PublicKey, result: &AuthResult) -> bool {
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        match result {
            AuthResult::Success => return true,
            AuthResult::Failure {
                partial_success: true,
                remaining_methods,
            } => {
                self.tried.push(format!(
                    "{what} ({fingerprint}): accepted, but the server also wants {remaining_methods:?}, which is not supported"
                ));
            }
            AuthResult::Failure { .. } => self.tried.push(format!("{what} ({fingerprint}): refused")),
        }
        false
    }
}

/// A signer that only finds out whether the server wants a signature.
struct Wanted;

/// The server wants a signature.
struct IsWanted;

impl From<russh::SendError> for IsWanted {
    fn from(_: russh::SendError) -> Self {
        Self
    }
}

impl russh::Signer for Wanted {
    type Error = IsWanted;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        _hash_alg: Option<HashAlg>,
        _to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, IsWanted> {
        Err(IsWanted)
    }
}

/// The public half of a key file: from the file beside it, or out of the file itself.
fn public_half(file: &Path) -> Option<PublicKey> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    let public = PublicKey::read_openssh_file(Path::new(&beside)).or_else(|_| PublicKey::read_openssh_file(file));
    public.ok().or_else(|| {
        PrivateKey::read_openssh_file(file)
            .ok()
            .map(|key| key.public_key().clone())
    })
}

/// Reads a private key that nobody else can read.
fn read_key(file: &Path, invoker: &Invoker, named: bool) -> Result<String, String> {
    let open = File::open(file).map_err(|error| error.to_string())?;
    let metadata = open.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "others can read it (mode {:04o}): chmod 600 it",
            metadata.mode() & 0o7777
        ));
    }
    if invoker.through_sudo && !named && metadata.uid() != invoker.uid {
        return Err("it does not belong to the user who called sudo".to_owned());
    }
    let mut text = String::new();
    open.take(KEY_FILE_MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}
