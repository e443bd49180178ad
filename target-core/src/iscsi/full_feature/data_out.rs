//! Collecting a command's data: unsolicited Data-Outs, R2Ts and the Data-Outs that answer them (RFC 7143
//! §11.7, §11.8). DataPDUInOrder and DataSequenceInOrder are always Yes, so data comes from front to back.

use iscsi_pdu::pdu::{DataOut as DataOutPdu, R2t, RejectReason};
use iscsi_pdu::{Lun, RESERVED_TAG};

use super::{
    FullFeature, INCORRECT_AMOUNT_OF_DATA, PROTOCOL_SERVICE_CRC_ERROR, Placement, Received, UNEXPECTED_UNSOLICITED_DATA,
};
use crate::iscsi::job::TaskId;
use crate::iscsi::output::Output;
use crate::iscsi::task::{Stage, Task};
use crate::iscsi::transfer::OpenR2t;
use crate::scsi::Response;

impl FullFeature {
    pub(super) fn place_data_out(&mut self, pdu: &DataOutPdu, data_bytes: u32) -> Placement {
        let first_burst = self.params.unsolicited_bytes();
        match self.tasks.by_itt(pdu.itt) {
            Some(task) if fits(task, pdu, data_bytes, first_burst).is_ok() => {
                let mut buffer = std::mem::take(&mut task.data_out.buffer);
                let room = if pdu.ttt == RESERVED_TAG {
                    first_burst.min(task.edtl_out)
                } else {
                    task.data_out.wanted_bytes
                };
                buffer.reserve_exact((room as usize).saturating_sub(buffer.len()));
                Placement::Into(buffer)
            }
            _ => Placement::Nowhere,
        }
    }

    pub(super) fn data_out(&mut self, pdu: &DataOutPdu, received: Received, out: &mut Output) {
        let first_burst = self.params.unsolicited_bytes();
        let Some(task) = self.tasks.by_itt(pdu.itt) else {
            if !self.aborted_tags.contains(&pdu.itt) {
                self.reject(RejectReason::ProtocolError, &received.bhs, out);
            }
            return;
        };
        let id = task.id;
        let problem = match received.data {
            Some(mut buffer) if !received.intact => {
                // The bytes are not to be trusted, so they are not kept.
                buffer.truncate(buffer.len() - received.data_bytes as usize);
                task.data_out.buffer = buffer;
                Some(Problem::Digest)
            }
            Some(buffer) => {
                task.data_out.buffer = buffer;
                None
            }
            None if matches!(task.stage, Stage::Refused(_)) => None,
            None => fits(task, pdu, received.data_bytes, first_burst).err(),
        };
        let problem = end_of_pdu(task, pdu, problem);
        if let Some(problem) = problem {
            self.refuse_data(id, problem, &received.bhs, out);
        }
        self.data_has_come(id, out);
    }

    /// Data cannot be used: the command fails, after what is still on its way has come.
    fn refuse_data(&mut self, id: TaskId, problem: Problem, bhs: &[u8; 48], out: &mut Output) {
        let (reason, sense_code) = match problem {
            Problem::Digest => (RejectReason::DataDigestError, PROTOCOL_SERVICE_CRC_ERROR),
            Problem::Unexpected => (RejectReason::ProtocolError, UNEXPECTED_UNSOLICITED_DATA),
            Problem::Amount => (RejectReason::ProtocolError, INCORRECT_AMOUNT_OF_DATA),
        };
        self.reject(reason, bhs, out);
        let Some(lun) = self.tasks.get_mut(id).map(|task| task.lun) else {
            return;
        };
        let response = self.data_not_taken(lun, sense_code);
        if let Some(task) = self.tasks.get_mut(id)
            && matches!(task.stage, Stage::Early(_) | Stage::Collecting(_))
        {
            task.stage = Stage::Refused(response);
        }
    }

    /// How a command ends whose data could not be taken.
    pub(super) fn data_not_taken(&self, lun: Lun, sense_code: (u8, u8)) -> Response {
        self.nexus()
            .map_or_else(Response::task_aborted, |nexus| nexus.aborted_command(lun.0, sense_code))
    }

    /// Sends the R2Ts that a command may have open, once its memory is reserved.
    pub(super) fn ask_for_data(&mut self, id: TaskId, out: &mut Output) {
        if !self.waiting_for_memory.is_empty() && !self.waiting_for_memory.contains(&id) && !self.has_memory(id) {
            // Others have waited longer.
            self.waiting_for_memory.push_back(id);
            return;
        }
        if !self.reserve_for_data(id) {
            if !self.waiting_for_memory.contains(&id) {
                self.waiting_for_memory.push_back(id);
            }
            return;
        }
        while let Some(r2t) = self.next_r2t(id) {
            out.pdu(&r2t, &[]);
        }
    }

    fn has_memory(&mut self, id: TaskId) -> bool {
        self.tasks
            .get_mut(id)
            .is_some_and(|task| task.memory.transfer.is_some())
    }

    /// Reserves, at once, all that a command will ever ask for: a command that held a part and waited for
    /// more could wait for another that does the same.
    fn reserve_for_data(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(id) else {
            return true;
        };
        let to_ask = task.data_out.wanted_bytes.saturating_sub(task.data_out.asked_bytes) as usize;
        if task.memory.transfer.is_some() || to_ask == 0 {
            return true;
        }
        task.memory.transfer = self.transfer_share.reserve_or_wait(to_ask, &self.mailbox);
        task.memory.transfer.is_some()
    }

    /// Memory has come back: those who waited try again, in order.
    pub(super) fn ask_for_data_again(&mut self, out: &mut Output) {
        while let Some(id) = self.waiting_for_memory.front().copied() {
            if !self.reserve_for_data(id) {
                return;
            }
            self.waiting_for_memory.pop_front();
            while let Some(r2t) = self.next_r2t(id) {
                out.pdu(&r2t, &[]);
            }
        }
    }

    fn next_r2t(&mut self, id: TaskId) -> Option<R2t> {
        let ttt = self.new_ttt();
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = (self.stat_sn, self.window.exp_cmd_sn(), self.window.max_cmd_sn());
        let (max_open, max_burst) = (
            usize::from(self.params.max_outstanding_r2t),
            self.params.max_burst_bytes,
        );
        let task = self.tasks.get_mut(id)?;
        let data = &mut task.data_out;
        if !matches!(task.stage, Stage::Collecting(_))
            || data.r2ts.len() >= max_open
            || data.asked_bytes >= data.wanted_bytes
        {
            return None;
        }
        let desired = (data.wanted_bytes - data.asked_bytes).min(max_burst);
        let r2t = R2t {
            lun: task.lun,
            itt: task.itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            r2t_sn: data.next_r2t_sn,
            buffer_offset: data.asked_bytes,
            desired_data_transfer_length: desired,
        };
        data.asked_bytes += desired;
        data.next_r2t_sn += 1;
        data.r2ts.push_back(OpenR2t {
            ttt,
            end_bytes: data.asked_bytes,
            next_data_sn: 0,
        });
        Some(r2t)
    }
}

/// What is wrong with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    Digest,
    Unexpected,
    Amount,
}

/// Whether a Data-Out is the next one the task waits for.
fn fits(task: &Task, pdu: &DataOutPdu, data_bytes: u32, first_burst: u32) -> Result<(), Problem> {
    let data = &task.data_out;
    let here = u32::try_from(data.buffer.len()).unwrap_or(u32::MAX);
    let end = here.checked_add(data_bytes).ok_or(Problem::Amount)?;
    let solicited = pdu.ttt != RESERVED_TAG;
    let (limit, data_sn) = match (&task.stage, solicited) {
        (Stage::Early(_) | Stage::Collecting(_), false) if data.unsolicited_open => {
            (first_burst.min(task.edtl_out), data.next_data_sn)
        }
        (Stage::Collecting(_), true) => {
            let r2t = data
                .r2ts
                .front()
                .filter(|r2t| r2t.ttt == pdu.ttt)
                .ok_or(Problem::Unexpected)?;
            (r2t.end_bytes, r2t.next_data_sn)
        }
        _ => return Err(Problem::Unexpected),
    };
    if pdu.buffer_offset != here || pdu.data_sn != data_sn || end > limit || (data_bytes == 0 && !pdu.final_bit) {
        return Err(Problem::Amount);
    }
    Ok(())
}

/// Counts a Data-Out, and closes its sequence at the F bit.
fn end_of_pdu(task: &mut Task, pdu: &DataOutPdu, problem: Option<Problem>) -> Option<Problem> {
    let here = u32::try_from(task.data_out.buffer.len()).unwrap_or(u32::MAX);
    let refused = matches!(task.stage, Stage::Refused(_));
    let data = &mut task.data_out;
    if pdu.ttt == RESERVED_TAG {
        data.next_data_sn = pdu.data_sn.wrapping_add(1);
        if !pdu.final_bit || !data.unsolicited_open {
            return problem;
        }
        data.unsolicited_open = false;
        // F=0 on the command promised a full first burst (RFC 7143 §11.3.4).
        let short = !refused && here < data.unasked_bytes;
        return problem.or(short.then_some(Problem::Amount));
    }
    let Some(index) = data.r2ts.iter().position(|r2t| r2t.ttt == pdu.ttt) else {
        return problem;
    };
    data.r2ts[index].next_data_sn = pdu.data_sn.wrapping_add(1);
    if !pdu.final_bit {
        return problem;
    }
    let r2t = data.r2ts.remove(index);
    let short = !refused && r2t.is_some_and(|r2t| here < r2t.end_bytes);
    problem.or(short.then_some(Problem::Amount))
}
