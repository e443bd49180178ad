//! The command as it is typed: what it says, how it ends, what it leaves.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use support::{Server, ended, farlun};

#[test]
fn without_arguments_there_is_help_and_the_exit_codes_are_in_it() {
    let state = tempfile::tempdir().unwrap();
    let said = ended(&farlun(state.path()).arg("--help").output().unwrap(), 0);
    for part in [
        "serve",
        "connect",
        "probe",
        "demo",
        "Exit codes:",
        "  5  what was read back is not what was written",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    ended(&farlun(state.path()).output().unwrap(), 2);
    ended(
        &farlun(state.path()).args(["serve", "--no-such-flag"]).output().unwrap(),
        2,
    );
    let said = ended(&farlun(state.path()).arg("--version").output().unwrap(), 0);
    assert_eq!(said.trim(), format!("farlun {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nothing_configured_serves_a_disk_that_can_be_probed_and_started_again() {
    let state = tempfile::tempdir().unwrap();
    let serve = || {
        let mut command = farlun(state.path());
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        command
    };
    let server = Server::start(&mut serve());
    let file = state.path().join("farlun/lun0.img");
    assert_eq!(file.metadata().unwrap().len(), 1 << 30);
    let (portal, target) = (server.after("portal ").to_owned(), server.after("target ").to_owned());
    for part in [
        &format!("LUN 0: 1 GiB, file {}, write cache on (write-back)", file.display()),
        &format!("iscsiadm -m discovery -t sendtargets -p {portal}"),
        &format!("iscsiadm -m node -T {target} -p {portal} --login"),
        &format!("farlun probe iscsi://{portal}/{target}/0"),
        "farlun connect user@",
        "ready: 1 target, 1 LUN",
    ] {
        assert!(server.said.contains(part), "{part:?} is not in {}", server.said);
    }

    let probe = |url: &str, more: &[&str]| farlun(state.path()).args(["probe", url]).args(more).output().unwrap();
    let said = ended(&probe(&format!("iscsi://{portal}"), &[]), 0);
    for part in [
        &target,
        "LUN 0: 1 GiB, farlun disk",
        "2097152 blocks of 512 bytes",
        "write cache on",
        "round trip:",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let url = format!("iscsi://{portal}/{target}/0");
    let json: serde_json::Value = serde_json::from_slice(&probe(&url, &["--json", "--count", "3"]).stdout).unwrap();
    let lun = &json["targets"][0]["luns"][0];
    assert_eq!(
        (&lun["blocks"], &lun["write_cache"]),
        (&2_097_152.into(), &true.into()),
        "{json}"
    );
    assert_eq!(json["targets"][0]["round_trip"]["count"], 3);
    assert!(ended(&probe(&format!("iscsi://{portal}/{target}/9"), &[]), 1).contains("no such LUN"));
    ended(&probe(&format!("iscsi://{portal}/{target}-not"), &[]), 4);

    // While it runs, nobody else gets the file or the port.
    let second = ended(&serve().output().unwrap(), 1);
    assert!(
        second.contains("already open as a LUN elsewhere, held by farlun"),
        "{second}"
    );
    let other = tempfile::tempdir().unwrap();
    let third = farlun(other.path())
        .args(["serve", "--listen", &portal])
        .output()
        .unwrap();
    let third = ended(&third, 1);
    assert!(third.contains("is taken by farlun (process"), "{third}");
    assert!(
        !other.path().join("farlun/lun0.img").exists(),
        "nothing is created when the start fails"
    );

    let (code, log) = server.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("every LUN is flushed"), "{log}");
    ended(&probe(&format!("iscsi://{portal}"), &["--timeout-ms", "2000"]), 3);
    let again = Server::start(&mut serve());
    assert_eq!(again.stop(Signal::INT).0, Some(0));
}

#[test]
fn a_configuration_is_checked_before_anything_is_touched() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("farlun.toml");
    let config = |listen: &str| {
        let text = format!(
            "[[target]]\nname = \"iqn.2026-11.com.example:disk\"\n[[target.lun]]\nlun = 0\nfile = \"a.img\"\nsize = \"1MiB\"\n\
             [[target.lun]]\nlun = 1\nfile = \"missing/b.img\"\nsize = \"1MiB\"\n[[portal]]\nlisten = \"{listen}\"\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let serve = |more: &[&str]| {
        farlun(state.path())
            .arg("serve")
            .arg(&file)
            .args(more)
            .output()
            .unwrap()
    };
    config("0.0.0.0:3260");
    let said = ended(&serve(&[]), 2);
    assert!(
        said.contains("farlun.toml:9: the directory") && said.contains("mkdir -p"),
        "{said}"
    );
    assert!(
        said.contains("farlun.toml:12: 0.0.0.0:3260 can be reached by others"),
        "{said}"
    );
    assert!(
        !state.path().join("a.img").exists(),
        "nothing is created when another LUN is wrong"
    );

    std::fs::create_dir(state.path().join("missing")).unwrap();
    config("127.0.0.1:3260");
    let said = ended(&serve(&["--check"]), 0);
    assert!(said.contains("the configuration is right"), "{said}");
    assert!(!state.path().join("a.img").exists(), "a check creates nothing");
    let said = ended(
        &farlun(state.path())
            .args(["serve", "no-such-file.toml"])
            .output()
            .unwrap(),
        2,
    );
    assert!(
        said.contains("cannot read the configuration no-such-file.toml"),
        "{said}"
    );
    let said = ended(
        &farlun(state.path())
            .args(["serve", "--listen", "0.0.0.0:3260"])
            .output()
            .unwrap(),
        2,
    );
    assert!(said.contains("allow_public"), "{said}");
}

#[test]
fn logs_for_the_journal_have_no_time_and_no_colour() {
    let state = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(state.path().join("log")).unwrap();
    let stat = rustix::fs::fstat(&log).unwrap();
    let mut command = farlun(state.path());
    command.args(["-v", "serve", "--listen", "127.0.0.1:0"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("ready")));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let log = std::fs::read_to_string(state.path().join("log")).unwrap();
    let first = log.lines().next().unwrap();
    assert!(
        first.trim_start().starts_with("INFO") && !log.contains('\u{1b}'),
        "{log}"
    );
}

#[test]
fn connect_tells_apart_what_is_wrong() {
    let state = tempfile::tempdir().unwrap();
    let connect = |words: &[&str]| farlun(state.path()).arg("connect").args(words).output().unwrap();
    let nobody_there = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let said = ended(&connect(&["user@127.0.0.1", "-p", &nobody_there]), 3);
    assert!(said.contains("is sshd running"), "{said}");
    ended(&connect(&["-oProxyCommand=x"]), 2);
    ended(&connect(&["user@127.0.0.1", "--via", "carrier-pigeon"]), 2);
    ended(&connect(&["user@host:notaport"]), 2);
}

#[test]
fn the_demo_ends_well_and_leaves_nothing() {
    let state = tempfile::tempdir().unwrap();
    // How much of the story this machine can show depends on root and sshd; it has to end well in any case.
    let mut command = farlun(state.path());
    command.args(["demo", "--mib", "8"]).env("TMPDIR", state.path());
    let said = ended(&command.output().unwrap(), 0);
    assert!(
        said.contains("the checksums agree") && said.contains("demo: ok, 8 MiB"),
        "{said}"
    );
    let left: Vec<_> = std::fs::read_dir(state.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}

#[test]
fn checking_finds_what_is_in_the_way() {
    let state = tempfile::tempdir().unwrap();
    let there = |name: &str| state.path().join(name);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::fs::write(there("socket"), "precious").unwrap();
    std::fs::File::create(there("a.img")).unwrap().set_len(1 << 20).unwrap();
    std::os::unix::fs::symlink(there("a.img"), there("b.img")).unwrap();
    let text = format!(
        "[[target]]\nname = \"iqn.2026-11.com.example:disk\"\n[[target.lun]]\nlun = 0\nfile = \"a.img\"\n\
         [[target.lun]]\nlun = 1\nfile = \"b.img\"\n[[portal]]\nlisten = \"127.0.0.1:{port}\"\n\
         [tunnel]\nsocket = \"socket\"\n"
    );
    std::fs::write(there("farlun.toml"), text).unwrap();
    let check = || {
        farlun(state.path())
            .args(["serve", "--check"])
            .arg(there("farlun.toml"))
            .output()
            .unwrap()
    };
    let said = ended(&check(), 2);
    for part in ["is taken by", "are the same: one LUN each", "is not a socket"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert!(!said.contains("already open as a LUN"), "{said}");
    assert!(!there("socket.lock").exists());
}

#[test]
fn forwarding_to_the_world_is_refused_before_any_login() {
    let state = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let said = farlun(state.path())
        .args([
            "connect",
            "--via",
            "forward",
            "--listen",
            "0.0.0.0:3260",
            "--port",
            &port,
            "127.0.0.1",
        ])
        .output()
        .unwrap();
    let said = ended(&said, 2);
    assert!(said.contains("listens on loopback only, not on 0.0.0.0:3260"), "{said}");
    assert!(listener.accept().is_err(), "nobody connected");
}
