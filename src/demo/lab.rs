//! The two hosts of the demo: network namespaces with a cable between them, or this machine twice.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::child::{mortal, output, tool};

/// Networks for documentation (RFC 5737): nobody routes them, so the cable may have one. The first that is free is
/// taken; it matters only when one end is this machine itself.
const NETWORKS: [[u8; 3]; 3] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
/// What the names of the namespaces start with; the rest is the process id.
const PREFIX: &str = "farlun-";
/// The longest name of an interface (IFNAMSIZ less the final zero).
const IFNAME_MAX_BYTES: usize = 15;

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Where the initiator is.
    Home,
    /// Where the disk is.
    Cloud,
}

/// Both hosts. Dropping it takes them down.
#[derive(Debug)]
pub(super) struct Lab {
    home: Option<String>,
    cloud: Option<String>,
    /// An interface of the machine itself, when one end of the cable is here.
    cable: Option<String>,
    network: [u8; 3],
}

impl Lab {
    /// This machine twice.
    pub(super) fn loopback() -> Self {
        Self {
            home: None,
            cloud: None,
            cable: None,
            network: [127, 0, 0],
        }
    }

    /// Two namespaces and a cable. With `home_is_here` only the cloud is one, and home is this machine itself.
    pub(super) async fn namespaces(home_is_here: bool) -> Result<Self> {
        remove_stale().await;
        let id = std::process::id();
        let network = if home_is_here {
            free_network().await?
        } else {
            NETWORKS[0]
        };
        // Noted before it is made, so that what half exists goes, too.
        let lab = Self {
            home: (!home_is_here).then(|| format!("{PREFIX}home-{id}")),
            cloud: Some(format!("{PREFIX}cloud-{id}")),
            cable: home_is_here.then(|| {
                let mut name = format!("{PREFIX}{id}");
                name.truncate(IFNAME_MAX_BYTES);
                name
            }),
            network,
        };
        for name in [&lab.home, &lab.cloud].into_iter().flatten() {
            ip(&["netns", "add", name]).await?;
            ip(&["-n", name, "link", "set", "lo", "up"]).await?;
        }
        let cloud = lab.cloud.as_deref().unwrap_or_default();
        let near = lab.cable.as_deref().unwrap_or("eth0");
        let mut cable = vec!["link", "add", near];
        if let Some(home) = &lab.home {
            cable.extend(["netns", home]);
        }
        cable.extend(["type", "veth", "peer", "name", "eth0", "netns", cloud]);
        ip(&cable).await?;
        for (namespace, interface, address) in [
            (lab.home.as_deref(), near, lab.address(Side::Home)),
            (lab.cloud.as_deref(), "eth0", lab.address(Side::Cloud)),
        ] {
            let inside = namespace.map_or(vec![], |name| vec!["-n", name]);
            let address = format!("{address}/30");
            ip(&[&inside[..], &["addr", "add", &address, "dev", interface]].concat()).await?;
            ip(&[&inside[..], &["link", "set", interface, "up"]].concat()).await?;
        }
        Ok(lab)
    }

    /// A host's address on the cable, or on loopback.
    pub(super) fn address(&self, side: Side) -> Ipv4Addr {
        let [a, b, c] = self.network;
        let last = if self.is_one_host() || side == Side::Cloud {
            1
        } else {
            2
        };
        Ipv4Addr::new(a, b, c, last)
    }

    /// Whether both are this machine.
    pub(super) fn is_one_host(&self) -> bool {
        self.cloud.is_none()
    }

    /// A command that runs on one of them.
    pub(super) fn command(&self, side: Side, program: &Path) -> Command {
        let namespace = match side {
            Side::Home => &self.home,
            Side::Cloud => &self.cloud,
        };
        match (namespace, tool("ip")) {
            (Some(name), Some(ip)) => {
                let mut command = mortal(&ip);
                command.args(["netns", "exec", name]).arg(program);
                command
            }
            _ => mortal(program),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(ip) = tool("ip") else { return };
        if let Some(cable) = &self.cable {
            remove(&ip, &["link", "del", cable]);
        }
        for name in [&self.home, &self.cloud].into_iter().flatten() {
            remove(&ip, &["netns", "del", name]);
        }
    }
}

/// Removes something that may not be there; what is refused is told with `-v`.
fn remove(ip: &Path, arguments: &[&str]) {
    match Command::new(ip).args(arguments).output() {
        Ok(done) if done.status.success() => {}
        Ok(done) => tracing::info!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&done.stderr).trim()
        ),
        Err(error) => tracing::info!("ip {}: {error}", arguments.join(" ")),
    }
}

async fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tool("ip").context("ip is missing")?);
    command.args(arguments);
    output(command).await
}

/// Namespaces of a demo that was killed before it could tidy up.
async fn remove_stale() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let Some(id) = rest.strip_prefix("home-").or_else(|| rest.strip_prefix("cloud-")) else {
            continue;
        };
        if id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists() {
            tracing::info!(name, "removing what a killed demo left");
            if let Err(error) = ip(&["netns", "del", &name]).await {
                tracing::info!("{error:#}");
            }
        }
    }
}

async fn free_network() -> Result<[u8; 3]> {
    let occupied = tunnel::tun::occupied().await?;
    let free = |[a, b, c]: &[u8; 3]| (1..=2).all(|last| !occupied.has(Ipv4Addr::new(*a, *b, *c, last)));
    NETWORKS
        .into_iter()
        .find(free)
        .context("every network for documentation is in use on this machine")
}
