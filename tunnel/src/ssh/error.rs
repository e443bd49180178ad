//! What can go wrong on the way to a working SSH session, in words for the person in front of it.

use std::io;
use std::path::PathBuf;

use super::known_hosts::Place;

/// Why there is no SSH session.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The name has no address.
    #[error("cannot find {host}: {error}")]
    Resolve {
        /// The host's name.
        host: String,
        /// The resolver's answer.
        error: io::Error,
    },
    /// Nothing listens there.
    #[error("{host} refuses connections on port {port}: is sshd running, is this the right port?")]
    ConnectionRefused {
        /// The host's name.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// Nothing answers.
    #[error(
        "{host} does not answer on port {port} within {timeout_ms} ms: is it up, does a firewall let port {port} through?"
    )]
    Timeout {
        /// The host's name.
        host: String,
        /// The TCP port.
        port: u16,
        /// How long was waited, in milliseconds.
        timeout_ms: u64,
    },
    /// No way there.
    #[error("there is no route to {host} (port {port}): {error}")]
    Unreachable {
        /// The host's name.
        host: String,
        /// The TCP port.
        port: u16,
        /// The kernel's answer.
        error: io::Error,
    },
    /// Any other failure to connect.
    #[error("cannot connect to {host} port {port}: {error}")]
    Connect {
        /// The host's name.
        host: String,
        /// The TCP port.
        port: u16,
        /// The kernel's answer.
        error: io::Error,
    },
    /// Connected, but no SSH came of it.
    #[error("{host} port {port} does not get through the SSH handshake: {reason}")]
    Handshake {
        /// The host's name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What went wrong.
        reason: String,
    },
    /// The host's key is not the known one.
    #[error(
        "THE HOST KEY OF {host} HAS CHANGED.\n\
         Somebody may be listening in between, or the host was set up anew.\n\
         It shows {key_type} {fingerprint}; {place} has another {key_type} key.\n\
         If the new key is right, remove that line and connect again."
    )]
    HostKeyChanged {
        /// As known_hosts names it.
        host: String,
        /// The key's type.
        key_type: String,
        /// The fingerprint of the key that was shown.
        fingerprint: String,
        /// The line with the other key.
        place: Place,
    },
    /// The host's key is marked as revoked.
    #[error("THE HOST KEY OF {host} IS REVOKED ({place}). It shows {key_type} {fingerprint}; do not trust this host.")]
    HostKeyRevoked {
        /// As known_hosts names it.
        host: String,
        /// The key's type.
        key_type: String,
        /// The fingerprint of the key that was shown.
        fingerprint: String,
        /// The line that says so.
        place: Place,
    },
    /// The host's key is unknown, and nobody said that it is the right one.
    #[error(
        "the host key of {host} is not known: {key_type} {fingerprint}{}\n\
         Connect once from a terminal, allow new keys to be accepted, or add it to known_hosts.",
        notes.iter().map(|note| format!("\n{note}")).collect::<String>()
    )]
    HostKeyUnknown {
        /// As known_hosts names it.
        host: String,
        /// The key's type.
        key_type: String,
        /// The fingerprint of the key that was shown.
        fingerprint: String,
        /// What else the files say.
        notes: Vec<String>,
    },
    /// The person at the terminal said no.
    #[error("the host key of {host} was not accepted")]
    HostKeyDeclined {
        /// As known_hosts names it.
        host: String,
    },
    /// A certificate came although none was asked for.
    #[error("{host} shows a host certificate, which is not supported: it needs a plain host key")]
    HostCertificate {
        /// As known_hosts names it.
        host: String,
    },
    /// A file of known hosts cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    KnownHosts {
        /// The file.
        file: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The user has no home directory to look for keys in.
    #[error("no home directory: neither HOME nor the user database has one")]
    NoHome,
    /// No user name to log in with.
    #[error("no user name: write user@host")]
    NoUser,
    /// No key was accepted.
    #[error(
        "{host} does not let {user} in. Tried:{}{hint}",
        tried.iter().map(|tried| format!("\n  {tried}")).collect::<String>()
    )]
    Authentication {
        /// The host's name.
        host: String,
        /// The user on that host.
        user: String,
        /// What was tried, one line each.
        tried: Vec<String>,
        /// What might help, starting with a line break; or nothing.
        hint: String,
    },
    /// The session ended.
    #[error("the SSH connection was lost: {0}")]
    Lost(String),
    /// The SSH library's own error on the way up.
    #[error("SSH: {0}")]
    Protocol(#[from] russh::Error),
}
