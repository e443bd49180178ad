//! Who is in the way: the program that listens on a port, the one that holds a lock. For messages only: where `/proc`
//! does not tell, the answer is a guess that says so.

use std::fs::Metadata;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// TCP_LISTEN in `/proc/net/tcp` (include/net/tcp_states.h).
const LISTEN: &str = "0A";
/// Processes whose descriptors are looked at.
const PROCESSES_MAX: usize = 100_000;

/// The program that listens where `address` would, such as "tgtd (process 812)".
pub(crate) fn listener(address: SocketAddr) -> String {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let inode = tables
        .iter()
        .flat_map(|table| table.lines())
        .find_map(|line| listening_inode(line, address));
    let Some(inode) = inode else {
        return "another program".to_owned();
    };
    match owner_of_socket(inode) {
        Some(pid) => describe(pid),
        // The kernel's own sockets belong to no process; those of other users are not shown to us.
        None if rustix::process::geteuid().is_root() => {
            "the kernel's own target (LIO, targetcli) most likely".to_owned()
        }
        None => "a program of another user (tgtd, another farlun)".to_owned(),
    }
}

/// The inode in a line of `/proc/net/tcp` or `tcp6` if it is a listener that takes this address.
fn listening_inode(line: &str, address: SocketAddr) -> Option<u64> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if *fields.get(3)? != LISTEN || port != address.port() {
        return None;
    }
    let ip = parse_ip(ip)?;
    let takes = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    takes.then(|| fields.get(9)?.parse().ok()).flatten()
}

/// An address as 32-bit words in the machine's own order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for word in hex.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
            Some(ip.to_ipv4_mapped().map_or(ip.into(), Into::into))
        }
        _ => None,
    }
}

fn owner_of_socket(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.take(PROCESSES_MAX).flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        descriptors
            .flatten()
            .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
    })
}

/// The program that holds a lock on a file (flock(2)), if one is known.
pub(crate) fn lock_holder(path: &Path) -> Option<String> {
    let inode = std::fs::metadata(path).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| lock_pid(line, inode)).map(describe)
}

/// The process in a line of `/proc/locks` if it is a flock on this inode (proc_locks(5)).
fn lock_pid(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let at_inode = fields.get(5)?.rsplit_once(':')?.1.parse::<u64>().ok()?;
    (*fields.get(1)? == "FLOCK" && at_inode == inode).then_some(())?;
    fields.get(4)?.parse().ok()
}

/// The program that has locked parts of a file (fcntl(2)), as QEMU does with the images it has open.
pub(crate) fn record_lock_holder(file: &Metadata) -> Option<String> {
    let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks
        .lines()
        .find_map(|line| record_lock_pid(line, device, file.ino()))?;
    // Locks of open files belong to no process.
    Some(u32::try_from(pid).map_or_else(|_| "another program, QEMU most likely".to_owned(), describe))
}

/// The process in a line of `/proc/locks` if it is a record lock on this file (proc_locks(5)).
fn record_lock_pid(line: &str, device: (u32, u32), inode: u64) -> Option<i32> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let mut place = fields.get(5)?.split(':');
    let mut number = || u32::from_str_radix(place.next()?, 16).ok();
    let at_device = (number()?, number()?);
    let at_inode = place.next()?.parse::<u64>().ok()?;
    (matches!(*fields.get(1)?, "POSIX" | "OFDLCK") && at_device == device && at_inode == inode).then_some(())?;
    fields.get(4)?.parse().ok()
}

fn describe(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener_here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener_here.local_addr().unwrap();
        let name = listener(address);
        assert!(name.ends_with(&format!("(process {})", std::process::id())), "{name}");
        drop(listener_here);
        assert_eq!(listener(address), "another program");
    }

    #[test]
    fn a_lock_of_this_process_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(lock_holder(file.path()), None);
        rustix::fs::flock(file.as_file(), rustix::fs::FlockOperation::LockExclusive).unwrap();
        let holder = lock_holder(file.path()).unwrap();
        assert!(
            holder.ends_with(&format!("(process {})", std::process::id())),
            "{holder}"
        );
    }

    #[test]
    fn a_record_lock_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let holder = || record_lock_holder(&file.path().metadata().unwrap());
        assert_eq!(holder(), None);
        rustix::fs::fcntl_lock(file.as_file(), rustix::fs::FlockOperation::LockExclusive).unwrap();
        let holder = holder().unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }

    #[test]
    fn lines_of_proc_are_read() {
        let line =
            "   0: 0100007F:0CBC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4242 1 0 100 0 0 10 0";
        assert_eq!(listening_inode(line, "127.0.0.1:3260".parse().unwrap()), Some(4242));
        assert_eq!(listening_inode(line, "0.0.0.0:3260".parse().unwrap()), Some(4242));
        assert_eq!(listening_inode(line, "10.0.0.1:3260".parse().unwrap()), None);
        assert_eq!(listening_inode(line, "127.0.0.1:3261".parse().unwrap()), None);
        assert_eq!(
            lock_pid("1: FLOCK  ADVISORY  WRITE 77 08:01:1234 0 EOF", 1234),
            Some(77)
        );
        assert_eq!(lock_pid("1: POSIX  ADVISORY  WRITE 77 08:01:1234 0 EOF", 1234), None);
        for (line, expected) in [
            ("1: POSIX  ADVISORY  WRITE 77 fe:01:1234 0 EOF", Some(77)),
            ("1: OFDLCK ADVISORY  READ  -1 fe:01:1234 100 101", Some(-1)),
            ("1: OFDLCK ADVISORY  READ  -1 fe:02:1234 100 101", None),
            ("1: OFDLCK ADVISORY  READ  -1 fe:01:1235 100 101", None),
            ("1: FLOCK  ADVISORY  WRITE 77 fe:01:1234 0 EOF", None),
            ("1: -> POSIX  ADVISORY  WRITE 77 fe:01:1234 0 EOF", None),
        ] {
            assert_eq!(record_lock_pid(line, (0xfe, 1), 1234), expected, "{line}");
        }
    }
}
