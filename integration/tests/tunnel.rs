//! The whole path: `farlun connect` through a stock `sshd`, and what it leaves behind: nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::netns::{MEMBER, Namespace};
use integration::paths;
use integration::process::{self, Process};
use integration::story;
use integration::traces::Traces;
use integration::tunnelled::{self, Cloud, Tunnel};
use rustix::process::Signal;

#[test]
fn a_kernel_initiator_logs_in_through_farlun_connect() -> Result<()> {
    let cloud = Cloud::start(story::host()?, story::ssh_address())?;
    let connect = tunnelled::connect_words(&cloud.sshd, MEMBER)?.join(" ");
    let outcome = story::run(&cloud.ns, "connect.sh", 64, &[("CONNECT", &connect)])?;
    story::check_kernel_log(&outcome)?;
    cloud.target.stop()
}

/// Time for sockets to close and devices to go on both ends.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn tunnels_come_and_go_without_a_trace() -> Result<()> {
    let rounds = if std::env::var_os("FARLUN_SOAK").is_some() {
        500
    } else {
        20
    };
    let (home, cloud_ns) = (Namespace::new()?, Namespace::new()?);
    home.cable(("eth0", "192.0.2.2/24"), &cloud_ns, ("eth0", "192.0.2.1/24"))?;
    let cloud = Cloud::start(cloud_ns, "192.0.2.1:22".parse()?)?;
    let daemons = [cloud.target.process.pid()];

    // The first tunnel may make what lasts, such as a runtime's own descriptors; those after it may not.
    let before_any = Traces::of(&home, &[])?;
    let first = Tunnel::up(&home, &cloud.sshd, MEMBER)?;
    let during = (Traces::of(&home, &[])?, Traces::of(&cloud.ns, &daemons)?);
    use_and_end(&home, &cloud, first, Signal::INT)?;
    before_any.wait_for_return(&home, &[], SETTLE_LIMIT)?;
    let before = (Traces::of(&home, &[])?, Traces::of(&cloud.ns, &daemons)?);
    expect_kinds(
        &before.0.differences(&during.0),
        &["+ link", "+ addr", "+ route", "+ socket"],
    )?;
    expect_kinds(
        &before.1.differences(&during.1),
        &["+ link", "+ addr", "+ route", "+ socket", "+ fd of"],
    )?;

    for (number, signal) in (0..rounds).zip([Signal::INT, Signal::TERM, Signal::KILL].into_iter().cycle()) {
        use_and_end(&home, &cloud, Tunnel::up(&home, &cloud.sshd, MEMBER)?, signal)?;
        before.0.wait_for_return(&home, &[], SETTLE_LIMIT)?;
        before.1.wait_for_return(&cloud.ns, &daemons, SETTLE_LIMIT)?;
        println!("round {number}: as before");
    }

    // An initiator that is still connected when the tunnel goes: its socket stays at home, but not in the cloud.
    let tunnel = Tunnel::up(&home, &cloud.sshd, MEMBER)?;
    let (address, port) = tunnel.portal.split_once(':').context("a portal without a port")?;
    let mut bash = home.command("/bin/bash")?;
    bash.args([
        "-c",
        &format!("exec 3<>/dev/tcp/{address}/{port}; echo connected; exec sleep 1000"),
    ]);
    let mut initiator = Process::spawn("initiator", &mut bash, &home.dir().join("initiator.log"))?;
    initiator.wait_for_line("connected", SETTLE_LIMIT)?;
    tunnel.down(Signal::INT)?;
    before.1.wait_for_return(&cloud.ns, &daemons, SETTLE_LIMIT)?;
    cloud.target.stop()
}

/// One command through the tunnel, then the end by `signal`.
fn use_and_end(home: &Namespace, cloud: &Cloud, tunnel: Tunnel, signal: Signal) -> Result<()> {
    let mut inquiry = home.command(paths::tool("iscsi-inq")?)?;
    process::run("iscsi-inq", inquiry.arg(cloud.target.url(&tunnel.portal)), SETTLE_LIMIT)?;
    let status = tunnel.down(signal)?;
    ensure!(
        status.success() || signal == Signal::KILL,
        "farlun connect ended with {status} after {signal:?}"
    );
    Ok(())
}

/// That the pictures show a tunnel while it is there: otherwise finding none afterwards would say nothing.
fn expect_kinds(differences: &[String], kinds: &[&str]) -> Result<()> {
    for kind in kinds {
        let shown = differences.iter().any(|line| line.starts_with(kind));
        ensure!(
            shown,
            "a tunnel that is up does not show as {kind:?}:\n{}",
            differences.join("\n")
        );
    }
    Ok(())
}
