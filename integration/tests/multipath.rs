//! dm-multipath over two portals: one goes while fio writes and verifies, nobody above notices, and it comes back.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::guest::Guest;
use integration::klog;
use integration::story::{self, HOST};
use integration::target;

/// The host's second address on the cable, and the guest's there.
const HOST2: &str = "10.99.1.1";
const SECOND: &str = "10.99.1.2/24";

/// Time for the guest to do its part up to a point.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_portal_dies_and_comes_back_and_no_file_system_notices() -> Result<()> {
    let ns = story::host()?;
    let second = |what: &str| ns.sh(&format!("ip addr {what} {HOST2}/24 dev {}", integration::guest::TAP));
    second("add")?;
    let config = format!(
        "[[target]]\nname = \"{}\"\n[[target.lun]]\nlun = 0\nfile = \"/dev/shm/lun.img\"\nsize = \"128MiB\"\n\
         [[portal]]\nlisten = \"{HOST}:3260\"\nallow_public = true\n\
         [[portal]]\nlisten = \"{HOST2}:3260\"\nallow_public = true\n",
        target::NAME
    );
    let daemon = target::serve(&ns, &config)?;
    let soak = std::env::var_os("FARLUN_SOAK").is_some();
    let mut guest = Guest::boot(
        &ns,
        "multipath.sh",
        &[
            ("INITIATOR", "iqn.2026-11.net.farlun:guest"),
            ("TARGET", target::NAME),
            ("ADDRESS", "10.99.0.2/24"),
            ("HOST", HOST),
            ("HOST2", HOST2),
            ("SECOND", SECOND),
            ("SECONDS_OF_FIO", if soak { "60" } else { "15" }),
        ],
    )?;
    guest.await_sign("writing", LIMIT)?;
    // Nothing answers at that address any more: no reset, no unreachable, as when a switch dies.
    second("del")?;
    ns.sh(&format!("ip route add blackhole {HOST2}"))?;
    guest.give_sign("portal-gone")?;
    guest.await_sign("one-path", LIMIT)?;
    ns.sh(&format!("ip route del blackhole {HOST2}"))?;
    second("add")?;
    guest.give_sign("portal-back")?;
    guest.await_sign("other", LIMIT)?;
    ns.sh(&format!(
        "ip addr del {HOST}/24 dev {tap}; ip route add blackhole {HOST}",
        tap = integration::guest::TAP
    ))?;
    guest.give_sign("other-gone")?;
    let outcome = guest.wait()?;
    println!("{}\n{}", outcome.output, outcome.kernel_log);
    let above: Vec<&str> = klog::trouble(&outcome.kernel_log)
        .into_iter()
        .filter(|line| line.contains("EXT4") || line.contains("dm-") || line.contains("JBD2"))
        .filter(|line| !line.contains("multipath"))
        .collect();
    ensure!(above.is_empty(), "the file system was told:\n{}", above.join("\n"));
    daemon.stop()
}
