//! An I_T nexus: one initiator port's commands to the LUNs of a device that it may see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::attention::Attention;
use super::device::{Device, Mode, Slot};
use super::execute::Execution;
use super::generation::Drain;
use super::path::Path;
use super::ports::TargetPort;
use super::request::Request;
use super::sense::{Key, Sense};
use super::table::{self, Access};
use super::{Prepared, Response, Status, absent};

/// What one nexus may do at each LUN: `None` for those it does not see.
pub type View<'a> = &'a dyn Fn(u16) -> Option<Mode>;

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
    /// Registers an I_T nexus of the initiator called `initiator` that sees every LUN; `port` names its port, for
    /// iSCSI `iqn.…,i,0x` and the ISID in hex (RFC 7143 §4.4.3). See [`attach_to`](Self::attach_to).
    ///
    /// # Errors
    /// Another initiator holds every LUN.
    pub fn attach(self: &Arc<Self>, initiator: &str, port: &str) -> Result<Nexus, Refused> {
        self.attach_to(TargetPort::new("", 1), initiator, port, &|_| Some(Mode::ReadWrite))
    }

    /// Registers an I_T nexus between the initiator's `port` and one of our own, that sees what `view` says.
    /// Persistent reservations belong to the initiator's port: whoever comes back under the same one finds them
    /// again.
    ///
    /// A LUN held by another name is not admitted: most commands to it end in RESERVATION CONFLICT until the
    /// holder leaves. If that is every LUN there is, the nexus is refused.
    ///
    /// # Errors
    /// Another initiator holds every LUN.
    pub fn attach_to(
        self: &Arc<Self>,
        target_port: TargetPort,
        initiator: &str,
        port: &str,
        view: View<'_>,
    ) -> Result<Nexus, Refused> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let mut nexus = Nexus {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            initiator: initiator.into(),
            port: port.into(),
            target_port,
            paths: Vec::new(),
            offline: Vec::new(),
            device: Arc::clone(self),
        };
        nexus.look(view, |_| {});
        match nexus.paths.first() {
            Some(first) if nexus.paths.iter().all(|path| !path.is_admitted()) => Err(Refused {
                lun: first.lun(),
                holder: first.unit().holder().unwrap_or_default(),
            }),
            _ => Ok(nexus),
        }
    }
}

/// An I_T nexus: commands of one initiator port. Dropping it detaches it.
#[derive(Debug)]
pub struct Nexus {
    id: u64,
    device: Arc<Device>,
    initiator: Box<str>,
    port: Box<str>,
    target_port: TargetPort,
    /// In LUN order.
    paths: Vec<Arc<Path>>,
    /// LUNs it may see that are not in service, in order.
    offline: Vec<u16>,
}

impl Nexus {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Name of the initiator.
    pub fn initiator(&self) -> &str {
        &self.initiator
    }

    /// Its ways to the units it sees, in LUN order.
    pub(super) fn paths(&self) -> &[Arc<Path>] {
        &self.paths
    }

    /// The device it is attached to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The initiator port it was attached with.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Our port that it was attached to.
    pub fn target_port(&self) -> &TargetPort {
        &self.target_port
    }

    /// Relative identifiers of all target ports, its own among them, in order.
    pub fn target_ports(&self) -> Vec<u16> {
        let mut ports = Vec::clone(&self.device.target_ports());
        let own = self.target_port.relative();
        if let Err(at) = ports.binary_search(&own) {
            ports.insert(at, own);
        }
        ports
    }

    /// The LUNs it sees, in order, those that are offline among them.
    pub fn luns(&self) -> Vec<u16> {
        let mut luns: Vec<u16> = self.paths.iter().map(|path| path.lun()).collect();
        luns.extend(&self.offline);
        luns.sort_unstable();
        luns
    }

    /// Looks at the LUNs of the device, and at what `view` says of them, anew. Returns the LUNs whose commands
    /// will not come to a good end any more: what was there is gone, or out of sight.
    pub fn refresh(&mut self, view: View<'_>) -> Vec<u16> {
        let before = self.luns();
        let mut new = Vec::new();
        let lost = self.look(view, |path| {
            new.push(path.lun());
            // Whatever was there under this number, if only as a LUN that is not ready, it is another unit.
            if before.binary_search(&path.lun()).is_ok() {
                path.pending().establish(Attention::MediumChanged);
                path.pending().establish(Attention::InquiryChanged);
            }
        });
        if !lost.is_empty() || self.luns() != before {
            for path in self.paths.iter().filter(|path| !new.contains(&path.lun())) {
                path.pending().establish(Attention::ReportedLunsChanged);
            }
        }
        lost
    }

    fn look(&mut self, view: View<'_>, mut greet: impl FnMut(&Path)) -> Vec<u16> {
        let mut old: BTreeMap<u16, Arc<Path>> = std::mem::take(&mut self.paths)
            .into_iter()
            .map(|path| (path.lun(), path))
            .collect();
        self.offline.clear();
        for (&lun, slot) in self.device.slots().iter() {
            let Some(mode) = view(lun) else { continue };
            let Slot::Online(unit) = slot else {
                self.offline.push(lun);
                continue;
            };
            let kept = match old.remove(&lun) {
                Some(path) if Arc::ptr_eq(path.unit_shared(), unit) && path.is_in_service() => Some(path),
                Some(other) => {
                    old.insert(lun, other);
                    None
                }
                None => None,
            };
            let path = match kept {
                Some(path) => {
                    path.set_mode(mode);
                    path
                }
                None => {
                    let path = Path::register(lun, Arc::clone(unit), self, mode);
                    greet(&path);
                    path
                }
            };
            self.paths.push(path);
        }
        for path in old.values() {
            path.unit().take_away(path);
        }
        old.into_keys().collect()
    }

    /// The initiator has seen the list of LUNs: it need not be told that it has changed (SAM-6 5.14.2).
    pub(super) fn forget_changed_luns(&self) {
        for path in &self.paths {
            path.pending().clear(Attention::ReportedLunsChanged);
        }
    }

    /// How commands to a LUN end that is not there, or not ready.
    pub fn answer_without_unit(&self, lun: [u8; 8], cdb: &[u8]) -> Response {
        let sense = if self.is_offline(lun) {
            Sense::OFFLINE
        } else {
            Sense::NO_SUCH_LUN
        };
        absent::answer(self, sense, cdb)
    }

    /// How commands end whose LUN is not there any more, or is another now.
    pub fn lun_gone(&self, lun: [u8; 8]) -> Response {
        // TEST UNIT READY: what answers it needs a unit.
        self.answer_without_unit(lun, &[0])
    }

    /// ABORTED COMMAND with this additional sense code and qualifier: how a transport ends a command to a LUN whose
    /// data it could not take.
    pub fn aborted_command(&self, lun: [u8; 8], code: (u8, u8)) -> Response {
        let sense = Sense::new(Key::AbortedCommand, code);
        self.path(lun)
            .map_or_else(|| Response::check(sense), |path| path.check(sense))
    }

    /// Whether a LUN is there and out of service.
    pub fn is_offline(&self, lun: [u8; 8]) -> bool {
        absent::decode_lun(lun).is_some_and(|lun| self.offline.binary_search(&lun).is_ok())
    }

    /// Whether there is such a LUN, and it is in service.
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
            return Prepared::Done(self.answer_without_unit(lun, cdb));
        };
        // Before anything is checked: what a reset changes from here on ends the command.
        let Some(generation) = path.generations().current() else {
            return Prepared::Done(path.answer_of_aborted());
        };
        let command = match table::find(cdb) {
            Ok(command) => command,
            Err(sense) => {
                let sense = path.pending().take().map_or(sense, Attention::sense);
                return Prepared::Done(path.check(sense));
            }
        };
        if command.access != Access::Always {
            if let Some(attention) = path.pending().take() {
                return Prepared::Done(path.check(attention.sense()));
            }
            if !path.unit().allow(path, path.admit(), command.access) {
                return Prepared::Done(Response::status(Status::ReservationConflict));
            }
        }
        if let Some(sense) = path.unit().upkeep().refusal(command.opcode) {
            return Prepared::Done(path.check(sense));
        }
        let plan = command.check(cdb).and_then(|cdb| {
            (command.plan)(&Request {
                cdb,
                nexus: self,
                path,
                unit: path.unit(),
            })
        });
        match plan {
            Ok(plan) => Execution::of_plan(Arc::clone(path), generation, plan),
            Err(sense) => Prepared::Done(path.check(sense)),
        }
    }

    /// LOGICAL UNIT RESET: commands prepared before it, by whichever nexus, do not begin any more, those that
    /// run are what the answer has to wait for; RESERVE (6) ends, and every nexus of the LUN hears of the reset,
    /// this one too (SAM-6 6.3.3). To be called once per reset, by the nexus that asks for it.
    ///
    /// `None`, and nothing has happened, if this nexus is not [admitted](Self::is_admitted) to such a LUN.
    pub fn reset_lun(&self, lun: [u8; 8]) -> Option<Drain> {
        let path = self.path(lun).filter(|path| path.admit())?;
        Some(path.unit().reset(path, Attention::UnitReset))
    }

    /// Target reset: the same for every LUN this nexus is admitted to.
    pub fn reset_target(&self) -> Vec<Drain> {
        self.paths
            .iter()
            .filter(|path| path.is_admitted())
            .map(|path| path.unit().reset(path, Attention::BusReset))
            .collect()
    }

    /// CLEAR TASK SET: commands prepared before it, by whichever nexus, do not begin any more, those that run are
    /// what the answer has to wait for. The commands themselves tell of it, with TASK ABORTED; there is no unit
    /// attention beside that (SAM-5 5.14, TAS=1).
    ///
    /// `None`, and nothing has happened, if this nexus is not [admitted](Self::is_admitted) to such a LUN.
    pub fn clear_task_set(&self, lun: [u8; 8]) -> Option<Drain> {
        let path = self.path(lun).filter(|path| path.admit())?;
        Some(path.unit().abort(|_| true))
    }

    fn path(&self, lun: [u8; 8]) -> Option<&Arc<Path>> {
        let lun = absent::decode_lun(lun)?;
        let index = self.paths.binary_search_by_key(&lun, |path| path.lun()).ok()?;
        self.paths.get(index)
    }
}

impl Drop for Nexus {
    fn drop(&mut self) {
        for path in &self.paths {
            path.unit().detach(path);
        }
    }
}
