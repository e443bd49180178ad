//! Everything that a change needs and that can fail without anything being touched: media opened and locked, addresses
//! bound. Then, what has to be created.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use target_core::lun::Medium;
use tokio::net::TcpListener;

use crate::config::{LunPlan, Problems};
use crate::serve::diff::Change;
use crate::serve::media::{Created, Opener};
use crate::serve::portals;
use crate::state;

/// A LUN by the name of its target and its number.
pub(super) type Key = (String, u16);

/// What is ready to be used.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Media of LUNs to come.
    pub(super) media: HashMap<Key, Arc<dyn Medium>>,
    /// Listeners of portals to come.
    pub(super) listeners: HashMap<SocketAddr, TcpListener>,
    /// The listener for metrics, if they are to move.
    pub(super) metrics: Option<TcpListener>,
    /// Files that have been made.
    pub(super) created: Created,
    /// LUNs whose file or device another LUN has now: opened when that one has gone.
    late: HashSet<Key>,
}

/// LUNs that a change opens.
pub(super) fn opens(change: &Change) -> Option<(&String, &LunPlan)> {
    match change {
        Change::AddLun { target, lun } if !lun.offline => Some((target, lun)),
        Change::Online { target, lun } => Some((target, lun)),
        Change::ReplaceLun { target, new, .. } => Some((target, new)),
        _ => None,
    }
}

/// Files and devices that are free once the changes are made.
fn freed(changes: &[Change]) -> HashSet<PathBuf> {
    let mut paths = HashSet::new();
    let mut add = |lun: &LunPlan| paths.extend(lun.medium.path().map(ToOwned::to_owned));
    for change in changes {
        match change {
            Change::RemoveTarget(target) => target.luns.iter().filter(|lun| !lun.offline).for_each(&mut add),
            Change::RemoveLun { lun, .. } if !lun.offline => add(lun),
            Change::ReplaceLun { old, .. } => add(old),
            _ => {}
        }
    }
    paths
}

/// Opens and binds what is there. What does not work goes to `problems`.
pub(super) fn prepare(changes: &[Change], problems: &mut Problems) -> Prepared {
    let freed = freed(changes);
    let leaving: Vec<SocketAddr> = changes
        .iter()
        .filter_map(|change| match change {
            Change::RemovePortal(portal) => Some(portal.address),
            _ => None,
        })
        .collect();
    let mut prepared = Prepared::default();
    let mut opener = Opener::default();
    for change in changes {
        if let Some((target, lun)) = opens(change) {
            let key = (target.clone(), lun.lun);
            if lun.medium.path().is_some_and(|path| freed.contains(path)) {
                prepared.late.insert(key);
            } else if let Some(medium) = opener.open(lun, problems) {
                prepared.media.insert(key, medium);
            } else if matches!(change, Change::Online { .. }) && problems.is_empty() {
                // An empty disk in its place would be worse than none.
                problems.add(lun.line, format!("{} is not there: put it back first", lun.medium));
            }
            if lun.medium.path().is_some()
                && !problems.knows_of(lun.line)
                && let Some(text) = state::reservations_in_the_way(&lun.serial)
            {
                problems.add_passing(lun.line, text);
            }
        }
        match change {
            Change::AddPortal(portal) => {
                // Where one that leaves is in the way, it is tried when that is gone.
                let in_the_way = |other: &SocketAddr| {
                    let (one, two) = (portal.address.ip(), other.ip());
                    let same = one == two || one.is_unspecified() || two.is_unspecified();
                    same && portal.address.port() == other.port()
                };
                if !leaving.iter().any(in_the_way)
                    && let Some(listener) = portals::bind(portal, problems)
                {
                    prepared.listeners.insert(portal.address, listener);
                }
            }
            Change::Metrics(Some(metrics)) => match portals::listen(metrics.address) {
                Ok(listener) => prepared.metrics = Some(listener),
                Err(error) => {
                    let text = portals::explain(metrics.address, &error).replacen("portal", "metrics", 1);
                    problems.add_passing(metrics.line, text);
                }
            },
            _ => {}
        }
    }
    prepared
}

impl Prepared {
    /// Creates what is missing.
    pub(super) fn create(&mut self, changes: &[Change]) -> anyhow::Result<()> {
        for (target, lun) in changes.iter().filter_map(opens) {
            let key = (target.clone(), lun.lun);
            if !self.media.contains_key(&key) && !self.late.contains(&key) {
                let medium = self.created.create(lun)?;
                state::forget_reservations(&lun.serial)?;
                self.media.insert(key, medium);
            }
        }
        Ok(())
    }
}
