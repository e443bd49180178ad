//! What a session does when the LUNs of its target change, or who may see them.

use iscsi_pdu::Lun;

use super::{FullFeature, Kind};
use crate::iscsi::output::Output;
use crate::iscsi::task::{Stage, Task};
use crate::scsi::{Execution, Response};

impl FullFeature {
    /// The target has other LUNs now, or another idea of who may do what at them. Commands to a LUN that is gone
    /// are answered at once, even those that a worker is at: the medium may never return.
    pub(super) fn luns_changed(&mut self, out: &mut Output) {
        let Kind::Normal { registration, nexus } = &mut self.kind else {
            return;
        };
        let (policy, who) = (registration.target().policy(), registration.who());
        for number in nexus.refresh(&|lun| policy.lun_mode(who, lun)) {
            self.end_commands_of(number, out);
        }
    }

    fn end_commands_of(&mut self, number: u16, out: &mut Output) {
        let Kind::Normal { nexus, .. } = &self.kind else { return };
        let response = nexus.lun_gone(Lun::from_number(number).0);
        self.end_unbegun(number, |_| true, &response, out);
        let is_running = |task: &Task| matches!(task.stage, Stage::Running { .. });
        let concerned = |task: &Task| task.lun.number() == Some(number) && is_running(task);
        for task in self.tasks.abort(concerned) {
            self.answer(task, response.clone(), out);
        }
    }

    /// Answers commands to a LUN that no worker is at.
    pub(super) fn end_unbegun(
        &mut self,
        number: u16,
        doomed: impl Fn(&Execution) -> bool,
        response: &Response,
        out: &mut Output,
    ) {
        let concerned = |task: &Task| task.lun.number() == Some(number);
        // The data of these is still on its way here, and they are not answered before it has come.
        let collecting = |task: &Task| matches!(&task.stage, Stage::Collecting(execution) if doomed(execution));
        for id in self.tasks.pick(|task| concerned(task) && collecting(task)) {
            self.waiting_for_memory.retain(|waiting| *waiting != id);
            if let Some(task) = self.tasks.get_mut(id) {
                task.stage = Stage::Refused(response.clone());
            }
            self.data_has_come(id, out);
        }
        let ready = |task: &Task| matches!(&task.stage, Stage::Ready(execution) if doomed(execution));
        for task in self.tasks.abort(|task| concerned(task) && ready(task)) {
            self.answer(task, response.clone(), out);
        }
        if self.waiting_for_memory.is_empty() {
            self.transfer_share.leave_line();
        }
    }
}
