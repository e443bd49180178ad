//! A command's answer: Data-In, status, sense and residual (RFC 7143 §11.4, §11.7).

use std::sync::Arc;

use iscsi_pdu::RESERVED_TAG;
use iscsi_pdu::pdu::{DataIn, DataInStatus, Residual, ScsiResponse, ServiceResponse, write_sense};

use super::FullFeature;
use crate::iscsi::output::Output;
use crate::iscsi::task::{Stage, Task};
use crate::iscsi::transmit::DataBuffer;
use crate::scsi::{Response, Status};

impl FullFeature {
    /// Answers a task that is over. Its memory stays reserved until its data is out.
    pub(super) fn answer(&mut self, task: Task, mut response: Response, out: &mut Output) {
        let residual = residual(&task, &response);
        let data_bytes = response.data_in.len().min(task.edtl_in as usize);
        response.data_in.truncate(data_bytes);
        let Task {
            itt,
            lun,
            memory,
            data_out,
            ..
        } = task;
        let mut data_pdus = 0;
        if data_bytes > 0 {
            let collapse = response.status == Status::Good;
            let buffer = DataBuffer::new(response.data_in, memory.transfer);
            data_pdus = self.data_in(itt, lun, &buffer, collapse.then_some(residual), out);
            if collapse {
                return;
            }
        }
        let mut sense = Vec::new();
        if !response.sense.is_empty() {
            write_sense(&response.sense, &mut sense);
        }
        let stat_sn = self.next_stat_sn();
        let reply = ScsiResponse {
            response: ServiceResponse::Completed,
            status: response.status as u8,
            itt,
            snack_tag: 0,
            stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
            exp_data_sn: if data_pdus > 0 { data_pdus } else { data_out.next_r2t_sn },
            bidirectional_residual: Residual::None,
            residual,
        };
        out.pdu(&reply, &sense);
    }

    /// Sends data in PDUs of the size the initiator takes; the last one carries a good status along when
    /// `collapse` gives its residual. Returns the number of PDUs.
    fn data_in(
        &mut self,
        itt: u32,
        lun: iscsi_pdu::Lun,
        buffer: &Arc<DataBuffer>,
        collapse: Option<Residual>,
        out: &mut Output,
    ) -> u32 {
        let total = buffer.bytes().len();
        let pdu_max = self.params.max_send_data_segment_bytes as usize;
        let burst_max = self.params.max_burst_bytes as usize;
        let (mut start, mut burst_end, mut data_sn) = (0, burst_max, 0);
        while start < total {
            let end = total.min(start + pdu_max).min(burst_end);
            let last = end == total;
            let status = collapse.filter(|_| last).map(|residual| DataInStatus {
                status: Status::Good as u8,
                stat_sn: self.next_stat_sn(),
                residual,
            });
            let pdu = DataIn {
                final_bit: last || end == burst_end,
                acknowledge: false,
                status,
                lun,
                itt,
                ttt: RESERVED_TAG,
                exp_cmd_sn: self.window.exp_cmd_sn(),
                max_cmd_sn: self.window.max_cmd_sn(),
                data_sn,
                buffer_offset: u32::try_from(start).expect("transfers are far below 4 GiB"),
            };
            out.pdu_from(&pdu, buffer, start, end);
            if end == burst_end {
                burst_end += burst_max;
            }
            data_sn += 1;
            start = end;
        }
        data_sn
    }
}

/// How what the initiator expected to move differs from what the command moved (RFC 7143 §11.4.5).
fn residual(task: &Task, response: &Response) -> Residual {
    let expected = u64::from(task.edtl_in) + u64::from(task.edtl_out);
    let moved = match (&task.stage, response.status) {
        // Refused or failed commands stored nothing that counts.
        (_, Status::CheckCondition) => response.data_in.len() as u64,
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
