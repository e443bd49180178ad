//! What a server says when it is ready: what it exports, and what to type on the other side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use target_core::iscsi::Node;
use target_core::iscsi::node::Target;
use target_core::iscsi::policy::Auth;
use target_core::lun::WriteCache;
use tunnel::client::SOCKET_PATH;

use crate::config::{ISCSI_PORT, LunPlan, MediumPlan, Plan, Size, TargetPlan, TunnelPlan};
use crate::say::say;

/// The first port that everybody may listen on.
const UNPRIVILEGED_PORT: u16 = 1024;

/// Prints what is exported where, the commands for the other side, and the line that starts with `ready`.
pub(crate) fn announce(plan: &Plan, node: &Node, portals: &[SocketAddr], control: Option<&Path>) {
    for plan in &plan.targets {
        if let Some(target) = node.target(&plan.name) {
            exported(plan, &target);
        }
    }
    let chap = plan
        .targets
        .iter()
        .all(|target| target.policy.auth == Auth::Chap || target.policy.tunnel_only);
    for portal in portals {
        say!(
            "portal {portal}{}",
            reach(portal.ip(), chap && !plan.targets.is_empty())
        );
    }
    if let Some(tunnel) = &plan.tunnel {
        say!("tunnels at {} (portal port {})", tunnel.socket.display(), tunnel.port);
    }
    if let Some(metrics) = plan.metrics {
        say!("metrics at http://{}/metrics", metrics.address);
    }
    if let Some(control) = control {
        say!("control socket {}", control.display());
    }
    say!();
    commands(plan, portals);
    let luns: usize = plan.targets.iter().map(|target| target.luns.len()).sum();
    say!("ready: {}, {}", count(plan.targets.len(), "target"), count(luns, "LUN"));
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn exported(plan: &TargetPlan, target: &Target) {
    match &plan.alias {
        Some(alias) => say!("target {} ({alias})", plan.name),
        None => say!("target {}", plan.name),
    }
    for lun in &plan.luns {
        let Some(unit) = target.device.unit(lun.lun) else {
            say!("  LUN {}: offline, {}", lun.lun, medium(lun));
            continue;
        };
        let size = Size(unit.medium().size_bytes());
        say!("  LUN {}: {size}, {}, {}", lun.lun, medium(lun), properties(lun));
    }
}

fn medium(lun: &LunPlan) -> String {
    match &lun.medium {
        MediumPlan::File { path, .. } => format!("file {}", path.display()),
        MediumPlan::Device { path } => format!("device {}", path.display()),
        MediumPlan::Memory { .. } => "in memory, gone when this ends".to_owned(),
    }
}

fn properties(lun: &LunPlan) -> String {
    let mut text = match (&lun.medium, lun.write_cache) {
        (MediumPlan::Memory { .. }, _) => "no write cache".to_owned(),
        (_, WriteCache::WriteBack) => "write cache on (write-back)".to_owned(),
        (_, WriteCache::WriteThrough) => "write cache off (write-through)".to_owned(),
    };
    if lun.block_size_bytes != 512 {
        text += &format!(", blocks of {} bytes", lun.block_size_bytes);
    }
    if lun.read_only {
        text += ", read-only";
    }
    if lun.shared {
        text += ", shared";
    }
    text
}

fn reach(ip: IpAddr, chap: bool) -> &'static str {
    if ip.is_loopback() {
        ", from this machine only"
    } else if chap {
        ", NOT ENCRYPTED; who logs in needs a secret (CHAP)"
    } else {
        ", NOT ENCRYPTED, open to everyone who can reach it"
    }
}

/// The commands to type on the other side.
fn commands(plan: &Plan, portals: &[SocketAddr]) {
    let Some(target) = plan.targets.first() else { return };
    let name = &target.name;
    let lun = target.luns.first().map_or(0, |lun| lun.lun);
    let initiator = |portal: SocketAddr| {
        say!("  sudo iscsiadm -m discovery -t sendtargets -p {portal}");
        say!("  sudo iscsiadm -m node -T {name} -p {portal} --login");
    };
    if let Some(portal) = portals.first() {
        let (portal, where_) = reachable(*portal);
        say!("On {where_}:");
        say!("  farlun probe iscsi://{portal}/{name}/{lun}");
        initiator(portal);
    }
    if portals.iter().any(|portal| portal.ip().is_loopback()) || plan.tunnel.is_some() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        say!("On any other, through SSH and with no port open but sshd's:");
        let connect = connect(plan.tunnel.as_ref(), portals, &host);
        say!("  {connect}        # then the commands it prints");
    }
}

/// What reaches this server from anywhere else, with every option that is not what `connect` takes by itself.
fn connect(tunnel: Option<&TunnelPlan>, portals: &[SocketAddr], host: &str) -> String {
    let sudo = if tunnel.is_some() { "sudo " } else { "" };
    let mut command = format!("{sudo}farlun connect user@{host}");
    if let Some(tunnel) = tunnel
        && tunnel.socket != Path::new(SOCKET_PATH)
    {
        command += &format!(" --socket {}", quoted(&tunnel.socket.display().to_string()));
    }
    // Forwarding goes to 127.0.0.1.
    let mut forwarded = portals
        .iter()
        .filter(|portal| reachable(**portal).0.ip() == Ipv4Addr::LOCALHOST);
    if let Some(portal) = forwarded.next()
        && portal.port() != ISCSI_PORT
    {
        command += &format!(" --target-port {}", portal.port());
        // The same port on both ends, so that discovery tells an address that is right there.
        if portal.port() >= UNPRIVILEGED_PORT || tunnel.is_some() {
            command += &format!(" --listen 127.0.0.1:{}", portal.port());
        }
    }
    command
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// An address to type, and where.
fn reachable(portal: SocketAddr) -> (SocketAddr, &'static str) {
    let port = portal.port();
    match portal.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port), "this machine"),
        IpAddr::V6(ip) if ip.is_unspecified() => (
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port),
            "this machine",
        ),
        ip if ip.is_loopback() => (portal, "this machine"),
        _ => (portal, "a machine that reaches it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_is_told_with_what_it_cannot_know() {
        let tunnel = |socket: &str| TunnelPlan {
            socket: socket.into(),
            group: None,
            port: 3260,
            portal_group: 1,
            mtu_bytes: 1500,
            clients: 1,
            line: None,
        };
        let portal = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (usual, other) = (tunnel(SOCKET_PATH), tunnel("/srv/my tunnel.sock"));
        assert_eq!(
            connect(Some(&usual), &[portal("127.0.0.1:3260")], "vm"),
            "sudo farlun connect user@vm"
        );
        assert_eq!(connect(Some(&usual), &[], "vm"), "sudo farlun connect user@vm");
        assert_eq!(
            connect(Some(&other), &[portal("127.0.0.1:3333")], "vm"),
            "sudo farlun connect user@vm --socket '/srv/my tunnel.sock' --target-port 3333 --listen 127.0.0.1:3333"
        );
        assert_eq!(
            connect(Some(&tunnel("/srv/t.sock")), &[portal("192.0.2.1:3333")], "vm"),
            "sudo farlun connect user@vm --socket /srv/t.sock"
        );
        assert_eq!(
            connect(None, &[portal("127.0.0.1:860")], "vm"),
            "farlun connect user@vm --target-port 860"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
