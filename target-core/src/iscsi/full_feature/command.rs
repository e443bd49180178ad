//! A SCSI command from its arrival to the moment it is run (RFC 7143 §11.3).

use std::sync::Arc;

use iscsi_pdu::pdu::{RejectReason, ScsiCommand};
use iscsi_pdu::{RESERVED_TAG, Serial};

use super::{FullFeature, Kind, PROTOCOL_SERVICE_CRC_ERROR, Placement, Received, UNEXPECTED_UNSOLICITED_DATA};
use crate::iscsi::budget::{Memory, Reservation};
use crate::iscsi::job::{Job, TaskId};
use crate::iscsi::output::Output;
use crate::iscsi::task::{DataOut, Stage, Task};
use crate::iscsi::window::Arrival;
use crate::scsi::{Prepared, Response};

impl FullFeature {
    pub(super) fn place_immediate_data(&self, command: &ScsiCommand, data_bytes: u32, out: &mut Output) -> Placement {
        if data_bytes == 0 {
            return Placement::Into(Vec::new());
        }
        if !self.may_bring(command, data_bytes) || self.refuse_before_turn(command).is_some() {
            return Placement::Nowhere;
        }
        let unasked = command
            .expected_data_transfer_length
            .min(self.params.unsolicited_bytes());
        Placement::Into(out.transmit.buffer(unasked as usize))
    }

    /// Whether the immediate data of a command is within what was negotiated.
    fn may_bring(&self, command: &ScsiCommand, data_bytes: u32) -> bool {
        command.write
            && self.params.immediate_data
            && data_bytes <= self.params.unsolicited_bytes()
            && data_bytes <= command.expected_data_transfer_length
    }

    /// What is wrong with a command, as far as iSCSI goes.
    fn refuse_before_turn(&self, command: &ScsiCommand) -> Option<Refusal> {
        if !matches!(self.kind, Kind::Normal { .. }) {
            return Some(Refusal::Reject(RejectReason::CommandNotSupported));
        }
        if !command.immediate
            && (self.window.classify(command.cmd_sn) == Arrival::Ignore || self.tasks.is_held(command.cmd_sn))
        {
            return Some(Refusal::Ignore);
        }
        if command.itt == RESERVED_TAG {
            return Some(Refusal::Reject(RejectReason::InvalidPduField));
        }
        if command.immediate && self.tasks.immediate_count() >= self.limits.immediate_commands {
            return Some(Refusal::Reject(RejectReason::TooManyImmediate));
        }
        None
    }

    pub(super) fn scsi_command(&mut self, command: &ScsiCommand, received: Received, out: &mut Output) {
        match self.refuse_before_turn(command) {
            Some(Refusal::Ignore) => return,
            Some(Refusal::Reject(reason)) => return self.reject(reason, &received.bhs, out),
            None => {}
        }
        let arrival = if command.immediate {
            Arrival::Next
        } else {
            self.window.classify(command.cmd_sn)
        };
        if self.tasks.id_of(command.itt).is_some() {
            // The tag is another command's (RFC 7143 §11.2.1.8). The CmdSN is used up all the same.
            if arrival == Arrival::Next && !command.immediate {
                self.window.advance();
                self.release_held(out);
            }
            return self.reject(RejectReason::TaskInProgress, &received.bhs, out);
        }
        if !received.intact {
            self.reject(RejectReason::DataDigestError, &received.bhs, out);
        }
        let mut task = self.new_task(command, &received);
        let received_bhs = received.bhs;
        task.data_out.buffer = received.data.unwrap_or_default();
        let id = task.id;
        if arrival == Arrival::Early {
            self.tasks.insert(task);
            self.tasks.hold(command.cmd_sn, Some(id));
            return;
        }
        if command.immediate {
            // No slot of the window stands behind an immediate command: what it brings is reserved here.
            let unasked = command
                .expected_data_transfer_length
                .min(self.params.unsolicited_bytes());
            task.memory.window = self
                .window_share
                .try_reserve_part(if command.write { unasked as usize } else { 0 }, 1);
            if task.memory.window.is_none() {
                return self.reject(RejectReason::TooManyImmediate, &received_bhs, out);
            }
        } else {
            task.memory.window = self.window.advance();
        }
        self.tasks.insert(task);
        self.take_turn(id, out);
        self.release_held(out);
    }

    /// A task that waits for its turn.
    fn new_task(&mut self, command: &ScsiCommand, received: &Received) -> Task {
        let edtl = command.expected_data_transfer_length;
        // Without the W bit nothing may come; with it, data follows unasked unless F is set.
        let unsolicited_open = command.write && !command.final_bit && !self.params.initial_r2t;
        let problem = if !received.intact {
            Some(PROTOCOL_SERVICE_CRC_ERROR)
        } else if received.data_bytes > 0 && !self.may_bring(command, received.data_bytes) {
            Some(UNEXPECTED_UNSOLICITED_DATA)
        } else {
            None
        };
        let stage = match problem {
            Some(problem) => Stage::Refused(Response::aborted_command(problem)),
            None => Stage::Early(Box::new(command.clone())),
        };
        Task {
            id: self.tasks.next_id(),
            itt: command.itt,
            lun: command.lun,
            attribute: command.attribute,
            immediate: command.immediate,
            edtl_in: if command.read && !command.write { edtl } else { 0 },
            edtl_out: if command.write { edtl } else { 0 },
            stage,
            data_out: DataOut {
                unsolicited_open,
                ..DataOut::default()
            },
            memory: Memory::default(),
            cancel: Arc::default(),
        }
    }

    /// Commands that came early and are next now.
    pub(super) fn release_held(&mut self, out: &mut Output) {
        while let Some(held) = self.tasks.release(self.window.exp_cmd_sn()) {
            let memory = self.window.advance();
            if let Some(id) = held.and_then(|id| self.tasks.renew_id(id)) {
                self.give_window_memory(id, memory);
                self.take_turn(id, out);
            }
        }
    }

    /// Uses up the place of a command that was aborted before it came.
    pub(super) fn skip_command(&mut self, cmd_sn: Serial, out: &mut Output) {
        self.tasks.hold(cmd_sn, None);
        self.release_held(out);
    }

    fn give_window_memory(&mut self, id: TaskId, memory: Option<Reservation>) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.memory.window = memory;
        }
    }

    /// It is this command's turn: ask the SCSI core what it is.
    fn take_turn(&mut self, id: TaskId, out: &mut Output) {
        let Kind::Normal { nexus, .. } = &self.kind else { return };
        let Some(task) = self.tasks.get_mut(id) else { return };
        let unsolicited_bytes = if task.data_out.unsolicited_open {
            task.edtl_out.min(self.params.unsolicited_bytes())
        } else {
            u32::try_from(task.data_out.buffer.len()).unwrap_or(u32::MAX)
        };
        if let Some(memory) = &mut task.memory.window {
            memory.shrink(unsolicited_bytes as usize);
        }
        if let Stage::Early(command) = &task.stage {
            task.stage = match nexus.prepare(command.lun.0, command.cdb.as_slice()) {
                Prepared::Done(response) => Stage::Refused(response),
                Prepared::Run(execution) => match execution.check_data_out(u64::from(task.edtl_out)) {
                    Ok(()) => Stage::Collecting(execution),
                    Err(response) => Stage::Refused(response),
                },
            };
        }
        if let Stage::Collecting(execution) = &task.stage {
            let needed = u32::try_from(execution.data_out_bytes()).unwrap_or(u32::MAX);
            task.data_out.wanted_bytes = needed.min(task.edtl_out);
            task.data_out.unasked_bytes = unsolicited_bytes;
            task.data_out.asked_bytes = unsolicited_bytes;
        }
        self.data_has_come(id, out);
    }

    /// Looks whether a command now has all its data: runs it, refuses it, or asks for more.
    pub(super) fn data_has_come(&mut self, id: TaskId, out: &mut Output) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        match &task.stage {
            Stage::Refused(_) if !task.data_out.unsolicited_open && task.data_out.r2ts.is_empty() => {
                if let Some(mut task) = self.tasks.remove(id)
                    && let Stage::Refused(response) = std::mem::replace(&mut task.stage, Stage::OVER)
                {
                    self.answer(task, response, out);
                }
            }
            Stage::Collecting(_) if task.is_complete() => {
                let Stage::Collecting(execution) = std::mem::replace(&mut task.stage, Stage::OVER) else {
                    unreachable!("matched above");
                };
                task.stage = Stage::Ready(execution);
                self.tasks.set_ready(id);
            }
            Stage::Collecting(_) => self.ask_for_data(id, out),
            _ => {}
        }
    }

    /// Hands out the next command to run, once the memory for its answer is reserved. While one waits for
    /// memory, those behind it that need no more of it go ahead: what it waits for may be theirs.
    pub(super) fn start_next(&mut self) -> Option<Job> {
        let mut id = self.tasks.peek_ready()?;
        if !self.reserve_for_answer(id) {
            id = self.tasks.find_ready(|task| bytes_to_reserve(task) == 0)?;
        }
        let (task, execution) = self.tasks.start(id)?;
        let mut data_out = std::mem::take(&mut task.data_out.buffer);
        data_out.truncate(task.data_out.wanted_bytes as usize);
        Some(Job {
            id,
            execution,
            data_out,
            cancel: Arc::clone(&task.cancel),
            memory: std::mem::take(&mut task.memory),
            fence: self.fence.clone(),
        })
    }

    fn reserve_for_answer(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get_mut(id) else {
            return false;
        };
        let bytes = bytes_to_reserve(task);
        if bytes == 0 {
            return true;
        }
        let mut memory = self.transfer_share.try_reserve(bytes);
        if memory.is_none() {
            self.transfer_share.wait(self.mailbox.clone());
            memory = self.transfer_share.try_reserve(bytes);
        }
        task.memory.transfer = memory;
        task.memory.transfer.is_some()
    }
}

/// Memory that a command with all of its data still needs for its answer, in bytes.
fn bytes_to_reserve(task: &Task) -> usize {
    match &task.stage {
        Stage::Ready(execution) if task.memory.transfer.is_none() => {
            usize::try_from(execution.data_in_bytes()).unwrap_or(usize::MAX)
        }
        _ => 0,
    }
}

/// What iSCSI itself has against a command.
enum Refusal {
    /// RFC 7143 §4.2.2.1: outside the window, or a duplicate.
    Ignore,
    Reject(RejectReason),
}
