//! Other ways to a portal than the plain one: IPv6, and forwarding, where only the address that was discovered leads back.

use anyhow::Result;
use integration::guest::TAP;
use integration::sshd::Sshd;
use integration::story::{self, HOST};
use integration::{target, tunnelled};

const HOST6: &str = "fd99::1";

#[test]
fn a_kernel_initiator_comes_by_ipv6_and_through_forwarded_connections() -> Result<()> {
    let ns = story::host()?;
    ns.sh(&format!("ip -6 addr add {HOST6}/64 dev {TAP} nodad"))?;
    let sshd = Sshd::start(&ns, story::ssh_address(), &[])?;
    let portal = |listen: &str, more: &str| format!("[[portal]]\nlisten = \"{listen}\"\n{more}\n");
    let config = format!(
        "[[target]]\nname = \"{}\"\n[[target.lun]]\nlun = 0\nfile = \"/dev/shm/lun.img\"\nsize = \"128MiB\"\n{}{}{}",
        target::NAME,
        portal(&format!("{HOST}:3260"), "allow_public = true"),
        portal(&format!("[{HOST6}]:3260"), "allow_public = true"),
        portal("127.0.0.1:3260", "")
    );
    let daemon = target::serve(&ns, &config)?;
    let mut connect = tunnelled::connect_words(&sshd, "root")?;
    connect.retain(|word| !word.starts_with("--via"));
    connect.push("--via=forward".to_owned());
    let text = |path: &std::path::Path| path.display().to_string();
    let variables = [
        ("ADDRESS6", "fd99::2/64"),
        ("HOST6", HOST6),
        ("IDENTITY", &text(&sshd.identity())),
        ("KNOWN_HOSTS", &text(&sshd.known_hosts())),
        ("CONNECT", &connect.join(" ")),
    ];
    let outcome = story::run(&ns, "ways.sh", 16, &variables)?;
    story::check_kernel_log(&outcome)?;
    daemon.stop()
}
