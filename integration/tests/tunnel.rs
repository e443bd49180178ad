//! The whole path: `farlun connect` through a stock `sshd`, and what it leaves behind: nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::netns::{MEMBER, Namespace};
use integration::process;
use integration::story;
use integration::traces::Traces;
use integration::tunnelled::{Cloud, Tunnel};
use rustix::process::Signal;

#[test]
fn a_kernel_initiator_logs_in_through_farlun_connect() -> Result<()> {
    let cloud = Cloud::start(story::host()?, story::ssh_address())?;
    let connect = cloud.connect_words(MEMBER)?.join(" ");
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
    // Addresses that IPv6 gives itself come with a delay, which is not the tunnel's doing.
    home.sh("ping -c 1 -q 192.0.2.1")?;
    let cloud = Cloud::start(cloud_ns, "192.0.2.1:22".parse()?)?;
    let daemons = [cloud.target.process.pid()];

    // The first tunnel may make what lasts, such as a runtime's own descriptors; twenty more may not.
    round(&home, &cloud, Signal::INT)?;
    std::thread::sleep(Duration::from_secs(1));
    let (home_before, cloud_before) = (Traces::of(&home, &[])?, Traces::of(&cloud.ns, &daemons)?);
    for (number, signal) in (0..rounds).zip([Signal::INT, Signal::TERM, Signal::KILL].into_iter().cycle()) {
        round(&home, &cloud, signal)?;
        home_before.wait_for_return(&home, &[], SETTLE_LIMIT)?;
        cloud_before.wait_for_return(&cloud.ns, &daemons, SETTLE_LIMIT)?;
        println!("round {number}: as before");
    }
    cloud.target.stop()
}

/// A tunnel up, used, and down by `signal`.
fn round(home: &Namespace, cloud: &Cloud, signal: Signal) -> Result<()> {
    let tunnel = Tunnel::up(home, cloud, MEMBER)?;
    let mut inquiry = home.command("/usr/bin/iscsi-inq")?;
    process::run(
        "iscsi-inq",
        inquiry.arg(cloud.target.url(&tunnel.portal)),
        Duration::from_secs(10),
    )?;
    let status = tunnel.down(signal)?;
    ensure!(
        status.success() || signal == Signal::KILL,
        "farlun connect ended with {status} after {signal:?}"
    );
    Ok(())
}
