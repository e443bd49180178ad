//! Link, address and route of a device, and what the host already uses, through rtnetlink.

use std::net::{IpAddr, Ipv4Addr};

use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::TunError;
use crate::peer::pool::Occupied;

/// How many addresses or routes are looked at; a host with a full table of the Internet has no private route missing.
const ENTRIES_MAX: usize = 100_000;

/// A netlink socket and the task that serves it; both go with this value.
struct Netlink {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Netlink {
    fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gives the device its size, queue and address, and takes it up; the kernel adds the route to `remote` by itself.
pub(super) async fn bring_up(
    index: u32,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    mtu: u32,
    queue_packets: u32,
) -> Result<(), (&'static str, String)> {
    let failed = |what: &'static str| move |error: rtnetlink::Error| (what, error.to_string());
    let netlink = Netlink::open().map_err(|error| ("the netlink socket", error.to_string()))?;
    let size = LinkUnspec::new_with_index(index)
        .mtu(mtu)
        .txqueuelen(queue_packets)
        .build();
    netlink
        .handle
        .link()
        .set(size)
        .execute()
        .await
        .map_err(failed("the MTU"))?;
    let mut address = netlink.handle.address().add(index, IpAddr::V4(local), 32);
    for attribute in &mut address.message_mut().attributes {
        // On a point-to-point device IFA_ADDRESS is the other end (rtnetlink(7)).
        if let AddressAttribute::Address(peer) = attribute {
            *peer = IpAddr::V4(remote);
        }
    }
    address.execute().await.map_err(failed("the address"))?;
    let up = LinkUnspec::new_with_index(index).up().build();
    netlink
        .handle
        .link()
        .set(up)
        .execute()
        .await
        .map_err(failed("the state"))
}

/// The addresses this host has and the networks it has routes for, in all tables.
///
/// # Errors
/// When the kernel does not answer.
pub async fn occupied() -> Result<Occupied, TunError> {
    let failed = |what: &'static str| move |error: String| TunError::Read { what, error };
    let netlink = Netlink::open().map_err(|error| failed("addresses")(error.to_string()))?;
    let mut occupied = Occupied::default();

    let addresses = netlink.handle.address().get().execute().take(ENTRIES_MAX);
    let mut addresses = std::pin::pin!(addresses);
    while let Some(message) = addresses
        .try_next()
        .await
        .map_err(|error| failed("addresses")(error.to_string()))?
    {
        if message.header.family != AddressFamily::Inet {
            continue;
        }
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => occupied.add(*address, 32),
                AddressAttribute::Address(IpAddr::V4(network)) => occupied.add(*network, message.header.prefix_len),
                _ => {}
            }
        }
    }

    let routes = netlink
        .handle
        .route()
        .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
        .execute();
    let mut routes = std::pin::pin!(routes.take(ENTRIES_MAX));
    while let Some(message) = routes
        .try_next()
        .await
        .map_err(|error| failed("routes")(error.to_string()))?
    {
        for attribute in &message.attributes {
            if let RouteAttribute::Destination(RouteAddress::Inet(network)) = attribute {
                occupied.add(*network, message.header.destination_prefix_length);
            }
        }
    }
    Ok(occupied)
}
