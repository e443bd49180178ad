//! Portals on addresses of this machine, and the list of all there are.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use target_core::iscsi::Node;
use target_core::iscsi::portals::{Listening, Portal, Way};
use target_core::server::Server;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::{PortalPlan, Problems};
use crate::culprit;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 128;

/// Binds a portal; if that fails, it goes to `problems`, unless its line is there already.
pub(crate) fn bind(portal: &PortalPlan, problems: &mut Problems) -> Option<TcpListener> {
    let known = problems
        .list()
        .iter()
        .any(|known| known.line == portal.line && known.line.is_some());
    if known {
        return None;
    }
    let listener = listen(portal.address);
    listener
        .map_err(|error| problems.add_passing(portal.line, explain(portal.address, &error)))
        .ok()
}

/// Listens on an address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
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

/// Why there is no listener, with who is likely in the way.
pub(crate) fn explain(address: SocketAddr, error: &io::Error) -> String {
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

/// All portals there are, as the node is to know them.
#[derive(Debug)]
pub(crate) struct Table {
    node: Arc<Node>,
    list: Mutex<Vec<Listening>>,
}

impl Table {
    /// A table for a node without portals.
    pub(crate) fn new(node: Arc<Node>) -> Arc<Self> {
        let list = Mutex::default();
        Arc::new(Self { node, list })
    }

    /// One is there.
    pub(crate) fn add(&self, listening: Listening) {
        self.change(|list| list.push(listening));
    }

    /// One is there no more.
    pub(crate) fn remove(&self, listening: &Listening) {
        self.change(|list| {
            if let Some(index) = list.iter().position(|other| other == listening) {
                list.remove(index);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Listening>)) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut list);
        self.node.set_portals(list.clone());
    }
}

/// The portals of the configuration that accept connections now.
#[derive(Debug)]
pub(crate) struct Portals {
    server: Server,
    table: Arc<Table>,
    /// By the address in the plan.
    running: BTreeMap<SocketAddr, Running>,
}

#[derive(Debug)]
struct Running {
    listening: Listening,
    until: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Portals {
    /// None yet.
    pub(crate) fn new(server: Server, table: Arc<Table>) -> Self {
        let running = BTreeMap::new();
        Self { server, table, running }
    }

    /// Where they really listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.running.values().map(|running| running.listening.address).collect()
    }

    /// Begins to accept.
    pub(crate) fn start(&mut self, plan: &PortalPlan, listener: TcpListener) {
        let portal = Portal {
            tag: plan.group,
            way: Way::Network,
            announce: plan.announce.clone(),
        };
        let listening = Listening {
            address: listener.local_addr().unwrap_or(plan.address),
            portal: portal.clone(),
        };
        self.table.add(listening.clone());
        let (until, dropped) = oneshot::channel::<()>();
        let server = self.server.clone();
        let task = tokio::spawn(async move {
            let stopped = async {
                // An error is what comes when it is dropped.
                let _ = dropped.await;
            };
            server.serve(listener, portal, stopped).await;
        });
        let running = Running { listening, until, task };
        self.running.insert(plan.address, running);
    }

    /// Accepts no more; what has been accepted goes on. The address is free when this returns.
    pub(crate) async fn stop(&mut self, address: SocketAddr) {
        if let Some(running) = self.running.remove(&address) {
            self.table.remove(&running.listening);
            drop(running.until);
            if let Err(error) = running.task.await {
                tracing::warn!(%address, %error, "a portal has ended badly");
            }
        }
    }

    /// The same for all of them.
    pub(crate) async fn stop_all(&mut self) {
        for address in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop(address).await;
        }
    }
}
