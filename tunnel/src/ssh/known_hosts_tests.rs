//! known_hosts lines against keys.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use proptest::prelude::*;
use russh::keys::{Algorithm, PublicKey};

use super::Invoker;
use super::known_hosts::{KnownHosts, Verdict, append, hand_over};

// Public halves of keys made for this test.
const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINnH8gs6x0T+Nz4f7KYvaL30po23Df4FmNz3ajJEv2wT";
const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEEH7w2ZT0Xb7/ujzgzyh2K7mCrhYLkupP8EsC/Ft3jm";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJiebag4NurfE3xQFt+Al59f+2r2cLEKQ5nIX6tZ7pwwWyeOt4hQLFoceG9NkEhPUPuWqNtCleuzzVpnr23kRYg=";

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).unwrap()
}

fn known(text: &str) -> KnownHosts {
    let mut known = KnownHosts::default();
    known.add(Path::new("kh"), text);
    known
}

/// The verdict in a word, with the line.
fn check(text: &str, host: &str, port: u16, shown: &str) -> String {
    match known(text).check(host, port, &key(shown)) {
        Verdict::Known(place) => format!("known {place}"),
        Verdict::Revoked(place) => format!("revoked {place}"),
        Verdict::Changed(place) => format!("changed {place}"),
        Verdict::Unknown {
            other: None,
            authority: None,
        } => "unknown".to_owned(),
        Verdict::Unknown { other, authority } => {
            let or_none = |place: Option<_>| {
                place.map_or("none".to_owned(), |place: super::known_hosts::Place| place.to_string())
            };
            format!("unknown, other {}, authority {}", or_none(other), or_none(authority))
        }
    }
}

#[test]
fn names_ports_and_patterns() {
    let cases = [
        (format!("host {ONE}"), "host", 22, "known kh:1"),
        (format!("host {ONE}"), "HOST", 22, "known kh:1"),
        (format!("HoSt,other {ONE} a comment # more"), "host", 22, "known kh:1"),
        (format!("\n# comment\nhost\t{ONE}\r\n"), "host", 22, "known kh:3"),
        (format!("  # host {ONE}"), "host", 22, "unknown"),
        (format!("hos {ONE}"), "host", 22, "unknown"),
        (format!("host {ONE}"), "host.example", 22, "unknown"),
        (format!("*.example {ONE}"), "host.example", 22, "known kh:1"),
        (format!("*.example {ONE}"), "example", 22, "unknown"),
        (format!("h?st {ONE}"), "host", 22, "known kh:1"),
        (format!("*,!evil.example {ONE}"), "good.example", 22, "known kh:1"),
        (format!("*,!evil.example {ONE}"), "evil.example", 22, "unknown"),
        (format!("!evil* {ONE}"), "good", 22, "unknown"),
        (format!("[host]:2222 {ONE}"), "host", 2222, "known kh:1"),
        (format!("[host]:2222 {ONE}"), "host", 22, "unknown"),
        (format!("[host]:2222 {ONE}"), "host", 2223, "unknown"),
        (format!("host {ONE}"), "host", 2222, "known kh:1"),
        (format!("host {TWO}"), "host", 2222, "unknown"),
        (format!("[host]:2222 {TWO}\nhost {ONE}"), "host", 2222, "changed kh:1"),
        (format!("[fe80::1]:2222,::1 {ONE}"), "::1", 22, "known kh:1"),
        (
            format!("nonsense\nhost ssh-ed25519 AAAA\nhost {ONE}"),
            "host",
            22,
            "known kh:3",
        ),
    ];
    for (text, host, port, expected) in cases {
        assert_eq!(check(&text, host, port, ONE), expected, "{text} for {host} {port}");
    }
}

#[test]
fn hashed_names() {
    // What `ssh-keygen -H` made of "host" and "[host]:2222".
    let hashed = [
        ("|1|Ip548LqebM+455uX0NhR5KFrWGI=|O+NUyWibqjVcIHhppa7eiPCIbTU=", 22),
        ("|1|6LJh8XS1GgypTCfMq4FqINVswfk=|Wj3o+X9iwoXdjFSal7bb23PVkBI=", 2222),
    ];
    for (name, port) in hashed {
        let text = format!("{name} {ONE}");
        for host in ["host", "Host"] {
            assert_eq!(check(&text, host, port, ONE), "known kh:1");
            assert_eq!(check(&text, host, port, TWO), "changed kh:1");
        }
        assert_eq!(check(&text, "other", port, ONE), "unknown");
    }
}

#[test]
fn changed_and_of_another_type() {
    let cases = [
        (format!("host {TWO}"), "changed kh:1"),
        (format!("host {TWO}\nhost {ONE}"), "known kh:2"),
        (format!("host {ECDSA}"), "unknown, other kh:1, authority none"),
        (format!("host {ECDSA}\nhost {TWO}"), "changed kh:2"),
        (format!("other {TWO}"), "unknown"),
    ];
    for (text, expected) in cases {
        assert_eq!(check(&text, "host", 22, ONE), expected, "{text}");
    }
}

#[test]
fn marked_lines() {
    let cases = [
        (format!("host {ONE}\n@revoked host {ONE}"), "revoked kh:2"),
        (format!("@revoked * {ONE}\nhost {ONE}"), "revoked kh:1"),
        (format!("@revoked other {ONE}\nhost {ONE}"), "known kh:2"),
        (format!("@revoked * {TWO}\nhost {ONE}"), "known kh:2"),
        (format!("@revoked host {TWO}"), "unknown"),
        (
            format!("@cert-authority *.example {ONE}\n@cert-authority host {ONE}"),
            "unknown, other none, authority kh:2",
        ),
        (format!("@cert-authority host {TWO}\nhost {ONE}"), "known kh:2"),
    ];
    for (text, expected) in cases {
        assert_eq!(check(&text, "host", 22, ONE), expected, "{text}");
    }
    let text = format!("@revoked host {ONE}\n[host]:2222 {ONE}");
    assert_eq!(
        check(&text, "host", 2222, ONE),
        "revoked kh:1",
        "revoked without the port is revoked"
    );
}

#[test]
fn types_that_are_known() {
    let text = format!("host {ECDSA}\n@revoked host {ONE}\nother {ONE}");
    assert_eq!(known(&text).key_types("host", 22), [key(ECDSA).algorithm()]);
    assert_eq!(known(&text).key_types("host", 2222), [key(ECDSA).algorithm()]);
    assert_eq!(known(&text).key_types("other", 22), [Algorithm::Ed25519]);
    assert!(known(&text).key_types("nobody", 22).is_empty());
}

fn me(home: &Path) -> Invoker {
    let metadata = home.metadata().unwrap();
    Invoker {
        uid: metadata.uid(),
        gid: metadata.gid(),
        name: None,
        home: home.to_owned(),
        through_sudo: false,
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn new_keys_are_appended() {
    let home = tempfile::tempdir().unwrap();
    let me = me(home.path());
    let file = me.ssh_file("known_hosts");
    append(&file, "Host", 22, &key(ONE), &me).unwrap();
    assert_eq!((mode(file.parent().unwrap()), mode(&file)), (0o700, 0o600));
    append(&file, "host", 2222, &key(&format!("{TWO} comment")), &me).unwrap();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("host {ONE}\n[host]:2222 {TWO}\n")
    );
    std::fs::write(&file, format!("old {ONE}")).unwrap();
    append(&file, "host", 22, &key(ONE), &me).unwrap();
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        format!("old {ONE}\nhost {ONE}\n")
    );
    let known = KnownHosts::read(std::slice::from_ref(&file)).unwrap();
    assert!(matches!(known.check("host", 22, &key(ONE)), Verdict::Known(place) if place.line == 2));
}

#[test]
fn only_the_directory_that_was_made_is_handed_over() {
    let home = tempfile::tempdir().unwrap();
    let mut user = me(home.path());
    user.through_sudo = true;
    if rustix::process::geteuid().is_root() {
        (user.uid, user.gid) = (65_534, 65_534);
    }
    let make = |name: &str, mode: u32| {
        let path = home.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let above = std::fs::File::open(home.path()).unwrap();
    make("made", 0o700);
    hand_over(&above, "made".as_ref(), &user).unwrap();
    assert_eq!(home.path().join("made").metadata().unwrap().uid(), user.uid);

    let other = make("other", 0o700);
    std::os::unix::fs::symlink(&other, home.path().join("link")).unwrap();
    let open_to_all = make("open", 0o755);
    let full = make("full", 0o700);
    std::fs::write(full.join("shadow"), "").unwrap();
    for (name, path) in [("link", other), ("open", open_to_all), ("full", full)] {
        let owner = |path: &Path| path.metadata().unwrap().uid();
        let before = owner(&path);
        assert!(hand_over(&above, name.as_ref(), &user).is_err(), "{name}");
        assert_eq!(owner(&path), before, "{name}");
    }
}

#[test]
fn missing_files_are_empty_and_unreadable_ones_an_error() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("missing");
    assert!(matches!(
        KnownHosts::read(&[missing]).unwrap().check("h", 22, &key(ONE)),
        Verdict::Unknown { .. }
    ));
    let (file, _) = KnownHosts::read(&[home.path().to_owned()]).unwrap_err();
    assert_eq!(file, home.path());
}

proptest! {
    #[test]
    fn any_text_is_read(text in "[ -~\\n|@*!\\[\\]:,]{0,300}", host in "[a-z.*?]{0,20}") {
        let known = known(&text);
        let _verdict = known.check(&host, 22, &key(ONE));
        let ours = format!("{text}\nhost {ONE}");
        let verdict = check(&ours, "host", 22, ONE);
        prop_assert!(verdict.starts_with("known") || text.contains("host") || text.contains('*'), "{}", verdict);
    }

    #[test]
    fn stars_match_what_lies_between(head in "[a-z]{0,5}", middle in "[a-z.]{0,9}", tail in "[a-z]{0,5}") {
        let line = format!("{head}*{tail}x* {ONE}");
        let name = format!("{head}{middle}{tail}x");
        prop_assert_eq!(check(&line, &name, 22, ONE), "known kh:1");
        let shorter = format!("z{name}");
        let expected = if head.is_empty() { "known kh:1" } else { "unknown" };
        if !head.starts_with('z') { prop_assert_eq!(check(&line, &shorter, 22, ONE), expected); }
    }
}
