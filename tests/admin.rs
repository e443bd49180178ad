//! A daemon that is changed while it serves, by the subcommands and by its file.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use initiator::{Error, LoginOptions, Lun, Session};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;

use support::{LIMIT, Server, ended, farlun};

const DISK: &str = "iqn.2026-11.com.example:disk";
const OTHER: &str = "iqn.2026-11.com.example:other";
const HOME: &str = "iqn.2026-11.com.example:home";

/// A daemon with a configuration file, in a directory of its own.
struct Place {
    home: TempDir,
    server: Option<Server>,
    portal: SocketAddr,
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Place {
    /// A disk of two LUNs and another of one; `more` at the end of the file.
    fn new(more: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let portal = free_address();
        let place = Self {
            home,
            server: None,
            portal,
        };
        place.write(&format!(
            "# disks of the house\n[[target]]\nname = \"{DISK}\"   # the first\n  [[target.lun]]\n  lun = 0\n  \
             file = \"a.img\"   # sparse\n  size = \"8MiB\"\n\n[[target]]\nname = \"{OTHER}\"\n  [[target.lun]]\n  \
             lun = 0\n  memory = \"1MiB\"\n\n[[portal]]\nlisten = \"{portal}\"\n{more}"
        ));
        place.started()
    }

    fn started(mut self) -> Self {
        let server = Server::start(farlun(self.home.path()).arg("serve").arg(self.file()));
        self.server = Some(server);
        self
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("farlun.toml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What a command says that ends with this code.
    #[track_caller]
    fn says(&self, code: i32, words: &[&str]) -> String {
        let mut command = farlun(self.home.path());
        ended(
            &command.current_dir(self.home.path()).args(words).output().unwrap(),
            code,
        )
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> serde_json::Value {
        let said = self.says(0, &[words, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server.as_ref().unwrap().child), signal).unwrap();
    }

    async fn log_in(&self, target: &str, who: &str) -> Result<Session<TcpStream>, Error> {
        let stream = initiator::connect("127.0.0.1", self.portal.port(), 5_000).await?;
        Session::login(stream, &LoginOptions::new(who, Some(target))).await
    }
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// Tries again until it is true.
#[track_caller]
fn soon(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LIMIT, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

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

impl Place {
    fn stopped(mut self) -> (Option<i32>, String) {
        let stopped = self.server.take().unwrap().stop(Signal::TERM);
        let said = self.says(0, &["serve", "--check", self.file().to_str().unwrap()]);
        has(&said, &["the configuration is right"]);
        stopped
    }
}

#[test]
fn temporary_changes_leave_the_file_alone_and_end_with_a_reload() {
    let place = Place::new("");
    let before = place.text();
    place.says(0, &["lun", "create", DISK, "--memory", "1MiB", "--temporary"]);
    assert_eq!(place.text(), before);
    assert_eq!(place.json(&["status"])["temporary_changes"], true);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_lun_is_taken_offline_only_when_nobody_has_it_and_is_then_free() {
    let place = Place::new("");
    let lock = |place: &Place| {
        let file = std::fs::File::open(place.path("a.img")).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    };
    let session = place.log_in(DISK, HOME).await.unwrap();
    has(&place.says(1, &["lun", "offline", DISK, "0"]), &["in use by", HOME]);
    has(&place.says(4, &["lun", "remove", DISK, "0"]), &[HOME, "--force"]);
    has(&place.says(4, &["target", "remove", DISK]), &[HOME, "--force"]);
    has(
        &place.says(4, &["lun", "set", DISK, "0", "--read-only"]),
        &[HOME, "write"],
    );
    assert!(!place.text().contains("offline"), "{}", place.text());
    assert!(!lock(&place));
    session.logout().await.unwrap();
    soon("offline", || {
        farlun(place.home.path())
            .args(["lun", "offline", DISK, "0"])
            .output()
            .unwrap()
            .status
            .success()
    });
    assert!(lock(&place), "the file is closed");
    has(&place.text(), &["offline = true"]);
    has(&place.says(0, &["lun", "list", DISK]), &["offline"]);
    has(
        &place.says(2, &["lun", "resize", DISK, "0", "16MiB"]),
        &["offline", "lun online"],
    );
    // It is there for initiators, and not ready.
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    assert_eq!(session.report_luns().await.unwrap(), [Lun::from_number(0)]);
    assert!(session.read_capacity16(Lun::from_number(0)).await.is_err());
    // What is no more where it was does not come back as an empty disk.
    std::fs::rename(place.path("a.img"), place.path("moved.img")).unwrap();
    has(&place.says(2, &["lun", "online", DISK, "0"]), &["is not there"]);
    std::fs::rename(place.path("moved.img"), place.path("a.img")).unwrap();
    place.says(0, &["lun", "online", DISK, "0"]);
    assert!(!lock(&place) && !place.text().contains("offline"));
    assert_eq!(
        session.read_capacity16(Lun::from_number(0)).await.unwrap().blocks,
        16384
    );
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_dropped() {
    let place = Place::new("");
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    session
        .write16(Lun::from_number(0), 0, 512, vec![7; 65536], false)
        .await
        .unwrap();
    let listed = place.json(&["session", "list"]);
    let found = &listed["sessions"][0];
    assert_eq!((&found["target"], &found["initiator"]), (&DISK.into(), &HOME.into()));
    assert_eq!(found["way"], "network");
    assert!(found["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(found["since_unix_s"].as_u64().unwrap() > 1_700_000_000);
    let number = found["tsih"].to_string();
    has(&place.says(0, &["session", "list"]), &[HOME, "P50 / P99 / MAX"]);
    has(&place.says(0, &["session", "list", OTHER]), &["nobody"]);
    let shown = place.says(0, &["session", "show", &number]);
    has(
        &shown,
        &["MaxBurstLength=", "FirstBurstLength=", "HeaderDigest=None", HOME],
    );
    has(&place.says(0, &["session", "drop", &number]), &["- session", HOME]);
    soon("it is gone", || place.json(&["status"])["sessions"] == 0);
    assert!(session.nop(&b"still there?"[..]).await.is_err());
    has(&place.says(2, &["session", "drop", &number]), &["session list"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_goes_asks_its_sessions_to_leave_and_no_others() {
    let place = Place::new("");
    let mut stays = place.log_in(OTHER, HOME).await.unwrap();
    let mut goes = place.log_in(DISK, HOME).await.unwrap();
    let asked = tokio::spawn(async move {
        // It hears the request, and does not obey.
        let _ = goes.idle(Duration::from_secs(10)).await;
        goes.notices()
    });
    let start = Instant::now();
    place.says(0, &["target", "remove", DISK, "--force"]);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let notices = asked.await.unwrap();
    assert!(!notices.is_empty(), "an asynchronous message (RFC 7143 §11.9)");
    assert!(place.log_in(DISK, HOME).await.is_err());
    stays.nop(&b"here"[..]).await.unwrap();
    assert_eq!(place.json(&["status"])["sessions"], 1);
    stays.logout().await.unwrap();
}

/// Reads and writes until told to stop; the longest that took.
async fn keep_busy(mut session: Session<TcpStream>, stop: Arc<AtomicBool>) -> (u64, Duration) {
    let lun = Lun::from_number(0);
    let (mut rounds, mut longest) = (0_u64, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let data = vec![rounds as u8; 8192];
        // Unit attentions are what the initiator repeats by itself; anything else is an error here.
        session
            .write16(lun, rounds % 1000 * 16, 512, data.clone(), rounds % 16 == 0)
            .await
            .unwrap();
        let back = session.read16(lun, rounds % 1000 * 16, 16, 512).await.unwrap();
        assert_eq!(back, data);
        longest = longest.max(start.elapsed());
        rounds += 1;
    }
    session.logout().await.unwrap();
    (rounds, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_does_not_mind_what_comes_and_goes_beside_it() {
    let place = Place::new("");
    let session = place.log_in(DISK, HOME).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn(keep_busy(session, Arc::clone(&stop)));
    let place = tokio::task::spawn_blocking(move || {
        let third = "iqn.2026-11.com.example:third";
        for round in 0..10 {
            let size = format!("{}MiB", 8 + round);
            place.says(0, &["lun", "create", DISK, "5", "--file", "five.img", "--size", "4MiB"]);
            place.says(0, &["target", "create", third, "--memory", "4MiB"]);
            place.says(0, &["lun", "create", OTHER, "1", "--memory", "4MiB"]);
            place.says(0, &["lun", "resize", DISK, "0", &size]);
            place.says(0, &["lun", "remove", OTHER, "1", "--force"]);
            place.says(0, &["target", "remove", third, "--force"]);
            // It is seen by the session, so that takes force.
            place.says(0, &["lun", "remove", DISK, "5", "--force"]);
            std::fs::remove_file(place.path("five.img")).unwrap();
        }
        place
    })
    .await
    .unwrap();
    assert_eq!(place.json(&["status"])["sessions"], 1, "the same session all the time");
    stop.store(true, Ordering::Relaxed);
    let (rounds, longest) = busy.await.unwrap();
    assert!(rounds > 100, "{rounds} rounds");
    assert!(longest < Duration::from_secs(2), "a command took {longest:?}");
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
fn users_have_to_prove_themselves_and_rules_say_what_they_may_do() {
    let home = tempfile::tempdir().unwrap();
    for (name, secret) in [
        ("anna.secret", "the secret of anna\n"),
        ("disk.secret", "the secret of the disk\n"),
    ] {
        let path = home.path().join(name);
        std::fs::write(&path, secret).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let portal = free_address();
    let place = Place {
        home,
        server: None,
        portal,
    };
    place.write(&format!(
        "[[user]]\nname = \"anna\"\nsecret_file = \"anna.secret\"\n[[user]]\nname = \"disk\"\nsecret_file = \"disk.secret\"\n\
         [[target]]\nname = \"{DISK}\"\nauth = \"chap\"\nusers = [\"anna\"]\nmutual = \"disk\"\n\
         [[target.lun]]\nlun = 0\nmemory = \"1MiB\"\n\
         [[target.lun]]\nlun = 1\nmemory = \"1MiB\"\n[[target.lun.allow]]\ninitiators = [\"*:nobody\"]\n\
         [[target.lun]]\nlun = 2\nmemory = \"1MiB\"\n[[target.lun.allow]]\nusers = [\"anna\"]\naccess = \"read-only\"\n\
         [[portal]]\nlisten = \"{portal}\"\n"
    ));
    let place = place.started();
    let url = format!("iscsi://{portal}/{DISK}");
    has(&place.says(4, &["probe", &url]), &["--secret-file"]);
    let anna = [
        "probe",
        &url,
        "--user",
        "anna",
        "--secret-file",
        "anna.secret",
        "--count",
        "1",
    ];
    let with = |more: &[&'static str]| [&anna[..], more].concat();
    let seen: serde_json::Value = serde_json::from_str(&place.says(0, &with(&["--json"]))).unwrap();
    let luns = seen["targets"][0]["luns"].as_array().unwrap();
    assert_eq!(luns.len(), 2, "LUN 1 is not for us: {seen}");
    assert_eq!(
        (&luns[0]["read_only"], &luns[1]["read_only"]),
        (&false.into(), &true.into())
    );
    place.says(
        0,
        &with(&["--mutual-secret-file", "disk.secret", "--mutual-user", "disk"]),
    );
    std::fs::write(place.path("wrong"), "this is not it, surely").unwrap();
    std::fs::set_permissions(place.path("wrong"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let wrong = place.says(4, &["probe", &url, "--user", "anna", "--secret-file", "wrong"]);
    assert!(!wrong.contains("this is not it"), "{wrong}");
    let lying = farlun(place.home.path())
        .current_dir(place.home.path())
        .args(with(&["--mutual-secret-file", "wrong"]))
        .output()
        .unwrap();
    assert_ne!(lying.status.code(), Some(0), "a target that cannot prove itself");
    // A secret that changes holds from the next login on.
    std::fs::write(place.path("anna.secret"), "another secret of anna").unwrap();
    has(&place.says(0, &["reload", "--dry-run"]), &["secrets"]);
    std::fs::copy(place.path("anna.secret"), place.path("wrong")).unwrap();
    place.says(4, &["probe", &url, "--user", "anna", "--secret-file", "wrong"]);
    place.says(0, &["reload"]);
    place.says(0, &["probe", &url, "--user", "anna", "--secret-file", "wrong"]);
    // Discovery can take a secret, too.
    let everything = format!("iscsi://{portal}");
    place.says(0, &["probe", &everything, "--user", "anna", "--secret-file", "wrong"]);
    let text = place.text();
    place.write(&(text + "[discovery]\nauth = \"chap\"\nusers = [\"anna\"]\n"));
    has(&place.says(0, &["reload"]), &["~ discovery"]);
    place.says(4, &["probe", &everything]);
    place.says(0, &["probe", &everything, "--user", "anna", "--secret-file", "wrong"]);
    // Nobody reads secrets that anybody can.
    std::fs::set_permissions(place.path("anna.secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    has(&place.says(2, &["reload"]), &["chmod 600"]);
    has(
        &place.says(2, &["probe", &url, "--user", "anna", "--secret-file", "anna.secret"]),
        &["chmod 600"],
    );
    let (_, log) = { place }.server.take().unwrap().stop(Signal::TERM);
    for secret in ["the secret of anna", "another secret", "secret of the disk"] {
        assert!(!log.contains(secret), "{log}");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn limits_shape_and_can_change_while_they_do() {
    let place = Place::new("");
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    let lun = Lun::from_number(0);
    // Time that so many writes take, one after the other.
    let mut writes = async |count: u64| {
        let start = Instant::now();
        for lba in 0..count {
            session.write16(lun, lba * 8, 512, vec![1; 4096], false).await.unwrap();
        }
        start.elapsed()
    };
    writes(10).await;
    place.says(0, &["lun", "set", DISK, "0", "--iops-max", "100"]);
    let slow = writes(100).await;
    assert!(slow > Duration::from_millis(500), "100 commands in {slow:?}");
    place.says(0, &["lun", "set", DISK, "0", "--iops-max", "0"]);
    let free = writes(100).await;
    assert!(free < slow / 2, "{free:?} after {slow:?}");
    place.says(0, &["target", "set", DISK, "--session-bytes-per-second-max", "400KiB"]);
    let slow = writes(100).await;
    assert!(slow > Duration::from_millis(500), "400 KiB in {slow:?}");
    place.says(0, &["target", "set", DISK, "--session-bytes-per-second-max", "0"]);
    let free = writes(100).await;
    assert!(free < slow / 2, "{free:?} after {slow:?}");
    session.logout().await.unwrap();
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
