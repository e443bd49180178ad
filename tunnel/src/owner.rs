//! Whose a local TCP connection is: which user of this host opened it, and who may.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use crate::filter::Openers;

/// Users whose first refused connection is logged, at most.
const LOGGED_USERS_MAX: usize = 64;

/// Root and the users named may open connections to the portals; the kernel's own initiator has its sockets from root.
#[derive(Debug)]
pub(crate) struct Users {
    may: Vec<u32>,
    /// `None` is for connections that are nobody's, such as those of a container behind this host.
    logged: HashSet<Option<u32>>,
}

impl Users {
    /// These users, by id, beside root.
    pub(crate) fn new(may: Vec<u32>) -> Self {
        let logged = HashSet::new();
        Self { may, logged }
    }

    fn refuse(&mut self, uid: Option<u32>, to: SocketAddrV4) {
        if self.logged.len() < LOGGED_USERS_MAX && self.logged.insert(uid) {
            tracing::warn!(%to, uid, "connections of another user are dropped");
        }
    }
}

impl Openers for Users {
    fn may_open(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> bool {
        match owner(from.into(), to.into()) {
            Ok(Some(uid)) if uid == 0 || self.may.contains(&uid) => true,
            Ok(uid) => {
                self.refuse(uid, to);
                false
            }
            Err(error) => {
                tracing::debug!(%to, %error, "cannot tell whose a connection is");
                self.refuse(None, to);
                false
            }
        }
    }
}

/// The user id behind a connection that a process of this host opens or has opened from `from` to `to`; `None` when
/// the kernel does not list it (any more).
///
/// # Errors
/// When the kernel's list cannot be read.
pub(crate) fn owner(from: SocketAddr, to: SocketAddr) -> io::Result<Option<u32>> {
    let name = if from.is_ipv4() { "tcp" } else { "tcp6" };
    // Of this thread's network namespace; /proc/net would be the first thread's.
    let list = File::open(format!("/proc/thread-self/net/{name}"))?;
    let (from, to) = (in_list(from), in_list(to));
    for line in BufReader::new(list).lines() {
        let line = line?;
        // proc(5): number, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode.
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next() == Some(&from) && fields.next() == Some(&to) {
            let uid = fields.nth(4).and_then(|uid| uid.parse().ok());
            // Without an inode it is nobody's any more, and the kernel prints root for those.
            return Ok(uid.filter(|_| fields.nth(1).is_some_and(|inode| inode != "0")));
        }
    }
    Ok(None)
}

/// An address as the kernel prints it: words in the order of this machine, then the port, in capital hex.
fn in_list(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let words = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn users_that_may() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
        else {
            panic!("IPv4 was asked for");
        };
        let uid = rustix::process::getuid();
        assert!(Users::new(vec![uid.as_raw()]).may_open(from, to));
        assert_eq!(Users::new(vec![]).may_open(from, to), uid.is_root());
        let mut users = Users::new(vec![]);
        let nobodys = SocketAddrV4::new(*from.ip(), 1);
        assert!(!users.may_open(nobodys, to) && !users.may_open(nobodys, to));
        assert_eq!(users.logged.len(), 1);
    }

    #[test]
    fn our_own_connections() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(stream.local_addr().unwrap(), from);
            let uid = rustix::process::getuid().as_raw();
            assert_eq!(
                owner(from, listener.local_addr().unwrap()).unwrap(),
                Some(uid),
                "{address}"
            );
            drop(stream);
            assert_eq!(
                owner(from, listener.local_addr().unwrap()).unwrap(),
                None,
                "closed in between"
            );
            let nobody = SocketAddr::new(from.ip(), 1);
            assert_eq!(owner(nobody, listener.local_addr().unwrap()).unwrap(), None);
        }
    }
}
