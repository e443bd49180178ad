//! mkfs of a large thin LUN over a slow line is a matter of seconds: few bytes leave, and few follow after mounting; what
//! is deleted and trimmed is free again in the file system underneath.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::guest::{Guest, TAP};
use integration::netns::Namespace;
use integration::story::{self, HOST, PORT};
use integration::target::{self, Kind, Spec};

/// What `mkfs.ext4` may send, in bytes.
const MKFS_MAX_BYTES: u64 = 6_500_000;
/// What may follow in ten minutes after mounting, in bytes.
const IDLE_MAX_BYTES: u64 = 1_000_000;
/// Ten minutes are watched in the long version. In the short one the kernel is told to fill in the inode tables without
/// its long pauses, and the guest sees to it that it is done: the same bytes in less time, and nothing left to send.
const IDLE_S: (u64, u64) = (10, 600);
const WITHOUT_PAUSES: &str = ",init_itable=0";
const SIZE_MIB: u64 = 80_000;
const WRITTEN_MIB: u64 = 64;
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes that the guest has sent so far: all that the host received on the cable, headers and acknowledgements included.
fn sent(ns: &Namespace) -> Result<u64> {
    let text = ns.sh(&format!("cat /sys/class/net/{TAP}/statistics/rx_bytes"))?;
    text.trim().parse().with_context(|| format!("rx_bytes: {text}"))
}

#[test]
fn mkfs_of_eighty_gigabytes_fits_a_slow_line_and_fstrim_gives_space_back() -> Result<()> {
    let ns = story::host()?;
    // The namespace's own tmpfs cannot be looked at from here; a file in its folder can.
    let file = ns.dir().join("lun.img");
    let spec = Spec {
        file: file.clone(),
        size_mib: SIZE_MIB,
        ..Spec::new(Kind::from_env()?, &format!("{HOST}:{PORT}"))
    };
    let daemon = spec.start(&ns)?;
    let allocated = || Ok::<u64, anyhow::Error>(std::fs::metadata(&file)?.blocks() * 512);
    let soak = std::env::var_os("FARLUN_SOAK").is_some();
    let idle_s = if soak { IDLE_S.1 } else { IDLE_S.0 };
    let idle = Duration::from_secs(idle_s);
    let mut guest = Guest::boot(
        &ns,
        "frugal.sh",
        &[
            ("INITIATOR", "iqn.2026-11.net.farlun:guest"),
            ("TARGET", target::NAME),
            ("ADDRESS", "10.99.0.2/24"),
            ("HOST", HOST),
            ("MIB", &WRITTEN_MIB.to_string()),
            ("MOUNT", if soak { "" } else { WITHOUT_PAUSES }),
            ("IDLE_S", &idle_s.to_string()),
        ],
    )?;
    // What happens between two signs: bytes sent, and bytes of the file at the end.
    let mut step = |sign: &str, answer: &str, limit: Duration| -> Result<(u64, u64)> {
        guest.await_sign(sign, limit)?;
        let seen = (sent(&ns)?, allocated()?);
        guest.give_sign(answer)?;
        Ok(seen)
    };
    let before = step("before-mkfs", "counted-before", LIMIT)?;
    let made = step("after-mkfs", "counted-mkfs", LIMIT)?;
    let mounted = step("after-idle", "counted-idle", idle + LIMIT)?;
    let written = step("written", "counted-written", LIMIT)?;
    let deleted = step("deleted", "counted-deleted", LIMIT)?;
    let trimmed = step("trimmed", "counted-trimmed", LIMIT)?;
    let outcome = guest.wait()?;
    println!("{}\n{}", outcome.output, outcome.kernel_log);

    let (mkfs, after) = (made.0 - before.0, mounted.0 - made.0);
    println!(
        "mkfs.ext4 sent {mkfs} bytes; {after} bytes followed in {idle_s} s; fstrim sent {}",
        trimmed.0 - deleted.0
    );
    println!(
        "the file has {} bytes after mkfs, {} mounted, {} written, {} deleted, {} trimmed",
        made.1, mounted.1, written.1, deleted.1, trimmed.1
    );
    ensure!(mkfs < MKFS_MAX_BYTES, "mkfs.ext4 sent {mkfs} bytes");
    ensure!(after < IDLE_MAX_BYTES, "{after} bytes followed in {idle_s} s");
    let data = WRITTEN_MIB << 20;
    ensure!(written.1 >= mounted.1 + data, "the data is not in the file");
    ensure!(
        deleted.1 + (1 << 20) >= written.1,
        "deleting alone gave space back: fstrim is not tested"
    );
    ensure!(
        trimmed.1 + data <= deleted.1 + (1 << 20),
        "fstrim gave back {} of {data} bytes",
        deleted.1 - trimmed.1
    );
    story::check_kernel_log(&outcome)?;
    daemon.stop()
}
