//! IP packets between two tun devices through an SSH channel, and plain port forwarding.
//!
//! Knows nothing of iSCSI but the ports its owner names. [`frame`], [`filter`] and [`peer`] are sans-IO: they take
//! bytes and a time and give bytes and verdicts; the other modules are thin shells around them.
#![forbid(unsafe_code)]

pub mod client;
pub mod filter;
pub mod frame;
pub mod link;
mod owner;
pub mod peer;
pub mod server;
pub mod ssh;
pub mod tun;
