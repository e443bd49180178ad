//! `farlun connect`: a tunnel to the portals of a farlun behind a host's sshd, for as long as this runs.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tunnel::client::{ConnectError, ConnectOptions, Connected, RunError, SOCKET_PATH, Up, Ways};
use tunnel::ssh::forward::ForwardError;
use tunnel::ssh::{Destination, SshError, Terminal};

use crate::culprit;
use crate::exit::{Exit, Failure};
use crate::probe;
use crate::say::say;
use crate::signals;

/// How long the target may take to say its name, for each answer, in milliseconds.
const DISCOVERY_MS: u64 = 5_000;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Where to log in over SSH: [user@]host[:port]
    destination: Destination,
    /// Port of sshd
    #[arg(short, long)]
    port: Option<u16>,
    /// Private key to log in with, instead of the agent's and the usual files; may be given several times
    #[arg(short, long, value_name = "KEY")]
    identity: Vec<PathBuf>,
    /// Socket of the SSH agent, instead of $SSH_AUTH_SOCK, which sudo removes
    #[arg(long, value_name = "SOCKET")]
    agent: Option<PathBuf>,
    /// Take the key of a host never seen before without asking; a changed key is refused all the same
    #[arg(long)]
    accept_new: bool,
    /// Files of known hosts instead of the usual ones; new keys go to the first
    #[arg(long, value_name = "FILE")]
    known_hosts: Vec<PathBuf>,
    /// The way to go: a tunnel through farlun's socket on the host, or forwarding of one TCP port
    #[arg(long, value_enum, default_value_t)]
    via: Via,
    /// farlun's socket on the host
    #[arg(long, value_name = "PATH", default_value = SOCKET_PATH)]
    socket: String,
    /// Port of the target on the host, for forwarding
    #[arg(long, value_name = "PORT", default_value_t = crate::config::ISCSI_PORT)]
    target_port: u16,
    /// Where to listen here, for forwarding; loopback only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3260")]
    listen: SocketAddr,
}

/// Which way to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Via {
    /// The tunnel, and forwarding where that is not possible
    #[default]
    Auto,
    /// The tunnel or nothing (needs root here and [tunnel] there)
    Socket,
    /// Forwarding (needs nothing but an SSH login)
    Forward,
}

impl ConnectArgs {
    fn options(self) -> ConnectOptions {
        let mut options = ConnectOptions::new(self.destination);
        options.destination.port = self.port.unwrap_or(options.destination.port);
        options.ssh.identities = self.identity;
        options.ssh.agent = self.agent;
        options.ssh.accept_new = self.accept_new;
        options.ssh.known_hosts = Some(self.known_hosts).filter(|files| !files.is_empty());
        options.ways = match self.via {
            Via::Auto => Ways::Auto,
            Via::Socket => Ways::Socket,
            Via::Forward => Ways::Forward,
        };
        options.socket_path = self.socket;
        options.forward.listen = self.listen;
        options.forward.remote_port = self.target_port;
        options
    }
}

/// Connects, and stays until SIGINT, SIGTERM or SIGHUP. Whatever happens, device, address and route go with this.
pub(crate) async fn run(args: ConnectArgs) -> Result<(), Failure> {
    let mut stop = signals::stop()?;
    let terminal = TerminalState::save();
    let options = args.options();
    let connecting = tunnel::client::connect(&options, Arc::new(Terminal));
    let connected = tokio::select! {
        connected = connecting => connected.map_err(refused)?,
        signal = stop.signal() => {
            // A question for a passphrase may still hold the terminal, with its echo off.
            terminal.restore();
            return Err(Failure::new(Exit::Failure, anyhow!("{signal} before the connection was up")));
        }
    };
    let up = connected.up().clone();
    announce(&connected, &options);
    let shutdown = async {
        let signal = stop.signal().await;
        tracing::info!("{signal}: taking the connection down");
    };
    let mut carrying = std::pin::pin!(connected.run(shutdown));
    for portal in up.portals() {
        // The connection has to be carried while the target is asked through it.
        let ended = tokio::select! {
            () = commands(portal, &up) => continue,
            ended = &mut carrying => ended,
        };
        return finish(ended.map(drop), &up);
    }
    bound_commands(&up);
    say!("Ctrl-C takes the connection down: log out first.");
    say!("ready");
    finish(carrying.await.map(drop), &up)
}

fn finish(ended: Result<(), RunError>, up: &Up) -> Result<(), Failure> {
    if let Err(error) = ended {
        let text = format!("{error}{}", after_loss(up));
        return Err(Failure::new(Exit::CannotConnect, anyhow!(text)));
    }
    say!("down");
    Ok(())
}

/// What to do now that a tunnel has gone by itself. An initiator that is logged in keeps trying the portal's address,
/// which the default route takes in clear to whoever answers there.
fn after_loss(up: &Up) -> String {
    let Up::Tunnel { remote, .. } = up else {
        return String::new();
    };
    let mut text = format!(
        "\nAn initiator that is still logged in now tries {remote} without the tunnel, in clear, wherever the default \
         route leads.\nBring the tunnel up again, or log out, before this machine joins another network:"
    );
    for portal in up.portals() {
        text += &format!("\n  sudo iscsiadm -m node -p {portal} --logout");
    }
    text
}

/// How to tie open-iscsi to the tunnel's device, so that its connections can take no other way (SO_BINDTODEVICE).
/// These lines are indented: scripts look for those of [`commands`].
fn bound_commands(up: &Up) {
    let Up::Tunnel { ifname, .. } = up else { return };
    say!(
        "Safer: tie the initiator to {ifname}, before the login, so that it has no other way when the tunnel is lost:"
    );
    for line in binding(up, ifname) {
        say!("  {line}");
    }
}

fn binding(up: &Up, ifname: &str) -> Vec<String> {
    let mut lines = vec![
        format!("sudo iscsiadm -m iface -I {ifname} -o new"),
        format!("sudo iscsiadm -m iface -I {ifname} -o update -n iface.net_ifacename -v {ifname}"),
    ];
    for portal in up.portals() {
        lines.push(format!(
            "sudo iscsiadm -m discovery -t sendtargets -I {ifname} -p {portal}"
        ));
    }
    lines
}

/// The code for each kind of failure, and who is in the way of the listener.
fn refused(error: ConnectError) -> Failure {
    let exit = match &error {
        ConnectError::Ssh(SshError::HostKeyUnknown { .. }) => {
            let text = format!(
                "{error}\n(--accept-new does that; compare the fingerprint with what the server's owner says.)"
            );
            return Failure::new(Exit::Refused, anyhow!(text));
        }
        ConnectError::Ssh(error) => match error {
            SshError::HostKeyChanged { .. }
            | SshError::HostKeyRevoked { .. }
            | SshError::HostKeyDeclined { .. }
            | SshError::HostCertificate { .. }
            | SshError::Authentication { .. } => Exit::Refused,
            SshError::KnownHosts { .. } | SshError::NoHome | SshError::NoUser => Exit::Usage,
            _ => Exit::CannotConnect,
        },
        ConnectError::Forward {
            error: ForwardError::NotLoopback(_),
            ..
        } => Exit::Usage,
        ConnectError::Forward {
            error: ForwardError::Listen { address, error: cause },
            ..
        } if cause.kind() == io::ErrorKind::AddrInUse => {
            let taken_by = culprit::listener(*address);
            let text = format!(
                "{error}\nPort {0} is taken by {taken_by}: stop that program, or name another port with --listen {1}:{2}",
                address.port(),
                address.ip(),
                address.port().wrapping_add(1).max(1024),
            );
            return Failure::new(Exit::Failure, anyhow!(text));
        }
        ConnectError::Forward {
            error: ForwardError::Listen { .. },
            ..
        } => Exit::Failure,
        ConnectError::Socket(_) | ConnectError::Forward { .. } => Exit::CannotConnect,
    };
    Failure::new(exit, error)
}

/// Says what came up, by which way and why, and what to type next.
fn announce(connected: &Connected, options: &ConnectOptions) {
    let Destination { user, host, port } = &options.destination;
    let user = user.as_deref().map_or(String::new(), |user| format!("{user}@"));
    match connected.up() {
        Up::Tunnel {
            ifname,
            local,
            remote,
            mtu,
            ..
        } => {
            say!(
                "connected to {user}{host} port {port}, by a tunnel through {}",
                options.socket_path
            );
            say!("  {ifname}: {local} here, {remote} there, packets up to {mtu} bytes");
        }
        Up::Forward {
            listen,
            remote_host,
            remote_port,
        } => {
            say!("connected to {user}{host} port {port}, by forwarding one TCP port");
            say!("  {listen} here is {remote_host}:{remote_port} there");
            match connected.instead_of() {
                Some(reason) => say!("  no tunnel, because: {reason}"),
                None => say!("  no tunnel, because forwarding was asked for"),
            }
        }
    }
    say!();
}

/// The commands of an initiator for one portal. Scripts find the portal in the line that starts with `discovery:` or
/// `record:`.
async fn commands(portal: SocketAddr, up: &Up) {
    let Some(told) = told_elsewhere(portal, up) else {
        say!("discovery: sudo iscsiadm -m discovery -t sendtargets -p {portal}");
        say!("login:     sudo iscsiadm -m node -p {portal} --login");
        say!("logout:    sudo iscsiadm -m node -p {portal} --logout");
        return;
    };
    say!("no discovery: it would tell the address {told}, which is right on the server and wrong here; instead:");
    let names = match probe::target_names(portal, DISCOVERY_MS).await {
        Ok(names) => names,
        Err(error) => {
            say!("(the target does not say its name: {error}; put it for NAME)");
            vec!["NAME".to_owned()]
        }
    };
    for name in names {
        say!("record:    sudo iscsiadm -m node -o new -T {name} -p {portal}");
        say!("login:     sudo iscsiadm -m node -T {name} -p {portal} --login");
        say!("logout:    sudo iscsiadm -m node -T {name} -p {portal} --logout");
    }
}

/// The address discovery would tell instead of this one: a target tells where a connection arrived, and a forwarded
/// one arrives at the target's own port.
fn told_elsewhere(portal: SocketAddr, up: &Up) -> Option<String> {
    match up {
        Up::Tunnel { .. } => None,
        Up::Forward {
            remote_host,
            remote_port,
            ..
        } => {
            let same = portal.ip().to_string() == *remote_host && portal.port() == *remote_port;
            (!same).then(|| format!("{remote_host}:{remote_port}"))
        }
    }
}

/// How the terminal was before anything was asked.
struct TerminalState(Option<(std::fs::File, Termios)>);

impl TerminalState {
    fn save() -> Self {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
        Self(opened.ok().and_then(|tty| {
            let state = tcgetattr(&tty).ok()?;
            Some((tty, state))
        }))
    }

    fn restore(self) {
        if let Some((tty, state)) = self.0
            && let Err(error) = tcsetattr(&tty, OptionalActions::Now, &state)
        {
            tracing::debug!(%error, "the terminal stays as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(listen: &str, remote_port: u16) -> Up {
        Up::Forward {
            listen: listen.parse().unwrap(),
            remote_host: "127.0.0.1".to_owned(),
            remote_port,
        }
    }

    #[test]
    fn discovery_is_for_portals_that_are_found_where_the_target_says() {
        let portal = |text: &str| text.parse().unwrap();
        assert_eq!(
            told_elsewhere(portal("127.0.0.1:3260"), &forward("127.0.0.1:3260", 3260)),
            None
        );
        assert_eq!(
            told_elsewhere(portal("127.0.0.1:3261"), &forward("127.0.0.1:3261", 3260)).as_deref(),
            Some("127.0.0.1:3260")
        );
        assert!(told_elsewhere(portal("[::1]:3260"), &forward("[::1]:3260", 3260)).is_some());
        let tunnel = Up::Tunnel {
            ifname: "farlun0".to_owned(),
            local: "172.18.0.2".parse().unwrap(),
            remote: "172.18.0.1".parse().unwrap(),
            mtu: 65_520,
            portal_ports: vec![3260],
        };
        assert_eq!(told_elsewhere(portal("172.18.0.1:3260"), &tunnel), None);
    }

    #[test]
    fn a_lost_tunnel_is_followed_by_advice_and_forwarding_is_not() {
        let tunnel = Up::Tunnel {
            ifname: "farlun3".to_owned(),
            local: "172.18.0.2".parse().unwrap(),
            remote: "172.18.0.1".parse().unwrap(),
            mtu: 65_520,
            portal_ports: vec![3260, 3261],
        };
        let said = finish(Err(RunError::Closed), &tunnel).unwrap_err().to_string();
        assert!(said.starts_with(&RunError::Closed.to_string()), "{said}");
        for advice in [
            "in clear",
            "sudo iscsiadm -m node -p 172.18.0.1:3260 --logout",
            "sudo iscsiadm -m node -p 172.18.0.1:3261 --logout",
        ] {
            assert!(said.contains(advice), "{said}");
        }
        // A forwarded port is on loopback: nothing leaves.
        let said = finish(Err(RunError::Closed), &forward("127.0.0.1:3260", 3260)).unwrap_err();
        assert_eq!(said.to_string(), RunError::Closed.to_string());

        assert_eq!(
            binding(&tunnel, "farlun3"),
            [
                "sudo iscsiadm -m iface -I farlun3 -o new",
                "sudo iscsiadm -m iface -I farlun3 -o update -n iface.net_ifacename -v farlun3",
                "sudo iscsiadm -m discovery -t sendtargets -I farlun3 -p 172.18.0.1:3260",
                "sudo iscsiadm -m discovery -t sendtargets -I farlun3 -p 172.18.0.1:3261",
            ]
        );
    }

    #[test]
    fn failures_have_the_codes_that_are_documented() {
        let host = || "cloud".to_owned();
        let code = |error: ConnectError| format!("{:?}", refused(error).code());
        let expected = |exit: Exit| format!("{:?}", std::process::ExitCode::from(exit as u8));
        let unreachable = SshError::ConnectionRefused { host: host(), port: 22 };
        assert_eq!(code(unreachable.into()), expected(Exit::CannotConnect));
        assert_eq!(
            code(SshError::HostKeyDeclined { host: host() }.into()),
            expected(Exit::Refused)
        );
        assert_eq!(code(SshError::NoUser.into()), expected(Exit::Usage));
        let taken = ForwardError::Listen {
            address: "127.0.0.1:1".parse().unwrap(),
            error: io::ErrorKind::AddrInUse.into(),
        };
        let failure = refused(ConnectError::Forward {
            error: taken,
            instead_of: None,
        });
        assert!(failure.to_string().contains("--listen 127.0.0.1:1024"), "{failure}");
    }
}
