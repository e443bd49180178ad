//! What the two ends agree on before packets flow: a bounded, versioned hello.
//!
//! The client speaks first and says what it can do. The server offers an address pair, the largest packet and the
//! ports of its portals; the client takes the pair or says that it is taken on its side, and the next one is offered.
//! When the client has accepted and the server's device is up, the server says that it is ready, and frames follow on
//! the same stream.
//!
//! ```text
//! client                          server
//!   hello (mtu, capabilities) ->
//!                              <- offer (pair, mtu, portal ports)
//!   answer: taken             ->
//!                              <- offer (another pair)
//!   answer: accepted          ->
//!                              <- ready
//!   frames                   <->  frames
//! ```
//!
//! Either end may say `refused` with a reason instead, at any time. Everything here is sans-IO.

mod client;
pub mod pool;
mod server;
#[cfg(test)]
mod tests;
pub mod wire;

use std::net::Ipv4Addr;

pub use client::{ClientEvent, ClientHello};
pub use server::{ServerEvent, ServerHello};

/// The version of hello and frames spoken here. Both ends must speak the same.
pub const VERSION: u16 = 1;

/// How long the whole hello may take, in milliseconds, device creation on both ends included.
pub const HELLO_TIMEOUT_MS: u64 = 20_000;

/// How many address pairs are offered before the ends give up, at most.
pub const OFFERS_MAX: usize = 24;

/// The smallest packet bound to agree on, in bytes: what every IPv4 host must take (RFC 791 §3.1).
pub const MTU_MIN: u16 = 576;

/// The packet bound this end proposes unless told otherwise, in bytes: the largest multiple of 16 that IPv4 can say
/// and that leaves room for the frame's length in 64 KiB.
pub const MTU_DEFAULT: u16 = 65_520;

/// What an end can do, as bits in the hello.
pub mod capability {
    /// Carries IPv4.
    pub const IPV4: u32 = 0x0000_0001;
    /// Sends empty frames when it has nothing to say, so that silence means a dead line.
    pub const ALIVE: u32 = 0x0000_0002;
    /// All that this version can do.
    pub const ALL: u32 = IPV4 | ALIVE;
}

/// Two different private addresses (RFC 1918), one for each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    server: Ipv4Addr,
    client: Ipv4Addr,
}

impl Pair {
    /// `None` unless both are private unicast addresses and differ.
    pub fn new(server: Ipv4Addr, client: Ipv4Addr) -> Option<Self> {
        (server != client && server.is_private() && client.is_private()).then_some(Self { server, client })
    }

    /// The server's address.
    pub fn server(self) -> Ipv4Addr {
        self.server
    }

    /// The client's address.
    pub fn client(self) -> Ipv4Addr {
        self.client
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <-> {}", self.client, self.server)
    }
}

/// What both ends have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The two addresses.
    pub pair: Pair,
    /// The largest packet in bytes.
    pub mtu: u16,
    /// The TCP ports of the server's portals, one at least.
    pub portal_ports: Vec<u16>,
    /// What both ends can do, see [`capability`].
    pub capabilities: u32,
}

/// Why an end refuses, for programs; the text beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Anything else, see the text.
    Other = 0,
    /// The versions differ.
    Version = 1,
    /// No address pair is free on both ends.
    NoAddresses = 2,
    /// The server has as many clients as it takes.
    TooManyClients = 3,
    /// The device could not be made.
    NoDevice = 4,
    /// The hello took too long or was malformed.
    BadHello = 5,
    /// The server is stopping.
    Stopping = 6,
}

impl From<u8> for Refusal {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::NoAddresses,
            3 => Self::TooManyClients,
            4 => Self::NoDevice,
            5 => Self::BadHello,
            6 => Self::Stopping,
            _ => Self::Other,
        }
    }
}

/// Why the hello failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first bytes are not ours.
    #[error("the other end does not speak farlun's tunnel protocol")]
    NotFarlun,
    /// The other end speaks another version.
    #[error(
        "the other end speaks version {theirs} of the tunnel protocol, this one version {ours}: update the older one"
    )]
    Version {
        /// What is spoken here.
        ours: u16,
        /// What came.
        theirs: u16,
    },
    /// A message is over the bound.
    #[error("the other end announced a message of {length} bytes in the hello, {max} is the most", max = wire::BODY_MAX_BYTES)]
    TooLong {
        /// The announced length in bytes.
        length: usize,
    },
    /// A message does not parse.
    #[error("the other end sent a malformed {0}")]
    Malformed(&'static str),
    /// A message that has no place here.
    #[error("the other end sent {got} where {expected} was expected")]
    Unexpected {
        /// What came.
        got: &'static str,
        /// What should have come.
        expected: &'static str,
    },
    /// What is offered cannot be used.
    #[error("the other end offered {0}")]
    BadOffer(&'static str),
    /// The other end cannot do what is needed.
    #[error("the other end cannot carry IPv4")]
    NothingInCommon,
    /// No pair was free on both ends within [`OFFERS_MAX`] offers.
    #[error("no address pair is free on both ends ({0} were tried)")]
    NoAddresses(usize),
    /// The other end refuses.
    #[error("the other end refuses: {text}")]
    Refused {
        /// For programs.
        refusal: Refusal,
        /// For people, made safe to print.
        text: String,
    },
    /// It took too long.
    #[error("the other end did not finish the hello within {} seconds", HELLO_TIMEOUT_MS / 1000)]
    TimedOut,
    /// The stream ended.
    #[error("the other end hung up during the hello")]
    HungUp,
}
