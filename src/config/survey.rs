//! The plan against this machine: what is missing, of the wrong kind or not permitted is found before anything is
//! opened for good, created or bound.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;

use super::problem::Problems;
use super::size::Size;
use super::{LunPlan, MediumPlan, Plan, PortalPlan};
use crate::culprit;

/// Looks at the LUNs that are to be opened and the portals that are to be bound; what cannot work goes to `problems`.
pub(crate) fn survey<'a>(
    plan: &Plan,
    luns: impl IntoIterator<Item = &'a LunPlan>,
    portals: &[&PortalPlan],
    problems: &mut Problems,
) {
    for lun in luns {
        match &lun.medium {
            MediumPlan::File { path, size } => survey_file(lun, path, *size, problems),
            MediumPlan::Device { path } => survey_device(lun, path, problems),
            MediumPlan::Memory { size } => survey_memory(lun, *size, problems),
        }
    }
    let all = plan.targets.iter().flat_map(|target| &target.luns);
    same_file_twice(all.filter(|lun| !lun.offline), problems);
    for portal in portals {
        survey_portal(portal, problems);
    }
}

/// Looks whether there can be tunnels.
pub(crate) fn survey_tunnel(plan: &Plan, problems: &mut Problems) {
    if let Some(tunnel) = &plan.tunnel
        && let Err(error) = tunnel::tun::check()
    {
        problems.add_passing(
            tunnel.line,
            format!("tunnels cannot be served: {error}; see to that, or set enable = false in [tunnel]"),
        );
    }
}

fn survey_file(lun: &LunPlan, path: &Path, size: Option<Size>, problems: &mut Problems) {
    let shown = path.display();
    match std::fs::metadata(path) {
        // Left behind where a daemon was killed while it made it: nothing is lost by filling it.
        Ok(found) if found.is_file() && found.len() == 0 && size.is_some() => missing_file(lun, path, size, problems),
        Ok(found) if found.is_file() => {
            existing_file(lun, path, &found, size, problems);
        }
        Ok(found) if found.file_type().is_block_device() => {
            problems.add(
                lun.line,
                format!("{shown} is a block device: write device = instead of file ="),
            );
        }
        Ok(_) => problems.add(lun.line, format!("{shown} is not a regular file: name another one")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing_file(lun, path, size, problems),
        Err(error) => problems.add_passing(lun.line, format!("cannot look at {shown}: {error}")),
    }
}

fn existing_file(lun: &LunPlan, path: &Path, found: &Metadata, size: Option<Size>, problems: &mut Problems) {
    let shown = path.display();
    let has = found.len();
    match size {
        Some(size) if size.0 != has => problems.add(
            lun.line,
            format!(
                "{shown} is there already with {}, not {size}: correct size, or leave it out to take the file as it is",
                sized(has)
            ),
        ),
        None if has == 0 => problems.add(
            lun.line,
            format!("{shown} is empty: remove it and give a size, then it is created"),
        ),
        None if !has.is_multiple_of(u64::from(lun.block_size_bytes)) => problems.add(
            lun.line,
            format!(
                "{shown} has {has} bytes, which is no whole number of {}-byte blocks",
                lun.block_size_bytes
            ),
        ),
        _ => {}
    }
    if let Some(device) = attached_to(Path::new("/sys/block"), found) {
        problems.add_passing(
            lun.line,
            format!("{shown} is in use as {device}: sudo losetup -d {device}, or export that with device ="),
        );
    }
    if let Some(holder) = culprit::record_lock_holder(found) {
        problems.add_passing(
            lun.line,
            format!("{shown} is in use by {holder}: stop that program, or name another file"),
        );
    }
    if let Some(text) = cannot_be_opened(lun, path) {
        problems.add(lun.line, text);
    }
}

/// Why a file or device cannot be opened as it has to be.
fn cannot_be_opened(lun: &LunPlan, path: &Path) -> Option<String> {
    let opened = OpenOptions::new().read(true).write(!lun.read_only).open(path);
    let error = opened.err()?;
    let (shown, what) = (path.display(), if lun.read_only { "read" } else { "read and written" });
    Some(format!("{shown} cannot be {what} by this user: {error}"))
}

fn survey_memory(lun: &LunPlan, size: Size, problems: &mut Problems) {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if let Some(total) = memory_total(&meminfo)
        && size.0 > total
    {
        problems.add(
            lun.line,
            format!("a LUN of {size} in memory does not fit this machine: it has {total} bytes; use a file instead"),
        );
    }
}

/// All memory there is, in bytes (proc_meminfo(5): MemTotal, in KiB whatever it says).
fn memory_total(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    rest.split_ascii_whitespace()
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// The loop device that a file is attached to (`/sys/block/loopN/loop/backing_file`), such as `/dev/loop0`.
fn attached_to(block: &Path, file: &Metadata) -> Option<String> {
    std::fs::read_dir(block).ok()?.flatten().find_map(|device| {
        let backing = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        let backing = std::fs::metadata(backing.trim_end_matches('\n')).ok()?;
        let same = (backing.dev(), backing.ino()) == (file.dev(), file.ino());
        same.then(|| format!("/dev/{}", device.file_name().to_string_lossy()))
    })
}

fn sized(bytes: u64) -> String {
    if bytes == 0 {
        "no content".to_owned()
    } else {
        Size(bytes).to_string()
    }
}

fn missing_file(lun: &LunPlan, path: &Path, size: Option<Size>, problems: &mut Problems) {
    let shown = path.display();
    let Some(size) = size else {
        return problems.add(
            lun.line,
            format!("{shown} does not exist: correct the path, or add size = \"…\" to have it created"),
        );
    };
    if lun.read_only {
        return problems.add(
            lun.line,
            format!(
                "{shown} does not exist, and an empty read-only LUN is of no use: correct the path, or drop read_only"
            ),
        );
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return problems.add(lun.line, format!("{} is not a directory", directory.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = directory.display();
            return problems.add(
                lun.line,
                format!("the directory {directory} does not exist: mkdir -p {directory}"),
            );
        }
        Err(error) => return problems.add(lun.line, format!("cannot look at {}: {error}", directory.display())),
    }
    if let Err(error) = rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        return problems.add(
            lun.line,
            format!(
                "{shown} cannot be created by this user: {}: {error}",
                directory.display()
            ),
        );
    }
    if !can_hold(directory, size) {
        problems.add(
            lun.line,
            format!(
                "the file system of {} cannot hold a file of {size}: choose a smaller size, or a file system with \
                 larger files (XFS for instance)",
                directory.display()
            ),
        );
    }
}

/// Whether the file system takes a file of this size. Tried on a file without a name, so that nothing is left; `true`
/// where that does not exist: then creating it will tell.
fn can_hold(directory: &Path, size: Size) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) else {
        return true;
    };
    !matches!(
        rustix::fs::ftruncate(File::from(file), size.0),
        Err(Errno::FBIG | Errno::INVAL)
    )
}

fn survey_device(lun: &LunPlan, path: &Path, problems: &mut Problems) {
    let shown = path.display();
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return problems.add(
                lun.line,
                format!("the device {shown} does not exist: correct the path, or attach it"),
            );
        }
        Err(error) => return problems.add_passing(lun.line, format!("cannot look at {shown}: {error}")),
    };
    if found.is_file() {
        return problems.add(
            lun.line,
            format!("{shown} is a regular file: write file = instead of device ="),
        );
    }
    if !found.file_type().is_block_device() {
        return problems.add(lun.line, format!("{shown} is not a block device: name another one"));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(place) = mounted_at(&mounts, found.rdev()) {
        problems.add_passing(lun.line, format!("{shown} is mounted at {place}: sudo umount {place}"));
    } else if let Some(text) = cannot_be_opened(lun, path) {
        problems.add_passing(lun.line, text);
    }
}

/// Where a device is mounted (proc_pid_mountinfo(5): the third field is its number, the fifth the mount point).
fn mounted_at(mountinfo: &str, device: u64) -> Option<String> {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next()? == number).then_some(())?;
        Some(fields.nth(1)?.replace("\\040", " "))
    })
}

/// Two names of one file: links, or a path written twice in different ways.
fn same_file_twice<'a>(luns: impl Iterator<Item = &'a LunPlan>, problems: &mut Problems) {
    let mut seen: Vec<((u64, u64), &Path)> = Vec::new();
    for lun in luns {
        let (MediumPlan::File { path, .. } | MediumPlan::Device { path }) = &lun.medium else {
            continue;
        };
        let Ok(found) = std::fs::metadata(path) else { continue };
        let identity = if found.file_type().is_block_device() {
            (u64::MAX, found.rdev())
        } else {
            (found.dev(), found.ino())
        };
        match seen
            .iter()
            .find(|(other, path_seen)| *other == identity && *path_seen != path)
        {
            Some((_, other)) => problems.add(
                lun.line,
                format!("{} and {} are the same: one LUN each", path.display(), other.display()),
            ),
            None => seen.push((identity, path)),
        }
    }
}

fn survey_portal(portal: &PortalPlan, problems: &mut Problems) {
    let ip = portal.address.ip();
    // A datagram socket on any port finds out whether the address is here, without taking the portal's port.
    let error = match UdpSocket::bind(SocketAddr::new(ip, 0)) {
        Ok(_) => return,
        Err(error) => error,
    };
    let text = if error.kind() == io::ErrorKind::AddrNotAvailable {
        format!("{ip} is not an address of this machine now: ip address shows those it has")
    } else {
        format!("{ip} cannot be used: {error}")
    };
    problems.add_passing(portal.line, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(memory_total("MemFree: 1 kB\nMemTotal:    2048 kB\n"), Some(2 << 20));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_file_behind_a_loop_device_is_found() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("lun.img");
        std::fs::write(&file, "").unwrap();
        let found = std::fs::metadata(&file).unwrap();
        let block = home.path().join("block");
        std::fs::create_dir_all(block.join("loop0")).unwrap();
        std::fs::create_dir_all(block.join("loop7/loop")).unwrap();
        assert_eq!(attached_to(&block, &found), None);
        let backing = format!("{}\n", file.display());
        std::fs::write(block.join("loop7/loop/backing_file"), backing).unwrap();
        assert_eq!(attached_to(&block, &found).as_deref(), Some("/dev/loop7"));
    }

    #[test]
    fn a_mounted_device_is_found_by_its_number() {
        let text = "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n30 22 8:17 / /mnt/my\\040disk rw - xfs /dev/sdb1 rw\n";
        let device = |major, minor| rustix::fs::makedev(major, minor);
        assert_eq!(mounted_at(text, device(8, 17)).as_deref(), Some("/mnt/my disk"));
        assert_eq!(mounted_at(text, device(254, 1)).as_deref(), Some("/"));
        assert_eq!(mounted_at(text, device(8, 1)), None);
    }
}
