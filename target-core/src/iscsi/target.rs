//! A target: its device, who may do what at it, and who is logged in.
//!
//! Everything here is touched at login, logout and task management only, never on the data path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use iscsi_pdu::Isid;

use super::current::Current;
use super::job::Fence;
use super::limits::Limits;
use super::mailbox::{CloseReason, Notice, Sender};
use super::params::Params;
use super::policy::{Auth, Credentials, Policy, Who};
use super::portals::Listening;
use super::shape::{Rate, Shaper};
use super::stats::{SessionStats, Snapshot};
use crate::scsi::{Device, Observer};

/// One target: a name and a device, and who is logged in.
#[derive(Debug)]
pub struct Target {
    name: Current<String>,
    alias: Current<Option<String>>,
    /// The LUNs.
    pub device: Arc<Device>,
    policy: Current<Policy>,
    credentials: Current<Credentials>,
    portal_groups: Current<Vec<u16>>,
    /// Set when the target has been removed: nobody gets in any more.
    retired: AtomicBool,
    sessions: Mutex<HashMap<SessionKey, Session>>,
    /// Of sessions that are over; locked after `sessions`.
    totals: Mutex<Totals>,
    /// Limit of each session.
    session_rate: Current<Rate>,
    /// Sessions that are over but for commands that workers are still at.
    departed: Mutex<Vec<(SessionKey, Weak<()>)>>,
}

/// What has happened at a target since it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sessions that have begun.
    pub logins: u64,
    /// Sessions that took the place of an earlier one of the same initiator (RFC 7143 §6.3.5).
    pub reinstated: u64,
    /// What all sessions have done, those that are over included.
    pub done: Snapshot,
}

/// What makes an I_T nexus (RFC 7143 §4.4.3): initiator name and ISID, and the portal group, the target being
/// given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// iSCSI name of the initiator.
    pub initiator: String,
    /// Initiator part of the session identifier.
    pub isid: Isid,
    /// Tag of the portal group it came to.
    pub portal_group: u16,
}

#[derive(Debug)]
struct Session {
    tsih: u16,
    mailbox: Sender,
    /// Whether the old session was told already that another takes its place.
    told_to_go: bool,
    guest: Guest,
    shaper: Arc<Shaper>,
    since: SystemTime,
}

/// Who enters, and what about them can be told to others.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) who: Arc<Who>,
    pub(super) peer: String,
    pub(super) params: Params,
    pub(super) stats: Arc<SessionStats>,
}

/// A session, for lists.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Initiator, ISID and portal group.
    pub key: SessionKey,
    /// Target session identifying handle; what [`Target::drop_session`] takes.
    pub tsih: u16,
    /// Who it is.
    pub who: Arc<Who>,
    /// The other end of the connection.
    pub peer: String,
    /// When it logged in.
    pub since: SystemTime,
    /// What was negotiated.
    pub params: Params,
    /// What it has done so far.
    pub stats: Arc<SessionStats>,
}

/// Why a session cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoEntry {
    /// A bound on sessions is reached.
    TooManySessions,
    /// The target is not served any more.
    TargetRemoved,
}

/// There is a session in the place of the one that is wanted, and it is somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotTheirs;

impl Target {
    /// A target without sessions.
    pub fn new(name: &str, alias: Option<String>, device: Arc<Device>) -> Arc<Self> {
        let target = Arc::new(Self {
            name: Current::new(name.to_ascii_lowercase()),
            alias: Current::new(alias),
            device,
            policy: Current::default(),
            credentials: Current::default(),
            portal_groups: Current::default(),
            retired: AtomicBool::new(false),
            sessions: Mutex::default(),
            totals: Mutex::default(),
            session_rate: Current::default(),
            departed: Mutex::default(),
        });
        let observer: Weak<dyn Observer> = Arc::downgrade(&(Arc::clone(&target) as Arc<dyn Observer>));
        target.device.observe(observer);
        target
    }

    /// iSCSI name, in lower case.
    pub fn name(&self) -> Arc<String> {
        self.name.get()
    }

    pub(super) fn set_name(&self, name: String) {
        self.name.set(name);
    }

    /// TargetAlias (RFC 7143 §13.7), for people to read.
    pub fn alias(&self) -> Arc<Option<String>> {
        self.alias.get()
    }

    /// Sets the alias that is told from now on.
    pub fn set_alias(&self, alias: Option<String>) {
        self.alias.set(alias);
    }

    /// Who may do what.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.get()
    }

    /// Sets who may do what. It holds for sessions that are there as well: who would not be let in any more is
    /// dropped, be it that the policy asks for CHAP now, and they have not shown to be one of the users there are.
    /// So [credentials](Self::set_credentials) are to be set before.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.set(policy);
        let policy = self.policy.get();
        for session in self.lock_sessions().values() {
            let who = &session.guest.who;
            let stays = policy.admits(who) && self.has_authenticated(who);
            post(
                &session.mailbox,
                if stays {
                    Notice::LunsChanged
                } else {
                    Notice::Close(CloseReason::Administrator)
                },
            );
        }
    }

    /// Whether somebody has shown who he is, as far as the target wants to know now.
    pub(super) fn has_authenticated(&self, who: &Who) -> bool {
        let is_user = |user: &String| self.credentials.get().users.contains_key(user);
        self.policy.get().auth == Auth::None || who.chap_user.as_ref().is_some_and(is_user)
    }

    /// The secrets that logins are checked by.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.get()
    }

    /// Sets the secrets that logins are checked by from now on.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.credentials.set(credentials);
    }

    /// Tags of the portal groups that lead to it; none: all.
    pub fn portal_groups(&self) -> Arc<Vec<u16>> {
        self.portal_groups.get()
    }

    /// Sets the portal groups that lead to it. Sessions that are there go on.
    pub fn set_portal_groups(&self, tags: Vec<u16>, portals: &[Listening]) {
        self.portal_groups.set(tags);
        self.set_port_tags(portals);
    }

    /// Whether a portal of this group leads to it.
    pub fn is_in_portal_group(&self, tag: u16) -> bool {
        let groups = self.portal_groups.get();
        groups.is_empty() || groups.contains(&tag)
    }

    /// Every portal group that is there and leads here is a target port.
    pub(super) fn set_port_tags(&self, portals: &[Listening]) {
        let tags = portals.iter().map(|portal| portal.portal.tag);
        self.device
            .set_target_ports(tags.filter(|tag| self.is_in_portal_group(*tag)).collect());
    }

    /// Session reinstatement (RFC 7143 §6.3.5): a session with the same key is told to end. Returns whether
    /// the way is free: no such session is left, and no worker is at a command of one.
    ///
    /// # Errors
    /// Such a session is there, and `who` has not [shown](Who::may_replace) that it is his. It goes on.
    pub(super) fn make_way(&self, key: &SessionKey, who: &Who) -> Result<bool, NotTheirs> {
        let mut sessions = self.lock_sessions();
        if let Some(old) = sessions.get_mut(key) {
            if !who.may_replace(&old.guest.who) {
                return Err(NotTheirs);
            }
            if !std::mem::replace(&mut old.told_to_go, true) {
                tracing::info!(target_name = %self.name(), initiator = key.initiator, "session reinstated");
                self.lock_totals().reinstated += 1;
                post(&old.mailbox, Notice::Close(CloseReason::Reinstated));
            }
            return Ok(false);
        }
        let mut departed = self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        departed.retain(|(_, fence)| fence.strong_count() > 0);
        Ok(!departed.iter().any(|(departed, _)| departed == key))
    }

    /// Whether `who` may have a session with this key: there is none, or it is his.
    pub(super) fn may_have(&self, key: &SessionKey, who: &Who) -> bool {
        let sessions = self.lock_sessions();
        sessions.get(key).is_none_or(|old| who.may_replace(&old.guest.who))
    }

    /// Registers a session for which [`make_way`](Self::make_way) has found the way free.
    pub(super) fn enter(
        self: &Arc<Self>,
        limits: &Limits,
        key: SessionKey,
        tsih: u16,
        mailbox: Sender,
        guest: Guest,
    ) -> Result<Registration, NoEntry> {
        let mut sessions = self.lock_sessions();
        if self.retired.load(Ordering::SeqCst) {
            return Err(NoEntry::TargetRemoved);
        }
        let of_this_initiator = sessions.keys().filter(|other| other.initiator == key.initiator).count();
        // Two logins with one key at the same moment: the second has to come again.
        let full = sessions.len() >= limits.sessions_per_target || of_this_initiator >= limits.sessions_per_initiator;
        if full || sessions.contains_key(&key) {
            return Err(NoEntry::TooManySessions);
        }
        self.lock_totals().logins += 1;
        let who = Arc::clone(&guest.who);
        let stats = Arc::clone(&guest.stats);
        let shaper = Shaper::new(*self.session_rate.get());
        sessions.insert(
            key.clone(),
            Session {
                tsih,
                mailbox,
                told_to_go: false,
                guest,
                shaper: Arc::clone(&shaper),
                since: SystemTime::now(),
            },
        );
        Ok(Registration {
            target: Arc::clone(self),
            key,
            tsih,
            who,
            stats,
            shaper,
            fence: Fence::default(),
        })
    }

    /// Whether a session has this TSIH.
    pub fn has_tsih(&self, tsih: u16) -> bool {
        self.lock_sessions().values().any(|session| session.tsih == tsih)
    }

    /// Whether there is a session with this key.
    pub fn has_session(&self, key: &SessionKey) -> bool {
        self.lock_sessions().contains_key(key)
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.lock_sessions().len()
    }

    /// All sessions, in the order of their TSIH.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let mut list: Vec<SessionInfo> = self
            .lock_sessions()
            .iter()
            .map(|(key, session)| SessionInfo {
                key: key.clone(),
                tsih: session.tsih,
                who: Arc::clone(&session.guest.who),
                peer: session.guest.peer.clone(),
                since: session.since,
                params: session.guest.params.clone(),
                stats: Arc::clone(&session.guest.stats),
            })
            .collect();
        list.sort_unstable_by_key(|session| session.tsih);
        list
    }

    /// What has happened so far.
    pub fn totals(&self) -> Totals {
        // Both locks, so that a session that ends now is counted once.
        let sessions = self.lock_sessions();
        let mut totals = self.lock_totals().clone();
        for session in sessions.values() {
            totals.done.add(&session.guest.stats.snapshot());
        }
        totals
    }

    /// How fast the commands of each session may begin.
    pub fn session_rate(&self) -> Rate {
        *self.session_rate.get()
    }

    /// Sets how fast the commands of each session may begin, for those that are there as well.
    pub fn set_session_rate(&self, rate: Rate) {
        let sessions = self.lock_sessions();
        self.session_rate.set(rate);
        for session in sessions.values() {
            session.shaper.set(rate);
        }
    }

    fn lock_totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a session. Returns whether there was one.
    pub fn drop_session(&self, tsih: u16) -> bool {
        let sessions = self.lock_sessions();
        let Some(session) = sessions.values().find(|session| session.tsih == tsih) else {
            return false;
        };
        post(&session.mailbox, Notice::Close(CloseReason::Administrator));
        true
    }

    /// Lets nobody in any more, and asks everybody to leave.
    pub(super) fn retire(&self, within_ms: u64) {
        let sessions = self.lock_sessions();
        self.retired.store(true, Ordering::SeqCst);
        for session in sessions.values() {
            post(
                &session.mailbox,
                Notice::AskLogout {
                    within_ms,
                    reason: CloseReason::TargetRemoved,
                },
            );
        }
    }

    fn lock_sessions(&self) -> MutexGuard<'_, HashMap<SessionKey, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Target {
    fn luns_changed(&self) {
        for session in self.lock_sessions().values() {
            post(&session.mailbox, Notice::LunsChanged);
        }
    }
}

/// A session's place in its target's list, given up when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    target: Arc<Target>,
    key: SessionKey,
    tsih: u16,
    who: Arc<Who>,
    stats: Arc<SessionStats>,
    shaper: Arc<Shaper>,
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

    /// Which session it is.
    pub(super) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Who is logged in.
    pub(super) fn who(&self) -> &Arc<Who> {
        &self.who
    }

    /// Where the session counts.
    pub(super) fn stats(&self) -> &Arc<SessionStats> {
        &self.stats
    }

    /// The limit of this session alone.
    pub(super) fn shaper(&self) -> &Arc<Shaper> {
        &self.shaper
    }

    /// Sends a notice to every other session of the target.
    pub(super) fn post_to_others(&self, notice: impl Fn() -> Notice) {
        for (_, session) in self
            .target
            .lock_sessions()
            .iter()
            .filter(|(_, session)| session.tsih != self.tsih)
        {
            post(&session.mailbox, notice());
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
        let mut sessions = self.target.lock_sessions();
        if let Some(session) = sessions.remove(&self.key) {
            let mut done = session.guest.stats.snapshot();
            done.queue_depth = 0;
            self.target.lock_totals().done.add(&done);
        }
    }
}

fn post(mailbox: &Sender, notice: Notice) {
    if let Some(mailbox) = mailbox.upgrade() {
        mailbox.post(notice);
    }
}
