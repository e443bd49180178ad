//! Tunnels: a portal on each tun device for as long as its link is up, which takes only what arrives on that device.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;

use anyhow::Context;
use target_core::iscsi;
use target_core::server::Server;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tunnel::server::{Event, Link, ServerOptions, TunnelServer, check_socket, listen_on_link};

use crate::config::{Problems, TunnelPlan};

/// Events that may wait for us.
const EVENTS_WAITING: usize = 16;

/// A tunnel server that has its socket.
pub(crate) struct Tunnels {
    server: TunnelServer,
    port: u16,
}

/// Whether the socket could be taken; if not, that goes to `problems`.
pub(crate) fn check(plan: &TunnelPlan, problems: &mut Problems) {
    if let Err(error) = check_socket(&plan.socket) {
        problems.add_passing(plan.line, error.to_string());
    }
}

impl Tunnels {
    /// Takes the socket.
    pub(crate) fn bind(plan: &TunnelPlan) -> anyhow::Result<Self> {
        let options = ServerOptions {
            socket: plan.socket.clone(),
            group: plan.group,
            mtu: plan.mtu_bytes,
            portal_ports: vec![plan.port],
            clients_max: plan.clients,
            ..ServerOptions::default()
        };
        let server = TunnelServer::bind(options).context("tunnels")?;
        Ok(Self {
            server,
            port: plan.port,
        })
    }

    /// Serves tunnels until `shutdown` resolves; all portals on them are gone when this returns.
    pub(crate) async fn run(self, target: Server, shutdown: impl Future<Output = ()>) {
        let (sender, mut events) = mpsc::channel(EVENTS_WAITING);
        let portals = async {
            let mut portals = HashMap::new();
            while let Some(event) = events.recv().await {
                match event {
                    Event::LinkUp { link, ready } => {
                        let started = start_portal(&target, &link, self.port);
                        let verdict = started.map(|portal| drop(portals.insert(link.id, portal)));
                        if let Err(reason) = &verdict {
                            tracing::error!(ifname = link.ifname, reason, "tunnel turned away");
                        }
                        // A client that has gone meanwhile is followed by its LinkDown.
                        let _gone = ready.send(verdict);
                    }
                    Event::LinkDown { link, error, .. } => {
                        portals.remove(&link.id);
                        let peer = link.peer;
                        match error {
                            None => tracing::info!(ifname = link.ifname, %peer, "tunnel down"),
                            Some(error) => tracing::warn!(ifname = link.ifname, %peer, error, "tunnel down"),
                        }
                    }
                }
            }
        };
        // The server's end drops its sender, which ends the other.
        tokio::join!(self.server.run(sender, shutdown), portals);
    }
}

/// Accepts until it is dropped.
struct Portal {
    _until: oneshot::Sender<()>,
}

fn start_portal(target: &Server, link: &Link, port: u16) -> Result<Portal, String> {
    let address = SocketAddr::new(link.local.into(), port);
    let listener = listen_on_link(link, port)
        .and_then(TcpListener::from_std)
        .map_err(|error| format!("no portal on {address}: {error}"))?;
    let (until, dropped) = oneshot::channel::<()>();
    let target = target.clone();
    let portal = iscsi::Portal {
        way: iscsi::Way::Tunnel { user: None },
        ..iscsi::Portal::default()
    };
    tokio::spawn(async move {
        target
            .serve_while_there(listener, portal, async {
                // An error is what comes when the portal is dropped.
                let _ = dropped.await;
            })
            .await;
    });
    tracing::info!(ifname = link.ifname, %address, peer = %link.peer, uid = link.uid, "tunnel up");
    Ok(Portal { _until: until })
}
