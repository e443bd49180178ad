//! Room for connections that have not logged in.
//!
//! Whoever reaches a portal can open connections and say nothing. They get few places, apart from those of sessions,
//! and when these run out it is whoever has the most of them that loses one: a flood from one place does not keep the
//! others out.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::iscsi::mailbox::{CloseReason, Mailbox, Notice};

/// Connections that have no session with a target, over all portals: logins under way, and discovery. For one more,
/// another is closed.
pub(super) const GUESTS_MAX: usize = 256;
/// The same from one address (of IPv6: one network of 64 bits). One more is closed at once.
pub(super) const GUESTS_PER_PEER_MAX: usize = 32;
/// Wrong secrets that are remembered after their connections are gone, over all peers.
const DEBTS_MAX: usize = 4096;
/// Lines in the log about connections without a session, at most so many in [`LOG_EVERY_MS`].
const LOG_LINES_MAX: u32 = 20;
/// See [`LOG_LINES_MAX`], in milliseconds.
const LOG_EVERY_MS: u64 = 1_000;

/// The places.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// In the order in which they came.
    guests: BTreeMap<u64, Entry>,
    /// How many places each peer has, those of connections that are told to end and debts included.
    per_peer: HashMap<IpAddr, usize>,
    /// Places of peers that did not wait to hear that their secret was wrong, and until when they count.
    debts: Vec<(Instant, IpAddr)>,
    log: Log,
}

/// How much of what strangers do is in the log.
#[derive(Debug, Default)]
struct Log {
    since: Option<Instant>,
    lines: u32,
    unlogged: u64,
}

#[derive(Debug)]
struct Entry {
    peer: Option<IpAddr>,
    mailbox: Weak<Mailbox>,
}

/// A place, given up when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    places: Arc<Places>,
    id: u64,
    peer: Option<IpAddr>,
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl Places {
    /// A place for a connection from `peer`: `host:port`, or anything else for what does not come by an address, which
    /// is not counted by where it comes from.
    pub(super) fn take(self: &Arc<Self>, now: Instant, peer: &str, mailbox: &Arc<Mailbox>) -> Result<Guest, Refused> {
        let peer = peer.parse::<SocketAddr>().ok().map(|peer| network(peer.ip()));
        let mut state = self.lock();
        state.forget_debts(now);
        if peer.is_some_and(|peer| state.count(peer) >= GUESTS_PER_PEER_MAX) {
            return Err(Refused);
        }
        if state.guests.len() >= GUESTS_MAX {
            state.make_room();
        }
        let id = state.next_id;
        state.next_id += 1;
        let mailbox = Arc::downgrade(mailbox);
        state.guests.insert(id, Entry { peer, mailbox });
        if let Some(peer) = peer {
            *state.per_peer.entry(peer).or_default() += 1;
        }
        drop(state);
        Ok(Guest {
            places: Arc::clone(self),
            id,
            peer,
        })
    }

    /// Whether a line about a connection without a session may be written, and how many were not since the last;
    /// `None`: this one is not to be written either. Strangers fill no disks.
    pub(super) fn may_log(&self, now: Instant) -> Option<u64> {
        self.lock().log.line(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&self, peer: IpAddr) -> usize {
        self.per_peer.get(&peer).copied().unwrap_or_default()
    }

    fn leave(&mut self, peer: IpAddr) {
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
    }

    /// Ends the oldest connection of who has the most.
    fn make_room(&mut self) {
        let of_peer = |entry: &Entry| entry.peer.map_or(1, |peer| self.count(peer));
        let most = self.guests.values().map(of_peer).max();
        let oldest = self.guests.iter().find(|(_, entry)| Some(of_peer(entry)) == most);
        let Some(entry) = oldest.map(|(id, _)| *id).and_then(|id| self.guests.remove(&id)) else {
            return;
        };
        if let Some(mailbox) = entry.mailbox.upgrade() {
            mailbox.post(Notice::Close(CloseReason::Crowded));
        }
    }

    fn forget_debts(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.debts.retain(|(until, peer)| {
            let is_due = *until <= now;
            if is_due {
                due.push(*peer);
            }
            !is_due
        });
        for peer in due {
            self.leave(peer);
        }
    }
}

impl Log {
    fn line(&mut self, now: Instant) -> Option<u64> {
        let every = Duration::from_millis(LOG_EVERY_MS);
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= every)
        {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LOG_LINES_MAX {
            self.unlogged += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unlogged))
    }
}

impl Guest {
    /// Gives up the place, but counts for its peer until then: hanging up makes nobody guess faster.
    pub(super) fn owe(mut self, until: Instant) {
        let Some(peer) = self.peer else { return };
        let mut state = self.places.lock();
        if state.debts.len() < DEBTS_MAX {
            state.debts.push((until, peer));
            drop(state);
            self.peer = None;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.guests.remove(&self.id);
        if let Some(peer) = self.peer {
            state.leave(peer);
        }
    }
}

/// What a peer is counted by: whoever has one IPv6 address has 2**64 of them.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Door {
        places: Arc<Places>,
        now: Instant,
    }

    impl Door {
        fn new() -> Self {
            Self {
                places: Arc::default(),
                now: Instant::now(),
            }
        }

        fn come(&self, peer: &str) -> Option<(Guest, Arc<Mailbox>)> {
            let mailbox = Mailbox::new();
            let guest = self.places.take(self.now, peer, &mailbox).ok()?;
            Some((guest, mailbox))
        }
    }

    fn is_told_to_go(mailbox: &Mailbox) -> bool {
        let mut notices = Vec::new();
        mailbox.take(&mut notices);
        matches!(notices[..], [Notice::Close(CloseReason::Crowded)])
    }

    #[test]
    fn one_peer_has_few_places_and_gets_them_back() {
        let door = Door::new();
        for (one, same, other) in [
            ("192.0.2.1:5", "[::ffff:192.0.2.1]:6", "192.0.2.2:5"),
            ("[2001:db8::1]:5", "[2001:db8::ffff:2]:5", "[2001:db8:0:1::1]:5"),
        ] {
            let mut guests: Vec<_> = (0..GUESTS_PER_PEER_MAX).map(|_| door.come(one).expect(one)).collect();
            assert!(door.come(same).is_none(), "{same}");
            assert!(door.come(other).is_some(), "{other}");
            guests.pop();
            assert!(door.come(same).is_some(), "{same}");
        }
        let state = door.places.lock();
        assert!(state.guests.is_empty() && state.per_peer.is_empty(), "{state:?}");
    }

    #[test]
    fn who_has_the_most_makes_room_for_others() {
        let door = Door::new();
        let first = door.come("192.0.2.99:1").expect("empty");
        let streams: Vec<_> = (0..GUESTS_MAX - 4)
            .map(|_| door.come("a pipe").expect("room"))
            .collect();
        let mut greedy: Vec<_> = (0..3).map(|_| door.come("192.0.2.1:1").expect("room")).collect();
        let late = door.come("192.0.2.2:1").expect("room is made");
        assert!(is_told_to_go(&greedy[0].1));
        greedy.remove(0);
        let next = door.come("192.0.2.3:1").expect("room is made");
        assert!(is_told_to_go(&greedy[0].1));
        let others = [&first, &late, &next].into_iter().chain(&streams).chain(&greedy[1..]);
        assert!(others.into_iter().all(|(_, mailbox)| !is_told_to_go(mailbox)));
        assert_eq!(door.places.lock().guests.len(), GUESTS_MAX);
    }

    #[test]
    fn debts_count_until_they_are_due() {
        let mut door = Door::new();
        let due = door.now + Duration::from_millis(500);
        for _ in 0..GUESTS_PER_PEER_MAX {
            let (guest, _) = door.come("192.0.2.1:1").expect("room");
            guest.owe(due);
        }
        assert!(door.places.lock().guests.is_empty());
        assert!(door.come("192.0.2.1:1").is_none());
        assert!(door.come("192.0.2.2:1").is_some());
        door.now = due;
        assert!(door.come("192.0.2.1:1").is_some());
        assert!(door.places.lock().per_peer.is_empty());
    }

    #[test]
    fn a_flood_is_logged_now_and_then() {
        let mut door = Door::new();
        for _ in 0..LOG_LINES_MAX {
            assert_eq!(door.places.may_log(door.now), Some(0));
        }
        assert_eq!(
            [door.places.may_log(door.now), door.places.may_log(door.now)],
            [None; 2]
        );
        door.now += Duration::from_millis(LOG_EVERY_MS);
        assert_eq!(door.places.may_log(door.now), Some(2));
        assert_eq!(door.places.may_log(door.now), Some(0));
    }
}
