//! The control socket: how the other subcommands reach the daemon, and what they say to it.

pub(crate) mod client;
pub(crate) mod path;
pub(crate) mod protocol;
pub(crate) mod server;
