//! Tun devices and the addresses on them.
//!
//! A device lives as long as its [`Device`]: when that is dropped the kernel removes it with its address and route.

mod netlink;

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use rustix::thread::CapabilitySet;
use tokio_tun::Tun;

use crate::link::PacketDevice;

pub use netlink::occupied;

/// Where the kernel hands out tun devices.
const TUN_NODE: &str = "/dev/net/tun";

/// What may wait in the device for the stream, in bytes; TCP sees the loss when it is full.
const QUEUE_BYTES: u32 = 0x10_0000;
/// Bounds on the device's queue, in packets.
const QUEUE_PACKETS: std::ops::RangeInclusive<u32> = 16..=512;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel or the container has no tun devices.
    #[error("there is no {TUN_NODE} here (the tun module is not loaded, or a container hides it)")]
    NoNode,
    /// CAP_NET_ADMIN is missing.
    #[error("making a tun device needs root (the capability CAP_NET_ADMIN)")]
    NotPermitted,
    /// The kernel refused the device.
    #[error("cannot make a tun device: {0}")]
    Create(#[source] io::Error),
    /// The device is there, but could not be set up.
    #[error("cannot set up {what} of {ifname}: {error}")]
    SetUp {
        /// What was to be set.
        what: &'static str,
        /// The device's name.
        ifname: String,
        /// The kernel's answer.
        error: String,
    },
    /// Addresses and routes could not be read.
    #[error("cannot read this host's {what}: {error}")]
    Read {
        /// What was to be read.
        what: &'static str,
        /// The kernel's answer.
        error: String,
    },
}

/// Looks whether this process could make a device, without making one.
///
/// # Errors
/// [`TunError::NoNode`] or [`TunError::NotPermitted`].
pub fn check() -> Result<(), TunError> {
    if !Path::new(TUN_NODE).exists() {
        return Err(TunError::NoNode);
    }
    let held = rustix::thread::capabilities(None).map_err(|error| TunError::Create(error.into()))?;
    if !held.effective.contains(CapabilitySet::NET_ADMIN) {
        return Err(TunError::NotPermitted);
    }
    Ok(())
}

/// A tun device that is up, with its address and the route to the other end.
pub struct Device {
    tun: Tun,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.tun.name()).finish()
    }
}

impl Device {
    /// Makes a point-to-point device: `local` on it, a route to `remote` alone through it. `name` may hold one `%d`
    /// for the kernel to number; `mtu` is in bytes.
    ///
    /// # Errors
    /// When the device cannot be made or set up; nothing is left behind then.
    pub async fn create(name: &str, local: Ipv4Addr, remote: Ipv4Addr, mtu: u16) -> Result<Self, TunError> {
        check()?;
        let created = Tun::builder().name(name).build().map_err(|error| match error {
            tokio_tun::Error::IoError(error) => TunError::Create(error),
            tokio_tun::Error::NixError(error) => TunError::Create(io::Error::from_raw_os_error(error as i32)),
        })?;
        let tun = created
            .into_iter()
            .next()
            .ok_or_else(|| TunError::Create(io::ErrorKind::NotFound.into()))?;
        let device = Self { tun };
        let index = device.tun.index().map_err(|error| device.failed("the index", &error))?;
        harden(device.name());
        let queue = (QUEUE_BYTES / u32::from(mtu)).clamp(*QUEUE_PACKETS.start(), *QUEUE_PACKETS.end());
        netlink::bring_up(index, local, remote, u32::from(mtu), queue)
            .await
            .map_err(|(what, error)| device.failed(what, &error))?;
        Ok(device)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.tun.name()
    }

    fn failed(&self, what: &'static str, error: &dyn std::fmt::Display) -> TunError {
        TunError::SetUp {
            what,
            ifname: self.name().to_owned(),
            error: error.to_string(),
        }
    }
}

impl PacketDevice for Device {
    async fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        self.tun.recv(packet).await
    }

    fn try_receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        self.tun.try_recv(packet)
    }

    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.tun.send(packet).await.map(drop)
    }
}

/// Second line of defence behind the filter: no IPv6 on the device, nothing forwarded, no redirects, no spoofed
/// sources. Where `/proc/sys` is read-only the filter stands alone.
fn harden(ifname: &str) {
    let settings = [
        ("ipv6", "disable_ipv6", "1"),
        ("ipv4", "forwarding", "0"),
        ("ipv4", "rp_filter", "1"),
        ("ipv4", "accept_redirects", "0"),
        ("ipv4", "secure_redirects", "0"),
        ("ipv4", "send_redirects", "0"),
        ("ipv4", "accept_source_route", "0"),
        ("ipv4", "route_localnet", "0"),
    ];
    for (family, key, value) in settings {
        let path = format!("/proc/sys/net/{family}/conf/{ifname}/{key}");
        if let Err(error) = std::fs::write(&path, value) {
            tracing::debug!(path, %error, "setting left as it is");
        }
    }
}
