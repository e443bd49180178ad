//! The task set of one session: every command between its arrival and its answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use iscsi_pdu::pdu::{ScsiCommand, TaskAttribute};
use iscsi_pdu::{Lun, Serial};

use super::budget::Memory;
use super::job::TaskId;
use super::ready::{Class, Ready};
use super::transfer::{DataOut, Transfer};
use crate::scsi::{Execution, Response};

/// One command.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) itt: u32,
    pub(super) lun: Lun,
    pub(super) opcode: u8,
    pub(super) attribute: TaskAttribute,
    pub(super) immediate: bool,
    /// When it came.
    pub(super) arrived: Instant,
    /// What the initiator expects to receive, in bytes: its ExpectedDataTransferLength if it reads.
    pub(super) edtl_in: u32,
    /// What the initiator expects to send, in bytes.
    pub(super) edtl_out: u32,
    pub(super) stage: Stage,
    pub(super) data_out: DataOut,
    /// Whether it has passed the limit of its LUN already, and waits for something else.
    pub(super) admitted_by_lun: bool,
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
    /// Over, but its data waits for what is ahead of it on the line.
    Answering(Box<Transfer>),
}

impl Stage {
    /// What is left where a stage is taken out.
    pub(super) const OVER: Self = Self::Running {
        wanted_bytes: 0,
        answer_bytes: 0,
    };

    /// Bytes that it will add to the output, at most.
    fn answer_bytes(&self) -> usize {
        match self {
            Self::Running { answer_bytes, .. } => *answer_bytes,
            Self::Answering(transfer) => transfer.left_bytes(),
            _ => 0,
        }
    }
}

impl Task {
    /// Whether all data is here, and every sequence over: the F bit may come in a Data-Out of its own behind the data,
    /// which must still find its task.
    pub(super) fn is_complete(&self) -> bool {
        let data = &self.data_out;
        !data.unsolicited_open && data.r2ts.is_empty() && data.buffer.len() >= data.wanted_bytes as usize
    }

    /// Memory that a command with all of its data still needs for its answer, in bytes.
    pub(super) fn bytes_to_reserve(&self) -> usize {
        match &self.stage {
            Stage::Ready(execution) if self.memory.transfer.is_none() => {
                usize::try_from(execution.data_in_bytes()).unwrap_or(usize::MAX)
            }
            _ => 0,
        }
    }

    /// Whether an ORDERED task of this LUN and name has to wait for it: it came first, and is not over.
    fn keeps_waiting(&self, lun: Lun, id: TaskId) -> bool {
        self.lun == lun && self.id < id && !matches!(self.stage, Stage::Early(_) | Stage::Answering(_))
    }

    fn class(&self) -> Class {
        Class {
            lun: self.lun.0,
            reads: self.bytes_to_reserve() > 0,
        }
    }
}

/// Who waits for whom at a LUN (SAM-6 8.6.3).
#[derive(Debug, Default)]
struct Order {
    /// ORDERED tasks that are not over: what came later waits for them.
    ordered: BTreeSet<TaskId>,
    /// Commands with all of their data that have to let others go first.
    behind: BTreeSet<TaskId>,
}

/// All tasks of a session.
#[derive(Debug, Default)]
pub(super) struct TaskSet {
    tasks: HashMap<TaskId, Task>,
    by_itt: HashMap<u32, TaskId>,
    /// Commands that came ahead of their turn, by CmdSN; `None` for one that is over already.
    early: BTreeMap<u32, Option<TaskId>>,
    /// Commands that may be run now, in order.
    ready: Ready,
    /// The LUNs at which there are ORDERED tasks: every LUN is a task set of its own.
    orders: HashMap<Lun, Order>,
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
        // What has been carried out keeps nobody waiting, whether its data is out or not.
        if task.attribute == TaskAttribute::Ordered && !matches!(task.stage, Stage::Answering(_)) {
            self.orders.entry(task.lun).or_default().ordered.insert(task.id);
        }
        self.insert_early(task);
    }

    /// The same for a task that came ahead of its turn, and is to get another name: nobody waits for it yet.
    pub(super) fn insert_early(&mut self, task: Task) {
        self.immediate_count += u32::from(task.immediate);
        self.answer_bytes += task.stage.answer_bytes();
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

    /// Whether there is a task that `is_meant` picks.
    pub(super) fn any(&self, is_meant: impl Fn(&Task) -> bool) -> bool {
        self.tasks.values().any(is_meant)
    }

    /// Takes a task out: it is answered or aborted.
    pub(super) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        self.by_itt.remove(&task.itt);
        self.immediate_count -= u32::from(task.immediate);
        self.answer_bytes -= task.stage.answer_bytes();
        if let Some(order) = self.orders.get_mut(&task.lun) {
            order.ordered.remove(&id);
            order.behind.remove(&id);
            self.let_go(task.lun);
        }
        Some(task)
    }

    /// Bytes that the commands being run or answered will add to the output, at most.
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
        let aborted: Vec<Task> = self.pick(doomed).into_iter().filter_map(|id| self.remove(id)).collect();
        for task in &aborted {
            task.cancel.store(true, Relaxed);
        }
        if !aborted.is_empty() {
            self.ready.retain(|id| self.tasks.contains_key(&id));
            for held in self.early.values_mut() {
                *held = held.filter(|id| self.tasks.contains_key(id));
            }
        }
        aborted
    }

    /// Tells the workers that are at tasks which `doomed` picks to stop early, if they can.
    pub(super) fn cancel_running(&mut self, doomed: impl Fn(&Task) -> bool) {
        let running = |task: &&Task| matches!(task.stage, Stage::Running { .. });
        let tasks = self.tasks.values().filter(running).filter(|task| doomed(task));
        tasks.for_each(|task| task.cancel.store(true, Relaxed));
    }

    /// Notes a command that came ahead of its turn.
    pub(super) fn hold(&mut self, cmd_sn: Serial, id: Option<TaskId>) {
        self.early.insert(cmd_sn.0, id);
    }

    /// Whether a command with this CmdSN is being held.
    pub(super) fn is_held(&self, cmd_sn: Serial) -> bool {
        self.early.contains_key(&cmd_sn.0)
    }

    /// How many commands are being held.
    pub(super) fn held_count(&self) -> usize {
        self.early.len()
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
        let Some(task) = self.tasks.get(&id) else { return };
        let order = self.orders.get_mut(&task.lun);
        let behind = order.filter(|order| order.ordered.first().is_some_and(|ordered| *ordered <= id));
        match (task.attribute, behind) {
            (TaskAttribute::HeadOfQueue, _) => self.ready.push_front(task.class(), id),
            (_, Some(order)) => {
                order.behind.insert(id);
                let lun = task.lun;
                self.let_go(lun);
            }
            _ => self.ready.push_back(task.class(), id),
        }
    }

    /// Lets those go that waited for others: everything before the first ORDERED task that is not over, or that
    /// task itself when it is the oldest of all at its LUN.
    fn let_go(&mut self, lun: Lun) {
        let Some(order) = self.orders.get_mut(&lun) else { return };
        while let Some(id) = order.behind.first().copied() {
            let is_turn = match order.ordered.first() {
                None => true,
                Some(ordered) if *ordered > id => true,
                Some(ordered) => *ordered == id && !self.tasks.values().any(|task| task.keeps_waiting(lun, id)),
            };
            if !is_turn {
                return;
            }
            order.behind.remove(&id);
            if let Some(task) = self.tasks.get(&id) {
                self.ready.push_back(task.class(), id);
            }
        }
        if order.ordered.is_empty() {
            self.orders.remove(&lun);
        }
    }

    /// The next task that may be run and is of a class that is not `shut`.
    pub(super) fn next_ready(&self, shut: impl Fn(Class) -> bool) -> Option<(Class, TaskId)> {
        self.ready.first(shut)
    }

    /// Marks a task that [`next_ready`](Self::next_ready) named as being run, and hands out what it needs.
    pub(super) fn start(&mut self, class: Class, id: TaskId) -> Option<(&mut Task, Execution)> {
        self.ready.remove_first(class, id);
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
