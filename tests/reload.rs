//! A daemon whose configuration file changes while it serves.

mod support;

use std::time::Duration;

use rustix::process::Signal;

use support::farlun;
use support::place::{DISK, OTHER, Place, free_address, has, soon};

#[test]
fn temporary_changes_leave_the_file_alone_and_end_with_a_reload() {
    let place = Place::new("");
    let before = place.text();
    place.says(0, &["lun", "create", DISK, "--memory", "1MiB", "--temporary"]);
    assert_eq!(place.text(), before);
    assert_eq!(place.json(&["status"])["temporary_changes"], true);
    // The file would have another size than the next start expects.
    let said = place.says(2, &["lun", "resize", DISK, "0", "16MiB", "--temporary"]);
    has(&said, &["cannot be temporary"]);
    assert_eq!(place.path("a.img").metadata().unwrap().len(), 8 << 20);
    // A change that is to stay does not make the others stay.
    place.says(0, &["target", "set", OTHER, "--alias", "second"]);
    has(&place.text(), &["alias = \"second\""]);
    assert!(!place.text().contains("lun = 1"));
    assert_eq!(place.json(&["status"])["luns"], 3);
    has(
        &place.says(0, &["reload", "--dry-run"]),
        &["- LUN 1 of", "needs --force"],
    );
    has(&place.says(4, &["reload"]), &["memory", "--force"]);
    place.says(0, &["reload", "--force"]);
    assert_eq!(place.json(&["status"])["luns"], 2);
    has(&place.says(0, &["reload"]), &["nothing has changed"]);
}

#[test]
fn a_file_that_was_changed_is_read_anew_when_told_or_by_sighup() {
    let place = Place::new("");
    let added = free_address();
    let changed = place.text().replace("8MiB", "16MiB") + &format!("[[portal]]\nlisten = \"{added}\"\ngroup = 2\n");
    place.write(&changed);
    has(
        &place.says(2, &["lun", "create", DISK, "--memory", "1MiB"]),
        &["was changed since", "farlun reload"],
    );
    let said = place.says(0, &["reload", "--dry-run"]);
    has(&said, &["8 MiB to 16 MiB", &format!("+ portal {added} (group 2)")]);
    assert_eq!(place.path("a.img").metadata().unwrap().len(), 8 << 20);
    place.signal(Signal::HUP);
    soon("the LUN is larger", || {
        place.path("a.img").metadata().unwrap().len() == 16 << 20
    });
    soon("the portal is there", || std::net::TcpStream::connect(added).is_ok());
    place.says(0, &["probe", &format!("iscsi://{added}/{DISK}/0")]);

    // A file that is wrong is refused as a whole.
    let wrong = changed.replace("16MiB", "32MiB").replace("group = 2", "group = 0");
    place.write(&wrong);
    has(&place.says(2, &["reload"]), &["farlun.toml:", "group = 0"]);
    place.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(place.path("a.img").metadata().unwrap().len(), 16 << 20);
    place.write("= nonsense");
    place.says(2, &["reload"]);

    // The portal goes again; limits are for connections to come, and memory takes a restart.
    let limits = "[limits]\nabort_wait_ms = 600\nwindow_memory_bytes = 100000000\n";
    place.write(&(place_text_without(&changed, "[[portal]]\nlisten = ", 2) + limits));
    let said = place.says(0, &["reload"]);
    has(
        &said,
        &[
            "- portal",
            "~ limits",
            "window_memory_bytes: after a restart",
            "started again",
        ],
    );
    soon("the portal is gone", || std::net::TcpStream::connect(added).is_err());
    place.says(0, &["probe", &format!("iscsi://{}/{DISK}/0", place.portal)]);
    let (code, _) = place.stopped();
    assert_eq!(code, Some(0));
}

/// A text up to the `n`th place where `mark` is.
fn place_text_without(text: &str, mark: &str, n: usize) -> String {
    let (at, _) = text.match_indices(mark).nth(n - 1).unwrap();
    text[..at].to_owned()
}

#[test]
fn what_is_in_the_way_of_itself_goes_first() {
    let place = Place::new("");
    std::fs::File::create(place.path("b.img"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    // The portal's group is another one; LUN 0's file moves to the other target, and another takes its place.
    let text = place.text();
    let moved = text
        .replace("a.img\"   # sparse\n  size = \"8MiB\"", "b.img\"")
        .replace(
            "memory = \"1MiB\"",
            "memory = \"1MiB\"\n[[target.lun]]\nlun = 1\nfile = \"a.img\"",
        )
        + "group = 5\n";
    place.write(&moved);
    let said = place.says(0, &["reload"]);
    has(&said, &["opened anew for medium", "+ LUN 1 of", "(group 5)"]);
    has(&place.says(0, &["status"]), &["group 5"]);
    assert_eq!(place.json(&["lun", "show", OTHER, "1"])["size_bytes"], 8 << 20);
    assert_eq!(place.json(&["lun", "show", DISK, "0"])["size_bytes"], 1 << 20);
    place.says(0, &["probe", &format!("iscsi://{}/{OTHER}/1", place.portal)]);
    // What turns out to be wrong only when the LUN before has gone: that one comes back.
    let thick = moved.replace("lun = 1\nfile", "lun = 2\nprovisioning = \"thick\"\nfile");
    assert_ne!(thick, moved);
    place.write(&thick);
    has(&place.says(1, &["reload"]), &["nothing was changed", "LUN 2"]);
    assert_eq!(place.json(&["lun", "show", OTHER, "1"])["size_bytes"], 8 << 20);
    place.says(2, &["lun", "show", OTHER, "2"]);
    place.says(0, &["probe", &format!("iscsi://{}/{OTHER}/1", place.portal)]);
    // And back, with one more that cannot be: everything is as it was.
    let taken = free_address();
    let listener = std::net::TcpListener::bind(taken).unwrap();
    place.write(&(text.clone() + &format!("[[portal]]\nlisten = \"{taken}\"\n")));
    place.says(1, &["reload", "--force"]);
    assert_eq!(place.json(&["lun", "show", OTHER, "1"])["size_bytes"], 8 << 20);
    drop(listener);
    place.says(0, &["reload", "--force"]);
    assert_eq!(place.json(&["lun", "show", DISK, "0"])["size_bytes"], 8 << 20);
    place.says(0, &["probe", &format!("iscsi://{taken}/{DISK}/0")]);
}

#[test]
fn a_change_that_fails_half_way_is_taken_back() {
    let place = Place::new("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let before = place.text();
    let asked = before.replace("8MiB", "16MiB").replace(
        "[[portal]]",
        &format!(
            "[[target]]\nname = \"iqn.2026-11.com.example:new\"\n[[target.lun]]\nlun = 0\nfile = \"new.img\"\n\
             size = \"1MiB\"\n[[portal]]\nlisten = \"{}\"\n[[portal]]",
            taken.local_addr().unwrap()
        ),
    );
    place.write(&asked);
    has(&place.says(1, &["reload"]), &["is taken by"]);
    assert!(!place.path("new.img").exists());
    assert_eq!(place.path("a.img").metadata().unwrap().len(), 8 << 20);

    // One that is found out when half of it is done: a file system that cannot hold the new size.
    let asked = before.replace("8MiB", "8000000TiB").replace(
        "[[portal]]",
        "[[target]]\nname = \"iqn.2026-11.com.example:new\"\n[[target.lun]]\nlun = 0\nfile = \"new.img\"\n\
         size = \"1MiB\"\n[[portal]]",
    );
    place.write(&asked);
    has(&place.says(1, &["reload"]), &["nothing was changed", "LUN 0"]);
    assert!(!place.path("new.img").exists());
    assert_eq!(place.json(&["status"])["targets"], 2);
    place.write(&before);
    has(&place.says(0, &["reload"]), &["nothing has changed"]);
    // The same by a command: the file is put back.
    place.says(1, &["lun", "resize", DISK, "0", "8000000TiB"]);
    assert_eq!(place.text(), before);
}

#[test]
fn a_crash_at_any_moment_leaves_a_file_that_is_right() {
    let mut place = Place::new("");
    for round in 0..6_u64 {
        let mut edits = Vec::new();
        for number in 0..4 {
            let mut command = farlun(place.home.path());
            let lun = (1 + round * 10 + number).to_string();
            let file = place.path(&format!("{lun}.img"));
            command
                .args(["lun", "create", DISK, &lun, "--size", "1MiB", "--file"])
                .arg(file);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            edits.push(command.spawn().unwrap());
        }
        std::thread::sleep(Duration::from_millis(3 + 7 * round));
        place.signal(Signal::KILL);
        place.server.take().unwrap().child.wait().unwrap();
        for mut edit in edits {
            edit.wait().unwrap();
        }
        let text = place.text();
        has(&text, &["# disks of the house", "# sparse", "[[portal]]"]);
        // Every LUN in it is there, or would be made.
        place.says(0, &["serve", "--check", place.file().to_str().unwrap()]);
        place = place.started();
        let in_file = place.text().matches("[[target.lun]]").count();
        assert_eq!(place.json(&["status"])["luns"], in_file);
    }
}

#[test]
fn what_cannot_be_put_back_is_offline_and_can_be_mended() {
    let place = Place::new("");
    let file = place.path("b.img");
    place.says(
        0,
        &[
            "lun",
            "create",
            DISK,
            "--file",
            file.to_str().unwrap(),
            "--size",
            "1MiB",
        ],
    );
    // So that its serial numbers stand in the file.
    let (now, next) = (format!("{DISK}-1"), format!("{DISK}-2"));
    place.says(0, &["target", "rename", DISK, &now]);
    let before = place.text();
    let asked = before.replace(&now, &next).replace("\"1MiB\"", "\"8000000TiB\"");
    let asked = asked.replacen("file = \"a.img\"", "offline = true\n  file = \"a.img\"", 1);
    place.write(&asked.replace("memory = \"8000000TiB\"", "memory = \"1MiB\""));
    // It is open, and would not be found again.
    std::fs::rename(place.path("a.img"), place.path("away.img")).unwrap();
    has(&place.says(1, &["reload"]), &["stays offline", "not everything"]);
    assert_eq!(place.json(&["status"])["luns_offline"], 1);
    assert_eq!(place.json(&["lun", "show", &now, "0"])["online"], false);
    assert_eq!(place.json(&["lun", "show", &now, "1"])["online"], true);
    std::fs::rename(place.path("away.img"), place.path("a.img")).unwrap();
    place.write(&before);
    has(&place.says(0, &["reload"]), &["~ LUN 0 of", "online"]);
    assert_eq!(place.json(&["status"])["luns_offline"], 0);
}
