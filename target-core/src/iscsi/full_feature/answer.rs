//! A command's answer: Data-In, status, sense and residual (RFC 7143 §11.4, §11.7).

use iscsi_pdu::RESERVED_TAG;
use iscsi_pdu::pdu::{DataIn, DataInStatus, Residual, ScsiResponse, ServiceResponse, write_sense};

use super::{FullFeature, Kind};
use crate::iscsi::budget::Memory;
use crate::iscsi::output::Output;
use crate::iscsi::task::{Stage, Task};
use crate::iscsi::transfer::Transfer;
use crate::iscsi::transmit::DataBuffer;
use crate::scsi::{Response, Status};

/// Data that is cut into PDUs ahead of what the line has taken, in bytes. Whatever else there is to say goes
/// behind that, and ahead of all other data.
const CUT_AHEAD_BYTES: usize = 256 * 1024;
/// The same where the line takes less than we have: there it takes time.
const CUT_AHEAD_SLOW_BYTES: usize = 64 * 1024;
/// Data in one PDU at most, in bytes: nothing can go ahead of a PDU that has begun.
const DATA_IN_MAX_BYTES: usize = 256 * 1024;

impl FullFeature {
    /// Answers a task that is over. Its memory stays reserved until its data is out.
    pub(super) fn answer(&mut self, mut task: Task, mut response: Response, out: &mut Output) {
        let residual = residual(&task, &response);
        let data_bytes = response.data_in.len().min(task.edtl_in as usize);
        if data_bytes == 0 {
            // The answer is what tells the initiator of the place that becomes free with it.
            task.memory = Memory::default();
            self.widen_window();
            return self.status(&task, &response, residual, 0, 0, out);
        }
        response.data_in.truncate(data_bytes);
        let data = std::mem::take(&mut response.data_in);
        let mut transfer = Transfer {
            buffer: DataBuffer::new(data, task.memory.transfer.take()),
            start: 0,
            burst_end: self.params.max_burst_bytes as usize,
            data_sn: 0,
            response,
            residual,
        };
        if self.sending.is_empty() && self.cut(&task, &mut transfer, out) {
            return;
        }
        let id = task.id;
        task.stage = Stage::Answering(Box::new(transfer));
        self.tasks.insert(task);
        self.sending.push_back(id);
    }

    /// Cuts more of the data that waits into PDUs. Returns whether any command is answered by that.
    pub(super) fn send_data(&mut self, out: &mut Output) -> bool {
        let mut any = false;
        while let Some(id) = self.sending.front().copied() {
            if out.transmit.queued_bytes() >= self.cut_ahead_bytes() {
                break;
            }
            // Aborted tasks are gone, and their data with them.
            let Some(mut task) = self.tasks.remove(id) else {
                self.sending.pop_front();
                continue;
            };
            let Stage::Answering(mut transfer) = std::mem::replace(&mut task.stage, Stage::OVER) else {
                unreachable!("only data that waits is queued to be sent");
            };
            if self.cut(&task, &mut transfer, out) {
                self.sending.pop_front();
                any = true;
            } else {
                task.stage = Stage::Answering(transfer);
                self.tasks.insert(task);
                break;
            }
        }
        any
    }

    fn cut_ahead_bytes(&self) -> usize {
        if self.is_line_slow {
            CUT_AHEAD_SLOW_BYTES
        } else {
            CUT_AHEAD_BYTES
        }
    }

    /// Cuts data into PDUs of the size the initiator takes, for as long as there are few enough queued; the last
    /// one carries a good status along. Returns whether that was all.
    fn cut(&mut self, task: &Task, transfer: &mut Transfer, out: &mut Output) -> bool {
        let total = transfer.buffer.bytes().len();
        let pdu_max = (self.params.max_send_data_segment_bytes as usize).min(DATA_IN_MAX_BYTES);
        let burst_max = self.params.max_burst_bytes as usize;
        let collapse = transfer.response.status == Status::Good;
        while transfer.start < total {
            if out.transmit.queued_bytes() >= self.cut_ahead_bytes() {
                return false;
            }
            let end = total.min(transfer.start + pdu_max).min(transfer.burst_end);
            let last = end == total;
            if last && collapse {
                self.widen_window();
            }
            let status = (collapse && last).then(|| DataInStatus {
                status: Status::Good as u8,
                stat_sn: self.next_stat_sn(),
                residual: transfer.residual,
            });
            let pdu = DataIn {
                final_bit: last || end == transfer.burst_end,
                acknowledge: false,
                status,
                lun: task.lun,
                itt: task.itt,
                ttt: RESERVED_TAG,
                exp_cmd_sn: self.window.exp_cmd_sn(),
                max_cmd_sn: self.window.max_cmd_sn(),
                data_sn: transfer.data_sn,
                buffer_offset: u32::try_from(transfer.start).expect("transfers are far below 4 GiB"),
            };
            out.pdu_from(&pdu, &transfer.buffer, transfer.start, end);
            if end == transfer.burst_end {
                transfer.burst_end += burst_max;
            }
            transfer.data_sn += 1;
            transfer.start = end;
        }
        if collapse {
            self.count_answer(task, Status::Good, total);
        } else {
            self.status(
                task,
                &transfer.response,
                transfer.residual,
                transfer.data_sn,
                total,
                out,
            );
        }
        true
    }

    /// A SCSI Response.
    fn status(
        &mut self,
        task: &Task,
        response: &Response,
        residual: Residual,
        data_pdus: u32,
        sent_bytes: usize,
        out: &mut Output,
    ) {
        let mut sense = Vec::new();
        if !response.sense.is_empty() {
            write_sense(&response.sense, &mut sense);
        }
        let stat_sn = self.next_stat_sn();
        let r2ts = task.data_out.next_r2t_sn;
        let reply = ScsiResponse {
            response: ServiceResponse::Completed,
            status: response.status as u8,
            itt: task.itt,
            snack_tag: 0,
            stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
            exp_data_sn: if data_pdus > 0 { data_pdus } else { r2ts },
            bidirectional_residual: Residual::None,
            residual,
        };
        out.pdu(&reply, &sense);
        self.count_answer(task, response.status, sent_bytes);
    }

    fn count_answer(&mut self, task: &Task, status: Status, sent_bytes: usize) {
        let nexus = match &self.kind {
            Kind::Normal { nexus, .. } => Some(nexus),
            Kind::Discovery { .. } => None,
        };
        // LUNs that are not there are not counted one by one: there are too many of them.
        let lun = task
            .lun
            .number()
            .filter(|_| nexus.is_some_and(|nexus| nexus.lun_exists(task.lun.0)));
        self.counts.answered(self.clock, task, lun, status as u8, sent_bytes);
    }
}

/// How what the initiator expected to move differs from what the command moved (RFC 7143 §11.4.5).
fn residual(task: &Task, response: &Response) -> Residual {
    let expected = u64::from(task.edtl_in) + u64::from(task.edtl_out);
    let moved = match (&task.stage, response.status) {
        // Refused, failed or aborted commands stored nothing that counts.
        (_, status) if status != Status::Good => response.data_in.len() as u64,
        (Stage::Running { wanted_bytes, .. }, _) if *wanted_bytes > 0 => *wanted_bytes,
        _ => response.data_in.len() as u64,
    };
    let difference = u32::try_from(expected.abs_diff(moved)).unwrap_or(u32::MAX);
    match moved.cmp(&expected) {
        std::cmp::Ordering::Less => Residual::Underflow(difference),
        std::cmp::Ordering::Equal => Residual::None,
        std::cmp::Ordering::Greater => Residual::Overflow(difference),
    }
}
