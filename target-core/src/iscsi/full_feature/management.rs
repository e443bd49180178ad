//! Task management (RFC 7143 §11.5, §11.6): aborts and resets.
//!
//! An aborted command is gone from the task set at once: nothing it does later reaches the initiator. If a
//! worker is still at it, the answer waits for the worker, so that an aborted write cannot land after the
//! initiator was told it is over; but not longer than a bound, for a medium may hang for ever.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use iscsi_pdu::pdu::{RejectReason, TaskFunction, TaskManagementRequest, TaskManagementResponse, TaskOutcome};
use iscsi_pdu::{BHS_BYTES, Lun};

use super::{ABORTED_TAGS_MAX, FullFeature, Kind};
use crate::iscsi::job::TaskId;
use crate::iscsi::mailbox::{CloseReason, Notice};
use crate::iscsi::output::Output;
use crate::iscsi::task::{Stage, Task};

/// Functions that wait for workers at the same time, at most.
const PENDING_MAX: usize = 64;

/// A function whose answer waits for workers.
#[derive(Debug)]
pub(super) struct PendingManagement {
    itt: u32,
    waits_for: BTreeSet<TaskId>,
    pub(super) deadline: Instant,
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
        tracing::info!(function = ?request.function, lun = %request.lun, "task management");
        match self.carry_out(request, out) {
            Ok(aborted) => self.answer_when_quiet(now, request.itt, aborted, out),
            Err(outcome) => self.management_response(request.itt, outcome, out),
        }
    }

    /// Does what is asked, and returns the tasks that workers are still at.
    fn carry_out(
        &mut self,
        request: &TaskManagementRequest,
        out: &mut Output,
    ) -> Result<BTreeSet<TaskId>, TaskOutcome> {
        let lun = request.lun;
        match request.function {
            TaskFunction::AbortTask => self.abort_task(request, out),
            TaskFunction::AbortTaskSet => {
                self.check_lun(lun)?;
                Ok(self.abort(|task| task.lun == lun))
            }
            TaskFunction::ClearTaskSet => {
                self.check_lun(lun)?;
                self.tell_others(lun, |nexus| nexus.tasks_cleared_by_other(lun.0));
                Ok(self.abort(|task| task.lun == lun))
            }
            TaskFunction::LogicalUnitReset => {
                self.check_lun(lun)?;
                self.tell_others(lun, |nexus| nexus.reset_lun(lun.0));
                Ok(self.abort(|task| task.lun == lun))
            }
            TaskFunction::TargetWarmReset | TaskFunction::TargetColdReset => {
                let cold = request.function == TaskFunction::TargetColdReset;
                if let Kind::Normal { registration, nexus } = &self.kind {
                    nexus.reset_target();
                    registration.post_to_others(|| {
                        if cold {
                            Notice::Close(CloseReason::ColdReset)
                        } else {
                            Notice::TargetReset
                        }
                    });
                }
                // A cold reset ends every connection to the target, this one too (RFC 7143 §11.5.1).
                self.leaving = cold;
                Ok(self.abort(|_| true))
            }
            TaskFunction::TaskReassign => Err(TaskOutcome::ReassignNotSupported),
            _ => Err(TaskOutcome::NotSupported),
        }
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
        let ahead = request.ref_cmd_sn.distance(self.window.exp_cmd_sn());
        let unseen = request.ref_cmd_sn.le(self.window.max_cmd_sn()) && ahead < self.node.limits.command_window;
        if unseen && !self.window.is_shut() && !self.tasks.is_held(request.ref_cmd_sn) {
            self.skip_command(request.ref_cmd_sn, out);
            return Ok(BTreeSet::new());
        }
        Err(TaskOutcome::NoSuchTask)
    }

    fn check_lun(&self, lun: Lun) -> Result<(), TaskOutcome> {
        match &self.kind {
            Kind::Normal { nexus, .. } if nexus.lun_exists(lun.0) => Ok(()),
            _ => Err(TaskOutcome::NoSuchLun),
        }
    }

    fn tell_others(&self, lun: Lun, attention: impl FnOnce(&crate::scsi::Nexus)) {
        if let Kind::Normal { registration, nexus } = &self.kind {
            attention(nexus);
            if let Some(number) = lun.number() {
                registration.post_to_others(|| Notice::LunReset(number));
            }
        }
    }

    /// Aborts the tasks that `doomed` picks; returns those that workers are still at.
    fn abort(&mut self, doomed: impl Fn(&Task) -> bool) -> BTreeSet<TaskId> {
        let aborted = self.tasks.abort(doomed);
        self.waiting_for_memory
            .retain(|id| !aborted.iter().any(|task| task.id == *id));
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

    /// Another session reset the LUN or the target. Its unit attention tells the initiator why (SAM-6 7.7,
    /// TAS=0).
    pub(super) fn reset_by_other(&mut self, doomed: impl Fn(&Task) -> bool) {
        self.abort(doomed);
    }

    fn answer_when_quiet(&mut self, now: Instant, itt: u32, waits_for: BTreeSet<TaskId>, out: &mut Output) {
        if waits_for.is_empty() {
            return self.management_response(itt, TaskOutcome::Complete, out);
        }
        let deadline = now + Duration::from_millis(self.node.limits.abort_wait_ms);
        self.pending_management.push(PendingManagement {
            itt,
            waits_for,
            deadline,
        });
    }

    /// A worker is done with a command that was aborted.
    pub(super) fn late_completion(&mut self, now: Instant, id: TaskId, out: &mut Output) {
        for pending in &mut self.pending_management {
            pending.waits_for.remove(&id);
        }
        self.expire_management(now, out);
    }

    /// Answers the functions that need not wait any longer.
    pub(super) fn expire_management(&mut self, now: Instant, out: &mut Output) {
        let due = |pending: &PendingManagement| pending.waits_for.is_empty() || pending.deadline <= now;
        while let Some(index) = self.pending_management.iter().position(due) {
            let pending = self.pending_management.remove(index);
            if !pending.waits_for.is_empty() {
                tracing::warn!(
                    commands = pending.waits_for.len(),
                    "the medium is still busy with aborted commands"
                );
            }
            self.management_response(pending.itt, TaskOutcome::Complete, out);
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
