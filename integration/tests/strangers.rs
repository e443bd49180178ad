//! Who has no business in a tunnel gets nowhere: a neighbour of the cloud, another user there, and a cloud that turns
//! on its client.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::netns::{MEMBER, Namespace, STRANGER};
use integration::paths;
use integration::process::{self, Process, finish};
use integration::sshd::Sshd;
use integration::target::TUNNEL_SOCKET;
use integration::tunnelled::{self, Cloud, Tunnel};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(20);
/// A connection that is not refused but swallowed takes this long to count as failed, in seconds.
const CONNECT_TIMEOUT_S: u32 = 2;
/// A connection that is refused fails well before that.
const REFUSED_LIMIT: Duration = Duration::from_millis(1500);

const CLOUD: &str = "192.0.2.1";
const HOME: &str = "192.0.2.2";
const SERVICE_PORT: u16 = 2222;
const HOSTILE: &str = env!("CARGO_BIN_EXE_hostile");

fn home_and_cloud() -> Result<(Namespace, Namespace)> {
    let (home, cloud) = (Namespace::new()?, Namespace::new()?);
    home.cable(
        ("eth0", &format!("{HOME}/24")),
        &cloud,
        ("eth0", &format!("{CLOUD}/24")),
    )?;
    Ok((home, cloud))
}

/// sshd on all of the cloud's addresses, so that others than the portal can be reached there.
fn cloud(ns: Namespace) -> Result<Cloud> {
    Cloud::start(ns, format!("{CLOUD}:22").parse()?)
}

/// Whether a TCP connection comes about, from inside `command`'s namespace and as its user.
fn connects(mut timeout: std::process::Command, address: &str, port: u16) -> Result<bool> {
    let bash = format!("exec 3<>/dev/tcp/{address}/{port}");
    let command = timeout
        .arg(CONNECT_TIMEOUT_S.to_string())
        .args(["/bin/bash", "-c", &bash]);
    Ok(finish("connect", command, LIMIT)?.status.success())
}

fn from(ns: &Namespace) -> Result<std::process::Command> {
    ns.command(paths::tool("timeout")?)
}

/// A service on all addresses of `ns` at [`SERVICE_PORT`]: it accepts, which is all that is asked of it.
fn service(ns: &Namespace) -> Result<Process> {
    let mut command = ns.command(HOSTILE)?;
    command.args(["listen", &SERVICE_PORT.to_string()]);
    let mut service = Process::spawn("service", &mut command, &ns.dir().join("service.log"))?;
    service.wait_for_line("ready", LIMIT)?;
    Ok(service)
}

#[test]
fn a_neighbour_with_a_route_to_the_tunnel_gets_nowhere() -> Result<()> {
    let (home, cloud_ns) = home_and_cloud()?;
    let neighbour = Namespace::new()?;
    neighbour.cable(("eth0", "198.51.100.2/24"), &cloud_ns, ("eth1", "198.51.100.1/24"))?;
    let (_at_home, _in_cloud) = (service(&home)?, service(&cloud_ns)?);
    // As on any machine with containers.
    cloud_ns.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    home.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    let cloud = cloud(cloud_ns)?;
    let tunnel = Tunnel::up(&home, &cloud.sshd, MEMBER)?;
    ensure!(tunnel.portal == "172.18.0.1:3260", "{}", tunnel.portal);
    ensure!(
        connects(from(&home)?, "172.18.0.1", 3260)?,
        "the client itself does not reach the portal"
    );

    neighbour.sh("ip route add 172.18.0.0/24 via 198.51.100.1")?;
    // Linux answers for the tunnel's address on any interface: what is not bound to the tunnel is reached.
    ensure!(
        connects(from(&neighbour)?, "172.18.0.1", SERVICE_PORT)?,
        "the neighbour's route leads nowhere at all"
    );
    ensure!(
        !connects(from(&neighbour)?, "172.18.0.1", 3260)?,
        "a neighbour reaches the portal"
    );
    ensure!(
        !connects(from(&neighbour)?, "172.18.0.2", SERVICE_PORT)?,
        "a neighbour reaches the client"
    );

    // The same as the client: with its address.
    neighbour.sh("ip addr add 172.18.0.2/32 dev lo; ip route change 172.18.0.0/24 via 198.51.100.1 src 172.18.0.2")?;
    cloud
        .ns
        .sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done")?;
    ensure!(
        !connects(from(&neighbour)?, "172.18.0.1", 3260)?,
        "a neighbour with the client's address is let in"
    );
    ensure!(
        connects(from(&home)?, "172.18.0.1", 3260)?,
        "the client has lost the portal meanwhile"
    );
    cloud.target.stop()
}

#[test]
fn another_user_of_the_cloud_gets_nowhere() -> Result<()> {
    let (home, cloud_ns) = home_and_cloud()?;
    let _service = service(&cloud_ns)?;
    let cloud = cloud(cloud_ns)?;

    // Without the right to the socket there is no tunnel, and the client says what is missing.
    let mut connect = tunnelled::connect(&home, &cloud.sshd, STRANGER)?;
    let refused = finish("farlun connect", &mut connect, LIMIT)?;
    ensure!(
        !refused.status.success(),
        "a stranger has a tunnel:\n{}",
        refused.output
    );
    ensure!(
        refused.output.contains(TUNNEL_SOCKET),
        "the reason does not name the socket:\n{}",
        refused.output
    );

    let tunnel = Tunnel::up(&home, &cloud.sshd, MEMBER)?;
    for (user, may) in [(MEMBER, true), (STRANGER, false)] {
        let mut test = cloud.ns.command_as(user, "/usr/bin/test")?;
        let writable = finish("test", test.args(["-w", TUNNEL_SOCKET]), LIMIT)?
            .status
            .success();
        ensure!(writable == may, "{user} may open the socket: {writable}");
        // On the cloud itself nobody is on the tunnel, whatever group they are in.
        let as_user = || cloud.ns.command_as(user, paths::tool("timeout")?);
        ensure!(
            connects(as_user()?, "172.18.0.1", SERVICE_PORT)?,
            "{user} reaches nothing at all"
        );
        ensure!(!connects(as_user()?, "172.18.0.1", 3260)?, "{user} reaches the portal");
    }
    ensure!(
        connects(from(&home)?, "172.18.0.1", 3260)?,
        "the client itself does not reach the portal"
    );
    tunnel.down(Signal::INT)?;
    cloud.target.stop()
}

/// The lines of `hostile` about packets that came back.
fn came(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| line.strip_prefix("came ")).collect()
}

#[test]
fn a_hostile_cloud_gets_nowhere() -> Result<()> {
    let (home, cloud_ns) = home_and_cloud()?;
    let lan = Namespace::new()?;
    lan.cable(("eth0", "198.51.100.2/24"), &home, ("eth1", "198.51.100.1/24"))?;
    lan.sh("ip route add default via 198.51.100.1")?;
    home.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done",
    )?;
    let (_at_home, _on_lan) = (service(&home)?, service(&lan)?);
    let victims = [SERVICE_PORT.to_string(), "198.51.100.2".to_owned()];

    // Where nobody filters, each packet has its effect.
    let mut bare = home.command(HOSTILE)?;
    let log = process::run("hostile bare", bare.arg("bare").args(&victims), LIMIT)?;
    for part in log.split("sent ").skip(1) {
        ensure!(
            part.contains("\ncame "),
            "this one is harmless, and so proves nothing: {part}"
        );
    }

    let sshd = Sshd::start(&cloud_ns, format!("{CLOUD}:22").parse()?, &[])?;
    let mut serve = cloud_ns.command(HOSTILE)?;
    serve.args(["serve", TUNNEL_SOCKET]).args(&victims);
    let mut evil = Process::spawn("hostile serve", &mut serve, &cloud_ns.dir().join("hostile.log"))?;
    evil.wait_for_line("ready", LIMIT)?;
    let tunnel = Tunnel::up(&home, &sshd, MEMBER)?;
    evil.wait_for_line("all sent", LIMIT)?;
    // The client speaks first, and to the portal only; an answer to that gets through, so the tunnel still works.
    ensure!(came(&evil.log()).is_empty(), "the client has answered:\n{}", evil.log());
    let start = Instant::now();
    ensure!(!connects(from(&home)?, "172.18.0.1", 3260)?, "there is no portal there");
    ensure!(
        start.elapsed() < REFUSED_LIMIT,
        "the reset did not get through:\n{}\n{}",
        evil.log(),
        tunnel.log()
    );
    let log = evil.log();
    let came = came(&log);
    let only_syn = came.len() == 1 && came[0].ends_with("> 172.18.0.1:3260 flags 0x02");
    ensure!(only_syn, "more came back than the client's own SYN:\n{log}");
    tunnel.down(Signal::INT)?;
    Ok(())
}
