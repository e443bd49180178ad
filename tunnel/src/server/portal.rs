//! A portal's listener that only the client of one link reaches.
//!
//! Linux answers for an address on whatever interface the packet comes in, so the listener is bound to the link's
//! device. That alone still lets in the server's own users: a connection from this host to its own address counts as
//! having come in on the device that has the address (`inet_iif` in the kernel's include/net/route.h). Their source is
//! never the client's address, so a socket filter drops what has another source.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::Link;

/// Connections waiting to be accepted.
const LISTEN_BACKLOG: i32 = 128;

// Classic BPF: linux/bpf_common.h and linux/filter.h.
const BPF_LD_W_ABS: u16 = 0x20;
const BPF_JMP_JEQ_K: u16 = 0x15;
const BPF_RET_K: u16 = 0x06;
/// Offsets from here count from the IP header.
const SKF_NET_OFF: u32 = 0xfff0_0000;
/// Where the source address is in it (RFC 791 §3.1).
const SOURCE_AT: u32 = 12;

/// Lets pass what comes from one address.
fn only_from(peer: Ipv4Addr) -> [SockFilter; 4] {
    [
        SockFilter::new(BPF_LD_W_ABS, 0, 0, SKF_NET_OFF + SOURCE_AT),
        SockFilter::new(BPF_JMP_JEQ_K, 0, 1, peer.to_bits()),
        SockFilter::new(BPF_RET_K, 0, 0, u32::MAX),
        SockFilter::new(BPF_RET_K, 0, 0, 0),
    ]
}

/// A TCP listener on the link's address that takes connections of its client only: neither a neighbour with a route
/// to the address nor another user of this host reaches it. It is set to non-blocking. Connections accepted from it
/// inherit both restrictions.
///
/// # Errors
/// The kernel's answer.
pub fn listen_on_link(link: &Link, port: u16) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind_device(Some(link.ifname.as_bytes()))?;
    socket.attach_filter(&only_from(link.peer))?;
    socket.bind(&SocketAddr::from((link.local, port)).into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
