//! The task set of one session: every command between its arrival and its answer.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use iscsi_pdu::pdu::{ScsiCommand, TaskAttribute};
use iscsi_pdu::{Lun, Serial};

use super::budget::Memory;
use super::job::TaskId;
use crate::scsi::{Execution, Response};

/// One command.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) itt: u32,
    pub(super) lun: Lun,
    pub(super) attribute: TaskAttribute,
    pub(super) immediate: bool,
    /// What the initiator expects to receive, in bytes: its ExpectedDataTransferLength if it reads.
    pub(super) edtl_in: u32,
    /// What the initiator expects to send, in bytes.
    pub(super) edtl_out: u32,
    pub(super) stage: Stage,
    pub(super) data_out: DataOut,
    /// Given back with the task, or with the job that it becomes.
    pub(super) memory: Memory,
    /// Raised when the task is aborted while a worker is at it.
    pub(super) cancel: Arc<AtomicBool>,
}

/// How far a command has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its CmdSN is ahead of ExpCmdSN: others must be taken first.
    Early(Box<ScsiCommand>),
    /// Waits for data from the initiator.
    Collecting(Execution),
    /// It has failed already, but the initiator is still sending data for it.
    Refused(Response),
    /// Waits to be run.
    Ready(Execution),
    /// Being run; the bytes it asked the initiator for are kept for the residual count, those of its answer
    /// because somebody will have to take them.
    Running { wanted_bytes: u64, answer_bytes: usize },
}

impl Stage {
    /// What is left where a stage is taken out.
    pub(super) const OVER: Self = Self::Running {
        wanted_bytes: 0,
        answer_bytes: 0,
    };
}

/// Data from the initiator.
#[derive(Debug, Default)]
pub(super) struct DataOut {
    /// What has come so far, in order.
    pub(super) buffer: Vec<u8>,
    /// How much the command takes in all, in bytes: the smaller of what the CDB and the initiator say.
    pub(super) wanted_bytes: u32,
    /// Whether unsolicited Data-Out PDUs are still to come.
    pub(super) unsolicited_open: bool,
    /// How much comes unasked, in bytes.
    pub(super) unasked_bytes: u32,
    /// DataSN of the next unsolicited Data-Out.
    pub(super) next_data_sn: u32,
    /// First byte that no R2T has asked for yet.
    pub(super) asked_bytes: u32,
    /// R2Ts not yet answered in full, in order.
    pub(super) r2ts: VecDeque<OpenR2t>,
    /// R2TSN of the next R2T.
    pub(super) next_r2t_sn: u32,
}

/// An R2T whose data is not here yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenR2t {
    pub(super) ttt: u32,
    /// Where its data ends, in bytes from the start of the command's data.
    pub(super) end_bytes: u32,
    pub(super) next_data_sn: u32,
}

impl Task {
    /// Whether all data is here.
    pub(super) fn is_complete(&self) -> bool {
        !self.data_out.unsolicited_open && self.data_out.buffer.len() >= self.data_out.wanted_bytes as usize
    }
}

/// All tasks of a session.
#[derive(Debug, Default)]
pub(super) struct TaskSet {
    tasks: HashMap<TaskId, Task>,
    by_itt: HashMap<u32, TaskId>,
    /// Commands that came ahead of their turn, by CmdSN; `None` for one that is over already.
    early: BTreeMap<u32, Option<TaskId>>,
    /// Commands with all of their data, in the order to run them.
    ready: VecDeque<TaskId>,
    /// ORDERED tasks that are not over: what came later waits for them (SAM-6 8.6.3).
    ordered: BTreeSet<TaskId>,
    immediate_count: u32,
    answer_bytes: usize,
    last_id: u64,
}

impl TaskSet {
    /// A new name. Names grow in the order in which commands take their turn.
    pub(super) fn next_id(&mut self) -> TaskId {
        self.last_id += 1;
        TaskId(self.last_id)
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn immediate_count(&self) -> u32 {
        self.immediate_count
    }

    pub(super) fn insert(&mut self, task: Task) {
        self.immediate_count += u32::from(task.immediate);
        if task.attribute == TaskAttribute::Ordered {
            self.ordered.insert(task.id);
        }
        let replaced = self.by_itt.insert(task.itt, task.id);
        debug_assert!(replaced.is_none(), "a task tag in use was let in again");
        self.tasks.insert(task.id, task);
    }

    pub(super) fn get_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(&id)
    }

    pub(super) fn id_of(&self, itt: u32) -> Option<TaskId> {
        self.by_itt.get(&itt).copied()
    }

    pub(super) fn by_itt(&mut self, itt: u32) -> Option<&mut Task> {
        self.tasks.get_mut(self.by_itt.get(&itt)?)
    }

    /// Takes a task out: it is answered or aborted.
    pub(super) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        self.by_itt.remove(&task.itt);
        self.immediate_count -= u32::from(task.immediate);
        if task.attribute == TaskAttribute::Ordered {
            self.ordered.remove(&id);
        }
        if let Stage::Running { answer_bytes, .. } = task.stage {
            self.answer_bytes -= answer_bytes;
        }
        Some(task)
    }

    /// Bytes that the commands being run will add to the output, at most.
    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// The tasks that `wanted` picks.
    pub(super) fn pick(&self, wanted: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        let picked = self.tasks.values().filter(|task| wanted(task));
        picked.map(|task| task.id).collect()
    }

    /// Ends tasks that `doomed` picks, without an answer. Returns them, and raises the flag of those a
    /// worker is at.
    pub(super) fn abort(&mut self, doomed: impl Fn(&Task) -> bool) -> Vec<Task> {
        let ids: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| doomed(task))
            .map(|task| task.id)
            .collect();
        let aborted: Vec<Task> = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        for task in &aborted {
            task.cancel.store(true, Relaxed);
        }
        if !aborted.is_empty() {
            self.ready.retain(|id| self.tasks.contains_key(id));
            for held in self.early.values_mut() {
                *held = held.filter(|id| self.tasks.contains_key(id));
            }
        }
        aborted
    }

    /// Notes a command that came ahead of its turn.
    pub(super) fn hold(&mut self, cmd_sn: Serial, id: Option<TaskId>) {
        self.early.insert(cmd_sn.0, id);
    }

    /// Whether a command with this CmdSN is being held.
    pub(super) fn is_held(&self, cmd_sn: Serial) -> bool {
        self.early.contains_key(&cmd_sn.0)
    }

    /// The command held for this CmdSN, whose turn it is now.
    pub(super) fn release(&mut self, cmd_sn: Serial) -> Option<Option<TaskId>> {
        self.early.remove(&cmd_sn.0)
    }

    /// Names a task anew when its turn comes, so that names stay in the order of turns.
    pub(super) fn renew_id(&mut self, id: TaskId) -> Option<TaskId> {
        let mut task = self.remove(id)?;
        task.id = self.next_id();
        let id = task.id;
        self.insert(task);
        Some(id)
    }

    /// All data of this task is here.
    pub(super) fn set_ready(&mut self, id: TaskId) {
        match self.tasks.get(&id).map(|task| task.attribute) {
            Some(TaskAttribute::HeadOfQueue) => self.ready.push_front(id),
            Some(_) => self.ready.push_back(id),
            None => {}
        }
    }

    /// The next task that may be run.
    pub(super) fn peek_ready(&self) -> Option<TaskId> {
        if self.ordered.is_empty() {
            return self.ready.front().copied();
        }
        self.ready.iter().copied().find(|id| self.is_its_turn(*id))
    }

    /// The first task that may be run and is one that `fits` picks.
    pub(super) fn find_ready(&self, fits: impl Fn(&Task) -> bool) -> Option<TaskId> {
        let picked = |id: &TaskId| self.tasks.get(id).is_some_and(&fits) && self.is_its_turn(*id);
        self.ready.iter().copied().find(picked)
    }

    fn is_its_turn(&self, id: TaskId) -> bool {
        match self.tasks.get(&id).map(|task| task.attribute) {
            Some(TaskAttribute::HeadOfQueue) => true,
            Some(TaskAttribute::Ordered) => self.tasks.keys().all(|other| *other >= id),
            Some(_) => self.ordered.first().is_none_or(|ordered| *ordered > id),
            None => false,
        }
    }

    /// Marks a task that [`peek_ready`](Self::peek_ready) named as being run, and hands out what it needs.
    pub(super) fn start(&mut self, id: TaskId) -> Option<(&mut Task, Execution)> {
        let index = self.ready.iter().position(|ready| *ready == id)?;
        self.ready.remove(index);
        let task = self.tasks.get_mut(&id)?;
        let Stage::Ready(execution) = std::mem::replace(&mut task.stage, Stage::OVER) else {
            unreachable!("only ready tasks are queued to be run");
        };
        let answer_bytes = usize::try_from(execution.data_in_bytes()).unwrap_or(usize::MAX);
        task.stage = Stage::Running {
            wanted_bytes: execution.data_out_bytes(),
            answer_bytes,
        };
        self.answer_bytes += answer_bytes;
        Some((task, execution))
    }
}
