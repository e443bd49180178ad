//! What a session does when the LUNs of its target change, or who may see them.

use iscsi_pdu::Lun;

use super::{FullFeature, Kind};
use crate::iscsi::output::Output;
use crate::iscsi::task::{Stage, Task};

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
        let concerned = |task: &Task| task.lun.number() == Some(number);
        // These are still on their way here, and not answered before they are.
        for id in self
            .tasks
            .pick(|task| concerned(task) && matches!(task.stage, Stage::Collecting(_)))
        {
            self.waiting_for_memory.retain(|waiting| *waiting != id);
            if let Some(task) = self.tasks.get_mut(id) {
                task.stage = Stage::Refused(response.clone());
            }
            self.data_has_come(id, out);
        }
        let begun = |task: &Task| matches!(task.stage, Stage::Ready(_) | Stage::Running { .. });
        for task in self.tasks.abort(|task| concerned(task) && begun(task)) {
            self.answer(task, response.clone(), out);
        }
    }
}
