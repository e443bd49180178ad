//! Commands that may be run, in order, by what they may have to wait for.

use std::collections::VecDeque;

use super::job::TaskId;

/// What commands wait for together: one that has to wait does not keep those of another class waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class {
    /// The LUN, which may have a limit.
    pub(super) lun: [u8; 8],
    /// Whether memory for the answer is needed.
    pub(super) reads: bool,
}

/// A queue for each class, and one order over all of them.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// At most two for each LUN there is. They stay when they are empty, for they will be needed again.
    queues: Vec<(Class, VecDeque<(i64, TaskId)>)>,
    count: usize,
    next_place: i64,
    /// HEAD OF QUEUE goes before everything there is, and counts down.
    front_place: i64,
}

impl Ready {
    pub(super) fn push_back(&mut self, class: Class, id: TaskId) {
        self.next_place += 1;
        let place = self.next_place;
        self.queue(class).push_back((place, id));
    }

    pub(super) fn push_front(&mut self, class: Class, id: TaskId) {
        self.front_place -= 1;
        let place = self.front_place;
        self.queue(class).push_front((place, id));
    }

    fn queue(&mut self, class: Class) -> &mut VecDeque<(i64, TaskId)> {
        self.count += 1;
        let index = self.queues.iter().position(|(other, _)| *other == class);
        let index = index.unwrap_or_else(|| {
            self.queues.push((class, VecDeque::new()));
            self.queues.len() - 1
        });
        &mut self.queues[index].1
    }

    /// The first command of a class that is not `shut`.
    pub(super) fn first(&self, shut: impl Fn(Class) -> bool) -> Option<(Class, TaskId)> {
        if self.count == 0 {
            return None;
        }
        let firsts = self.queues.iter().filter_map(|(class, queue)| {
            let (place, id) = queue.front()?;
            (!shut(*class)).then_some((*place, *class, *id))
        });
        let (_, class, id) = firsts.min_by_key(|(place, ..)| *place)?;
        Some((class, id))
    }

    /// Takes out what [`first`](Self::first) has named.
    pub(super) fn remove_first(&mut self, class: Class, id: TaskId) {
        let queue = self.queues.iter_mut().find(|(other, _)| *other == class);
        let taken = queue.and_then(|(_, queue)| queue.pop_front());
        debug_assert!(
            taken.is_some_and(|(_, taken)| taken == id),
            "not the first of its class"
        );
        self.count -= 1;
    }

    pub(super) fn retain(&mut self, keep: impl Fn(TaskId) -> bool) {
        for (_, queue) in &mut self.queues {
            queue.retain(|(_, id)| keep(*id));
        }
        self.count = self.queues.iter().map(|(_, queue)| queue.len()).sum();
    }
}
