//! A medium that hangs: whoever asks for an end gets an answer in time, what comes late goes nowhere, and the other
//! LUNs do not notice.

#[path = "hung/medium.rs"]
mod medium;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use iscsi_pdu::{
    Isid, LogoutReason, LogoutRequest, Lun, RESERVED_TAG, Response, ScsiCommand, Serial, TaskAttribute, TaskFunction,
    TaskManagementRequest, TaskOutcome,
};
use medium::Hung;
use support::answers::{itt, r2t};
use support::{BLOCKS, Direction, INITIATOR, TARGET, Wire, login_request, read10, text, write10};
use target_core::iscsi::job::Job;
use target_core::iscsi::mailbox::{CloseReason, Notice};
use target_core::iscsi::{Ended, Limits, Node, Target};
use target_core::lun::{Medium, MemoryMedium, Wait};
use target_core::scsi::{Device, Identity, LogicalUnit};

/// TASK ABORTED (SAM-5 5.3.1).
const TASK_ABORTED: u8 = 0x40;
const ISID: Isid = Isid([0x80, 0, 0, 0, 0, 1]);
/// Where each write of [`Bench::load`] goes on LUN 0, in blocks.
const IN_THE_MEDIUM: u64 = 0;
const IN_THE_QUEUE: u64 = 8;
const COLLECTING: u64 = 16;
const BEHIND: u64 = 24;

/// LUN 0 hangs, LUN 1 does not.
struct Bench {
    medium: Arc<Hung>,
    node: Arc<Node>,
    wire: Wire,
    threads: Vec<JoinHandle<()>>,
    /// Commands of LUN 0 that no worker has begun.
    queued: Vec<Job>,
}

/// The tags of the commands that are open at LUN 0.
struct Load {
    writing: ScsiCommand,
    reading: u32,
    queued: u32,
    collecting: ScsiCommand,
    behind: u32,
    ttt: u32,
}

fn unit(medium: Arc<dyn Medium>, serial: &str) -> Arc<LogicalUnit> {
    let identity = Identity {
        vendor: "FARLUN".to_owned(),
        product: "TEST".to_owned(),
        revision: "1".to_owned(),
        serial: serial.to_owned(),
    };
    LogicalUnit::shared(medium, identity)
}

fn login(node: &Arc<Node>, name: &str, isid: Isid) -> Wire {
    let keys = [
        ("iSCSIProtocolLevel", "2"),
        ("ImmediateData", "Yes"),
        ("InitialR2T", "Yes"),
    ];
    let mut wire = Wire::logged_in_as(node, name, isid, &keys);
    wire.hold = true;
    wire
}

fn bound_ms() -> u64 {
    Limits::default().abort_wait_ms
}

impl Bench {
    fn new() -> Self {
        let medium = Hung::new(BLOCKS * 512);
        let other = MemoryMedium::new(BLOCKS * 512, 512).expect("small enough");
        let luns = [(0, unit(medium.clone(), "hung")), (1, unit(Arc::new(other), "well"))];
        let device = Device::new(BTreeMap::from(luns));
        let node = Node::new(Limits::default(), [Target::new(TARGET, None, device)]);
        let wire = login(&node, INITIATOR, ISID);
        Self {
            medium,
            node,
            wire,
            threads: Vec::new(),
            queued: Vec::new(),
        }
    }

    /// A worker takes what there is to do at LUN 0.
    fn begin_work(&mut self) {
        for job in self.wire.held.drain(..) {
            let mailbox = Arc::downgrade(&self.wire.mailbox);
            self.threads.push(std::thread::spawn(move || {
                let finished = job.run(Wait::Allowed).expect("workers may block");
                if let Some(mailbox) = mailbox.upgrade() {
                    mailbox.post(Notice::Finished(finished));
                }
            }));
        }
    }

    fn write(&mut self, lba: u64, blocks: u16, attribute: TaskAttribute) -> ScsiCommand {
        let command = ScsiCommand {
            attribute,
            ..self
                .wire
                .command(&write10(lba as u32, blocks), Direction::Write, u32::from(blocks) * 512)
        };
        self.wire.send(&command, &[0xaa; 512]);
        command
    }

    /// A write and a read in the medium, a write that no worker has begun, one that waits for data, and one that waits
    /// for all of these.
    fn load(&mut self) -> Load {
        self.medium.shut();
        let writing = self.write(IN_THE_MEDIUM, 1, TaskAttribute::Simple);
        let read = self.wire.command(&read10(0, 1), Direction::Read, 512);
        self.wire.send(&read, &[]);
        assert_eq!(self.wire.held.len(), 2);
        self.begin_work();
        self.medium.wait_for(2);
        let queued = self.write(IN_THE_QUEUE, 1, TaskAttribute::Simple);
        self.queued.append(&mut self.wire.held);
        let collecting = self.write(COLLECTING, 2, TaskAttribute::Simple);
        let ttt = r2t(self.wire.next()).ttt;
        let behind = self.write(BEHIND, 1, TaskAttribute::Ordered);
        assert!(self.wire.held.is_empty() && self.wire.answers.is_empty());
        Load {
            writing,
            reading: read.itt,
            queued: queued.itt,
            collecting,
            behind: behind.itt,
            ttt,
        }
    }

    /// The medium wakes up, and everything that was at it ends.
    fn wake(&mut self) {
        self.medium.open();
        for thread in self.threads.drain(..) {
            thread.join().expect("workers do not panic");
        }
        self.wire.pump();
    }

    /// A worker comes to what has been in the queue all the while.
    fn run_queue(&mut self) {
        for job in std::mem::take(&mut self.queued) {
            self.wire.run(job);
        }
        self.wire.pump();
    }

    /// The first byte of a block of LUN 0.
    fn stored(&self, lba: u64) -> u8 {
        self.medium.peek(lba * 512)
    }

    fn assert_other_lun_works(&mut self) {
        assert_lun_works(&mut self.wire);
    }
}

/// Writes to LUN 1 and reads it back, with nothing in between but what is its own.
fn assert_lun_works(wire: &mut Wire) {
    let before = std::mem::take(&mut wire.answers);
    assert!(wire.held.is_empty());
    for (cdb, direction) in [(write10(5, 1), Direction::Write), (read10(5, 1), Direction::Read)] {
        let command = ScsiCommand {
            lun: Lun::from_number(1),
            // It waits for those before it, but not for those at another LUN.
            attribute: TaskAttribute::Ordered,
            ..wire.command(&cdb, direction, 512)
        };
        let data: &[u8] = if direction == Direction::Write {
            &[0x77; 512]
        } else {
            &[]
        };
        wire.send(&command, data);
        let job = wire.held.pop().expect("it is run at once");
        wire.run(job);
        wire.pump();
        let (response, data) = wire.next();
        assert_eq!(itt(&response), command.itt);
        match (direction, response) {
            (Direction::Write, Response::ScsiResponse(pdu)) => assert_eq!(pdu.status, 0),
            (Direction::Read, Response::DataIn(_)) => assert_eq!(data, [0x77; 512]),
            (_, other) => panic!("{other:?}"),
        }
    }
    wire.answers = before;
}

fn manage(wire: &mut Wire, function: TaskFunction, referenced: u32) -> u32 {
    let itt = wire.next_itt;
    wire.next_itt += 1;
    let request = TaskManagementRequest {
        immediate: true,
        function,
        lun: Lun::from_number(0),
        itt,
        referenced_task_tag: referenced,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(0),
        exp_data_sn: 0,
    };
    wire.send(&request, &[]);
    itt
}

/// The outcomes of functions that have come, and the statuses of commands, by tag.
fn take(wire: &mut Wire) -> (Vec<(u32, TaskOutcome)>, BTreeMap<u32, u8>) {
    let (mut outcomes, mut statuses) = (Vec::new(), BTreeMap::new());
    for (response, _) in std::mem::take(&mut wire.answers) {
        let ended = match response {
            Response::TaskManagement(pdu) => {
                outcomes.push((pdu.itt, pdu.response));
                continue;
            }
            Response::ScsiResponse(pdu) => (pdu.itt, pdu.status),
            Response::DataIn(pdu) => (pdu.itt, pdu.status.expect("one PDU each").status),
            other => panic!("unexpected {other:?}"),
        };
        assert_eq!(statuses.insert(ended.0, ended.1), None, "answered twice");
    }
    (outcomes, statuses)
}

const WHOLE_LUN: [TaskFunction; 5] = [
    TaskFunction::AbortTaskSet,
    TaskFunction::ClearTaskSet,
    TaskFunction::LogicalUnitReset,
    TaskFunction::TargetWarmReset,
    TaskFunction::TargetColdReset,
];

#[test]
fn a_function_is_complete_when_the_medium_is_done_and_nothing_lands_after_that() {
    for function in WHOLE_LUN {
        let mut bench = Bench::new();
        let load = bench.load();
        let elsewhere = ScsiCommand {
            lun: Lun::from_number(1),
            ..bench.wire.command(&read10(5, 1), Direction::Read, 512)
        };
        bench.wire.send(&elsewhere, &[]);
        bench.queued.append(&mut bench.wire.held);
        let asked = manage(&mut bench.wire, function, RESERVED_TAG);
        bench.wire.sleep_ms(bound_ms() - 1);
        assert!(bench.wire.answers.is_empty(), "{function:?}: {:?}", bench.wire.answers);
        if function != TaskFunction::TargetWarmReset && function != TaskFunction::TargetColdReset {
            let job = bench.queued.pop().expect("the last one");
            bench.wire.run(job);
            bench.wire.pump();
            let expected = BTreeMap::from([(elsewhere.itt, 0)]);
            assert_eq!(
                take(&mut bench.wire),
                (Vec::new(), expected),
                "{function:?} of LUN 0 only"
            );
            bench.assert_other_lun_works();
        }
        // What an initiator still owes for an R2T is passed over.
        bench
            .wire
            .data_out(load.collecting.itt, load.ttt, 0, 512, true, &[0xaa; 512]);
        assert!(bench.wire.answers.is_empty());
        bench.wake();
        assert!(bench.wire.answers.is_empty(), "one is still in a queue");
        bench.run_queue();
        let (outcomes, statuses) = take(&mut bench.wire);
        assert_eq!(outcomes, [(asked, TaskOutcome::Complete)], "{function:?}");
        assert!(statuses.is_empty(), "aborted commands are not answered: {statuses:?}");
        // Writes that had not begun have not landed, and nobody has them any more.
        let blocks = [IN_THE_QUEUE, COLLECTING, BEHIND];
        assert_eq!(blocks.map(|lba| bench.stored(lba)), [0; 3], "{function:?}");
        assert!(bench.wire.held.is_empty());
        let ends = function == TaskFunction::TargetColdReset;
        assert_eq!(bench.wire.connection.ended().is_some(), ends);
        assert_eq!(bench.node.budget.transfer.used_bytes(), 0);
    }
}

#[test]
fn a_function_is_rejected_in_time_when_the_medium_is_not_done_and_what_comes_late_goes_nowhere() {
    for function in WHOLE_LUN {
        let mut bench = Bench::new();
        let load = bench.load();
        let asked = manage(&mut bench.wire, function, RESERVED_TAG);
        bench.wire.sleep_ms(bound_ms() - 1);
        assert!(bench.wire.answers.is_empty(), "{function:?}");
        bench.wire.sleep_ms(1);
        let (outcomes, statuses) = take(&mut bench.wire);
        assert_eq!(outcomes, [(asked, TaskOutcome::Rejected)], "{function:?}");
        assert!(statuses.is_empty());
        if function == TaskFunction::TargetColdReset {
            assert!(bench.wire.connection.ended().is_some());
            bench.wake();
            assert!(bench.wire.answers.is_empty());
            continue;
        }
        // The tags are free, and used again at once by commands that do not hang.
        let mut again = Vec::new();
        for itt in [load.writing.itt, load.reading, load.queued] {
            let command = ScsiCommand {
                itt,
                lun: Lun::from_number(1),
                ..bench.wire.command(&read10(5, 1), Direction::Read, 512)
            };
            bench.wire.send(&command, &[]);
            again.push(itt);
        }
        // After a reset of the whole target LUN 1 has something to say first.
        bench.wire.answers.clear();
        let open = std::mem::take(&mut bench.wire.held);
        bench.wake();
        bench.run_queue();
        assert!(
            bench.wire.answers.is_empty(),
            "{function:?}: a late end answers for another's tag: {:?}",
            bench.wire.answers
        );
        let count = open.len();
        open.into_iter().for_each(|job| bench.wire.run(job));
        bench.wire.pump();
        let (_, statuses) = take(&mut bench.wire);
        assert_eq!(statuses.len(), count);
        assert!(statuses.iter().all(|(itt, status)| again.contains(itt) && *status == 0));
        // What had not begun at the time never lands, even now.
        assert_eq!([IN_THE_QUEUE, COLLECTING, BEHIND].map(|lba| bench.stored(lba)), [0; 3]);
        assert_eq!(bench.node.budget.transfer.used_bytes(), 0);
    }
}

#[test]
fn one_task_is_aborted_and_the_others_come_to_their_end() {
    for in_time in [true, false] {
        let mut bench = Bench::new();
        let load = bench.load();
        let asked = manage(&mut bench.wire, TaskFunction::AbortTask, load.writing.itt);
        let unbegun = manage(&mut bench.wire, TaskFunction::AbortTask, load.behind);
        let (outcomes, _) = take(&mut bench.wire);
        assert_eq!(outcomes, [(unbegun, TaskOutcome::Complete)], "no worker is at that one");
        bench.wire.sleep_ms(bound_ms() - 1);
        bench.assert_other_lun_works();
        assert!(bench.wire.answers.is_empty());
        if !in_time {
            bench.wire.sleep_ms(1);
            assert_eq!(take(&mut bench.wire).0, [(asked, TaskOutcome::Rejected)]);
        }
        bench
            .wire
            .data_out(load.collecting.itt, load.ttt, 0, 512, true, &[0xaa; 512]);
        bench.begin_work();
        bench.wake();
        bench.run_queue();
        let (outcomes, statuses) = take(&mut bench.wire);
        let expected: &[_] = if in_time {
            &[(asked, TaskOutcome::Complete)]
        } else {
            &[]
        };
        assert_eq!(outcomes, expected);
        let good = [load.reading, load.queued, load.collecting.itt].map(|itt| (itt, 0));
        assert_eq!(statuses, BTreeMap::from(good));
        assert_eq!(
            [IN_THE_QUEUE, COLLECTING, BEHIND].map(|lba| bench.stored(lba)),
            [0xaa, 0xaa, 0]
        );
    }
}

#[test]
fn an_ordered_command_that_waits_at_one_lun_holds_nobody_at_another() {
    let mut bench = Bench::new();
    let load = bench.load();
    bench.assert_other_lun_works();
    bench
        .wire
        .data_out(load.collecting.itt, load.ttt, 0, 512, true, &[0xaa; 512]);
    bench.begin_work();
    bench.wake();
    assert!(bench.wire.held.is_empty(), "one before it has not come to its end");
    bench.run_queue();
    assert_eq!(bench.wire.held.len(), 1, "now it is its turn");
    bench.begin_work();
    bench.wake();
    let (_, statuses) = take(&mut bench.wire);
    let all = [
        load.writing.itt,
        load.reading,
        load.queued,
        load.collecting.itt,
        load.behind,
    ];
    assert_eq!(statuses, BTreeMap::from(all.map(|itt| (itt, 0))));
}

#[test]
fn queries_answer_at_once_whatever_hangs() {
    let mut bench = Bench::new();
    let load = bench.load();
    let table = [
        (TaskFunction::QueryTask, load.writing.itt, TaskOutcome::Succeeded),
        (TaskFunction::QueryTask, load.queued, TaskOutcome::Succeeded),
        (TaskFunction::QueryTask, load.collecting.itt, TaskOutcome::Succeeded),
        (TaskFunction::QueryTask, load.behind, TaskOutcome::Succeeded),
        (TaskFunction::QueryTask, 0x7777, TaskOutcome::Complete),
        (TaskFunction::QueryTaskSet, RESERVED_TAG, TaskOutcome::Succeeded),
    ];
    for (function, tag, expected) in table {
        let asked = manage(&mut bench.wire, function, tag);
        assert_eq!(take(&mut bench.wire).0, [(asked, expected)]);
    }
    bench.wake();
}

#[test]
fn who_resets_what_hangs_for_another_waits_for_that_as_well() {
    for function in [
        TaskFunction::ClearTaskSet,
        TaskFunction::LogicalUnitReset,
        TaskFunction::TargetWarmReset,
    ] {
        for in_time in [true, false] {
            let mut bench = Bench::new();
            let load = bench.load();
            let mut other = login(&bench.node, "iqn.2026-11.net.farlun:other", ISID);
            let asked = manage(&mut other, function, RESERVED_TAG);
            bench.wire.pump();
            other.sleep_ms(bound_ms() - 1);
            assert!(other.answers.is_empty(), "{function:?}");
            if !in_time {
                other.sleep_ms(1);
                assert_eq!(take(&mut other).0, [(asked, TaskOutcome::Rejected)]);
            }
            bench
                .wire
                .data_out(load.collecting.itt, load.ttt, 0, 512, true, &[0xaa; 512]);
            bench.wake();
            bench.run_queue();
            if in_time {
                // It looks every few milliseconds.
                other.sleep_ms(0);
                other.now += std::time::Duration::from_millis(1);
                other.connection.timeout(other.now);
                other.pump();
                assert_eq!(take(&mut other).0, [(asked, TaskOutcome::Complete)], "{function:?}");
            }
            let (_, statuses) = take(&mut bench.wire);
            // What is done is done, whoever wanted it to end.
            let done = [load.writing.itt, load.reading].map(|itt| (itt, 0));
            let aborted = [load.queued, load.collecting.itt, load.behind].map(|itt| (itt, TASK_ABORTED));
            let expected: BTreeMap<_, _> = done.into_iter().chain(aborted).collect();
            assert_eq!(statuses, expected, "{function:?}");
            assert_eq!([IN_THE_QUEUE, COLLECTING, BEHIND].map(|lba| bench.stored(lba)), [0; 3]);
        }
    }
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Logout,
    Reinstated,
    Dropped,
    Stopping,
    AskedToLeave,
    LineBroke,
}

const ENDS: [End; 6] = [
    End::Logout,
    End::Reinstated,
    End::Dropped,
    End::Stopping,
    End::AskedToLeave,
    End::LineBroke,
];

impl Bench {
    /// Ends the session, and checks that it takes no time. Returns the connection that logs in next with the same ISID.
    fn end(&mut self, end: End) -> Wire {
        let mut next = Wire::new(&self.node);
        next.hold = true;
        let keys = text(&[
            ("InitiatorName", INITIATOR),
            ("TargetName", TARGET),
            ("SessionType", "Normal"),
        ]);
        let request = login_request();
        match end {
            End::Logout => {
                let logout = LogoutRequest {
                    immediate: true,
                    reason: LogoutReason::CloseSession,
                    itt: 0x9000,
                    cid: 1,
                    cmd_sn: self.wire.cmd_sn,
                    exp_stat_sn: Serial(0),
                };
                self.wire.send(&logout, &[]);
                let (Response::Logout(answer), _) = self.wire.next() else {
                    panic!("no answer to the logout")
                };
                assert_eq!(answer.itt, 0x9000);
                assert_eq!(self.wire.connection.ended(), Some(Ended::Logout));
            }
            End::Reinstated => {
                next.send(&request, &keys);
                self.wire.pump();
                assert_eq!(
                    self.wire.connection.ended(),
                    Some(Ended::Closed(CloseReason::Reinstated))
                );
            }
            End::Dropped => {
                let target = self.node.target(TARGET).expect("the target");
                assert!(target.drop_session(target.sessions()[0].tsih));
                self.wire.pump();
                assert_eq!(
                    self.wire.connection.ended(),
                    Some(Ended::Closed(CloseReason::Administrator))
                );
            }
            End::Stopping => {
                self.wire.mailbox.post(Notice::Close(CloseReason::Stopping));
                self.wire.pump();
                assert_eq!(self.wire.connection.ended(), Some(Ended::Closed(CloseReason::Stopping)));
            }
            End::AskedToLeave => {
                let reason = CloseReason::Stopping;
                self.wire.mailbox.post(Notice::AskLogout {
                    within_ms: 2000,
                    reason,
                });
                self.wire.pump();
                self.wire.sleep_ms(1999);
                assert_eq!(self.wire.connection.ended(), None);
                self.wire.sleep_ms(1);
                assert_eq!(self.wire.connection.ended(), Some(Ended::Closed(reason)));
            }
            End::LineBroke => {}
        }
        if end != End::Reinstated {
            next.send(&request, &keys);
        }
        next
    }
}

#[test]
fn a_session_ends_at_once_and_its_next_one_begins_when_the_medium_is_done() {
    for end in ENDS {
        let mut bench = Bench::new();
        bench.load();
        let mut next = bench.end(end);
        assert!(next.answers.is_empty(), "{end:?}: the old session is still there");
        // The connection goes, what is at the medium stays.
        let fresh = Wire::new(&bench.node);
        drop(std::mem::replace(&mut bench.wire, fresh));
        next.sleep_ms(2000);
        assert!(
            next.answers.is_empty(),
            "{end:?}: a write of the old session is still at the medium"
        );
        // Others are not concerned.
        let mut other = login(&bench.node, "iqn.2026-11.net.farlun:other", ISID);
        assert_lun_works(&mut other);
        bench.medium.open();
        bench
            .threads
            .drain(..)
            .for_each(|thread| thread.join().expect("no panic"));
        next.sleep_ms(50);
        assert!(
            next.answers.is_empty(),
            "{end:?}: a write of the old session is still in a queue"
        );
        // A worker comes to it: it is not begun.
        for job in bench.queued.drain(..) {
            drop(job.run(Wait::Allowed));
        }
        next.sleep_ms(50);
        match next.answers.pop_front() {
            Some((Response::Login(answer), _)) => assert!(answer.status.is_success(), "{end:?}"),
            answer => panic!("{end:?}: {answer:?}"),
        }
        let blocks = [IN_THE_MEDIUM, IN_THE_QUEUE, COLLECTING, BEHIND];
        assert_eq!(blocks.map(|lba| bench.stored(lba)), [0xaa, 0, 0, 0], "{end:?}");
        assert_lun_works(&mut next);
        assert_eq!(bench.node.budget.transfer.used_bytes(), 0);
    }
}

#[test]
fn a_login_does_not_wait_for_ever_for_what_hangs() {
    for end in ENDS {
        let mut bench = Bench::new();
        bench.load();
        let mut next = bench.end(end);
        let fresh = Wire::new(&bench.node);
        drop(std::mem::replace(&mut bench.wire, fresh));
        next.sleep_ms(Limits::default().login_timeout_ms + 1);
        assert!(next.connection.ended().is_some(), "{end:?}");
        let is_refused =
            |response: &Response| matches!(response, Response::Login(answer) if !answer.status.is_success());
        assert!(next.answers.iter().all(|(response, _)| is_refused(response)), "{end:?}");
        let held_bytes = bench.node.budget.transfer.used_bytes() + bench.node.budget.window.used_bytes();
        assert!(held_bytes > 0, "{end:?}: what is at the medium is still paid for");
        drop(next);
        bench.queued.clear();
        bench.wake();
        bench.wire = Wire::new(&bench.node);
        let budget = &bench.node.budget;
        assert_eq!(
            (budget.transfer.used_bytes(), budget.window.used_bytes()),
            (0, 0),
            "{end:?}"
        );
    }
}
