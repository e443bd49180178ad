//! iSCSI as RFC 7143 has it, as state machines without sockets or clock.
//!
//! [`connection`] is the door: bytes in, bytes and commands out. Behind it a connection is first a `login`
//! (with `negotiate`) and then a `full_feature` session, which keeps its commands in a `task` set, lets them
//! in by a `window`, and reserves memory from a `budget` before it promises any. `node` knows the targets,
//! each `target` who is logged in, `policy` who may be, and `portals` by which way; `mailbox` is how the world
//! outside the socket reaches a connection.

pub mod budget;
pub mod chap;
pub mod connection;
mod current;
mod full_feature;
pub mod job;
mod limits;
mod login;
pub mod mailbox;
mod negotiate;
pub mod node;
mod output;
pub mod params;
pub mod policy;
pub mod portals;
mod ready;
pub mod shape;
pub mod stats;
mod target;
mod task;
mod transfer;
pub mod transmit;
mod window;

pub use connection::{Connection, Ended, Landing};
pub use login::LoginError;
pub use negotiate::NegotiationError;
pub use node::{Limits, Node, SessionInfo, Target};
pub use policy::{Auth, Mode, NamePattern, Policy, Rule, Who};
pub use portals::{Announced, Listening, Origin, Portal, Way};
