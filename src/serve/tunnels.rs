//! Tunnels: a portal on each tun device for as long as its link is up, which takes only what arrives on that device.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use target_core::iscsi::portals::{Listening, Portal, Way};
use target_core::server::Server;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tunnel::server::{Event, Link, ServerOptions, TunnelServer, check_socket, listen_on_link};

use super::portals::Table;
use crate::config::{Problems, TunnelPlan};

/// Events that may wait for us.
const EVENTS_WAITING: usize = 16;

/// A tunnel server that has its socket.
pub(crate) struct Tunnels {
    server: TunnelServer,
    port: u16,
    portal_group: u16,
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
            portal_group: plan.portal_group,
        })
    }

    /// Serves tunnels until `shutdown` resolves; all portals on them are gone when this returns.
    pub(crate) async fn run(self, target: Server, table: Arc<Table>, shutdown: impl Future<Output = ()>) {
        let (sender, mut events) = mpsc::channel(EVENTS_WAITING);
        let portals = async {
            let mut portals = HashMap::new();
            while let Some(event) = events.recv().await {
                match event {
                    Event::LinkUp { link, ready } => {
                        let started = start_portal(&target, &table, &link, self.port, self.portal_group);
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
struct Running {
    listening: Listening,
    table: Arc<Table>,
    _until: oneshot::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.table.remove(&self.listening);
    }
}

fn start_portal(target: &Server, table: &Arc<Table>, link: &Link, port: u16, tag: u16) -> Result<Running, String> {
    let address = SocketAddr::new(link.local.into(), port);
    let listener = listen_on_link(link, port)
        .and_then(TcpListener::from_std)
        .map_err(|error| format!("no portal on {address}: {error}"))?;
    let (until, dropped) = oneshot::channel::<()>();
    let target = target.clone();
    let portal = Portal {
        tag,
        way: Way::Tunnel {
            user: Some(user_name(link.uid)),
        },
        announce: None,
    };
    let listening = Listening {
        address,
        portal: portal.clone(),
    };
    table.add(listening.clone());
    tokio::spawn(async move {
        target
            .serve_while_there(listener, portal, async {
                // An error is what comes when the portal is dropped.
                let _ = dropped.await;
            })
            .await;
    });
    tracing::info!(ifname = link.ifname, %address, peer = %link.peer, uid = link.uid, "tunnel up");
    Ok(Running {
        listening,
        table: Arc::clone(table),
        _until: until,
    })
}

/// The name of a user in `/etc/passwd` (passwd(5)), or the id itself: users from elsewhere can be named by that.
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_known_by_name_or_by_id() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_000), "4000000000");
    }
}
