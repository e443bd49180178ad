//! Task management (RFC 7143 §11.5, §11.6): aborts and resets.
//!
//! An aborted command is gone from the task set at once: nothing it does later reaches the initiator. If a
//! worker is still at it, the answer waits for the worker, so that an aborted write cannot land after the
//! initiator was told it is over; but not longer than a bound, for a medium may hang for ever. What then has
//! not come to its end is not called complete: the function is rejected, and the initiator ends the session,
//! which its next login does not get past before the medium is done with the old one's commands.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use iscsi_pdu::pdu::{RejectReason, TaskFunction, TaskManagementRequest, TaskManagementResponse, TaskOutcome};
use iscsi_pdu::{BHS_BYTES, Lun};

use super::{ABORTED_TAGS_MAX, FullFeature, Kind};
use crate::iscsi::job::TaskId;
use crate::iscsi::mailbox::{CloseReason, Notice};
use crate::iscsi::output::Output;
use crate::iscsi::task::{Stage, Task};
use crate::iscsi::window::Arrival;
use crate::scsi::{Drain, Execution, Nexus, Response};

/// Functions that wait for workers at the same time, at most.
const PENDING_MAX: usize = 64;

/// iSCSIProtocolLevel from which on tasks can be asked for (RFC 7144 §7.1.1).
const PROTOCOL_LEVEL_OF_QUERIES: u8 = 2;

/// How often a reset looks whether other sessions' commands are over, in milliseconds.
const DRAIN_POLL_MS: u64 = 5;

/// What has to be over before a function is complete.
#[derive(Debug, Default)]
struct Quiet {
    /// Commands of this session that workers are at.
    tasks: BTreeSet<TaskId>,
    /// Units that have been reset, whose commands may be any session's.
    drains: Vec<Drain>,
}

impl Quiet {
    fn is_reached(&mut self) -> bool {
        self.drains.retain(|drain| !drain.is_drained());
        self.tasks.is_empty() && self.drains.is_empty()
    }
}

impl From<BTreeSet<TaskId>> for Quiet {
    fn from(tasks: BTreeSet<TaskId>) -> Self {
        Self {
            tasks,
            drains: Vec::new(),
        }
    }
}

/// A function whose answer waits.
#[derive(Debug)]
pub(super) struct PendingManagement {
    itt: u32,
    waits_for: Quiet,
    /// The connection ends with the answer.
    then_leave: bool,
    deadline: Instant,
    look_at: Instant,
}

impl PendingManagement {
    pub(super) fn next_timeout(&self) -> Instant {
        if self.waits_for.drains.is_empty() {
            self.deadline
        } else {
            self.look_at.min(self.deadline)
        }
    }
}

impl FullFeature {
    pub(super) fn task_management(
        &mut self,
        now: Instant,
        request: &TaskManagementRequest,
        bhs: &[u8; BHS_BYTES],
        out: &mut Output,
    ) {
        if !matches!(self.kind, Kind::Normal { .. }) {
            return self.reject(RejectReason::CommandNotSupported, bhs, out);
        }
        if self.pending_management.len() >= PENDING_MAX {
            return self.reject(RejectReason::TooManyImmediate, bhs, out);
        }
        self.counts.task_management(request.function);
        tracing::info!(function = ?request.function, lun = %request.lun, "task management");
        match self.carry_out(request, out) {
            Ok(waits_for) => {
                let deadline = now + Duration::from_millis(self.limits.abort_wait_ms);
                let then_leave = request.function == TaskFunction::TargetColdReset;
                let itt = request.itt;
                self.pending_management.push(PendingManagement {
                    itt,
                    waits_for,
                    then_leave,
                    deadline,
                    look_at: now,
                });
                self.expire_management(now, out);
            }
            Err(outcome) => self.management_response(request.itt, outcome, out),
        }
    }

    /// Does what is asked, and returns what has to be over before it is complete.
    fn carry_out(&mut self, request: &TaskManagementRequest, out: &mut Output) -> Result<Quiet, TaskOutcome> {
        let lun = request.lun;
        match request.function {
            TaskFunction::AbortTask => self.abort_task(request, out).map(Quiet::from),
            TaskFunction::AbortTaskSet => {
                self.check_lun(lun)?;
                Ok(self.abort(|task| task.lun == lun).into())
            }
            TaskFunction::ClearTaskSet => {
                self.check_lun(lun)?;
                let cleared = self.nexus().and_then(|nexus| nexus.clear_task_set(lun.0));
                self.tell_others(lun);
                Ok(Quiet {
                    tasks: self.abort(|task| task.lun == lun),
                    drains: cleared.into_iter().collect(),
                })
            }
            TaskFunction::LogicalUnitReset => {
                self.check_lun(lun)?;
                let drains = self
                    .nexus()
                    .and_then(|nexus| nexus.reset_lun(lun.0))
                    .into_iter()
                    .collect();
                self.tell_others(lun);
                Ok(Quiet {
                    tasks: self.abort(|task| task.lun == lun),
                    drains,
                })
            }
            TaskFunction::TargetWarmReset => self.reset_target(),
            TaskFunction::TargetColdReset => self.reset_target_cold(),
            TaskFunction::TaskReassign => Err(TaskOutcome::ReassignNotSupported),
            // Those that RFC 7144 adds need its protocol level.
            _ if self.params.protocol_level < PROTOCOL_LEVEL_OF_QUERIES => Err(TaskOutcome::NotSupported),
            TaskFunction::QueryTask => {
                self.check_lun(lun)?;
                let tag = request.referenced_task_tag;
                Err(self.found(|task| task.itt == tag && task.lun == lun))
            }
            TaskFunction::QueryTaskSet => {
                self.check_lun(lun)?;
                Err(self.found(|task| task.lun == lun))
            }
            _ => Err(TaskOutcome::NotSupported),
        }
    }

    /// The answer to a query: the function succeeded if there is such a task, else it is merely complete (RFC 7144
    /// §4.2).
    fn found(&self, is_meant: impl Fn(&Task) -> bool) -> TaskOutcome {
        if self.tasks.any(is_meant) {
            TaskOutcome::Succeeded
        } else {
            TaskOutcome::Complete
        }
    }

    /// A reset of every LUN this initiator is admitted to: what others hold is none of its business.
    fn reset_target(&mut self) -> Result<Quiet, TaskOutcome> {
        let drains = self.nexus().ok_or(TaskOutcome::NotSupported)?.reset_target();
        for lun in self.luns() {
            if self.check_lun(lun).is_ok() {
                self.tell_others(lun);
            }
        }
        Ok(Quiet {
            tasks: self.abort(|_| true),
            drains,
        })
    }

    /// The same, and every connection to the target ends, this one too (RFC 7143 §11.5.1). Not while there is a LUN
    /// that this initiator may not see or that another holds: the connections of those who use it are not this one's
    /// to end.
    fn reset_target_cold(&mut self) -> Result<Quiet, TaskOutcome> {
        let Kind::Normal { registration, nexus } = &self.kind else {
            return Err(TaskOutcome::NotSupported);
        };
        let all = registration.target().device.luns();
        if !all.keys().all(|lun| nexus.is_admitted(Lun::from_number(*lun).0)) {
            return Err(TaskOutcome::NotAuthorized);
        }
        let quiet = self.reset_target();
        if let Kind::Normal { registration, .. } = &self.kind {
            registration.post_to_others(|| Notice::Close(CloseReason::ColdReset));
        }
        quiet
    }

    fn luns(&self) -> Vec<Lun> {
        let numbers = self.nexus().map(Nexus::luns).unwrap_or_default();
        numbers.into_iter().map(Lun::from_number).collect()
    }

    fn abort_task(
        &mut self,
        request: &TaskManagementRequest,
        out: &mut Output,
    ) -> Result<BTreeSet<TaskId>, TaskOutcome> {
        self.check_lun(request.lun)?;
        if let Some(id) = self.tasks.id_of(request.referenced_task_tag) {
            if self.tasks.get_mut(id).is_some_and(|task| task.lun != request.lun) {
                return Err(TaskOutcome::NoSuchTask);
            }
            return Ok(self.abort(|task| task.id == id));
        }
        // It may not have come yet: then its place in the window is used up, and it is ignored should it
        // still come (RFC 7143 §11.5.5).
        let unseen = self.window.classify(request.ref_cmd_sn) != Arrival::Ignore;
        // A command can only be aborted after it was numbered.
        let unseen = unseen && request.ref_cmd_sn.lt(request.cmd_sn);
        if unseen && !self.tasks.is_held(request.ref_cmd_sn) {
            self.skip_command(request.ref_cmd_sn, out);
            return Ok(BTreeSet::new());
        }
        Err(TaskOutcome::NoSuchTask)
    }

    pub(super) fn nexus(&self) -> Option<&Nexus> {
        match &self.kind {
            Kind::Normal { nexus, .. } => Some(nexus),
            Kind::Discovery { .. } => None,
        }
    }

    fn check_lun(&self, lun: Lun) -> Result<(), TaskOutcome> {
        match self.nexus() {
            // Where nothing is in service there is nothing to abort or reset.
            Some(nexus) if nexus.is_admitted(lun.0) || nexus.is_offline(lun.0) => Ok(()),
            Some(nexus) if nexus.lun_exists(lun.0) => Err(TaskOutcome::NotAuthorized),
            _ => Err(TaskOutcome::NoSuchLun),
        }
    }

    fn tell_others(&self, lun: Lun) {
        if let (Kind::Normal { registration, .. }, Some(number)) = (&self.kind, lun.number()) {
            registration.post_to_others(|| Notice::CommandsAborted(number));
        }
    }

    /// Aborts the tasks that `doomed` picks; returns those that workers are still at.
    fn abort(&mut self, doomed: impl Fn(&Task) -> bool) -> BTreeSet<TaskId> {
        let aborted = self.tasks.abort(doomed);
        let tasks = &mut self.tasks;
        self.waiting_for_memory.retain(|id| tasks.get_mut(*id).is_some());
        self.sending.retain(|id| tasks.get_mut(*id).is_some());
        if self.waiting_for_memory.is_empty() {
            // What waited may be gone; what has not, asks again.
            self.transfer_share.leave_line();
        }
        let mut running = BTreeSet::new();
        for task in aborted {
            if matches!(task.stage, Stage::Running { .. }) {
                running.insert(task.id);
            } else if task.edtl_out > 0 {
                self.remember_aborted(task.itt);
            }
        }
        running
    }

    /// Data may still be on its way for a command that is gone.
    fn remember_aborted(&mut self, itt: u32) {
        if self.aborted_tags.len() == ABORTED_TAGS_MAX {
            self.aborted_tags.pop_front();
        }
        self.aborted_tags.push_back(itt);
    }

    /// Everything this session has at work is over, without an answer.
    pub(super) fn abort_all(&mut self) {
        self.abort(|_| true);
    }

    /// Another session has aborted the commands at a LUN. Those that have not begun are answered with TASK ABORTED
    /// (TAS=1, SAM-5 5.6). Those that a worker is at come to their end there, the long ones soon: nobody who has been
    /// told of the end of a write meets it later.
    pub(super) fn aborted_by_other(&mut self, lun: u16, out: &mut Output) {
        self.end_unbegun(lun, Execution::is_aborted, &Response::task_aborted(), out);
        self.tasks.cancel_running(|task| task.lun.number() == Some(lun));
    }

    /// A worker is done with a command that was aborted.
    pub(super) fn late_completion(&mut self, now: Instant, id: TaskId, out: &mut Output) {
        for pending in &mut self.pending_management {
            pending.waits_for.tasks.remove(&id);
        }
        self.expire_management(now, out);
    }

    /// Answers the functions that need not wait any longer.
    pub(super) fn expire_management(&mut self, now: Instant, out: &mut Output) {
        for mut pending in std::mem::take(&mut self.pending_management) {
            if pending.waits_for.is_reached() {
                self.leaving |= pending.then_leave;
                self.management_response(pending.itt, TaskOutcome::Complete, out);
            } else if pending.deadline <= now {
                tracing::warn!("the medium is still busy with aborted commands: task management rejected");
                self.leaving |= pending.then_leave;
                self.management_response(pending.itt, TaskOutcome::Rejected, out);
            } else {
                pending.look_at = now + Duration::from_millis(DRAIN_POLL_MS);
                self.pending_management.push(pending);
            }
        }
    }

    fn management_response(&mut self, itt: u32, response: TaskOutcome, out: &mut Output) {
        let stat_sn = self.next_stat_sn();
        let reply = TaskManagementResponse {
            response,
            itt,
            stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
        };
        out.pdu(&reply, &[]);
    }
}
