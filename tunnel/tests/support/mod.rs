//! Two hosts on one machine: network namespaces joined by a veth pair, a private sshd in one of them.
//!
//! A namespace belongs to a thread, so each end runs in a thread of its own with its own small runtime.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::fs::{self, File, Permissions};
use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tunnel::client::{ConnectError, ConnectOptions, Connected, connect};
use tunnel::server::{Event, Link, ServerOptions, TunnelServer, listen_on_link};
use tunnel::ssh::{Destination, NoPrompt};

/// The server's address between the two hosts, and the client's.
pub const SERVER: &str = "10.77.0.1";
pub const CLIENT: &str = "10.77.0.2";
pub const SSH_PORT: u16 = 2222;
/// How long anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn command(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs `{program}`: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    said
}

/// `ip` in a namespace.
pub fn ip(namespace: &str, args: &str) -> String {
    let args: Vec<_> = ["-n", namespace].into_iter().chain(args.split_whitespace()).collect();
    command("ip", &args)
}

/// A namespace that goes with this value.
#[derive(Debug)]
pub struct Namespace(pub String);

impl Namespace {
    pub fn new(role: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: it needs root"
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fltun-{}-{number}-{role}", std::process::id());
        command("ip", &["netns", "add", &name]);
        ip(&name, "link set lo up");
        Self(name)
    }

    /// Runs a future in this namespace, on a thread of its own.
    pub fn run<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let path = format!("/run/netns/{}", self.0);
        std::thread::spawn(move || {
            let namespace = File::open(&path).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::time::timeout(3 * PATIENCE, work())
                    .await
                    .expect("the test hangs")
            })
        })
    }

    /// Runs a program in this namespace; whether it succeeded, and what it said.
    pub fn exec(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    /// Devices, addresses and routes, as text to compare.
    pub fn state(&self) -> String {
        ["-br link", "-br addr", "route show table all", "rule"]
            .map(|what| ip(&self.0, what))
            .join("\n")
    }

    /// Sets a value under `/proc/sys` of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) {
        let (ok, said) = self.exec(&["sh", "-c", &format!("echo {value} > /proc/sys/{key}")]);
        assert!(ok, "{said}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _already_gone = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Joins two namespaces by a cable.
pub fn join((a, a_if, a_addr): (&Namespace, &str, &str), (b, b_if, b_addr): (&Namespace, &str, &str)) {
    ip(
        &a.0,
        &format!("link add {a_if} type veth peer name {b_if} netns {}", b.0),
    );
    for (namespace, ifname, address) in [(a, a_if, a_addr), (b, b_if, b_addr)] {
        // No link-local addresses, which come and settle while a test runs.
        ip(&namespace.0, &format!("link set {ifname} addrgenmode none"));
        ip(&namespace.0, &format!("addr add {address}/24 dev {ifname}"));
        ip(&namespace.0, &format!("link set {ifname} up"));
    }
    for (namespace, ifname) in [(a, a_if), (b, b_if)] {
        eventually("the cable is plugged in", || {
            ip(&namespace.0, &format!("-br link show {ifname}")).contains(" UP ")
        });
    }
}

/// A process that goes with this value.
#[derive(Debug)]
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The two hosts.
#[derive(Debug)]
pub struct World {
    pub sshd: Option<Process>,
    pub server: Namespace,
    pub client: Namespace,
    pub directory: tempfile::TempDir,
    sshd_options: String,
}

impl World {
    /// With sshd running; `sshd_options` are lines for its configuration.
    pub fn new(sshd_options: &str) -> Self {
        let (server, client) = (Namespace::new("s"), Namespace::new("c"));
        join((&server, "up0", SERVER), (&client, "up0", CLIENT));
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let mut world = Self {
            sshd: None,
            server,
            client,
            directory,
            sshd_options: String::new(),
        };
        for name in ["hostkey", "key", "stranger"] {
            world.keygen(name, "ed25519", "");
        }
        fs::copy(world.file("key.pub"), world.file("authorized_keys")).unwrap();
        world.sshd_options = sshd_options.to_owned();
        world.sshd = Some(world.start_with_host_keys(&["hostkey"]));
        world
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn keygen(&self, name: &str, kind: &str, passphrase: &str) {
        let file = self.file(name).display().to_string();
        command("ssh-keygen", &["-q", "-t", kind, "-N", passphrase, "-f", &file]);
    }

    /// Starts sshd; one that ran before must be gone.
    pub fn start_with_host_keys(&self, host_keys: &[&str]) -> Process {
        assert!(
            Path::new("/usr/sbin/sshd").exists(),
            "this test needs sshd (package openssh-server)"
        );
        fs::create_dir_all("/run/sshd").unwrap();
        let mut text = format!(
            "Port {SSH_PORT}\nAuthorizedKeysFile {}\nPermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n{}\n",
            self.file("authorized_keys").display(),
            self.sshd_options,
        );
        for key in host_keys {
            text += &format!("HostKey {}\n", self.file(key).display());
        }
        fs::write(self.file("sshd_config"), text).unwrap();
        let log = File::create(self.file("sshd.log")).unwrap();
        let config = self.file("sshd_config").display().to_string();
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.server.0,
                "/usr/sbin/sshd",
                "-D",
                "-e",
                "-f",
                &config,
            ])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sshd = Process(child);
        eventually("sshd listens", || {
            fs::read_to_string(self.file("sshd.log"))
                .unwrap()
                .contains("listening on ::")
        });
        sshd
    }

    /// Options for the client: the right key, an empty file of known hosts, new keys accepted.
    pub fn options(&self, user: &str) -> ConnectOptions {
        let destination = Destination {
            user: Some(user.to_owned()),
            host: SERVER.to_owned(),
            port: SSH_PORT,
        };
        let mut options = ConnectOptions::new(destination);
        options.ssh.identities = vec![self.file("key")];
        options.ssh.known_hosts = Some(vec![self.file("known_hosts")]);
        options.ssh.accept_new = true;
        options.socket_path = self.file("tunnel.sock").display().to_string();
        options
    }

    /// Serves tunnels with an echo service as portal.
    pub fn serve(&self, change: impl FnOnce(&mut ServerOptions)) -> Serving {
        let mut options = ServerOptions {
            socket: self.file("tunnel.sock"),
            ..ServerOptions::default()
        };
        change(&mut options);
        Serving::start(&self.server, options)
    }

    /// Connects from the client's namespace and keeps the connection up until told.
    pub fn connect(&self, options: ConnectOptions) -> Result<Holding, ConnectError> {
        Holding::start(&self.client, options)
    }
}

/// A server on its thread.
#[derive(Debug)]
pub struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Events as lines: `up <ifname> <local> <peer> <uid>`, `down <ifname> <dropped> <error>`.
    pub events: std::sync::mpsc::Receiver<String>,
}

impl Serving {
    fn start(namespace: &Namespace, options: ServerOptions) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (said, started) = std::sync::mpsc::channel();
        let (lines, events) = std::sync::mpsc::channel();
        let ports = options.portal_ports.clone();
        let thread = namespace.run(move || async move {
            let server = TunnelServer::bind(options).unwrap();
            said.send(()).unwrap();
            let (sender, receiver) = mpsc::channel(1);
            let owner = tokio::spawn(owner(receiver, ports, lines));
            let told = async { drop(stopped.await) };
            server.run(sender, told).await;
            owner.await.unwrap();
        });
        started.recv_timeout(PATIENCE).expect("the server starts");
        Self {
            stop: Some(stop),
            thread: Some(thread),
            events,
        }
    }

    pub fn next_event(&self) -> String {
        self.events.recv_timeout(2 * PATIENCE).expect("an event")
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

pub fn echo_on(link: &Link, port: u16) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::from_std(listen_on_link(link, port)?)?;
    Ok(tokio::spawn(echo(listener)))
}

pub async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
    }
}

async fn owner(mut events: mpsc::Receiver<Event>, ports: Vec<u16>, lines: std::sync::mpsc::Sender<String>) {
    let mut portals = std::collections::HashMap::new();
    while let Some(event) = events.recv().await {
        let line = match event {
            Event::LinkUp { link, ready } => {
                let started: Result<Vec<_>, _> = ports.iter().map(|port| echo_on(&link, *port)).collect();
                let verdict = started.map_err(|error| error.to_string());
                let line = format!("up {} {} {} {}", link.ifname, link.local, link.peer, link.uid);
                let _gone = ready.send(verdict.map(|handles| drop(portals.insert(link.id, handles))));
                line
            }
            Event::LinkDown { link, error, counters } => {
                let portals = portals.remove(&link.id).unwrap_or_default();
                portals
                    .into_iter()
                    .for_each(|portal: tokio::task::JoinHandle<()>| portal.abort());
                let error = error.unwrap_or_else(|| "none".to_owned());
                format!("down {} {} {error}", link.ifname, counters.inbound_drops.total())
            }
        };
        let _nobody_listens = lines.send(line);
    }
}

/// A connection held on its thread.
#[derive(Debug)]
pub struct Holding {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), String>>>,
    pub up: tunnel::client::Up,
    /// Why it is forwarding.
    pub instead_of: Option<String>,
}

impl Holding {
    fn start(namespace: &Namespace, options: ConnectOptions) -> Result<Self, ConnectError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (said, started) = std::sync::mpsc::channel();
        let thread = namespace.run(move || async move {
            let connected: Connected = match connect(&options, Arc::new(NoPrompt)).await {
                Ok(connected) => connected,
                Err(error) => {
                    said.send(Err(error)).unwrap();
                    return Ok(());
                }
            };
            let up = connected.up().clone();
            let instead_of = connected.instead_of().map(|reason| reason.to_string());
            said.send(Ok((up, instead_of))).unwrap();
            let told = async { drop(stopped.await) };
            connected.run(told).await.map(drop).map_err(|error| error.to_string())
        });
        let (up, instead_of) = started.recv_timeout(3 * PATIENCE).expect("connect returns")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            up,
            instead_of,
        })
    }

    /// Takes it down.
    pub fn stop(mut self) -> Result<(), String> {
        drop(self.stop.take());
        self.thread.take().expect("held until now").join().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Result<(), String> {
        self.thread.take().expect("held until now").join().unwrap()
    }

    pub fn addresses(&self) -> (String, String) {
        match &self.up {
            tunnel::client::Up::Tunnel { local, remote, .. } => (local.to_string(), remote.to_string()),
            other => panic!("no tunnel: {other:?} instead of {:?}", self.instead_of),
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let (Some(thread), false) = (self.thread.take(), std::thread::panicking()) {
            let _how_it_went = thread.join();
        }
    }
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
