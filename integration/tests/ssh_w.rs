//! The way people have done it by hand since 2012: `ssh -w` between two stock OpenSSH ends, the target on the tun address.

use anyhow::Result;
use integration::sshd::Sshd;
use integration::story::{self, PORT};
use integration::target::{Kind, Spec};

#[test]
fn a_kernel_initiator_logs_in_through_ssh_w() -> Result<()> {
    let ns = story::host()?;
    // sshd takes over the device that is there; the target needs the address before the tunnel is up.
    ns.sh("ip tuntap add dev tun0 mode tun; ip addr add 172.18.0.1 peer 172.18.0.2 dev tun0; ip link set tun0 mtu 16380 up")?;
    let sshd = Sshd::start(&ns, story::ssh_address(), &["PermitTunnel point-to-point"])?;
    let target = Spec::new(Kind::from_env()?, &format!("172.18.0.1:{PORT}")).start(&ns)?;
    let (identity, known_hosts) = (sshd.identity(), sshd.known_hosts());
    let outcome = story::run(
        &ns,
        "ssh-w.sh",
        32,
        &[
            ("IDENTITY", &identity.to_string_lossy()),
            ("KNOWN_HOSTS", &known_hosts.to_string_lossy()),
        ],
    )?;
    story::check_kernel_log(&outcome)?;
    target.stop()
}
