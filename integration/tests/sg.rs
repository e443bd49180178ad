//! sg3-utils in a guest agree with every page, and with persistent reservations, which outlive the daemon.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::guest::Guest;
use integration::story::{self, HOST};
use integration::target;

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn sg3_utils_agree_with_every_page_and_reservations_outlive_the_daemon() -> Result<()> {
    let ns = story::host()?;
    let config = format!(
        "[[target]]\nname = \"{}\"\n[[target.lun]]\nlun = 0\nfile = \"/dev/shm/lun.img\"\nsize = \"64MiB\"\nshared = true\n\
         [[portal]]\nlisten = \"{HOST}:3260\"\nallow_public = true\n",
        target::NAME
    );
    let daemon = target::serve(&ns, &config)?;
    let mut guest = Guest::boot(
        &ns,
        "sg.sh",
        &[
            ("INITIATOR", "iqn.2026-11.net.farlun:guest"),
            ("TARGET", target::NAME),
            ("ADDRESS", "10.99.0.2/24"),
            ("HOST", HOST),
        ],
    )?;
    guest.await_sign("reserved", LIMIT)?;
    daemon.stop()?;
    let daemon = target::serve(&ns, &config)?;
    guest.give_sign("restarted")?;
    let outcome = guest.wait()?;
    println!("{}", outcome.output);
    ensure!(
        outcome.kernel_log.contains("reservation conflict"),
        "the kernel never saw a reservation conflict"
    );
    daemon.stop()
}
