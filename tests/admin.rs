//! A daemon that is changed while it serves, by the subcommands.

mod support;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use support::place::{DISK, OTHER, Place, has};
use support::{LIMIT, Server, ended, farlun};

#[test]
fn what_there_is_is_shown_to_people_and_to_programs() {
    let place = Place::new("");
    has(
        &place.says(0, &["status"]),
        &[
            "configuration: ",
            "targets: 2, LUNs: 2, sessions: 0",
            "portal 127.0.0.1:",
        ],
    );
    assert_eq!(place.json(&["status"])["luns"], 2);
    has(&place.says(0, &["target", "list"]), &[DISK, OTHER, "AUTH"]);
    let shown = place.says(0, &["target", "show", &DISK.to_uppercase().replace("IQN", "iqn")]);
    has(&shown, &["no authentication", "a.img", "8.00 MiB"]);
    has(&place.says(0, &["lun", "list"]), &["a.img", "memory"]);
    has(
        &place.says(0, &["lun", "show", DISK, "0"]),
        &["online", "serial: ", "write-back"],
    );
    has(&place.says(0, &["session", "list"]), &["nobody is logged in"]);
    assert_eq!(place.json(&["session", "list"])["sessions"], serde_json::json!([]));
    // What is not there, and whom to ask.
    has(
        &place.says(2, &["target", "show", "iqn.2026-11.com.example:no"]),
        &["target list"],
    );
    has(&place.says(2, &["lun", "show", DISK, "9"]), &["lun list"]);
    has(&place.says(2, &["session", "show", "9"]), &["session list"]);
    has(
        &place.says(2, &["session", "list", "iqn.2026-11.com.example:no"]),
        &["target list"],
    );
    let shown = place.json(&["lun", "show", DISK, "0"]);
    assert_eq!(shown["path"], place.path("a.img").to_str().unwrap());
    let nowhere = place.path("nowhere.sock");
    let said = place.says(3, &["status", "--control", nowhere.to_str().unwrap()]);
    has(&said, &["no farlun serves at", "--control"]);
    let mode = place.path("control.sock").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
}

#[test]
fn luns_and_targets_come_change_and_go_and_the_file_follows() {
    let place = Place::new("[limits]\nidle_ping_ms = 30000   # patient\n");
    let before = place.text();
    let said = place.says(
        0,
        &["lun", "create", DISK, "--file", "b.img", "--size", "1MiB", "--dry-run"],
    );
    has(&said, &["+ LUN 1 of", "b.img"]);
    assert_eq!(place.text(), before);
    assert!(!place.path("b.img").exists());
    let nowhere = [
        "lun",
        "create",
        DISK,
        "--file",
        "none/b.img",
        "--size",
        "1MiB",
        "--dry-run",
    ];
    has(&place.says(2, &nowhere), &["does not exist", "mkdir"]);
    assert_eq!(place.text(), before);

    // What a daemon leaves that is killed while it makes a file is no disk, and in nobody's way.
    std::fs::File::create(place.path("b.img")).unwrap();
    place.says(
        0,
        &[
            "lun",
            "create",
            DISK,
            "--file",
            "b.img",
            "--size",
            "1MiB",
            "--iops-max",
            "1000",
        ],
    );
    assert_eq!(place.path("b.img").metadata().unwrap().len(), 1 << 20);
    let text = place.text();
    has(
        &text,
        &[
            "# disks of the house",
            "# the first",
            "# sparse",
            "# patient",
            "  lun = 1\n",
            "iops_max = 1000",
        ],
    );
    let said = place.says(0, &["lun", "resize", DISK, "1", "3MiB"]);
    has(&said, &["1 MiB to 3 MiB"]);
    assert_eq!(place.path("b.img").metadata().unwrap().len(), 3 << 20);
    has(
        &place.says(4, &["lun", "resize", DISK, "1", "2MiB"]),
        &["--force", "2 MiB"],
    );
    assert_eq!(place.path("b.img").metadata().unwrap().len(), 3 << 20);
    place.says(0, &["lun", "resize", DISK, "1", "2MiB", "--force"]);
    assert_eq!(place.path("b.img").metadata().unwrap().len(), 2 << 20);
    has(&place.text(), &["size = \"2MiB\""]);
    place.says(0, &["lun", "resize", OTHER, "0", "2MiB"]);
    assert_eq!(place.json(&["lun", "show", OTHER, "0"])["size_bytes"], 2 << 20);

    place.says(0, &["lun", "set", DISK, "1", "--read-only"]);
    assert_eq!(place.json(&["lun", "show", DISK, "1"])["read_only"], true);
    place.says(0, &["lun", "set", DISK, "1", "--read-only", "false", "--iops-max", "0"]);
    let lun = place.json(&["lun", "show", DISK, "1"]);
    assert_eq!(
        (&lun["read_only"], &lun["iops_max"]),
        (&false.into(), &serde_json::Value::Null)
    );

    let serial = place.json(&["lun", "show", DISK, "0"])["serial"].clone();
    let new = "iqn.2026-11.com.example:renamed";
    place.says(0, &["target", "rename", DISK, new]);
    assert_eq!(
        place.json(&["lun", "show", new, "0"])["serial"],
        serial,
        "still the same disk"
    );
    has(&place.says(2, &["target", "rename", new, OTHER]), &["already"]);
    place.says(0, &["target", "rename", new, DISK]);

    let third = "iqn.2026-11.com.example:third";
    place.says(
        0,
        &["target", "create", third, "--memory", "1MiB", "--alias", "the third"],
    );
    has(&place.says(0, &["target", "show", third]), &["the third", "1.00 MiB"]);
    place.says(0, &["target", "set", third, "--alias", "", "--tunnel-only"]);
    let shown = place.json(&["target", "show", third]);
    assert_eq!(
        (&shown["alias"], &shown["tunnel_only"]),
        (&serde_json::Value::Null, &true.into())
    );
    has(&place.says(4, &["target", "remove", third]), &["memory", "--force"]);
    place.says(0, &["target", "remove", third, "--force"]);
    has(&place.says(0, &["lun", "remove", DISK, "1"]), &["b.img stays as it is"]);
    assert!(place.path("b.img").exists());

    // What cannot be is refused with its reason, and nothing is changed.
    let before = place.text();
    for (words, part) in [
        (&["lun", "create", DISK, "0", "--memory", "1MiB"][..], "already"),
        (&["lun", "create", DISK, "--memory", "1 parsec"], "is not a size"),
        (&["lun", "create", DISK, "--file", "c.img"], "add size"),
        (&["lun", "create", DISK, "--file", "a.img"], "another LUN's already"),
        (&["lun", "create", DISK, "--memory", "1000"], "whole number"),
        (&["lun", "create", DISK], "needs a medium"),
        (
            &["lun", "create", "iqn.2026-11.com.example:no", "--memory", "1MiB"],
            "target list",
        ),
        (&["lun", "resize", DISK, "0"], "name the size"),
        (&["lun", "remove", DISK, "7"], "lun list"),
        (&["target", "create", "my disk"], "iqn.YEAR-MONTH"),
        (&["target", "set", DISK, "--auth", "chap"], "who may log in"),
        (&["target", "set", DISK, "--auth", "chap", "--user", "eve"], "no user"),
    ] {
        has(&place.says(2, words), &[part]);
    }
    assert_eq!(place.text(), before);
    assert_eq!(place.json(&["status"])["luns"], 2);

    // What is in the file is what a restart serves.
    let (code, log) = { place }.stopped();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn whatever_is_said_at_the_socket_the_daemon_goes_on() {
    let place = Place::new("");
    let socket = place.path("control.sock");
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // The daemon may hang up before it has heard it all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    has(&say(b"GET / HTTP/1.1\r\n\r\n"), &["error", "no request"]);
    has(&say(&[0xff; 300]), &["error"]);
    has(&say(&[b'['; 100_000]), &["one line of at most"]);
    has(&say(b"{\"version\":9,\"do\":{}}\n"), &["version 1"]);
    has(
        &say(b"{\"version\":1,\"do\":{\"status\":{}}}\n"),
        &["\"ok\"", "\"pid\""],
    );
    assert_eq!(say(b""), "");
    // Clients that say nothing take no place for ever, and none from each other up to a bound.
    let _silent: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    place.says(0, &["status"]);
    // Paths and names that are none.
    has(
        &place.says(
            2,
            &[
                "lun",
                "create",
                DISK,
                "--file",
                "a\n[limits]\n.img",
                "--size",
                "1MiB",
                "--serial",
                "\u{1}",
            ],
        ),
        &["printable"],
    );
    assert_eq!(place.json(&["status"])["luns"], 2);
}

#[test]
fn without_a_file_only_temporary_changes_can_be_made() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(farlun(home.path()).args(["serve", "--listen", "127.0.0.1:0"]));
    let target = server.after("target ").to_owned();
    let run = |code: i32, words: &[&str]| ended(&farlun(home.path()).args(words).output().unwrap(), code);
    has(
        &run(2, &["lun", "create", &target, "--memory", "1MiB"]),
        &["--temporary"],
    );
    run(0, &["lun", "create", &target, "--memory", "1MiB", "--temporary"]);
    has(&run(0, &["lun", "list"]), &["lun0.img", "memory"]);
    has(&run(2, &["reload"]), &["without a configuration file"]);
    // There is nothing to read anew: the terminal is gone.
    assert_eq!(server.stop(Signal::HUP).0, Some(0));
}

#[test]
fn what_is_on_the_machine_is_not_taken_from_it() {
    // The state directory holds what outlives the daemon, and the socket goes with it.
    let place = Place::new("");
    assert!(place.path("control.sock").exists());
    let state = place.path("farlun/reservations").metadata().unwrap();
    assert_eq!(state.permissions().mode() & 0o077, 0);
    let home = place.home.path().to_owned();
    let Place {
        home: _kept,
        mut server,
        ..
    } = place;
    assert_eq!(server.take().unwrap().stop(Signal::INT).0, Some(0));
    assert!(!home.join("control.sock").exists());
}

#[test]
fn two_daemons_do_not_share_the_reservations_of_disks_with_one_serial_number() {
    let place = Place::new("");
    let kept = place.path("farlun/reservations");
    let names = || {
        let found = std::fs::read_dir(&kept).unwrap();
        let mut names: Vec<_> = found.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    // The same names in another file, with disks of its own.
    let second = place.path("second.toml");
    let portal = support::place::free_address();
    let text = place.text().replace("a.img", "b.img");
    let text = text.replace(&place.portal.to_string(), &portal.to_string());
    let control = place.path("second.sock");
    let serve = |text: &str, more: &[&str]| {
        std::fs::write(&second, text).unwrap();
        let mut command = farlun(place.home.path());
        command
            .arg("serve")
            .args(more)
            .arg(&second)
            .arg("--control")
            .arg(&control);
        command
    };
    for more in [&["--check"][..], &[]] {
        let said = ended(&serve(&text, more).output().unwrap(), 1);
        has(&said, &["second.toml:6: ", "serial number", "set another serial"]);
        assert!(!place.path("b.img").exists() && names() == before, "{said}");
    }
    let own = text.replace("file = \"b.img\"", "serial = \"own\"\n  file = \"b.img\"");
    let server = Server::start(&mut serve(&own, &[]));
    assert!(kept.join("own.lock").exists());
    drop(server);
}
