//! Portals on addresses of this machine.

use std::io;
use std::net::SocketAddr;

use anyhow::anyhow;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::config::{Plan, Problems};
use crate::culprit;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 128;

/// Binds every portal of the plan. All that fail are told, with who is likely in the way.
pub(crate) fn bind(plan: &Plan) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut failed = Vec::new();
    for portal in &plan.portals {
        match listen(portal.address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failed.push(explain(portal.address, &error)),
        }
    }
    if failed.is_empty() {
        Ok(listeners)
    } else {
        Err(anyhow!("{}", failed.join("\n")))
    }
}

/// Binds every portal of the plan for a moment; those that fail go to `problems`, unless their line is there already.
pub(crate) fn check(plan: &Plan, problems: &mut Problems) {
    for portal in &plan.portals {
        let known = problems
            .list()
            .iter()
            .any(|known| known.line == portal.line && known.line.is_some());
        if !known && let Err(error) = listen(portal.address) {
            problems.add_passing(portal.line, explain(portal.address, &error));
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former run in TIME_WAIT are no reason to wait; another listener still is one.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "portal {address}: port {} is taken by {}: stop that program, or listen on another port",
            address.port(),
            culprit::listener(address)
        ),
        io::ErrorKind::PermissionDenied => {
            format!("portal {address}: {error}: ports below 1024 need root; iSCSI's own is 3260")
        }
        _ => format!("portal {address}: {error}"),
    }
}
