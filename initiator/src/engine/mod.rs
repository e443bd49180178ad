//! Full feature phase without I/O: commands in, PDUs out; PDUs in, completions out.

mod answers;

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use iscsi_pdu::{
    AsyncMessage, DataOut, Emit, Framing, LogoutReason, LogoutRequest, Lun, NopOut, RESERVED_TAG, RejectReason,
    Response, ScsiCommand, Serial, TaskFunction, TaskManagementRequest, TextRequest,
};

use crate::login::LoggedIn;
use crate::outbox::Outbox;
use crate::tasks::{Command, Done, ScsiTask, Task, TextTask, Transfer};
use crate::{Error, Negotiated};

/// Requests waiting for an answer or for the command window.
const MAX_TASKS: usize = 4096;
/// Notices nobody has asked for; the oldest go first.
const MAX_NOTICES: usize = 64;

/// Something the target said on its own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An Asynchronous Message.
    Async(AsyncMessage),
    /// A Reject that ended no request of this session (of a Data-Out, or of bytes sent raw).
    Rejected(RejectReason),
    /// A NOP-In that wanted no answer.
    Ping,
    /// A NOP-In that wanted an answer, and got it.
    PingAnswered,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) negotiated: Negotiated,
    pub(crate) outbox: Outbox,
    framing: Framing,
    cid: u16,
    cmd_sn: Serial,
    exp_stat_sn: Serial,
    max_cmd_sn: Serial,
    next_tag: u32,
    tasks: HashMap<u32, Task>,
    /// Tasks the command window has no room for yet.
    waiting: VecDeque<u32>,
    /// The PDU being received. Data-In goes to its task instead.
    current: Option<(Response, Vec<u8>)>,
    pub(crate) done: VecDeque<(u32, Done)>,
    /// Requests whose answer nobody waits for any more.
    abandoned: HashSet<u32>,
    pub(crate) notices: VecDeque<Notice>,
}

impl Engine {
    pub(crate) fn new(login: LoggedIn, framing: Framing, cid: u16) -> Engine {
        Engine {
            framing,
            cid,
            outbox: Outbox::default(),
            cmd_sn: login.cmd_sn,
            exp_stat_sn: login.exp_stat_sn,
            max_cmd_sn: login.max_cmd_sn,
            negotiated: login.negotiated,
            next_tag: 1,
            tasks: HashMap::new(),
            waiting: VecDeque::new(),
            current: None,
            done: VecDeque::new(),
            abandoned: HashSet::new(),
            notices: VecDeque::new(),
        }
    }

    pub(crate) fn scsi(&mut self, command: Command) -> Result<u32, Error> {
        if let Transfer::Out(data) = &command.transfer
            && u32::try_from(data.len()).is_err()
        {
            return Err(Error::Misuse("a command moves less than 4 GiB"));
        }
        self.start(Task::Scsi(ScsiTask {
            command,
            cmd_sn: Serial::default(),
            received: Vec::new(),
            solicited: 0,
            next_data_sn: 0,
            next_r2t_sn: 0,
            is_last_data_in: false,
        }))
    }

    pub(crate) fn text(&mut self, task: TextTask) -> Result<u32, Error> {
        self.start(Task::Text(task))
    }

    pub(crate) fn nop(&mut self, ping: Bytes) -> Result<u32, Error> {
        if ping.len() > self.negotiated.max_send_data_segment_bytes as usize {
            return Err(Error::Misuse(
                "ping data is longer than the target's MaxRecvDataSegmentLength",
            ));
        }
        let itt = self.insert(Task::Nop { ping: ping.clone() })?;
        let (cmd_sn, exp_stat_sn) = (self.cmd_sn, self.exp_stat_sn);
        let lun = Lun::default();
        self.send(
            &NopOut {
                immediate: true,
                lun,
                itt,
                ttt: RESERVED_TAG,
                cmd_sn,
                exp_stat_sn,
            },
            ping,
        );
        Ok(itt)
    }

    pub(crate) fn logout(&mut self) -> Result<u32, Error> {
        let itt = self.insert(Task::Logout)?;
        let (cid, cmd_sn, exp_stat_sn) = (self.cid, self.cmd_sn, self.exp_stat_sn);
        let reason = LogoutReason::CloseSession;
        self.send(
            &LogoutRequest {
                immediate: true,
                reason,
                itt,
                cid,
                cmd_sn,
                exp_stat_sn,
            },
            Bytes::new(),
        );
        Ok(itt)
    }

    /// `referenced` is the task an ABORT TASK is about.
    pub(crate) fn task_management(
        &mut self,
        function: TaskFunction,
        lun: Lun,
        referenced: Option<u32>,
    ) -> Result<u32, Error> {
        let ref_cmd_sn = match referenced.and_then(|tag| self.tasks.get(&tag)) {
            // A task that is gone or was never sent is still a fair question.
            Some(Task::Scsi(task)) => task.cmd_sn,
            _ => self.cmd_sn,
        };
        let referenced = referenced.unwrap_or(RESERVED_TAG);
        let itt = self.insert(Task::Management {
            function,
            lun,
            referenced,
        })?;
        let request = TaskManagementRequest {
            immediate: true,
            function,
            lun,
            itt,
            referenced_task_tag: referenced,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            ref_cmd_sn,
            exp_data_sn: 0,
        };
        self.send(&request, Bytes::new());
        Ok(itt)
    }

    fn insert(&mut self, task: Task) -> Result<u32, Error> {
        if self.in_flight() >= MAX_TASKS {
            return Err(Error::Misuse("too many requests in flight (4096)"));
        }
        while self.next_tag == RESERVED_TAG || self.tasks.contains_key(&self.next_tag) {
            self.next_tag = self.next_tag.wrapping_add(1);
        }
        let itt = self.next_tag;
        self.next_tag = itt.wrapping_add(1);
        self.tasks.insert(itt, task);
        Ok(itt)
    }

    /// Takes on a request that is subject to the command window.
    fn start(&mut self, task: Task) -> Result<u32, Error> {
        let itt = self.insert(task)?;
        self.waiting.push_back(itt);
        self.fill_window();
        Ok(itt)
    }

    /// Sends what the window has room for (RFC 7143 §4.2.2.1).
    fn fill_window(&mut self) {
        while self.cmd_sn.le(self.max_cmd_sn) {
            let Some(itt) = self.waiting.pop_front() else { return };
            let cmd_sn = self.cmd_sn;
            match self.tasks.get_mut(&itt) {
                Some(Task::Scsi(task)) => {
                    task.cmd_sn = cmd_sn;
                    self.cmd_sn += 1;
                    self.send_command(itt);
                }
                Some(Task::Text(task)) => {
                    let text = Bytes::from(std::mem::take(&mut task.text));
                    let request = TextRequest {
                        immediate: false,
                        final_bit: true,
                        continue_: false,
                        lun: task.lun,
                        itt,
                        ttt: task.ttt,
                        cmd_sn,
                        exp_stat_sn: self.exp_stat_sn,
                    };
                    self.cmd_sn += 1;
                    self.send(&request, text);
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, pdu: &impl Emit, data: Bytes) {
        self.outbox.pdu(self.framing, pdu, data);
    }

    /// A command with its immediate and unsolicited data (RFC 7143 §4.2.4.2).
    fn send_command(&mut self, itt: u32) {
        let Some(Task::Scsi(task)) = self.tasks.get_mut(&itt) else {
            return;
        };
        let keys = &self.negotiated;
        let data = match &task.command.transfer {
            Transfer::Out(data) => data.clone(),
            _ => Bytes::new(),
        };
        let length = data.len() as u32;
        let first_burst = length.min(keys.first_burst_bytes);
        let immediate = if keys.immediate_data {
            first_burst.min(keys.max_send_data_segment_bytes)
        } else {
            0
        };
        let unsolicited = if keys.initial_r2t { immediate } else { first_burst };
        task.solicited = unsolicited;
        let lun = task.command.lun;
        let command = ScsiCommand {
            immediate: false,
            final_bit: unsolicited == immediate,
            read: matches!(task.command.transfer, Transfer::In(_)),
            write: matches!(task.command.transfer, Transfer::Out(_)),
            attribute: task.command.attribute,
            lun,
            itt,
            expected_data_transfer_length: match task.command.transfer {
                Transfer::In(bytes) => bytes,
                _ => length,
            },
            cmd_sn: task.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            cdb: task.command.cdb.clone(),
            bidirectional_read_length: None,
        };
        self.send(&command, data.slice(..immediate as usize));
        self.send_burst(itt, lun, RESERVED_TAG, &data, immediate, unsolicited);
    }

    /// One sequence of Data-Outs: the bytes from `start` to `end`.
    fn send_burst(&mut self, itt: u32, lun: Lun, ttt: u32, data: &Bytes, start: u32, end: u32) {
        let mut buffer_offset = start;
        let mut data_sn = 0;
        while buffer_offset < end {
            let next = end.min(buffer_offset.saturating_add(self.negotiated.max_send_data_segment_bytes));
            let final_bit = next == end;
            let exp_stat_sn = self.exp_stat_sn;
            let header = DataOut {
                final_bit,
                lun,
                itt,
                ttt,
                exp_stat_sn,
                data_sn,
                buffer_offset,
            };
            self.send(&header, data.slice(buffer_offset as usize..next as usize));
            (buffer_offset, data_sn) = (next, data_sn + 1);
        }
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() == MAX_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    /// A request has ended.
    fn finish(&mut self, tag: u32, done: Done) {
        if !self.abandoned.remove(&tag) {
            self.done.push_back((tag, done));
        }
    }

    /// Nobody waits for this request's end any more; it still uses up a place until the target answers.
    pub(crate) fn abandon(&mut self, tag: u32) {
        if self.tasks.contains_key(&tag) {
            self.abandoned.insert(tag);
        }
    }

    /// Requests whose end has not come, or has not been collected.
    pub(crate) fn in_flight(&self) -> usize {
        self.tasks.len() + self.done.len()
    }
}
