//! The iSCSI node: its targets and its portals, and the limits that hold for all of them.
//!
//! Everything here is touched at login, logout and task management only, never on the data path.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use super::budget::Budget;
use super::current::Current;
pub use super::limits::Limits;
use super::policy::Credentials;
use super::portals::Listening;
pub(super) use super::target::{Guest, NoEntry, NotTheirs, Registration};
pub use super::target::{SessionInfo, SessionKey, Target, Totals};

/// An iSCSI node: what all portals of one daemon serve.
#[derive(Debug)]
pub struct Node {
    limits: Current<Limits>,
    /// Memory for every connection.
    pub budget: Budget,
    targets: RwLock<BTreeMap<String, Arc<Target>>>,
    portals: Current<Vec<Listening>>,
    discovery_credentials: Current<Option<Credentials>>,
    next_tsih: AtomicU16,
    refused_logins: AtomicU64,
}

/// A target cannot have this name: another one has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is a target called {0} already")]
pub struct NameTaken(pub String);

impl Node {
    /// A node with the given targets.
    pub fn new(limits: Limits, targets: impl IntoIterator<Item = Arc<Target>>) -> Arc<Self> {
        let budget = Budget::new(limits.window_memory_bytes, limits.transfer_memory_bytes);
        let targets = targets
            .into_iter()
            .map(|target| (target.name().to_string(), target))
            .collect();
        Arc::new(Self {
            limits: Current::new(limits),
            budget,
            targets: RwLock::new(targets),
            portals: Current::default(),
            discovery_credentials: Current::default(),
            next_tsih: AtomicU16::new(1),
            refused_logins: AtomicU64::new(0),
        })
    }

    /// Bounds for connections that begin now; a connection keeps those it began with.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.get()
    }

    /// Sets the bounds for connections that begin from now on. The memory for all of them stays what it was from the
    /// start: what of it is promised cannot be taken back.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.set(Limits {
            window_memory_bytes: self.budget.window.limit_bytes(),
            transfer_memory_bytes: self.budget.transfer.limit_bytes(),
            ..limits
        });
    }

    /// The portals there are now.
    pub fn portals(&self) -> Arc<Vec<Listening>> {
        self.portals.get()
    }

    /// Tells the node which portals there are now.
    pub fn set_portals(&self, portals: Vec<Listening>) {
        self.portals.set(portals);
        for target in self.targets() {
            target.set_port_tags(&self.portals());
        }
    }

    /// Who may discover; `None`: everybody.
    pub fn discovery_credentials(&self) -> Arc<Option<Credentials>> {
        self.discovery_credentials.get()
    }

    /// Sets who may discover from now on.
    pub fn set_discovery_credentials(&self, credentials: Option<Credentials>) {
        self.discovery_credentials.set(credentials);
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

    /// Adds a target; it can be found and logged in to from now on.
    ///
    /// # Errors
    /// Another target has its name.
    pub fn add_target(&self, target: Arc<Target>) -> Result<(), NameTaken> {
        target.set_port_tags(&self.portals());
        let name = target.name().to_string();
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        match targets.entry(name) {
            Entry::Occupied(taken) => Err(NameTaken(taken.key().clone())),
            Entry::Vacant(free) => {
                free.insert(target);
                Ok(())
            }
        }
    }

    /// Takes a target out: nobody finds it or logs in to it any more. Its sessions are asked to log out, and
    /// dropped if they have not done so `within_ms`. Its LUNs are the caller's to remove.
    pub fn remove_target(&self, name: &str, within_ms: u64) -> Option<Arc<Target>> {
        let target = self
            .targets
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&name.to_ascii_lowercase())?;
        target.retire(within_ms);
        Some(target)
    }

    /// Gives a target another name. Sessions that are there go on; who comes anew has to ask for the new one.
    ///
    /// # Errors
    /// Another target has that name.
    pub fn rename_target(&self, name: &str, new_name: &str) -> Result<bool, NameTaken> {
        let (name, new_name) = (name.to_ascii_lowercase(), new_name.to_ascii_lowercase());
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        if name != new_name && targets.contains_key(&new_name) {
            return Err(NameTaken(new_name));
        }
        let Some(target) = targets.remove(&name) else {
            return Ok(false);
        };
        target.set_name(new_name.clone());
        targets.insert(new_name, target);
        Ok(true)
    }

    /// Counts a login that was refused.
    pub fn count_refused_login(&self) {
        self.refused_logins.fetch_add(1, Relaxed);
    }

    /// How many logins were refused, whichever target they were for.
    pub fn refused_logins(&self) -> u64 {
        self.refused_logins.load(Relaxed)
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
