//! SendTargets (RFC 7143 appendix C): who is told of which targets. At which addresses is tested where they are made.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use iscsi_pdu::{Lun, RESERVED_TAG, Response, Serial, TextRequest};
use support::{INITIATOR, Wire, login_request, origin, pairs, text};
use target_core::iscsi::{Auth, Limits, Listening, Mode, NamePattern, Node, Origin, Policy, Portal, Rule, Target, Way};
use target_core::scsi::Device;

fn name(short: &str) -> String {
    format!("iqn.2026-11.net.farlun:{short}")
}

/// Targets of every kind that is treated in its own way.
fn node() -> Arc<Node> {
    let target = |short: &str, policy: Policy, groups: Vec<u16>| {
        let target = Target::new(&name(short), None, Device::new(BTreeMap::new()));
        target.set_policy(policy);
        target.set_portal_groups(groups, &[]);
        target
    };
    let rule = |initiators: &[&str], chap_users: &[&str], tunnel_users: &[&str]| Rule {
        initiators: initiators.iter().map(|name| NamePattern::new(name)).collect(),
        chap_users: chap_users.iter().map(|name| (*name).to_owned()).collect(),
        tunnel_users: tunnel_users.iter().map(|name| (*name).to_owned()).collect(),
        mode: Mode::ReadWrite,
    };
    let rules = |rules: Vec<Rule>| Policy {
        rules,
        ..Policy::default()
    };
    let one_lun = Policy {
        rules: vec![rule(&["iqn.other"], &[], &[])],
        lun_rules: BTreeMap::from([(3, vec![rule(&[INITIATOR], &[], &[])])]),
        ..Policy::default()
    };
    let chap = Policy {
        auth: Auth::Chap,
        ..rules(vec![rule(&[], &["alice"], &[])])
    };
    let tunnel_only = Policy {
        tunnel_only: true,
        ..Policy::default()
    };
    let targets = [
        target("anybody", Policy::default(), vec![]),
        target("ann", rules(vec![rule(&[], &[], &["ann"])]), vec![]),
        target("chap", chap, vec![]),
        target("group-2", Policy::default(), vec![2]),
        target("mine", rules(vec![rule(&["*:init*"], &[], &[])]), vec![]),
        target("one-lun", one_lun, vec![]),
        target("others", rules(vec![rule(&["iqn.other"], &[], &[])]), vec![]),
        target("tunnel", tunnel_only, vec![]),
    ];
    let node = Node::new(Limits::default(), targets);
    let portal = |address: &str, tag, way| Listening {
        address: address.parse().expect("an address"),
        portal: Portal {
            tag,
            way,
            announce: None,
        },
    };
    let ann = || Way::Tunnel {
        user: Some("ann".to_owned()),
    };
    node.set_portals(vec![
        portal("192.0.2.1:3260", 1, Way::Network),
        portal("[2001:db8::1]:3260", 2, Way::Network),
        portal("172.18.0.1:3260", 1, ann()),
    ]);
    node
}

/// What the answer to SendTargets says, without the common beginning of names.
fn told(node: &Arc<Node>, origin: Origin, which: &str) -> Vec<String> {
    let mut wire = Wire::coming_by(node, origin);
    let keys = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
    assert!(wire.login(&login_request(), &text(&keys)).0.transit);
    ask(&mut wire, which)
}

fn ask(wire: &mut Wire, which: &str) -> Vec<String> {
    let request = TextRequest {
        immediate: true,
        final_bit: true,
        continue_: false,
        lun: Lun::default(),
        itt: 5,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    wire.send(&request, &text(&[("SendTargets", which)]));
    let (Response::Text(response), data) = wire.next() else {
        panic!("no answer")
    };
    assert!(response.final_bit);
    let short = |(key, value): (String, String)| match key.as_str() {
        "TargetName" => value.trim_start_matches(&name("")).to_owned(),
        "TargetAddress" => format!("@{value}"),
        _ => format!("{key}={value}"),
    };
    pairs(&data).into_iter().map(short).collect()
}

fn by(local: &str, peer: &str, tag: u16, way: Way) -> Origin {
    Origin {
        portal: Portal {
            tag,
            way,
            announce: None,
        },
        local: Some(local.parse().expect("an address")),
        peer: peer.to_owned(),
    }
}

#[test]
fn everybody_is_told_of_what_he_may_use() {
    let node = node();
    let (v4, v6) = ("@192.0.2.1:3260,1", "@[2001:db8::1]:3260,2");
    let lan = || by("192.0.2.1:3260", "192.0.2.9:50000", 1, Way::Network);
    assert_eq!(
        told(&node, lan(), "All"),
        [
            "anybody", v4, v6, "chap", v4, v6, "group-2", v6, "mine", v4, v6, "one-lun", v4, v6
        ]
    );
    let lan6 = by("[2001:db8::1]:3260", "[2001:db8::9]:50000", 2, Way::Network);
    assert_eq!(told(&node, lan6, &name("anybody")), ["anybody", v6, v4]);

    let tunnel = |user: &str| {
        let way = Way::Tunnel {
            user: Some(user.to_owned()),
        };
        by("172.18.0.1:3260", "172.18.0.2:50000", 1, way)
    };
    let here = "@172.18.0.1:3260,1";
    assert_eq!(
        told(&node, tunnel("ann"), "All"),
        [
            "ann", here, "anybody", here, "chap", here, "mine", here, "one-lun", here, "tunnel", here
        ]
    );
    assert_eq!(
        told(&node, tunnel("bob"), "All"),
        [
            "anybody", here, "chap", here, "mine", here, "one-lun", here, "tunnel", here
        ]
    );
    // By `ssh -L`: the address that the initiator used is not known here, so it is told none and uses that again.
    let forwarded = by("127.0.0.1:3260", "127.0.0.1:50000", 1, Way::Network);
    assert_eq!(told(&node, forwarded, "All"), ["anybody", "chap", "mine", "one-lun"]);
    // What is not shown is not told by its name either.
    for hidden in ["others", "tunnel", "ann", "nobody"] {
        assert_eq!(told(&node, lan(), &name(hidden)), [""; 0], "{hidden}");
    }
    assert_eq!(
        told(&node, lan(), &name("ANYBODY")),
        ["anybody", v4, v6],
        "names have no case"
    );
    assert_eq!(told(&node, lan(), ""), ["SendTargets=Reject"]);
}

#[test]
fn a_session_is_told_of_its_own_target_only() {
    let node = node();
    let mut wire = Wire::coming_by(&node, origin());
    let mine = name("mine");
    let keys = [("InitiatorName", INITIATOR), ("TargetName", mine.as_str())];
    assert!(wire.login(&login_request(), &text(&keys)).0.transit);
    let own = ["mine", "@192.0.2.1:3260,1", "@[2001:db8::1]:3260,2"];
    assert_eq!(ask(&mut wire, ""), own);
    assert_eq!(ask(&mut wire, &mine), own);
    assert_eq!(ask(&mut wire, &name("anybody")), [""; 0]);
    assert_eq!(ask(&mut wire, "All"), ["SendTargets=Reject"]);
}

#[test]
fn what_changes_is_told_at_once() {
    let node = node();
    let lan = || by("192.0.2.1:3260", "192.0.2.9:50000", 1, Way::Network);
    node.set_portals(Vec::new());
    assert_eq!(told(&node, lan(), &name("anybody")), ["anybody", "@192.0.2.1:3260,1"]);
    assert_eq!(told(&node, lan(), &name("group-2")), [""; 0], "nowhere any more");
    node.remove_target(&name("anybody"), 0);
    assert_eq!(told(&node, lan(), &name("anybody")), [""; 0]);
}
