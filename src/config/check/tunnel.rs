//! `[tunnel]` and `[control]`: the two sockets, and who may open them.

use std::path::Path;

use toml::Spanned;
use tunnel::peer::{MTU_DEFAULT, MTU_MIN};
use tunnel::server::{ServerOptions, group_id};

use super::number;
use super::portals::group;
use crate::config::file::{ControlTable, TunnelTable};
use crate::config::problem::Problems;
use crate::config::{ControlPlan, ISCSI_PORT, PortalPlan, TunnelPlan};

/// Clients of the tunnel that may be asked for.
const CLIENTS_MAX: i64 = 1024;

pub(super) fn tunnel(
    table: Spanned<TunnelTable>,
    directory: &Path,
    portals: &[PortalPlan],
    problems: &mut Problems,
) -> Option<TunnelPlan> {
    let line = problems.line_of(&table.span());
    let table = table.into_inner();
    let usual = ServerOptions::default();
    let port = number("port", table.port.as_ref(), i64::from(ISCSI_PORT), 1..=65_535, problems);
    let mtu = number(
        "mtu_bytes",
        table.mtu_bytes.as_ref(),
        i64::from(MTU_DEFAULT),
        i64::from(MTU_MIN)..=i64::from(MTU_DEFAULT),
        problems,
    );
    let clients = number(
        "clients",
        table.clients.as_ref(),
        usual.clients_max as i64,
        1..=CLIENTS_MAX,
        problems,
    );
    let portal_group = group("portal_group", table.portal_group.as_ref(), problems);
    let group = unix_group(table.group, problems);
    let socket = table
        .socket
        .map_or(usual.socket, |socket| directory.join(socket.get_ref()));
    let port = u16::try_from(port).unwrap_or(ISCSI_PORT);
    if !table.enable {
        return None;
    }
    if let Some(portal) = portals
        .iter()
        .find(|portal| portal.address.ip().is_unspecified() && portal.address.port() == port)
    {
        problems.add(
            portal.line,
            format!(
                "{} takes port {port} on every address, the tunnels' too: name the addresses to listen on, or give \
                 [tunnel] another port",
                portal.address
            ),
        );
    }
    Some(TunnelPlan {
        socket,
        group,
        port,
        portal_group,
        mtu_bytes: u16::try_from(mtu).unwrap_or(MTU_DEFAULT),
        clients: usize::try_from(clients).unwrap_or(usual.clients_max),
        line,
    })
}

/// `[control]`
pub(super) fn control(
    table: Option<Spanned<ControlTable>>,
    directory: &Path,
    tunnel: Option<&TunnelPlan>,
    problems: &mut Problems,
) -> ControlPlan {
    let Some(table) = table else {
        return ControlPlan::default();
    };
    let line = problems.line_of(&table.span());
    let table = table.into_inner();
    let socket = table.socket.map(|socket| {
        let line = problems.line_of(&socket.span());
        let path = directory.join(socket.into_inner());
        if tunnel.is_some_and(|tunnel| tunnel.socket == path) {
            problems.add(
                line,
                format!("{} is the tunnels' socket: name another one", path.display()),
            );
        }
        path
    });
    let group_line = table.group.as_ref().and_then(|group| problems.line_of(&group.span()));
    let group = unix_group(table.group, problems);
    // A tunnel's user comes with nothing but an SSH login, and must not be able to give away LUNs.
    if group.is_some() && group == tunnel.and_then(|tunnel| tunnel.group) {
        problems.add(
            group_line,
            "the group of [tunnel] must not control the target too: name another one",
        );
    }
    ControlPlan {
        enable: table.enable,
        socket,
        group,
        line,
    }
}

fn unix_group(group: Option<Spanned<String>>, problems: &mut Problems) -> Option<u32> {
    let group = group?;
    let id = group_id(group.get_ref());
    if id.is_none() {
        problems.add(
            problems.line_of(&group.span()),
            format!(
                "there is no group {0:?} here: sudo groupadd --system {0}",
                group.get_ref()
            ),
        );
    }
    id
}
