//! A LUN changes its size while it is used: the file system on it grows, and it is not shrunk by accident.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::guest::Guest;
use integration::netns::Namespace;
use integration::process::{Finished, finish};
use integration::story::{self, HOST};
use integration::{klog, paths, target};

const LIMIT: Duration = Duration::from_secs(60);

/// `farlun lun resize` of the one LUN.
fn resize(ns: &Namespace, size: &str, force: bool) -> Result<Finished> {
    let mut command = ns.command(paths::farlun()?)?;
    command.args(["lun", "resize", target::NAME, "0", size]);
    if force {
        command.arg("--force");
    }
    finish("farlun lun resize", &mut command, LIMIT)
}

#[test]
fn a_mounted_file_system_grows_with_its_lun_which_shrinks_only_by_force() -> Result<()> {
    let ns = story::host()?;
    let config = format!(
        "[[target]]\nname = \"{}\"\n[[target.lun]]\nlun = 0\nfile = \"/dev/shm/lun.img\"\nsize = \"64MiB\"\n\
         [[portal]]\nlisten = \"{HOST}:3260\"\nallow_public = true\n",
        target::NAME
    );
    let daemon = target::serve(&ns, &config)?;
    let grown_bytes = (160_u64 << 20).to_string();
    let mut guest = Guest::boot(
        &ns,
        "resize.sh",
        &[
            ("INITIATOR", "iqn.2026-11.net.farlun:guest"),
            ("TARGET", target::NAME),
            ("ADDRESS", "10.99.0.2/24"),
            ("HOST", HOST),
            ("MIB", "16"),
            ("GROWN_BYTES", &grown_bytes),
        ],
    )?;
    guest.await_sign("mounted", LIMIT)?;
    let grown = resize(&ns, "160MiB", false)?;
    ensure!(grown.status.success(), "{}", grown.output);
    guest.give_sign("grown")?;
    guest.await_sign("grew", LIMIT)?;
    let refused = resize(&ns, "64MiB", false)?;
    ensure!(!refused.status.success(), "shrunk without --force: {}", refused.output);
    ensure!(refused.output.contains("--force"), "{}", refused.output);
    guest.give_sign("kept")?;
    guest.await_sign("checked", LIMIT)?;
    let shrunk = resize(&ns, "64MiB", true)?;
    ensure!(shrunk.status.success(), "{}", shrunk.output);
    guest.give_sign("shrunk")?;
    let outcome = guest.wait()?;
    println!("{}\n{}", outcome.output, outcome.kernel_log);
    // The unit attention of the change is logged; nothing else may be.
    let expected = |line: &&str| line.contains("Capacity data has changed") || line.contains("capacity change");
    let trouble: Vec<&str> = klog::trouble(&outcome.kernel_log)
        .into_iter()
        .filter(|line| !expected(line))
        .collect();
    ensure!(trouble.is_empty(), "the kernel complained:\n{}", trouble.join("\n"));
    daemon.stop()
}
