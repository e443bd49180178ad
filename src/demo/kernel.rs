//! The kernel's own initiator, in this machine's own network namespace (it knows no other): a real disk appears, is
//! written and read, and goes again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use rustix::fs::Advice;

use super::child::{output, tool};
use super::exercise::{CHUNK_BYTES, checksum, chunk};

/// How long the disk may take to appear, in milliseconds.
const DISK_MS: u64 = 10_000;

/// What came of it.
pub(super) struct Outcome {
    /// The disk that appeared.
    pub(super) disk: PathBuf,
    /// Time to write and sync, in seconds.
    pub(super) write_s: f64,
    /// Time to read, in seconds.
    pub(super) read_s: f64,
    /// Checksums of what was written and read.
    pub(super) sums: (String, String),
}

/// Why the kernel's initiator cannot be used here, and what to do about it.
pub(super) async fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the kernel's initiator needs root: run it with sudo".to_owned());
    }
    if tool("iscsiadm").is_none() {
        return Some("iscsiadm is missing: sudo apt install open-iscsi".to_owned());
    }
    let transport = Path::new("/sys/class/iscsi_transport/tcp");
    if !transport.exists() {
        let mut command = Command::new(tool("modprobe").unwrap_or_else(|| "modprobe".into()));
        command.arg("iscsi_tcp");
        if let Err(error) = output(command).await {
            return Some(format!(
                "this kernel has no iSCSI initiator (module iscsi_tcp): {error:#}"
            ));
        }
        if !transport.exists() {
            return Some("the module iscsi_tcp is loaded, but offers no transport".to_owned());
        }
    }
    None
}

async fn iscsiadm(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tool("iscsiadm").context("iscsiadm is missing")?);
    command.args(arguments);
    output(command).await
}

/// A login that is undone when this is dropped.
struct LoggedIn {
    name: String,
    portal: String,
}

impl LoggedIn {
    fn undo(&self) {
        let Some(iscsiadm) = tool("iscsiadm") else { return };
        for last in [&["--logout"][..], &["-o", "delete"]] {
            let mut command = Command::new(&iscsiadm);
            command
                .args(["-m", "node", "-T", &self.name, "-p", &self.portal])
                .args(last);
            match command.output() {
                Ok(done) if done.status.success() => {}
                // After an orderly logout only the record is left to go.
                Ok(done) => tracing::debug!("iscsiadm {last:?}: {}", String::from_utf8_lossy(&done.stderr).trim()),
                Err(error) => tracing::warn!("iscsiadm {last:?}: {error}"),
            }
        }
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        self.undo();
    }
}

/// Discovery, login, write, read back, logout.
pub(super) async fn run(name: &str, portal: &str, mib: u64, seed: u64) -> Result<Outcome> {
    let login = LoggedIn {
        name: name.to_owned(),
        portal: portal.to_owned(),
    };
    let found = iscsiadm(&["-m", "discovery", "-t", "sendtargets", "-p", portal]).await?;
    if !found.contains(name) {
        bail!("discovery found other targets only:\n{found}");
    }
    iscsiadm(&["-m", "node", "-T", name, "-p", portal, "--login"]).await?;
    let disk = disk_of(name).await?;
    let on_disk = disk.clone();
    // Blocks for as long as the disk takes.
    let outcome = tokio::task::spawn_blocking(move || write_and_read(&on_disk, mib, seed)).await?;
    let outcome = outcome.with_context(|| format!("{}", disk.display()));
    iscsiadm(&["-m", "node", "-T", name, "-p", portal, "--logout"]).await?;
    drop(login);
    outcome
}

/// The disk of our session, by the target's name in sysfs.
async fn disk_of(name: &str) -> Result<PathBuf> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(DISK_MS) {
        if let Some(disk) = find_disk(Path::new("/sys/class/iscsi_session"), name)
            && disk.exists()
        {
            return Ok(disk);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(anyhow!("logged in, but no disk appeared within {} s", DISK_MS / 1000))
}

/// `sessionN/targetname` is the name; `sessionN/device/targetH:C:T/H:C:T:L/block/sdX` the disk.
fn find_disk(sessions: &Path, name: &str) -> Option<PathBuf> {
    let entries = |path: &Path| {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let session = entries(sessions)
        .find(|session| std::fs::read_to_string(session.join("targetname")).is_ok_and(|text| text.trim() == name))?;
    let is_target = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("target"))
    };
    let mut disks = entries(&session.join("device"))
        .filter(is_target)
        .flat_map(|target| entries(&target).collect::<Vec<_>>())
        .flat_map(|lun| entries(&lun.join("block")).collect::<Vec<_>>());
    Some(Path::new("/dev").join(disks.next()?.file_name()?))
}

fn write_and_read(disk: &Path, mib: u64, seed: u64) -> Result<Outcome> {
    let start = Instant::now();
    let mut file = OpenOptions::new().write(true).open(disk)?;
    for index in 0..mib {
        file.write_all(&chunk(seed, index))?;
    }
    file.sync_all()?;
    let write_s = start.elapsed().as_secs_f64();
    // What the kernel still knows of it is forgotten, so that it comes from the target.
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    drop(file);
    let start = Instant::now();
    let mut file = File::open(disk)?;
    let mut chunks: Vec<Bytes> = Vec::new();
    for _ in 0..mib {
        let mut bytes = vec![0; CHUNK_BYTES as usize];
        file.read_exact(&mut bytes)?;
        chunks.push(bytes.into());
    }
    let read_s = start.elapsed().as_secs_f64();
    Ok(Outcome {
        disk: disk.to_owned(),
        write_s,
        read_s,
        sums: (
            checksum((0..mib).map(|index| chunk(seed, index))),
            checksum(chunks.into_iter()),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_the_name_of_its_target() {
        let sysfs = tempfile::tempdir().unwrap();
        let session = sysfs.path().join("session3");
        std::fs::create_dir_all(session.join("device/target2:0:0/2:0:0:0/block/sdq")).unwrap();
        std::fs::create_dir_all(session.join("device/iscsi_session")).unwrap();
        std::fs::write(session.join("targetname"), "iqn.2026-11.net.farlun:demo\n").unwrap();
        assert_eq!(
            find_disk(sysfs.path(), "iqn.2026-11.net.farlun:demo"),
            Some("/dev/sdq".into())
        );
        assert_eq!(find_disk(sysfs.path(), "iqn.2026-11.net.farlun:dem"), None);
    }
}
