//! A stock sshd of the demo's own: its own host key, one key that may log in, nothing of the machine's configuration.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::child::{Child, output, tool};
use super::lab::{Lab, Side};

/// How long it may take to listen, in milliseconds.
const START_MS: u64 = 10_000;

/// Runs sshd with a `/run` of its own (it wants `/run/sshd`) and an account that is not locked: `!` in the shadow file
/// locks root on some systems, and sshd without PAM heeds that. Both hold in this process's mount namespace only.
const IN_NAMESPACE: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
if [ -e /etc/shadow ]; then mount --bind "$1" /etc/shadow; fi
shift
exec "$@"
"#;

/// A running sshd.
#[derive(Debug)]
pub(super) struct Sshd {
    _child: Child,
    /// The private key that may log in.
    pub(super) identity: PathBuf,
    /// A known_hosts file with its key.
    pub(super) known_hosts: PathBuf,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// What of sshd is missing on this machine.
pub(super) fn missing() -> Option<&'static str> {
    ["sshd", "ssh-keygen"].into_iter().find(|name| tool(name).is_none())
}

/// Starts one in the cloud.
pub(super) async fn start(lab: &Lab, directory: &Path) -> Result<Sshd> {
    let directory = directory.join("ssh");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
    let keygen = tool("ssh-keygen").context("ssh-keygen is missing")?;
    for key in ["host_key", "identity"] {
        let mut command = Command::new(&keygen);
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "farlun demo", "-f"])
            .arg(directory.join(key));
        output(command).await?;
    }
    fs::copy(directory.join("identity.pub"), directory.join("authorized_keys"))?;
    let port = if lab.is_one_host() { free_port()? } else { 22 };
    let address = SocketAddr::new(lab.address(Side::Cloud).into(), port);
    let name = if port == 22 {
        address.ip().to_string()
    } else {
        format!("[{}]:{port}", address.ip())
    };
    let known_hosts = directory.join("known_hosts");
    fs::write(
        &known_hosts,
        format!("{name} {}", fs::read_to_string(directory.join("host_key.pub"))?),
    )?;
    let config = directory.join("sshd_config");
    fs::write(&config, configuration(&directory, address))?;
    let sshd = tool("sshd").context("sshd is missing")?;
    let command = if lab.is_one_host() {
        let mut command = lab.command(Side::Cloud, &sshd);
        command.args(["-D", "-e", "-f"]).arg(&config);
        command
    } else {
        let shadow = directory.join("shadow");
        fs::write(&shadow, "root:*:19000:0:99999:7:::\n")?;
        fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600))?;
        let mut command = lab.command(Side::Cloud, Path::new("/bin/sh"));
        command
            .args(["-c", IN_NAMESPACE, "sh"])
            .arg(shadow)
            .arg(&sshd)
            .args(["-D", "-e", "-f"])
            .arg(&config);
        command
    };
    let mut child = Child::spawn("sshd", command, &directory)?;
    child.line("Server listening", Duration::from_millis(START_MS)).await?;
    Ok(Sshd {
        _child: child,
        identity: directory.join("identity"),
        known_hosts,
        address,
    })
}

fn configuration(directory: &Path, address: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "ListenAddress {address}\nHostKey {directory}/host_key\nAuthorizedKeysFile {directory}/authorized_keys\n\
         PidFile none\nStrictModes no\nUsePAM no\nUseDNS no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nLogLevel INFO\n"
    )
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
