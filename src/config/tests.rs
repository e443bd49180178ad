//! Good files and what they mean; bad files and what is said about them.

use std::path::Path;

use target_core::iscsi::Limits;
use target_core::iscsi::policy::Mode;
use target_core::lun::WriteCache;

use super::check::default_serial;
use super::*;

/// A file that is right, to be spoilt.
const GOOD: &str = r#"
[[target]]
name = "iqn.2026-11.com.example:disk"
  [[target.lun]]
  lun = 0
  memory = "1MiB"
[[portal]]
listen = "127.0.0.1:3260"
"#;

fn parsed(text: &str) -> (Plan, Problems) {
    parse(Some("farlun.toml"), text, Path::new("/etc/farlun")).expect("TOML of the right shape")
}

fn problems(text: &str) -> Vec<String> {
    match parse(Some("farlun.toml"), text, Path::new("/etc/farlun")) {
        Ok((_, problems)) => problems.to_string().lines().map(str::to_owned).collect(),
        Err(error) => vec![error],
    }
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let (plan, problems) = parsed(
        r#"
        [[target]]
        name = "iqn.2026-11.Com.Example:Disk"
        alias = "the big one"
          [[target.lun]]
          lun = 3
          file = "lun3.img"
          size = "16TiB"
          block_size_bytes = 4096
          write_cache = "write-through"
          read_only = true
          shared = true
          serial = "FARLUN-3"
          [[target.lun]]
          lun = 4
          device = "/dev/sdz"
          [[target.lun]]
          lun = 16383
          memory = 1048576
        [[portal]]
        listen = "127.0.0.1"
        [[portal]]
        listen = "[2001:db8::1]:860"
        allow_public = true
        [tunnel]
        socket = "/tmp/t.sock"
        group = "0"
        port = 3261
        mtu_bytes = 1500
        clients = 2
        [limits]
        login_timeout_ms = 5000
        max_burst_bytes = 1_048_576
        sessions_per_target = 7
        "#,
    );
    assert!(problems.is_empty(), "{problems}");
    let target = &plan.targets[0];
    assert_eq!(target.name, "iqn.2026-11.com.example:disk", "names are lower case");
    assert_eq!(target.alias.as_deref(), Some("the big one"));
    let [file, device, memory] = &target.luns[..] else {
        panic!("three LUNs")
    };
    assert_eq!(
        (file.lun, file.block_size_bytes, file.write_cache),
        (3, 4096, WriteCache::WriteThrough)
    );
    assert!(file.read_only && file.shared);
    assert_eq!(file.serial, "FARLUN-3");
    let path = "/etc/farlun/lun3.img".into();
    let size = Some(Size(16 << 40));
    assert_eq!(file.medium, MediumPlan::File { path, size }, "relative to the file");
    assert_eq!(
        device.medium,
        MediumPlan::Device {
            path: "/dev/sdz".into()
        }
    );
    assert_eq!(device.write_cache, WriteCache::WriteBack);
    assert_eq!(memory.medium, MediumPlan::Memory { size: Size(1 << 20) });
    assert_eq!(memory.write_cache, WriteCache::WriteThrough);
    let addresses: Vec<String> = plan.portals.iter().map(|portal| portal.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:3260", "[2001:db8::1]:860"]);
    let tunnel = plan.tunnel.expect("a tunnel");
    assert_eq!(
        (tunnel.port, tunnel.mtu_bytes, tunnel.clients, tunnel.group),
        (3261, 1500, 2, Some(0))
    );
    assert_eq!(
        (plan.limits.login_timeout_ms, plan.limits.max_burst_bytes),
        (5000, 1 << 20)
    );
    assert_eq!(plan.limits.sessions_per_target, 7);
    assert_eq!(plan.limits.command_window, Limits::default().command_window);
}

#[test]
fn serial_numbers_never_change() {
    // Initiators know their disks by these: a different value here breaks what people have.
    assert_eq!(default_serial("iqn.2026-11.com.example:disk", 0), "ea67ffa8f8245700");
    assert_ne!(
        default_serial("iqn.2026-11.com.example:disk", 1),
        default_serial("iqn.2026-11.com.example:disk", 0)
    );
}

#[test]
fn a_right_file_has_no_problems() {
    assert_eq!(problems(GOOD), Vec::<String>::new());
    // A table for the tunnel alone switches it on, enable = false off again.
    assert!(parsed(&format!("{GOOD}[tunnel]\n")).0.tunnel.is_some());
    assert!(parsed(&format!("{GOOD}[tunnel]\nenable = false\n")).0.tunnel.is_none());
}

#[test]
fn access_and_services_are_understood() {
    let (plan, problems) = parsed(
        r#"
        [[user]]
        name = "anna"
        secret_file = "anna.secret"
        [[user]]
        name = "disk"
        secret_credential = "disk"
        [chap]
        min_digest = "sha256"
        [discovery]
        auth = "chap"
        users = ["anna"]
        [[target]]
        name = "iqn.2026-11.com.example:disk"
        auth = "chap"
        users = ["anna"]
        mutual = "disk"
        tunnel_only = true
        portal_groups = [1, 7]
        iops_max = 100
        bytes_per_second_max = "10MiB"
          [[target.allow]]
          initiators = ["iqn.2026-11.com.example:*"]
          tunnel_users = ["alice"]
          access = "read-only"
          [[target.lun]]
          lun = 0
          file = "a.img"
          size = "1MiB"
          physical_block_size_bytes = 512
          provisioning = "thick"
          removable = true
          copy_offload = true
          iops_max = 5
            [[target.lun.allow]]
            users = ["anna"]
          [[target.lun]]
          lun = 1
          file = "b.img"
          thin_threshold_percent = 80
          offline = true
          unmap_command = false
          unmapped_reads = "anything"
        [[portal]]
        listen = "127.0.0.1"
        group = 7
        announce = "nas.example.com:3260"
        [control]
        socket = "control.sock"
        group = "0"
        [metrics]
        listen = "127.0.0.1:9260"
        [limits]
        command_window = 4096
        max_outstanding_r2t = 16
        first_burst_bytes = 1_048_576
        "#,
    );
    assert!(problems.is_empty(), "{problems}");
    assert_eq!(
        plan.users[0].source,
        SecretSource::File("/etc/farlun/anna.secret".into())
    );
    assert_eq!(plan.users[1].source, SecretSource::Credential("disk".to_owned()));
    assert_eq!((plan.min_digest, plan.discovery.auth), (Digest::Sha256, Auth::Chap));
    let target = &plan.targets[0];
    assert_eq!(target.login.users, ["anna"]);
    assert_eq!(target.login.mutual.as_deref(), Some("disk"));
    assert!(target.policy.tunnel_only && target.policy.auth == Auth::Chap);
    assert_eq!(target.portal_groups, [1, 7]);
    assert_eq!(
        (target.rate.iops_max, target.rate.bytes_per_second_max),
        (Some(100), Some(10 << 20))
    );
    let rule = &target.policy.rules[0];
    assert_eq!(
        (rule.initiators.len(), rule.tunnel_users.len(), rule.mode),
        (1, 1, Mode::ReadOnly)
    );
    let own = &target.policy.lun_rules[&0];
    assert_eq!((own[0].chap_users.len(), own[0].mode), (1, Mode::ReadWrite));
    assert!(!target.policy.lun_rules.contains_key(&1));
    let [first, second] = &target.luns[..] else {
        panic!("two LUNs")
    };
    assert_eq!(
        (first.physical_block_size_bytes, first.provisioning),
        (Some(512), Some(Provisioning::Thick))
    );
    assert!(first.removable && first.copy_offload && !first.offline);
    assert_eq!((first.rate.iops_max, first.rate.bytes_per_second_max), (Some(5), None));
    assert_eq!((second.thin_threshold_percent, second.offline), (Some(80), true));
    assert_eq!((first.unmap_command, first.unmapped_reads_anything), (true, false));
    assert_eq!((second.unmap_command, second.unmapped_reads_anything), (false, true));
    assert_eq!(plan.portals[0].group, 7);
    let announced = plan.portals[0].announce.as_ref().map(ToString::to_string);
    assert_eq!(announced.as_deref(), Some("nas.example.com:3260"));
    let control = (plan.control.enable, plan.control.socket, plan.control.group);
    assert_eq!(control, (true, Some("/etc/farlun/control.sock".into()), Some(0)));
    assert_eq!(plan.metrics.map(|metrics| metrics.address.port()), Some(9260));
    assert_eq!(
        (plan.limits.command_window, plan.limits.max_outstanding_r2t),
        (4096, 16)
    );
}

#[test]
fn what_an_open_portal_means_depends_on_the_targets() {
    let open = GOOD.replace("127.0.0.1:3260", "192.0.2.1:3260");
    let user = "[[user]]\nname = \"anna\"\nsecret_file = \"x\"\n";
    let name = "name = \"iqn.2026-11.com.example:disk\"";
    let with = |keys: &str| problems(&(user.to_owned() + &open.replace(name, &format!("{name}\n{keys}")))).join("\n");
    assert!(with("").contains("reads and writes every LUN, unencrypted and without a password"));
    let chap = with("auth = \"chap\"\nusers = [\"anna\"]");
    assert!(
        chap.contains("takes a secret (CHAP)") && !chap.contains("without a password"),
        "{chap}"
    );
    assert!(with("tunnel_only = true").contains("every target is for tunnels only"));
    let second = "[[target]]\nname = \"iqn.2026-11.com.example:b\"\n";
    let text = user.to_owned() + second + &open.replace(name, &format!("{name}\nauth = \"chap\"\nusers = [\"anna\"]"));
    assert!(
        problems(&text).join("\n").contains("the LUNs of 1 of 2 targets"),
        "{:?}",
        problems(&text)
    );
}

/// What is put for what in [`GOOD`], and what has to be said about it.
const SPOILT: &[(&str, &str, &[&str])] = &[
    (
        "memory = \"1MiB\"",
        "memroy = \"1MiB\"",
        &["line 6", "unknown field `memroy`", "`memory`"],
    ),
    ("[[portal]]", "[[portals]]", &["line 7", "unknown field `portals`"]),
    ("lun = 0", "lun = \"0\"", &["line 5", "invalid type"]),
    (
        "memory = \"1MiB\"",
        "memory = \"1 parsec\"",
        &["line 6", "is not a size"],
    ),
    (
        "listen = \"127.0.0.1:3260\"",
        "listen = \"localhost:3260\"",
        &["line 8", "not an address to listen on"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nwrite_cache = \"on\"",
        &["line 7", "write-back", "write-through"],
    ),
    ("name = \"iqn.2026-11.com.example:disk\"", "", &["missing field `name`"]),
    (
        "iqn.2026-11.com.example:disk",
        "my disk",
        &["farlun.toml:3:", "write iqn.YEAR-MONTH"],
    ),
    (
        "iqn.2026-11.com.example:disk",
        "iqn.2026-13.com.example",
        &["farlun.toml:3:", "write iqn.YEAR-MONTH"],
    ),
    (
        "iqn.2026-11.com.example:disk",
        "iqn.2026-11.com.example:a_b",
        &["farlun.toml:3:", "RFC 3722"],
    ),
    (
        "iqn.2026-11.com.example:disk",
        "eui.1234",
        &["farlun.toml:3:", "16 hex digits"],
    ),
    ("lun = 0", "lun = 16384", &["farlun.toml:5:", "0 to 16383"]),
    ("lun = 0", "lun = -1", &["farlun.toml:5:", "0 to 16383"]),
    ("memory = \"1MiB\"", "", &["farlun.toml:5:", "needs a medium"]),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nfile = \"x\"",
        &["farlun.toml:5:", "one medium"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1000B\"",
        &["farlun.toml:6:", "no whole number of 512-byte blocks"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nsize = \"1MiB\"",
        &["farlun.toml:7:", "leave size out"],
    ),
    (
        "memory = \"1MiB\"",
        "device = \"/dev/sdz\"\nsize = \"1MiB\"",
        &["farlun.toml:7:", "leave size out"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nwrite_cache = \"write-back\"",
        &["farlun.toml:7:", "no write cache"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nblock_size_bytes = 520",
        &["farlun.toml:7:", "512 or 4096"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nserial = \"\"",
        &["farlun.toml:7:", "printable ASCII"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\n[[target.lun]]\nlun = 0\nmemory = \"1MiB\"",
        &["farlun.toml:8:", "LUN 0", "already in line 5"],
    ),
    (
        "memory = \"1MiB\"",
        "file = \"a\"\n[[target.lun]]\nlun = 1\nfile = \"a\"",
        &["farlun.toml:9:", "/etc/farlun/a", "already in line 6"],
    ),
    (
        "memory = \"1MiB\"",
        "serial = \"s\"\nmemory = \"1MiB\"\n[[target.lun]]\nlun = 1\nmemory = \"1MiB\"\nserial = \"s\"",
        &["farlun.toml:11:", "already in line 6", "one disk"],
    ),
    (
        "[[portal]]",
        "[[target]]\nname = \"iqn.2026-11.com.example:DISK\"\n[[target.lun]]\nlun = 0\nfile = \"b\"\n[[portal]]",
        &["farlun.toml:8:", "already in line 3"],
    ),
    ("lun = 0\n  memory = \"1MiB\"", "", &["missing field `lun`"]),
    (
        "127.0.0.1:3260",
        "10.99.0.1:3260",
        &["farlun.toml:8:", "allow_public = true"],
    ),
    (
        "127.0.0.1:3260",
        "0.0.0.0:3260",
        &["farlun.toml:8:", "allow_public = true"],
    ),
    ("127.0.0.1:3260", "127.0.0.1:0", &["farlun.toml:8:", "name a port"]),
    (
        "listen = \"127.0.0.1:3260\"",
        "listen = \"127.0.0.1:3260\"\nannounce = \"nas\"",
        &[
            "farlun.toml:9:",
            "\"nas\" is no address to tell initiators: write host:port",
        ],
    ),
    (
        "listen = \"127.0.0.1:3260\"",
        "listen = \"127.0.0.1\"\n[[portal]]\nlisten = \"127.0.0.1:3260\"",
        &["farlun.toml:10:", "in line 8: keep one"],
    ),
    (
        "[[portal]]\nlisten = \"127.0.0.1:3260\"",
        "",
        &["nobody could get in", "add [tunnel]"],
    ),
    (
        "[[portal]]\nlisten = \"127.0.0.1:3260\"",
        "[tunnel]\nenable = false",
        &["nobody could get in", "enable = true"],
    ),
    (
        "[[portal]]",
        "[tunnel]\nmtu_bytes = 100\n[[portal]]",
        &["farlun.toml:8:", "mtu_bytes = 100", "576 to"],
    ),
    (
        "[[portal]]",
        "[tunnel]\ngroup = \"nobody-has-this\"\n[[portal]]",
        &["farlun.toml:8:", "groupadd"],
    ),
    (
        "listen = \"127.0.0.1:3260\"",
        "listen = \"0.0.0.0:3260\"\nallow_public = true\n[tunnel]",
        &["farlun.toml:8:", "the tunnels' too"],
    ),
    (
        "[[portal]]",
        "[limits]\ncommand_window = 0\n[[portal]]",
        &["farlun.toml:8:", "command_window = 0", "1 to"],
    ),
    (
        "[[portal]]",
        "[limits]\ncommand_windows = 1\n[[portal]]",
        &["line 8", "unknown field `command_windows`"],
    ),
    (
        "[[portal]]",
        "[limits]\nfirst_burst_bytes = 65536\nmax_burst_bytes = 4096\n[[portal]]",
        &["farlun.toml:8:", "more than max_burst_bytes"],
    ),
    (
        "[[portal]]",
        "[limits]\nwindow_memory_bytes = 65536\n[[portal]]",
        &["farlun.toml:8:", "may send unasked"],
    ),
    (
        "[[portal]]",
        "[limits]\ntransfer_memory_bytes = 65536\n[[portal]]",
        &["farlun.toml:8:", "one command of the largest size"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nphysical_block_size_bytes = 1024",
        &["farlun.toml:7:", "512 or 4096"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nblock_size_bytes = 4096\nphysical_block_size_bytes = 512",
        &["farlun.toml:8:", "at least one of 4096"],
    ),
    (
        "memory = \"1MiB\"",
        "device = \"/dev/sdz\"\nprovisioning = \"thin\"",
        &["farlun.toml:7:", "the device's own business"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nprovisioning = \"fat\"",
        &["line 7", "thin", "thick"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nthin_threshold_percent = 100",
        &["farlun.toml:7:", "1 to 99"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nprovisioning = \"thick\"\nthin_threshold_percent = 80",
        &["farlun.toml:8:", "leave thin_threshold_percent out"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\niops_max = 0",
        &["farlun.toml:7:", "iops_max = 0", "1 to"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\nbytes_per_second_max = \"0\"",
        &["line 7", "0 bytes"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\n[[target.lun.allow]]\ninitiators = [\"my home\"]",
        &["farlun.toml:8:", "no initiator name"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\n[[target.lun.allow]]\nusers = [\"anna\"]",
        &["farlun.toml:8:", "only be known by CHAP"],
    ),
    (
        "memory = \"1MiB\"",
        "memory = \"1MiB\"\n[[target.allow]]\naccess = \"none\"",
        &["line 8", "read-only", "read-write"],
    ),
    (
        "  [[target.lun]]",
        "auth = \"chap\"\n  [[target.lun]]",
        &["farlun.toml:4:", "add users"],
    ),
    (
        "  [[target.lun]]",
        "auth = \"chap\"\nusers = [\"eve\"]\n  [[target.lun]]",
        &["farlun.toml:5:", "there is no user \"eve\"", "secret_file"],
    ),
    (
        "  [[target.lun]]",
        "users = [\"eve\"]\n  [[target.lun]]",
        &["farlun.toml:4:", "only with auth = \"chap\""],
    ),
    (
        "  [[target.lun]]",
        "portal_groups = [0]\n  [[target.lun]]",
        &["farlun.toml:4:", "1 to 65535"],
    ),
    (
        "[[portal]]",
        "[[user]]\nname = \"a\"\n[[portal]]",
        &["farlun.toml:8:", "secret_file"],
    ),
    (
        "[[portal]]",
        "[[user]]\nname = \"a\"\nsecret = \"hidden\"\n[[portal]]",
        &["unknown field `secret`"],
    ),
    (
        "[[portal]]",
        "[[user]]\nname = \"a\"\nsecret_credential = \"../a\"\n[[portal]]",
        &["farlun.toml:9:", "no path"],
    ),
    (
        "[[portal]]",
        "[[user]]\nname = \"a\"\nsecret_file = \"x\"\n[[user]]\nname = \"a\"\nsecret_file = \"y\"\n[[portal]]",
        &["farlun.toml:11:", "already in line 8"],
    ),
    (
        "[[portal]]",
        "[chap]\nmin_digest = \"rot13\"\n[[portal]]",
        &["farlun.toml:8:", "sha3-256"],
    ),
    (
        "[[portal]]",
        "[discovery]\nauth = \"chap\"\n[[portal]]",
        &["farlun.toml:8:", "add users"],
    ),
    (
        "[[portal]]",
        "[control]\ngroup = \"nobody-has-this\"\n[[portal]]",
        &["farlun.toml:8:", "groupadd"],
    ),
    (
        "[[portal]]",
        "[tunnel]\ngroup = \"0\"\n[control]\ngroup = \"0\"\n[[portal]]",
        &["farlun.toml:10:", "must not control the target too"],
    ),
    (
        "[[portal]]",
        "[metrics]\nlisten = \"0.0.0.0:9260\"\n[[portal]]",
        &["farlun.toml:8:", "allow_public = true"],
    ),
    (
        "[[portal]]",
        "[metrics]\nlisten = \"127.0.0.1:3260\"\n[[portal]]",
        &["farlun.toml:8:", "choose another port"],
    ),
    (
        "[[portal]]",
        "[limits]\ncommand_window = 4097\n[[portal]]",
        &["farlun.toml:8:", "1 to 4096"],
    ),
    (
        "[[portal]]",
        "[limits]\nfirst_burst_bytes = 2000000\n[[portal]]",
        &["farlun.toml:8:", "512 to 1048576"],
    ),
    (
        "[[portal]]",
        "[limits]\nmax_outstanding_r2t = 17\n[[portal]]",
        &["farlun.toml:8:", "1 to 16"],
    ),
];

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_to_do() {
    for (from, to, expected) in SPOILT {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from:?} is not in the file");
        let found = problems(&text).join("\n");
        for part in *expected {
            assert!(found.contains(part), "{to:?}: {part:?} is not in:\n{found}");
        }
    }
}

#[test]
fn all_problems_are_listed_at_once() {
    let text = GOOD
        .replace("127.0.0.1", "10.0.0.1")
        .replace("lun = 0", "lun = 70000")
        .replace("iqn.2026-11.com.example:disk", "disk");
    let found = problems(&text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("farlun.toml:3:") && found[2].starts_with("farlun.toml:8:"),
        "in order: {found:?}"
    );
    assert_eq!(problems("").len(), 1, "no way in");
}

fn surveyed(text: &str, directory: &Path) -> (String, Problems) {
    let (plan, mut problems) = parse(Some("farlun.toml"), text, directory).expect("TOML");
    assert!(problems.is_empty(), "{problems}");
    let luns: Vec<&LunPlan> = plan.targets.iter().flat_map(|target| &target.luns).collect();
    survey(&plan, luns, &plan.portals.iter().collect::<Vec<_>>(), &mut problems);
    (problems.to_string(), problems)
}

#[test]
fn the_machine_is_looked_at_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: u64| {
        std::fs::File::create(directory.path().join(name))
            .unwrap()
            .set_len(bytes)
            .unwrap();
    };
    file("one-mib", 1 << 20);
    file("odd", 1000);
    file("empty", 0);
    std::os::unix::fs::symlink("one-mib", directory.path().join("link")).unwrap();
    std::fs::create_dir(directory.path().join("dir")).unwrap();
    for (medium, expected) in [
        ("file = \"missing\"", "add size"),
        ("file = \"missing\"\nread_only = true\nsize = \"1MiB\"", "of no use"),
        ("file = \"no/where\"\nsize = \"1MiB\"", "mkdir -p"),
        (
            "file = \"one-mib\"\nsize = \"2MiB\"",
            "is there already with 1 MiB, not 2 MiB",
        ),
        ("file = \"odd\"", "no whole number of 512-byte blocks"),
        ("file = \"empty\"", "remove it and give a size"),
        ("file = \"dir\"", "not a regular file"),
        ("device = \"one-mib\"", "write file = instead of device ="),
        ("device = \"/dev/null\"", "not a block device"),
        ("device = \"no-such-device\"", "does not exist"),
        (
            "file = \"one-mib\"\n[[target.lun]]\nlun = 1\nfile = \"link\"",
            "are the same",
        ),
        ("memory = \"900000TiB\"", "does not fit this machine"),
        ("file = \"huge\"\nsize = \"8000000TiB\"", "cannot hold a file"),
    ] {
        let text = GOOD.replace("memory = \"1MiB\"", medium);
        let (found, _) = surveyed(&text, directory.path());
        assert!(found.contains(expected), "{medium}: {expected:?} is not in {found:?}");
        assert!(found.starts_with("farlun.toml:"), "{found}");
    }
    let (found, _) = surveyed(
        &GOOD.replace("memory = \"1MiB\"", "file = \"new\"\nsize = \"1MiB\""),
        directory.path(),
    );
    assert_eq!(found, "");
    let elsewhere = GOOD.replace("127.0.0.1:3260\"", "192.0.2.77:3260\"\nallow_public = true");
    let (found, problems) = surveyed(&elsewhere, directory.path());
    assert!(
        found.contains("192.0.2.77 is not an address of this machine"),
        "{found}"
    );
    assert!(problems.are_all_passing(), "the file is right");
    let mut left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["dir", "empty", "link", "odd", "one-mib"]);
}

#[test]
fn without_a_file_there_is_one_lun_on_loopback() {
    let text = without_file(
        Path::new("/home/anna/.local/state/farlun"),
        "127.0.0.1:3260".parse().unwrap(),
    );
    let (plan, problems) = Source { file: None, text }.parse().unwrap();
    assert!(problems.is_empty(), "{problems}");
    assert_eq!((plan.targets.len(), plan.portals.len(), plan.tunnel), (1, 1, None));
    let lun = &plan.targets[0].luns[0];
    let path = "/home/anna/.local/state/farlun/lun0.img".into();
    assert_eq!(
        lun.medium,
        MediumPlan::File {
            path,
            size: Some(Size(1 << 30))
        }
    );
    assert_eq!(check_name(&plan.targets[0].name), Ok(()), "{}", plan.targets[0].name);
}

#[test]
fn the_example_is_right_with_and_without_what_is_commented_out() {
    let example = include_str!("../../examples/farlun.toml");
    let uncommented: String = example
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            let key = |text: &str| {
                text.starts_with('[')
                    || text
                        .split('=')
                        .next()
                        .is_some_and(|key| !key.trim().contains(' ') && text.contains('='))
            };
            match bare.strip_prefix("# ") {
                Some(rest) if key(rest) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            }
        })
        .collect();
    assert!(
        uncommented.contains("\n[[user]]\n") && uncommented.contains("\nauth = \"chap\""),
        "{uncommented}"
    );
    for text in [example, &uncommented] {
        // Groups are this machine's business.
        let text = text
            .replace("group = \"farlun\"", "group = \"0\"")
            .replace("group = \"wheel\"", "group = \"1\"");
        assert_eq!(problems(&text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let text = format!("{GOOD}[[user]]\nname = \"anna\"\nsecret = \"hush, hush, hush\"\n");
    let said = problems(&text).join("\n");
    assert!(
        said.contains("line 11: unknown field `secret`") && !said.contains("hush"),
        "{said}"
    );
    let text = format!("{GOOD}[[user]]\nname = \"anna\"\nsecret_file = hush\n");
    assert!(!problems(&text).join("\n").contains("hush"), "{:?}", problems(&text));
}

#[test]
fn a_limit_that_lets_commands_time_out_is_warned_of() {
    let warnings = |key: &str| {
        let (_, problems) = parsed(&GOOD.replace("lun = 0", &format!("lun = 0\n{key}")));
        assert!(problems.is_empty(), "{problems}");
        let warnings: Vec<String> = problems.warnings().map(|warning| warning.to_string()).collect();
        warnings
    };
    for (key, part) in [
        ("iops_max = 19", "farlun.toml:6: warning: iops_max = 19"),
        (
            "bytes_per_second_max = \"2047KiB\"",
            "farlun.toml:6: warning: bytes_per_second_max",
        ),
    ] {
        let warned = warnings(key);
        assert!(warned.len() == 1 && warned[0].contains(part), "{warned:?}");
        assert!(
            warned[0].contains("30 s") && warned[0].contains("timeout"),
            "{warned:?}"
        );
    }
    assert_eq!(warnings("iops_max = 20"), Vec::<String>::new());
    assert_eq!(warnings("bytes_per_second_max = \"2MiB\""), Vec::<String>::new());
    let (_, problems) = parsed(&GOOD.replace(
        "[[portal]]",
        "[[target]]\nname = \"iqn.2026-11.com.example:b\"\niops_max = 1\n[[portal]]",
    ));
    assert_eq!(problems.warnings().count(), 1);
}
