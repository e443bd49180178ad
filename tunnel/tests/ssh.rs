//! Host keys and logging in against a stock sshd.
//!
//! Needs root, `ip` and sshd.

mod support;

use std::fs::{self, Permissions};
use std::net::TcpListener as StdListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use support::{PATIENCE, Process, SERVER, SSH_PORT, World, command, eventually};
use tunnel::client::{ConnectOptions, Ways, connect};
use tunnel::ssh::known_hosts::append;
use tunnel::ssh::{HostKeyQuestion, Invoker, Prompt};

/// What comes of connecting as root by forwarding to sshd's own port: nothing but a login is needed for it.
fn log_in(world: &World, change: impl FnOnce(&mut ConnectOptions)) -> Result<(), String> {
    let mut options = world.options("root");
    options.ways = Ways::Forward;
    options.forward.listen.set_port(0);
    options.forward.remote_port = SSH_PORT;
    change(&mut options);
    let holding = world.connect(options).map_err(|error| error.to_string())?;
    holding.stop()
}

fn host_line(world: &World, key: &str) -> String {
    format!("[{SERVER}]:{SSH_PORT} {}", fs::read_to_string(world.file(key)).unwrap())
}

fn fingerprint(world: &World, key: &str) -> String {
    let said = command("ssh-keygen", &["-lf", &world.file(key).display().to_string()]);
    said.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn host_keys_known_changed_revoked_and_new() {
    let world = World::new("");
    let known_hosts = world.file("known_hosts");
    let strict = |options: &mut ConnectOptions| options.ssh.accept_new = false;

    let error = log_in(&world, strict).unwrap_err();
    assert!(
        error.contains("is not known") && error.contains(&fingerprint(&world, "hostkey.pub")),
        "{error}"
    );
    assert!(!known_hosts.exists(), "nothing is learned without consent");

    log_in(&world, |_| {}).unwrap();
    let learned = fs::read_to_string(&known_hosts).unwrap();
    assert_eq!(
        learned.split_whitespace().collect::<Vec<_>>()[..3],
        host_line(&world, "hostkey.pub").split_whitespace().collect::<Vec<_>>()[..3]
    );
    log_in(&world, strict).unwrap();
    log_in(&world, |_| {}).unwrap();
    assert_eq!(
        fs::read_to_string(&known_hosts).unwrap(),
        learned,
        "a known key is not added again"
    );

    command("ssh-keygen", &["-Hf", &known_hosts.display().to_string()]);
    assert!(fs::read_to_string(&known_hosts).unwrap().starts_with("|1|"));
    log_in(&world, strict).unwrap();

    fs::write(&known_hosts, format!("# one\n{}", host_line(&world, "stranger.pub"))).unwrap();
    let error = log_in(&world, |_| {}).unwrap_err();
    assert!(
        error.contains("HAS CHANGED") && error.contains("known_hosts:2"),
        "{error}"
    );

    let hostkey = fs::read_to_string(world.file("hostkey.pub")).unwrap();
    fs::write(
        &known_hosts,
        format!("{}@revoked * {hostkey}", host_line(&world, "hostkey.pub")),
    )
    .unwrap();
    let error = log_in(&world, |_| {}).unwrap_err();
    assert!(error.contains("REVOKED") && error.contains("known_hosts:2"), "{error}");

    let authority = format!("@cert-authority {}", host_line(&world, "stranger.pub"));
    fs::write(&known_hosts, authority).unwrap();
    let error = log_in(&world, strict).unwrap_err();
    assert!(error.contains("certificates are not supported"), "{error}");
}

#[test]
fn a_key_of_a_known_type_is_asked_for() {
    let mut world = World::new("");
    world.keygen("other", "ecdsa", "");
    world.sshd = None;
    world.sshd = Some(world.start_with_host_keys(&["hostkey", "other"]));
    fs::write(world.file("known_hosts"), host_line(&world, "other.pub")).unwrap();
    log_in(&world, |options| options.ssh.accept_new = false).unwrap();

    // The host keeps only the key of the type that is not known: somebody has to look.
    world.sshd = None;
    world.sshd = Some(world.start_with_host_keys(&["hostkey"]));
    let error = log_in(&world, |_| {}).unwrap_err();
    assert!(error.contains("known_hosts:1 has a key of another type"), "{error}");
}

#[test]
fn without_the_right_key() {
    let world = World::new("");
    let error = log_in(&world, |options| options.ssh.identities = vec![world.file("stranger")]).unwrap_err();
    assert!(error.contains(&format!("{SERVER} does not let root in")), "{error}");
    assert!(
        error.contains("stranger (SHA256:") && error.contains("refused"),
        "{error}"
    );

    let error = log_in(&world, |options| options.ssh.identities = vec![world.file("missing")]).unwrap_err();
    assert!(error.contains("missing: No such file"), "{error}");

    fs::copy(world.file("key"), world.file("open")).unwrap();
    fs::set_permissions(world.file("open"), Permissions::from_mode(0o644)).unwrap();
    let error = log_in(&world, |options| options.ssh.identities = vec![world.file("open")]).unwrap_err();
    assert!(error.contains("others can read it (mode 0644)"), "{error}");

    let error = log_in(&world, |options| {
        options.ssh.identities = vec![world.file("sshd_config")]
    })
    .unwrap_err();
    assert!(error.contains("sshd_config: "), "{error}");

    // The second one is right.
    log_in(&world, |options| {
        options.ssh.identities = vec![world.file("stranger"), world.file("key")]
    })
    .unwrap();
}

#[test]
fn keys_of_all_kinds() {
    let world = World::new("");
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let name = format!("id_{kind}");
        world.keygen(&name, kind, "");
        let mut authorized = fs::read_to_string(world.file("authorized_keys")).unwrap();
        authorized += &fs::read_to_string(world.file(&format!("{name}.pub"))).unwrap();
        fs::write(world.file("authorized_keys"), authorized).unwrap();
        log_in(&world, |options| options.ssh.identities = vec![world.file(&name)])
            .unwrap_or_else(|e| panic!("{kind}: {e}"));
    }
}

struct Passphrase(&'static str);

impl Prompt for Passphrase {
    fn accept_host_key(&self, question: &HostKeyQuestion) -> Option<bool> {
        Some(question.host == format!("[{SERVER}]:{SSH_PORT}"))
    }

    fn passphrase(&self, _key: &Path) -> Option<String> {
        Some(self.0.to_owned())
    }
}

#[test]
fn encrypted_keys() {
    let world = World::new("");
    world.keygen("locked", "ed25519", "open sesame");
    let error = log_in(&world, |options| options.ssh.identities = vec![world.file("locked")]).unwrap_err();
    assert!(
        error.contains("locked (SHA256:") && error.contains("refused"),
        "not asked for a useless key: {error}"
    );
    fs::copy(world.file("locked.pub"), world.file("authorized_keys")).unwrap();
    let error = log_in(&world, |options| options.ssh.identities = vec![world.file("locked")]).unwrap_err();
    assert!(
        error.contains("it has a passphrase and there is no terminal to ask"),
        "{error}"
    );

    for (passphrase, expected) in [("open sesame", None), ("wrong", Some("wrong passphrase"))] {
        let mut options = world.options("root");
        options.ssh.identities = vec![world.file("locked")];
        options.ssh.accept_new = false;
        options.ways = Ways::Forward;
        options.forward.listen.set_port(0);
        options.forward.remote_port = SSH_PORT;
        let attempt = world.client.run(move || async move {
            connect(&options, Arc::new(Passphrase(passphrase)))
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        });
        match (attempt.join().unwrap(), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) if error.contains(expected) => {}
            (result, _) => panic!("{passphrase}: {result:?}"),
        }
    }
}

#[test]
fn the_agent_is_used() {
    let world = World::new("");
    world.keygen("locked", "rsa", "");
    fs::copy(world.file("locked.pub"), world.file("authorized_keys")).unwrap();
    let socket = world.file("agent.sock").display().to_string();
    let agent = Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _agent = Process(agent);
    eventually("the agent listens", || Path::new(&socket).exists());
    for key in ["stranger", "locked"] {
        let added = Command::new("ssh-add")
            .arg(world.file(key))
            .env("SSH_AUTH_SOCK", &socket)
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
    }
    let run = |identity: Option<&str>| {
        log_in(&world, |options| {
            options.ssh.agent = Some(world.file("agent.sock"));
            options.ssh.identities = identity.map(|name| world.file(name)).into_iter().collect();
        })
    };
    run(None).unwrap();
    // With the public half alone the agent signs.
    fs::remove_file(world.file("locked")).unwrap();
    run(Some("locked")).unwrap();
    let error = run(Some("stranger")).unwrap_err();
    assert!(error.contains("(by the agent)") && error.contains("refused"), "{error}");
    fs::remove_file(world.file("agent.sock")).unwrap();
    let error = run(Some("locked")).unwrap_err();
    assert!(
        error.contains("no agent at") && error.contains("locked: No such file"),
        "{error}"
    );
}

#[test]
fn servers_that_are_none() {
    let world = World::new("");
    let to = |port: u16| {
        move |options: &mut ConnectOptions| {
            options.destination.port = port;
            options.ssh.connect_timeout_ms = 1000;
        }
    };
    let error = log_in(&world, to(2)).unwrap_err();
    assert!(error.contains("refuses connections on port 2"), "{error}");

    let banner = |text: &'static str| {
        world.server.run(move || async move {
            let listener = StdListener::bind((SERVER, 2223)).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
            // Held open until the client gives up.
            let _bytes = std::io::copy(&mut stream, &mut std::io::sink());
        })
    };
    let silent = banner("");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let start = Instant::now();
    let error = log_in(&world, to(2223)).unwrap_err();
    assert!(
        error.contains("handshake") && error.contains("more than 1000 ms"),
        "{error}"
    );
    assert!(start.elapsed() < PATIENCE);
    silent.join().unwrap();

    support::ip(&world.client.0, "route add blackhole 10.99.0.0/16");
    let error = log_in(&world, |options| options.destination.host = "10.98.0.1".to_owned()).unwrap_err();
    assert!(error.contains("no route to 10.98.0.1"), "{error}");
    support::ip(&world.client.0, "neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev up0");
    let error = log_in(&world, |options| {
        options.destination.host = "10.77.0.9".to_owned();
        options.ssh.connect_timeout_ms = 500;
    });
    assert!(
        error
            .unwrap_err()
            .contains("does not answer on port 2222 within 500 ms")
    );
}

/// Root on behalf of a user writes for them, and only where they could.
#[test]
fn under_sudo_nothing_is_written_that_the_user_could_not() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test gives files away: it needs root"
    );
    let home = tempfile::tempdir().unwrap();
    let nobody = Invoker {
        uid: 65534,
        gid: 65534,
        name: None,
        home: home.path().to_owned(),
        through_sudo: true,
    };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINnH8gs6x0T+Nz4f7KYvaL30po23Df4FmNz3ajJEv2wT"
        .parse()
        .unwrap();
    let owner = |path: &Path| path.symlink_metadata().unwrap().uid();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    chown(home.path(), Some(65534), Some(65534)).unwrap();

    let file = nobody.ssh_file("known_hosts");
    append(&file, "host", 22, &key, &nobody).unwrap();
    assert_eq!((owner(file.parent().unwrap()), owner(&file)), (65534, 65534));
    assert_eq!((mode(file.parent().unwrap()), mode(&file)), (0o700, 0o600));

    let precious = home.path().join("precious");
    fs::write(&precious, "root's\n").unwrap();
    let link = home.path().join(".ssh/link");
    symlink(&precious, &link).unwrap();
    let foreign = tempfile::tempdir().unwrap();
    let in_foreign = foreign.path().join("known_hosts");
    let below_foreign = foreign.path().join(".ssh/known_hosts");
    for (what, path) in [
        ("a link", &link),
        ("root's file", &precious),
        ("root's directory", &in_foreign),
        ("a new one in root's directory", &below_foreign),
    ] {
        assert!(append(path, "host", 22, &key, &nobody).is_err(), "{what}");
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "root's\n");
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 0);
}
