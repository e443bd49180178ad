//! The iSCSI node: its targets, their sessions, and the limits that hold for all of them.
//!
//! Everything here is touched at login, logout and task management only, never on the data path.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use iscsi_pdu::Isid;

use super::budget::Budget;
use super::job::Fence;
use super::mailbox::{CloseReason, Notice, Sender};
use crate::scsi::Device;

/// Bounds and offers of a node. Each is a default that a configuration may change.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time in which a login must be finished, in milliseconds.
    pub login_timeout_ms: u64,
    /// Silence after which an initiator is asked whether it is still there (NOP-In), in milliseconds; as
    /// much silence again ends the connection.
    pub idle_ping_ms: u64,
    /// While data keeps arriving and nothing has been sent for this long, in milliseconds, an unsolicited
    /// NOP-In tells a quiet initiator that the line works.
    pub upload_ping_ms: u64,
    /// Time after which a task management function answers even if the medium has not, in milliseconds.
    pub abort_wait_ms: u64,
    /// Commands a session may have open at a time.
    pub command_window: u32,
    /// Immediate commands (SCSI and task management) a session may have at work at a time.
    pub immediate_commands: u32,
    /// MaxRecvDataSegmentLength the target declares, in bytes.
    pub max_recv_data_segment_bytes: u32,
    /// FirstBurstLength the target offers, in bytes.
    pub first_burst_bytes: u32,
    /// MaxBurstLength the target offers, in bytes.
    pub max_burst_bytes: u32,
    /// MaxOutstandingR2T the target offers.
    pub max_outstanding_r2t: u16,
    /// Memory for what initiators may send unasked, over all sessions, in bytes.
    pub window_memory_bytes: usize,
    /// Memory for what the target asked for or read, over all sessions, in bytes.
    pub transfer_memory_bytes: usize,
    /// Sessions one initiator name may have on one target.
    pub sessions_per_initiator: usize,
    /// Sessions on one target.
    pub sessions_per_target: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_timeout_ms: 15_000,
            idle_ping_ms: 30_000,
            upload_ping_ms: 2_000,
            abort_wait_ms: 500,
            command_window: 512,
            immediate_commands: 32,
            max_recv_data_segment_bytes: 1024 * 1024,
            first_burst_bytes: 256 * 1024,
            // The largest multiple of 1024 below 2**24, what open-iscsi asks for by default.
            max_burst_bytes: 16_776_192,
            max_outstanding_r2t: 4,
            window_memory_bytes: 512 * 1024 * 1024,
            transfer_memory_bytes: 512 * 1024 * 1024,
            sessions_per_initiator: 32,
            sessions_per_target: 1024,
        }
    }
}

/// An iSCSI node: what all portals of one daemon serve.
#[derive(Debug)]
pub struct Node {
    /// Bounds for every connection.
    pub limits: Limits,
    /// Memory for every connection.
    pub budget: Budget,
    targets: RwLock<BTreeMap<String, Arc<Target>>>,
    next_tsih: AtomicU16,
}

impl Node {
    /// A node with the given targets.
    pub fn new(limits: Limits, targets: impl IntoIterator<Item = Arc<Target>>) -> Arc<Self> {
        let budget = Budget::new(limits.window_memory_bytes, limits.transfer_memory_bytes);
        let targets = targets
            .into_iter()
            .map(|target| (target.name.clone(), target))
            .collect();
        Arc::new(Self {
            limits,
            budget,
            targets: RwLock::new(targets),
            next_tsih: AtomicU16::new(1),
        })
    }

    /// The target called `name`. iSCSI names are compared byte by byte in their normal form (RFC 7143
    /// §4.2.7.1), which is lower case.
    pub fn target(&self, name: &str) -> Option<Arc<Target>> {
        self.targets
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&name.to_ascii_lowercase())
            .cloned()
    }

    /// All targets, in the order of their names.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.targets
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// A TSIH for a new session: never 0, which means "a new session" (RFC 7143 §11.12.6).
    pub fn new_tsih(&self) -> u16 {
        loop {
            let tsih = self.next_tsih.fetch_add(1, Relaxed);
            let taken = || self.targets().iter().any(|target| target.has_tsih(tsih));
            if tsih != 0 && !taken() {
                return tsih;
            }
        }
    }
}

/// One target: a name and a device, and who is logged in.
#[derive(Debug)]
pub struct Target {
    /// iSCSI name, in lower case.
    pub name: String,
    /// TargetAlias (RFC 7143 §13.7), for people to read.
    pub alias: Option<String>,
    /// The LUNs.
    pub device: Arc<Device>,
    sessions: Mutex<HashMap<SessionKey, Entry>>,
    /// Sessions that are over but for commands that workers are still at.
    departed: Mutex<Vec<(SessionKey, Weak<()>)>>,
}

/// What makes an I_T nexus (RFC 7143 §4.4.3): initiator name and ISID, the target and its portal group
/// being given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// Initiator part of the session identifier.
    pub isid: Isid,
}

#[derive(Debug)]
struct Entry {
    tsih: u16,
    mailbox: Sender,
    /// Whether the old session was told already that another takes its place.
    told_to_go: bool,
}

/// Why a session cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManySessions;

impl Target {
    /// A target without sessions.
    pub fn new(name: &str, alias: Option<String>, device: Arc<Device>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_ascii_lowercase(),
            alias,
            device,
            sessions: Mutex::default(),
            departed: Mutex::default(),
        })
    }

    /// Session reinstatement (RFC 7143 §6.3.5): a session with the same key is told to end. Returns whether
    /// the way is free: no such session is left, and no worker is at a command of one.
    pub(super) fn make_way(&self, key: &SessionKey) -> bool {
        let mut sessions = self.sessions();
        if let Some(old) = sessions.get_mut(key) {
            if !std::mem::replace(&mut old.told_to_go, true) {
                tracing::info!(target_name = self.name, initiator = key.initiator, "session reinstated");
                post(&old.mailbox, Notice::Close(CloseReason::Reinstated));
            }
            return false;
        }
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        departed.retain(|(_, fence)| fence.strong_count() > 0);
        !departed.iter().any(|(departed, _)| departed == key)
    }

    /// Registers a session for which [`make_way`](Self::make_way) has found the way free.
    pub(super) fn enter(
        self: &Arc<Self>,
        limits: &Limits,
        key: SessionKey,
        tsih: u16,
        mailbox: Sender,
    ) -> Result<Registration, TooManySessions> {
        let mut sessions = self.sessions();
        let of_this_initiator = sessions.keys().filter(|other| other.initiator == key.initiator).count();
        // Two logins with one key at the same moment: the second has to come again.
        let full = sessions.len() >= limits.sessions_per_target || of_this_initiator >= limits.sessions_per_initiator;
        if full || sessions.contains_key(&key) {
            return Err(TooManySessions);
        }
        sessions.insert(
            key.clone(),
            Entry {
                tsih,
                mailbox,
                told_to_go: false,
            },
        );
        Ok(Registration {
            target: Arc::clone(self),
            key,
            tsih,
            fence: Fence::default(),
        })
    }

    /// Whether a session has this TSIH.
    pub fn has_tsih(&self, tsih: u16) -> bool {
        self.sessions().values().any(|entry| entry.tsih == tsih)
    }

    /// Whether there is a session with this key.
    pub fn has_session(&self, key: &SessionKey) -> bool {
        self.sessions().contains_key(key)
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions().len()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionKey, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in its target's list, given up when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    target: Arc<Target>,
    key: SessionKey,
    tsih: u16,
    fence: Fence,
}

impl Registration {
    /// To go with every command of the session.
    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The target logged in to.
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Who is logged in.
    pub(super) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Sends a notice to every other session of the target.
    pub(super) fn post_to_others(&self, notice: impl Fn() -> Notice) {
        for (_, entry) in self
            .target
            .sessions()
            .iter()
            .filter(|(_, entry)| entry.tsih != self.tsih)
        {
            post(&entry.mailbox, notice());
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Before the session leaves the list, so that it is always on one of the two.
        let fence = Arc::downgrade(&self.fence.0);
        self.target
            .departed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((self.key.clone(), fence));
        self.target.sessions().remove(&self.key);
    }
}

fn post(mailbox: &Sender, notice: Notice) {
    if let Some(mailbox) = mailbox.upgrade() {
        mailbox.post(notice);
    }
}
