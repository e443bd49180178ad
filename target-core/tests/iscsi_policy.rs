//! Who may log in, what they see, and what they may do there.

use std::collections::BTreeMap;

use target_core::iscsi::{Mode, NamePattern, Origin, Policy, Portal, Rule, Way, Who};

use Mode::{ReadOnly, ReadWrite};

fn rule(initiators: &[&str], chap_users: &[&str], tunnel_users: &[&str], mode: Mode) -> Rule {
    let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
    Rule {
        initiators: initiators.iter().map(|pattern| NamePattern::new(pattern)).collect(),
        chap_users: owned(chap_users),
        tunnel_users: owned(tunnel_users),
        mode,
    }
}

fn who(initiator: &str, chap_user: Option<&str>, way: Way) -> Who {
    Who {
        initiator: initiator.to_owned(),
        chap_user: chap_user.map(str::to_owned),
        way,
    }
}

fn tunnel(user: &str) -> Way {
    Way::Tunnel {
        user: Some(user.to_owned()),
    }
}

#[test]
fn patterns_match_names_as_a_whole() {
    for (pattern, name, matches) in [
        ("iqn.a:x", "iqn.a:x", true),
        ("iqn.a:x", "iqn.a:xy", false),
        ("iqn.a:x", "iqn.a:", false),
        ("iqn.A:X", "iqn.a:x", true),
        ("iqn.a:x", "IQN.A:X", true),
        ("*", "", true),
        ("*", "anything", true),
        ("iqn.a:*", "iqn.a:", true),
        ("iqn.a:*", "iqn.a:laptop", true),
        ("iqn.a:*", "iqn.b:laptop", false),
        ("*:laptop", "iqn.a:laptop", true),
        ("*:laptop", "iqn.a:laptop2", false),
        ("iqn.*:lap*", "iqn.a:laptop", true),
        ("iqn.*:lap*", "iqn.a:tower", false),
        ("a*b*c", "abc", true),
        ("a*b*c", "ab", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "acb", false),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("ab*bc", "abc", false),
        ("a**c", "abc", true),
        ("a*ab*b", "aab", false),
        ("", "", true),
        ("", "x", false),
        // Only the asterisk means more than itself.
        ("iqn.a:?", "iqn.a:x", false),
        ("[a-z]", "b", false),
    ] {
        assert_eq!(NamePattern::new(pattern).matches(name), matches, "{pattern} {name}");
    }
}

#[test]
fn a_rule_names_those_whom_all_its_lists_name() {
    let laptop = "iqn.2026-11.example:laptop";
    for (rule, who, matches) in [
        (rule(&[], &[], &[], ReadOnly), who(laptop, None, Way::Network), true),
        (
            rule(&[laptop], &[], &[], ReadOnly),
            who(laptop, None, Way::Network),
            true,
        ),
        (
            rule(&["iqn.x:*", "*:laptop"], &[], &[], ReadOnly),
            who(laptop, None, Way::Network),
            true,
        ),
        (
            rule(&["iqn.x:*"], &[], &[], ReadOnly),
            who(laptop, None, Way::Network),
            false,
        ),
        (
            rule(&[], &["anna"], &[], ReadOnly),
            who(laptop, Some("anna"), Way::Network),
            true,
        ),
        (
            rule(&[], &["anna"], &[], ReadOnly),
            who(laptop, Some("Anna"), Way::Network),
            false,
        ),
        (
            rule(&[], &["anna"], &[], ReadOnly),
            who(laptop, Some("bert"), Way::Network),
            false,
        ),
        (
            rule(&[], &["anna"], &[], ReadOnly),
            who(laptop, None, Way::Network),
            false,
        ),
        (
            rule(&[], &[], &["anna"], ReadOnly),
            who(laptop, None, tunnel("anna")),
            true,
        ),
        (
            rule(&[], &[], &["anna"], ReadOnly),
            who(laptop, None, tunnel("bert")),
            false,
        ),
        (
            rule(&[], &[], &["anna"], ReadOnly),
            who(laptop, None, Way::Tunnel { user: None }),
            false,
        ),
        // A name proved by CHAP is no name proved by SSH.
        (
            rule(&[], &[], &["anna"], ReadOnly),
            who(laptop, Some("anna"), Way::Network),
            false,
        ),
        (
            rule(&[], &["anna"], &[], ReadOnly),
            who(laptop, None, tunnel("anna")),
            false,
        ),
        (
            rule(&["*:laptop"], &["anna"], &["bert"], ReadOnly),
            who(laptop, Some("anna"), tunnel("bert")),
            true,
        ),
        (
            rule(&["*:tower"], &["anna"], &["bert"], ReadOnly),
            who(laptop, Some("anna"), tunnel("bert")),
            false,
        ),
        (
            rule(&["*:laptop"], &["bert"], &["bert"], ReadOnly),
            who(laptop, Some("anna"), tunnel("bert")),
            false,
        ),
    ] {
        assert_eq!(rule.matches(&who), matches, "{rule:?} {who:?}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let laptop = || who("iqn.2026-11.example:laptop", None, Way::Network);
    let tower = || who("iqn.2026-11.example:tower", None, Way::Network);
    let only_laptop = || vec![rule(&["*:laptop"], &[], &[], ReadWrite)];
    let laptop_reads = || vec![rule(&["*:laptop"], &[], &[], ReadOnly), rule(&[], &[], &[], ReadWrite)];
    let luns = |rules: Vec<Rule>| BTreeMap::from([(1, rules)]);
    // Rules, rules of LUN 1, who; whether they get in, and what they may do at LUNs 0 and 1.
    for (rules, lun_rules, who, admitted, modes) in [
        (vec![], BTreeMap::new(), laptop(), true, [Some(ReadWrite); 2]),
        (only_laptop(), BTreeMap::new(), laptop(), true, [Some(ReadWrite); 2]),
        (only_laptop(), BTreeMap::new(), tower(), false, [None, None]),
        (laptop_reads(), BTreeMap::new(), laptop(), true, [Some(ReadOnly); 2]),
        (laptop_reads(), BTreeMap::new(), tower(), true, [Some(ReadWrite); 2]),
        (vec![], luns(only_laptop()), laptop(), true, [Some(ReadWrite); 2]),
        (vec![], luns(only_laptop()), tower(), true, [Some(ReadWrite), None]),
        (
            vec![],
            luns(laptop_reads()),
            laptop(),
            true,
            [Some(ReadWrite), Some(ReadOnly)],
        ),
        // A LUN's own rules let in whom the target's do not.
        (
            only_laptop(),
            luns(vec![rule(&["*:tower"], &[], &[], ReadOnly)]),
            tower(),
            true,
            [None, Some(ReadOnly)],
        ),
        (
            only_laptop(),
            luns(vec![rule(&["*:tower"], &[], &[], ReadOnly)]),
            laptop(),
            true,
            [Some(ReadWrite), None],
        ),
        (only_laptop(), luns(vec![]), tower(), true, [None, Some(ReadWrite)]),
    ] {
        let policy = Policy {
            rules,
            lun_rules,
            ..Policy::default()
        };
        let seen = [0, 1].map(|lun| policy.lun_mode(&who, lun));
        assert_eq!((policy.admits(&who), seen), (admitted, modes), "{policy:?} {who:?}");
    }
}

#[test]
fn what_is_for_the_tunnel_only_is_not_there_for_others() {
    let policy = Policy {
        tunnel_only: true,
        ..Policy::default()
    };
    for (way, admitted) in [
        (Way::Network, false),
        (Way::Tunnel { user: None }, true),
        (tunnel("anna"), true),
    ] {
        let who = who("iqn.2026-11.example:laptop", Some("anna"), way);
        assert_eq!(policy.admits(&who), admitted, "{who:?}");
        assert_eq!(policy.lun_mode(&who, 0).is_some(), admitted, "{who:?}");
    }
}

#[test]
fn from_loopback_to_loopback_is_forwarded() {
    for (local, peer, forwarded) in [
        (Some("127.0.0.1:3260"), "127.0.0.1:50000", true),
        (Some("[::1]:3260"), "[::1]:50000", true),
        (Some("[::ffff:127.0.0.1]:3260"), "[::ffff:127.0.0.2]:50000", true),
        (Some("192.0.2.1:3260"), "192.0.2.1:50000", false),
        (Some("127.0.0.1:3260"), "192.0.2.1:50000", false),
        (Some("192.0.2.1:3260"), "127.0.0.1:50000", false),
        (Some("127.0.0.1:3260"), "a channel", false),
        (None, "127.0.0.1:50000", false),
    ] {
        let origin = Origin {
            portal: Portal::default(),
            local: local.map(|local| local.parse().expect("an address")),
            peer: peer.to_owned(),
        };
        assert_eq!(origin.is_forwarded(), forwarded, "{origin:?}");
    }
}
