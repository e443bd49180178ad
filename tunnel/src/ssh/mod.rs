//! The SSH client: a session through the host's own sshd, and channels on it.
//!
//! russh's defaults are overridden where a tunnel needs other ones: no Nagle, a window as long as a fat line, ciphers
//! in the order in which this CPU is fast at them, keepalives, no compression; and whatever channel a server asks to
//! open on the client is refused, where russh would accept it.

mod auth;
mod error;
pub mod forward;
mod handler;
mod invoker;
pub mod known_hosts;
#[cfg(test)]
mod known_hosts_tests;
mod prompt;
mod session;

use std::path::PathBuf;
use std::str::FromStr;

pub use error::SshError;
pub use invoker::Invoker;
pub use prompt::{HostKeyQuestion, NoPrompt, Prompt, Terminal};
pub use session::{ChannelRefused, Session};

/// The port sshd listens on unless told otherwise (RFC 4253 §4.1).
pub const SSH_PORT: u16 = 22;

/// Where to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The user on that host; the invoking user's name when not given.
    pub user: Option<String>,
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What is wrong with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a destination is [user@]host[:port] or ssh://[user@]host[:port], an IPv6 address in brackets")]
pub struct BadDestination;

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let text = text
            .strip_prefix("ssh://")
            .map_or(text, |rest| rest.trim_end_matches('/'));
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => match rest.split_once(']').ok_or(BadDestination)? {
                (host, "") => (host, None),
                (host, port) => (host, Some(port.strip_prefix(':').ok_or(BadDestination)?)),
            },
            None if rest.matches(':').count() > 1 => (rest, None),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port.map(u16::from_str) {
            None => SSH_PORT,
            Some(Ok(port @ 1..)) => port,
            Some(_) => return Err(BadDestination),
        };
        let odd = |text: &str| text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control());
        if odd(host) || host.starts_with('-') || user.as_deref().is_some_and(odd) {
            return Err(BadDestination);
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
        })
    }
}

/// How to log in.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// Key files to use instead of the agent's keys and the usual files (`-i`).
    pub identities: Vec<PathBuf>,
    /// The agent's socket instead of the one in `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    /// Add keys of hosts never seen before without asking; changed keys are refused all the same.
    pub accept_new: bool,
    /// Files of known hosts instead of the usual ones; new keys go to the first.
    pub known_hosts: Option<Vec<PathBuf>>,
    /// How long connecting may take per address, and the handshake without the time a person takes to answer, in
    /// milliseconds.
    pub connect_timeout_ms: u64,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            identities: Vec::new(),
            agent: None,
            accept_new: false,
            known_hosts: None,
            connect_timeout_ms: 15_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let good = [
            ("host", None, "host", 22),
            ("anna@host", Some("anna"), "host", 22),
            ("anna@host:2222", Some("anna"), "host", 2222),
            ("ssh://anna@host:2222/", Some("anna"), "host", 2222),
            ("a@b@host", Some("a@b"), "host", 22),
            ("::1", None, "::1", 22),
            ("anna@[fe80::1%eth0]:23", Some("anna"), "fe80::1%eth0", 23),
            ("[::1]", None, "::1", 22),
        ];
        for (text, user, host, port) in good {
            let expected = Destination {
                user: user.map(str::to_owned),
                host: host.to_owned(),
                port,
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "anna@",
            "@host",
            "host:0",
            "host:x",
            "host:70000",
            "[::1",
            "[::1]x",
            "-oProxy",
            "a b",
            "h\n",
        ] {
            assert_eq!(text.parse::<Destination>(), Err(BadDestination), "{text}");
        }
    }
}
