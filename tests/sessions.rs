//! Sessions, and what they notice of changes.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use initiator::{Lun, Session, Transfer};
use rustix::process::Signal;
use tokio::net::TcpStream;

use support::place::{DISK, HOME, OTHER, Place, free_address, has, soon};
use support::{LIMIT, farlun};

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
    // Who came without a secret does not stay when one is asked for.
    let text = place.text();
    let open = text.replace("auth = \"chap\"\nusers = [\"anna\"]\nmutual = \"disk\"\n", "");
    let open = open.replace("users = [\"anna\"]\n", "");
    assert_ne!(open, text);
    place.write(&open);
    place.says(0, &["reload"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut session = runtime.block_on(place.log_in(DISK, HOME)).unwrap();
    place.write(&text);
    has(&place.says(4, &["reload"]), &[HOME, "may log in to", "no more"]);
    place.says(0, &["reload", "--force"]);
    assert!(runtime.block_on(session.nop(&b"still there?"[..])).is_err());
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
    // Who has a secret offers it at once: a login that is refused counts against its initiator. Two had none.
    assert_eq!(log.matches("no common authentication method").count(), 2, "{log}");
    for secret in ["the secret of anna", "another secret", "secret of the disk"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_not_taken_from_a_session_without_a_word() {
    let place = Place::new("");
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    let away = ["target", "set", DISK, "--portal-group", "2"];
    has(&place.says(4, &away), &[HOME, "portal group 1", "--force"]);
    place.says(0, &["target", "set", OTHER, "--portal-group", "2"]);
    place.says(0, &[&away[..], &["--portal-group", "1"]].concat());
    place.says(0, &[&away[..], &["--force"]].concat());
    // What has begun goes on.
    session.nop(&b"still there?"[..]).await.unwrap();
    assert!(place.log_in(DISK, HOME).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_others_fill_is_told_of() {
    let place = Place::new("");
    let text = place.text();
    place.write(&text.replace("file = \"a.img\"", "thin_threshold_percent = 1\n  file = \"a.img\""));
    place.says(0, &["reload"]);
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    // More than a percent in use, whatever else there is.
    let space = rustix::fs::statvfs(place.home.path()).unwrap();
    if space.f_bavail * 50 > space.f_blocks * 49 {
        let filler = std::fs::File::create(place.path("filler")).unwrap();
        let size = space.f_blocks * space.f_frsize / 25;
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    }
    let start = Instant::now();
    loop {
        // SBC-4 4.7.3.8: THIN PROVISIONING SOFT THRESHOLD REACHED.
        let outcome = session.test_unit_ready(Lun::from_number(0)).await.unwrap();
        if format!("{outcome:?}").contains("38/07") {
            break;
        }
        assert!(start.elapsed() < LIMIT, "nobody was told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn reservations_that_are_to_survive_a_restart_do() {
    let mut place = Place::new("");
    let lun = Lun::from_number(0);
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    // PERSISTENT RESERVE OUT, REGISTER (SPC-5 6.16): the new key at 8, APTPL in byte 20.
    let mut list = [0_u8; 24];
    list[8..16].copy_from_slice(b"ours1234");
    list[20] = 0x01;
    let register: [u8; 16] = [0x5f, 0x00, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0];
    let transfer = || Transfer::Out(list.to_vec().into());
    // The first may meet a unit attention.
    let mut outcome = session.scsi(lun, register, transfer()).await.unwrap();
    if outcome.status != 0 {
        outcome = session.scsi(lun, register, transfer()).await.unwrap();
    }
    assert_eq!(outcome.status, 0, "{outcome:?}");
    session.logout().await.unwrap();
    assert_eq!(place.server.take().unwrap().stop(Signal::TERM).0, Some(0));
    let mut place = place.started();
    let keys = read_keys(&place).await;
    assert_eq!(keys.get(8..16), Some(&b"ours1234"[..]), "{keys:?}");
    // A disk that is made anew has none.
    assert_eq!(place.server.take().unwrap().stop(Signal::TERM).0, Some(0));
    std::fs::remove_file(place.path("a.img")).unwrap();
    let keys = read_keys(&place.started()).await;
    assert_eq!(keys.get(4..8), Some(&[0; 4][..]), "{keys:?}");
}

/// PERSISTENT RESERVE IN, READ KEYS (SPC-5 6.15.2).
async fn read_keys(place: &Place) -> Vec<u8> {
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    let cdb: [u8; 16] = [0x5e, 0x00, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let lun = Lun::from_number(0);
    let mut outcome = session.scsi(lun, cdb, Transfer::In(256)).await.unwrap();
    // The first may meet a unit attention.
    if outcome.status != 0 {
        outcome = session.scsi(lun, cdb, Transfer::In(256)).await.unwrap();
    }
    session.logout().await.unwrap();
    outcome.data.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lun_that_comes_with_rules_is_never_seen_without_them() {
    let place = Place::new("");
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    let text = place.text();
    let rule = |who: &str| {
        let lun = format!(
            "  [[target.lun]]\n  lun = 1\n  memory = \"1MiB\"\n  [[target.lun.allow]]\n  initiators = [\"{who}\"]\n"
        );
        text.replacen(
            "\n[[target]]\nname = \"iqn.2026-11.com.example:other\"",
            &format!("\n{lun}\n[[target]]\nname = \"{OTHER}\""),
            1,
        )
    };
    let (mine, others) = (rule(HOME), rule("*:elsewhere"));
    assert_ne!(mine, text);
    let stop = Arc::new(AtomicBool::new(false));
    let watching = Arc::clone(&stop);
    let watch = tokio::spawn(async move {
        let mut seen = 0;
        while !watching.load(Ordering::Relaxed) {
            seen += usize::from(session.report_luns().await.unwrap().len() > 1);
        }
        (session, seen)
    });
    for _ in 0..10 {
        place.write(&others);
        place.says(0, &["reload"]);
        place.write(&text);
        place.says(0, &["reload", "--force"]);
    }
    stop.store(true, Ordering::Relaxed);
    let (mut session, seen) = watch.await.unwrap();
    assert_eq!(seen, 0, "it is for others");
    place.write(&mine);
    place.says(0, &["reload"]);
    assert_eq!(session.report_luns().await.unwrap().len(), 2);
    // A rule that changes is at stake for those who lose by it.
    place.write(&others);
    has(&place.says(4, &["reload"]), &[HOME, "loses LUN 1"]);
    place.says(0, &["reload", "--force"]);
    assert_eq!(session.report_luns().await.unwrap().len(), 1);
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_in_use_is_renamed_by_force_only_and_its_session_goes_on() {
    let place = Place::new("");
    let mut session = place.log_in(DISK, HOME).await.unwrap();
    let new = "iqn.2026-11.com.example:renamed";
    has(
        &place.says(4, &["target", "rename", DISK, new]),
        &[HOME, "log in", "--force"],
    );
    place.says(0, &["target", "show", DISK]);
    place.says(0, &["target", "rename", DISK, new, "--force"]);
    assert_eq!(session.report_luns().await.unwrap().len(), 1);
    assert!(place.log_in(DISK, HOME).await.is_err(), "by the old name");
    let second = place.log_in(new, HOME).await.unwrap();
    second.logout().await.unwrap();
    session.logout().await.unwrap();
}
