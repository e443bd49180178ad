//! Which TargetAddress an initiator is told (RFC 7143 §13.8, appendix C): where it can reach the target, as far as
//! that can be known from here.

use std::net::{IpAddr, SocketAddr};

use crate::iscsi::portals::{Listening, Origin, Way, is_loopback};

/// Addresses, with the tags of their portal groups, at which who came by `origin` finds a target that is served in
/// the portal groups for which `serves` is true.
///
/// `None`: nowhere. An empty list: where it is now, by an address that we do not know or cannot write. It is then told
/// no address at all, which means the same (appendix C).
///
/// A portal that announces an address is known by that only, to whoever may come by its way.
pub(super) fn addresses(
    origin: &Origin,
    portals: &[Listening],
    serves: impl Fn(u16) -> bool,
) -> Option<Vec<(String, u16)>> {
    let tag = origin.portal.tag;
    let here = origin
        .local
        .filter(|local| !origin.is_forwarded() && !is_link_local(local.ip()));
    let told = match (&origin.portal.announce, here) {
        (Some(announced), _) => announced.to_string(),
        (None, Some(here)) => written(here),
        (None, None) => return serves(tag).then(Vec::new),
    };
    let others = portals.iter().filter_map(|portal| reachable(portal, origin, here));
    let mut list = Vec::new();
    for entry in [(told, tag)].into_iter().chain(others) {
        if serves(entry.1) && !list.contains(&entry) {
            list.push(entry);
        }
    }
    (!list.is_empty()).then_some(list)
}

/// The address of another portal for somebody who has reached us at `here`, if that is known.
fn reachable(portal: &Listening, origin: &Origin, here: Option<SocketAddr>) -> Option<(String, u16)> {
    let tag = portal.portal.tag;
    if let (Way::Network, Way::Network, Some(announced)) =
        (&portal.portal.way, &origin.portal.way, &portal.portal.announce)
    {
        // Loopback is somewhere else for everybody.
        let is_good = origin.is_forwarded() || !announced.is_loopback();
        return is_good.then(|| (announced.to_string(), tag));
    }
    let here = here?;
    let ip = match portal.address.ip() {
        // All addresses of its family: this one is known to be good.
        any if any.is_unspecified() && any.is_ipv4() == here.is_ipv4() => here.ip(),
        any if any.is_unspecified() => return None,
        ip => ip,
    };
    let same_way = match (&portal.portal.way, &origin.portal.way) {
        (Way::Network, Way::Network) => !is_loopback(ip) && !is_link_local(ip),
        // A tunnel is a cable to one client, and its address is what tells it from others.
        (Way::Tunnel { .. }, Way::Tunnel { .. }) => ip == here.ip(),
        _ => false,
    };
    same_way.then(|| (written(SocketAddr::new(ip, portal.address.port())), tag))
}

/// An address as it stands in TargetAddress: IPv4 in IPv6 is IPv4, and there is no scope.
fn written(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

/// An address that is only good on one link. Which that is called on the initiator's side is not known here.
fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::portals::Portal;

    fn origin(local: Option<&str>, peer: &str, tag: u16, way: Way) -> Origin {
        Origin {
            portal: Portal {
                tag,
                way,
                announce: None,
            },
            local: local.map(|local| local.parse().unwrap()),
            peer: peer.to_owned(),
        }
    }

    fn tunnel(user: &str) -> Way {
        Way::Tunnel {
            user: Some(user.to_owned()),
        }
    }

    fn portals() -> Vec<Listening> {
        [
            ("127.0.0.1:3260", 1, Way::Network),
            ("[::1]:3260", 1, Way::Network),
            ("192.0.2.1:3260", 1, Way::Network),
            ("192.0.2.9:860", 2, Way::Network),
            ("[2001:db8::1]:3260", 2, Way::Network),
            ("[fe80::1]:3260", 2, Way::Network),
            ("0.0.0.0:3333", 3, Way::Network),
            ("[::]:4444", 4, Way::Network),
            ("172.18.0.1:3260", 5, tunnel("ann")),
            ("172.18.0.1:3261", 5, tunnel("ann")),
            ("172.18.0.3:3260", 5, tunnel("ann")),
        ]
        .map(|(address, tag, way)| Listening {
            address: address.parse().unwrap(),
            portal: Portal {
                tag,
                way,
                announce: None,
            },
        })
        .into()
    }

    /// What is told, as it stands in the key; `None` when the target is not told at all.
    fn told(origin: &Origin, portals: &[Listening], groups: &[u16]) -> Option<Vec<String>> {
        let serves = |tag| groups.is_empty() || groups.contains(&tag);
        let list = addresses(origin, portals, serves)?;
        Some(list.iter().map(|(address, tag)| format!("{address},{tag}")).collect())
    }

    #[test]
    fn everybody_is_told_what_he_can_reach() {
        let network = |local, peer, tag| origin(Some(local), peer, tag, Way::Network);
        let lan = network("192.0.2.1:3260", "192.0.2.77:50000", 1);
        let v6 = network("[2001:db8::1]:3260", "[2001:db8::77]:50000", 2);
        let mapped = network("[::ffff:192.0.2.1]:4444", "[::ffff:192.0.2.77]:50000", 4);
        let forwarded = network("127.0.0.1:3260", "127.0.0.1:50000", 1);
        let forwarded_v6 = network("[::1]:3260", "[::1]:50000", 1);
        let link_local = network("[fe80::1%2]:3260", "[fe80::77%2]:50000", 2);
        let stream = origin(None, "ssh", 1, Way::Network);
        let ann = origin(Some("172.18.0.1:3260"), "172.18.0.2:50000", 5, tunnel("ann"));
        type Row<'a> = (&'a str, &'a Origin, &'a [u16], Option<&'a [&'a str]>);
        let table: &[Row<'_>] = &[
            (
                "here first, no loopback, no link-local, no tunnel, wildcards of this family",
                &lan,
                &[],
                Some(&[
                    "192.0.2.1:3260,1",
                    "192.0.2.9:860,2",
                    "[2001:db8::1]:3260,2",
                    "192.0.2.1:3333,3",
                ]),
            ),
            ("one group", &lan, &[1], Some(&["192.0.2.1:3260,1"])),
            (
                "not here but there",
                &lan,
                &[2],
                Some(&["192.0.2.9:860,2", "[2001:db8::1]:3260,2"]),
            ),
            ("only by a tunnel", &lan, &[5], None),
            ("in no group there is", &lan, &[99], None),
            (
                "IPv6 in brackets",
                &v6,
                &[2, 3, 4],
                Some(&["[2001:db8::1]:3260,2", "192.0.2.9:860,2", "[2001:db8::1]:4444,4"]),
            ),
            ("IPv4 in IPv6 is IPv4", &mapped, &[4], Some(&["192.0.2.1:4444,4"])),
            ("forwarded", &forwarded, &[], Some(&[])),
            ("forwarded over IPv6", &forwarded_v6, &[1], Some(&[])),
            ("forwarded, and not in this group", &forwarded, &[2], None),
            ("link-local", &link_local, &[], Some(&[])),
            ("a stream without address", &stream, &[], Some(&[])),
            (
                "its own tunnel only",
                &ann,
                &[],
                Some(&["172.18.0.1:3260,5", "172.18.0.1:3261,5"]),
            ),
            ("not for tunnels", &ann, &[1, 2], None),
        ];
        for (what, origin, groups, expected) in table {
            let expected = expected.map(|list| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            assert_eq!(told(origin, &portals(), groups), expected, "{what}");
        }
    }

    #[test]
    fn what_is_announced_is_told_in_place_of_where_it_listens() {
        let mut portals = portals();
        // Loopback by ssh -L, and the wildcard behind a translation of addresses.
        portals[0].portal.announce = Some("127.0.0.1:3261".parse().unwrap());
        portals[6].portal.announce = Some("nas.example.com:3333".parse().unwrap());
        let by = |number: usize, local, peer| Origin {
            portal: portals[number].portal.clone(),
            local: Some(std::str::FromStr::from_str(local).unwrap()),
            peer: String::from(peer),
        };
        let here = |origin: &Origin| told(origin, &portals, &[origin.portal.tag]);
        let all = |origin: &Origin| told(origin, &portals, &[]).unwrap();
        let forwarded = by(0, "127.0.0.1:3260", "127.0.0.1:50000");
        assert_eq!(here(&forwarded).unwrap(), ["127.0.0.1:3261,1"]);
        // Where else it could come by itself is not known.
        assert_eq!(all(&forwarded), ["127.0.0.1:3261,1", "nas.example.com:3333,3"]);
        let translated = by(6, "192.0.2.1:3333", "198.51.100.7:50000");
        assert_eq!(here(&translated).unwrap(), ["nas.example.com:3333,3"]);
        let lan = by(2, "192.0.2.1:3260", "192.0.2.77:50000");
        assert_eq!(
            all(&lan),
            [
                "192.0.2.1:3260,1",
                "192.0.2.9:860,2",
                "[2001:db8::1]:3260,2",
                "nas.example.com:3333,3"
            ]
        );
        // Nobody comes by the network who came by a tunnel.
        let ann = by(8, "172.18.0.1:3260", "172.18.0.2:50000");
        assert_eq!(all(&ann), ["172.18.0.1:3260,5", "172.18.0.1:3261,5"]);
        // Without an announcement of its own, a forwarded connection is told nothing.
        let silent = by(1, "[::1]:3260", "[::1]:50000");
        assert_eq!(all(&silent), [""; 0]);
    }
}
