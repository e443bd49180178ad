//! The scene most tests share: a host with a target, and a guest on the other end of a cable that uses its disk.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::guest::{self, Outcome};
use crate::klog;
use crate::netns::Namespace;
use crate::target;

/// The host's address on the cable.
pub const HOST: &str = "10.99.0.1";
/// The iSCSI port.
pub const PORT: u16 = 3260;

/// A host with the cable's end for a guest.
///
/// # Errors
/// As [`Namespace::new`].
pub fn host() -> Result<Namespace> {
    let ns = Namespace::new()?;
    ns.add_tap(guest::TAP, &format!("{HOST}/24"))?;
    Ok(ns)
}

/// Where the host's `sshd` listens.
pub fn ssh_address() -> SocketAddr {
    SocketAddr::new(HOST.parse().expect("a constant"), 22)
}

/// Boot a guest behind `ns`, run `script` of `guest/` with `variables` on top of those every script takes, and `mib` MiB
/// of data for the file system story.
///
/// # Errors
/// The guest's script fails.
pub fn run(ns: &Namespace, script: &str, mib: u32, variables: &[(&str, &str)]) -> Result<Outcome> {
    let mib = mib.to_string();
    let mut all = vec![
        ("INITIATOR", "iqn.2026-11.net.farlun:guest"),
        ("TARGET", target::NAME),
        ("ADDRESS", "10.99.0.2/24"),
        ("HOST", HOST),
        ("MIB", &mib),
    ];
    all.extend(variables);
    let outcome = guest::run(ns, script, &all)?;
    println!("{}\n{}", outcome.output, outcome.kernel_log);
    Ok(outcome)
}

/// That a disk was there, and that the kernel had nothing to complain about.
///
/// # Errors
/// The lines it complained with.
pub fn check_kernel_log(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.kernel_log.contains("Attached SCSI disk"),
        "the kernel's log shows no disk"
    );
    let trouble = klog::trouble(&outcome.kernel_log);
    ensure!(trouble.is_empty(), "the kernel complained:\n{}", trouble.join("\n"));
    Ok(())
}
