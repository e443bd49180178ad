//! A device is the LUNs of one target; a nexus is one initiator's way to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::attention::{Attention, Pending};
use super::execute::Execution;
use super::generation::Drain;
use super::request::Request;
use super::table::{self, Access};
use super::unit::LogicalUnit;
use super::{Prepared, Response, Status, absent};

/// Largest LUN that flat space addressing can name (SAM-6 4.7.7.3).
const MAX_LUN: u16 = 0x3FFF;

/// The LUNs of one target.
#[derive(Debug)]
pub struct Device {
    luns: BTreeMap<u16, Arc<LogicalUnit>>,
}

/// No LUN of the device would have this initiator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("LUN {lun} is in use by {holder} and not shared")]
pub struct Refused {
    /// The first LUN that refused.
    pub lun: u16,
    /// Name of the initiator that holds it.
    pub holder: String,
}

impl Device {
    /// A device of these LUNs. LUNs above 16383 cannot be addressed and are left out.
    pub fn new(mut luns: BTreeMap<u16, Arc<LogicalUnit>>) -> Arc<Self> {
        luns.retain(|&lun, _| {
            let fits = lun <= MAX_LUN;
            if !fits {
                tracing::warn!(lun, "a LUN above 16383 cannot be addressed; it is not exported");
            }
            fits
        });
        Arc::new(Self { luns })
    }

    /// The LUNs and what is behind them.
    pub fn luns(&self) -> &BTreeMap<u16, Arc<LogicalUnit>> {
        &self.luns
    }

    /// Registers an I_T nexus of the initiator called `initiator`; `port` names its port, for iSCSI
    /// `iqn.…,i,0x` and the ISID in hex (RFC 7143 §4.4.3). Persistent reservations belong to the port: whoever
    /// comes back under the same one finds them again.
    ///
    /// A LUN held by another name is not admitted: most commands to it end in RESERVATION CONFLICT until the
    /// holder leaves. If that is every LUN there is, the nexus is refused.
    pub fn attach(self: &Arc<Self>, initiator: &str, port: &str) -> Result<Nexus, Refused> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let nexus_id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let nexus = Nexus {
            port: port.into(),
            paths: self
                .luns
                .iter()
                .map(|(&lun, unit)| Path::register(lun, Arc::clone(unit), nexus_id, initiator, port))
                .collect(),
            device: Arc::clone(self),
        };
        match nexus.paths.first() {
            Some(first) if nexus.paths.iter().all(|path| !path.is_admitted()) => Err(Refused {
                lun: first.lun,
                holder: first.unit.holder().unwrap_or_default(),
            }),
            _ => Ok(nexus),
        }
    }
}

/// One nexus' way to one LUN.
#[derive(Debug)]
pub(super) struct Path {
    lun: u16,
    unit: Arc<LogicalUnit>,
    nexus_id: u64,
    initiator: Box<str>,
    port: Box<str>,
    admitted: AtomicBool,
    pending: Pending,
}

impl Path {
    fn register(lun: u16, unit: Arc<LogicalUnit>, nexus_id: u64, initiator: &str, port: &str) -> Arc<Self> {
        let path = Arc::new(Self {
            lun,
            unit,
            nexus_id,
            initiator: initiator.into(),
            port: port.into(),
            admitted: AtomicBool::new(false),
            pending: Pending::default(),
        });
        path.unit.register(&path);
        path
    }

    pub(super) fn lun(&self) -> u16 {
        self.lun
    }

    pub(super) fn unit_shared(&self) -> &Arc<LogicalUnit> {
        &self.unit
    }

    pub(super) fn unit(&self) -> &LogicalUnit {
        &self.unit
    }

    pub(super) fn nexus_id(&self) -> u64 {
        self.nexus_id
    }

    pub(super) fn initiator(&self) -> &str {
        &self.initiator
    }

    pub(super) fn port(&self) -> &str {
        &self.port
    }

    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    /// Whether commands may be carried out; admits a path that was not, now that the holder may have left.
    fn admit(self: &Arc<Self>) -> bool {
        self.is_admitted() || self.unit.admit(self)
    }

    pub(super) fn set_admitted(&self) {
        self.admitted.store(true, Ordering::Release);
    }
}

/// An I_T nexus: commands of one initiator port. Dropping it detaches it.
#[derive(Debug)]
pub struct Nexus {
    device: Arc<Device>,
    port: Box<str>,
    /// In LUN order.
    paths: Vec<Arc<Path>>,
}

impl Nexus {
    /// The device it is attached to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The initiator port it was attached with.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Whether there is such a LUN.
    pub fn lun_exists(&self, lun: [u8; 8]) -> bool {
        self.path(lun).is_some()
    }

    /// Whether commands of this nexus are carried out at the LUN: false if another name holds it, or if there is
    /// no such LUN.
    pub fn is_admitted(&self, lun: [u8; 8]) -> bool {
        self.path(lun).is_some_and(Path::admit)
    }

    /// Parses and checks a command and reports unit attentions. Commands that need no medium are done here.
    pub fn prepare(&self, lun: [u8; 8], cdb: &[u8]) -> Prepared {
        let Some(path) = self.path(lun) else {
            return Prepared::Done(absent::answer(&self.device, cdb));
        };
        // Before anything is checked: what a reset changes from here on ends the command.
        let generation = path.unit.generations().current();
        let command = match table::find(cdb) {
            Ok(command) => command,
            Err(sense) => {
                let sense = path.pending.take().map_or(sense, Attention::sense);
                return Prepared::Done(Response::check(sense));
            }
        };
        if command.access != Access::Always {
            if let Some(attention) = path.pending.take() {
                return Prepared::Done(Response::check(attention.sense()));
            }
            if !path.unit.allow(path, path.admit(), command.access) {
                return Prepared::Done(Response::status(Status::ReservationConflict));
            }
        }
        let plan = command.check(cdb).and_then(|cdb| {
            (command.plan)(&Request {
                cdb,
                device: &self.device,
                path,
                unit: &path.unit,
            })
        });
        match plan {
            Ok(plan) => Execution::of_plan(Arc::clone(path), generation, plan),
            Err(sense) => Prepared::Done(Response::check(sense)),
        }
    }

    /// LOGICAL UNIT RESET: commands prepared before it, by whichever nexus, do not begin any more, those that
    /// run are what the answer has to wait for; RESERVE (6) ends, and every nexus of the LUN hears of the reset,
    /// this one too (SAM-6 6.3.3). To be called once per reset, by the nexus that asks for it.
    ///
    /// `None`, and nothing has happened, if this nexus is not [admitted](Self::is_admitted) to such a LUN.
    pub fn reset_lun(&self, lun: [u8; 8]) -> Option<Drain> {
        let path = self.path(lun).filter(|path| path.admit())?;
        Some(path.unit.reset(path, Attention::UnitReset))
    }

    /// Target reset: the same for every LUN this nexus is admitted to.
    pub fn reset_target(&self) -> Vec<Drain> {
        self.paths
            .iter()
            .filter(|path| path.is_admitted())
            .map(|path| path.unit.reset(path, Attention::BusReset))
            .collect()
    }

    /// Commands of this nexus at the LUN were cleared by another one (CLEAR TASK SET, SAM-6 5.14): this nexus,
    /// and no other, will hear of it. To be called on the nexus whose commands they were.
    pub fn tasks_cleared_by_other(&self, lun: [u8; 8]) {
        if let Some(path) = self.path(lun) {
            path.pending.establish(Attention::CommandsCleared);
        }
    }

    fn path(&self, lun: [u8; 8]) -> Option<&Arc<Path>> {
        let lun = absent::decode_lun(lun)?;
        let index = self.paths.binary_search_by_key(&lun, |path| path.lun).ok()?;
        self.paths.get(index)
    }
}

impl Drop for Nexus {
    fn drop(&mut self) {
        for path in &self.paths {
            path.unit.detach(path);
        }
    }
}
