//! A SCSI command from its arrival to the moment it is run (RFC 7143 §11.3).

use std::sync::Arc;

use iscsi_pdu::pdu::{RejectReason, ScsiCommand};
use iscsi_pdu::{RESERVED_TAG, Serial};

use super::{FullFeature, Kind, PROTOCOL_SERVICE_CRC_ERROR, Placement, Received, UNEXPECTED_UNSOLICITED_DATA};
use crate::iscsi::budget::{Memory, Reservation};
use crate::iscsi::job::{Job, TaskId};
use crate::iscsi::output::Output;
use crate::iscsi::ready::Class;
use crate::iscsi::task::{Stage, Task};
use crate::iscsi::transfer::DataOut;
use crate::iscsi::window::Arrival;
use crate::scsi::{Prepared, Response};

impl FullFeature {
    pub(super) fn place_immediate_data(
        &mut self,
        command: &ScsiCommand,
        data_bytes: u32,
        out: &mut Output,
    ) -> Placement {
        if data_bytes == 0 {
            return Placement::Into(Vec::new());
        }
        if !self.may_bring(command, data_bytes) || self.refuse_before_turn(command).is_some() {
            return Placement::Nowhere;
        }
        if !command.immediate && !self.has_room_for_data() {
            return Placement::Nowhere;
        }
        Placement::Into(out.transmit.buffer(self.unasked_bytes(command) as usize))
    }

    /// How much a command may bring along unasked, in bytes.
    fn unasked_bytes(&self, command: &ScsiCommand) -> u32 {
        let bytes = if command.write {
            command.expected_data_transfer_length
        } else {
            0
        };
        bytes.min(self.params.unsolicited_bytes())
    }

    /// Whether there is memory for what another command brings, besides those that came ahead of their turn.
    fn has_room_for_data(&mut self) -> bool {
        self.window.is_backed(&self.window_share, self.tasks.held_count() + 1)
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
                self.window.advance(self.clock, false);
                self.release_held(out);
            }
            return self.reject(RejectReason::TaskInProgress, &received.bhs, out);
        }
        if !received.intact {
            self.reject(RejectReason::DataDigestError, &received.bhs, out);
        }
        let unasked_bytes = self.unasked_bytes(command);
        let mut task = self.new_task(command, &received);
        let received_bhs = received.bhs;
        task.data_out.buffer = received.data.unwrap_or_default();
        let id = task.id;
        let brings_data = unasked_bytes > 0 && matches!(task.stage, Stage::Early(_));
        if brings_data && !command.immediate && !self.has_room_for_data() {
            task.stage = Stage::Refused(Response::task_set_full());
            task.data_out.buffer = Vec::new();
        }
        if arrival == Arrival::Early {
            self.tasks.insert_early(task);
            self.tasks.hold(command.cmd_sn, Some(id));
            return;
        }
        if command.immediate {
            // No slot of the window stands behind an immediate command: what it brings is reserved here.
            task.memory.window = self.window_share.try_reserve_part(unasked_bytes as usize, 1);
            if task.memory.window.is_none() {
                return self.reject(RejectReason::TooManyImmediate, &received_bhs, out);
            }
        } else {
            task.memory.window = self.window.advance(self.clock, takes_memory(&task));
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
            Some(problem) => Stage::Refused(self.data_not_taken(command.lun, problem)),
            // There was no memory for it.
            None if received.data_bytes > 0 && received.data.is_none() => Stage::Refused(Response::task_set_full()),
            None => Stage::Early(Box::new(command.clone())),
        };
        Task {
            id: self.tasks.next_id(),
            itt: command.itt,
            lun: command.lun,
            opcode: command.cdb.opcode(),
            attribute: command.attribute,
            immediate: command.immediate,
            arrived: self.clock,
            admitted_by_lun: false,
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
            let wants_memory = held
                .and_then(|id| self.tasks.get_mut(id))
                .is_some_and(|task| takes_memory(task));
            let memory = self.window.advance(self.clock, wants_memory);
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

    /// Hands out the next command to run, once the memory for its answer is reserved and the limits let it
    /// begin. While one waits, those behind it that do not wait for the same go ahead.
    pub(super) fn start_next(&mut self) -> Option<Job> {
        let mut shut: Vec<Class> = Vec::new();
        let mut no_memory = false;
        let (class, id) = loop {
            let (class, id) = self.tasks.next_ready(|class| shut.contains(&class))?;
            if !self.reserve_for_answer(id, no_memory) {
                no_memory = true;
                shut.push(class);
                continue;
            }
            match self.pass_limits(id) {
                Passage::Free => break (class, id),
                Passage::LunIsShut => {
                    let others = [true, false].map(|reads| Class { reads, ..class });
                    shut.extend(others);
                }
                Passage::SessionIsShut => return None,
            }
        };
        let (task, execution) = self.tasks.start(class, id)?;
        let mut data_out = std::mem::take(&mut task.data_out.buffer);
        data_out.truncate(task.data_out.wanted_bytes as usize);
        task.data_out.received_bytes = u32::try_from(data_out.len()).unwrap_or(u32::MAX);
        Some(Job {
            id,
            execution,
            data_out,
            cancel: Arc::clone(&task.cancel),
            memory: std::mem::take(&mut task.memory),
            fence: self.fence.clone(),
        })
    }

    fn reserve_for_answer(&mut self, id: TaskId, no_memory: bool) -> bool {
        let Some(task) = self.tasks.get_mut(id) else {
            return false;
        };
        let bytes = task.bytes_to_reserve();
        if bytes == 0 {
            return true;
        }
        if no_memory {
            return false;
        }
        task.memory.transfer = self.transfer_share.reserve_or_wait(bytes, &self.mailbox);
        task.memory.transfer.is_some()
    }

    /// Takes a command through the limits of its LUN and of the session.
    fn pass_limits(&mut self, id: TaskId) -> Passage {
        let Some(task) = self.tasks.get_mut(id) else {
            return Passage::Free;
        };
        let Stage::Ready(execution) = &task.stage else {
            return Passage::Free;
        };
        let bytes = execution.data_in_bytes() + task.data_out.buffer.len() as u64;
        if !task.admitted_by_lun {
            let shaper = execution.unit().shaper();
            task.admitted_by_lun = self.gates.pass_lun(task.lun.0, shaper, self.clock, bytes);
            if !task.admitted_by_lun {
                return Passage::LunIsShut;
            }
        }
        if self.gates.pass_session(self.clock, bytes) {
            Passage::Free
        } else {
            Passage::SessionIsShut
        }
    }
}

/// Whether a command whose turn it is keeps data that came unasked.
fn takes_memory(task: &Task) -> bool {
    task.edtl_out > 0 && matches!(task.stage, Stage::Early(_))
}

/// How a command got through the limits.
enum Passage {
    Free,
    LunIsShut,
    SessionIsShut,
}

/// What iSCSI itself has against a command.
enum Refusal {
    /// RFC 7143 §4.2.2.1: outside the window, or a duplicate.
    Ignore,
    Reject(RejectReason),
}
