//! What sessions notice of changes to what they are served, and of each other.

mod scsi_support;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use iscsi_pdu::pdu::LoginStatus;
use iscsi_pdu::{
    Isid, Lun, RESERVED_TAG, Response, ScsiCommand, Serial, TaskFunction, TaskManagementRequest, TaskOutcome,
};
use scsi_support::gate::Gate;
use support::answers::{r2t, read, sense, status};
use support::{Direction, INITIATOR, TARGET, Wire, login_request, origin, read10, text, write10};
use target_core::iscsi::mailbox::CloseReason;
use target_core::iscsi::{Ended, Limits, Listening, Mode, NamePattern, Node, Origin, Policy, Portal, Rule, Target};
use target_core::lun::{Medium, Wait};
use target_core::scsi::{Device, Identity, LogicalUnit};

const OTHER: &str = "iqn.2026-11.net.farlun:other";
const NO_SUCH_LUN: (u8, u8, u8) = (0x5, 0x25, 0x00);
const LUNS_CHANGED: (u8, u8, u8) = (0x6, 0x3F, 0x0E);
const WRITE_PROTECTED: (u8, u8, u8) = (0x7, 0x27, 0x00);
const MODE_CHANGED: (u8, u8, u8) = (0x6, 0x2A, 0x01);

fn isid(last: u8) -> Isid {
    Isid([0x80, 0, 0, 0, 0, last])
}

fn unit(medium: Arc<dyn Medium>, serial: &str) -> Arc<LogicalUnit> {
    let identity = Identity {
        serial: serial.to_owned(),
        ..scsi_support::identity()
    };
    LogicalUnit::shared(medium, identity)
}

fn memory_unit(serial: &str) -> Arc<LogicalUnit> {
    unit(scsi_support::memory(64), serial)
}

fn serve(units: impl IntoIterator<Item = Arc<LogicalUnit>>) -> (Arc<Node>, Arc<Target>) {
    let device = Device::new((0..).zip(units).collect::<BTreeMap<_, _>>());
    let target = Target::new(TARGET, None, device);
    (Node::new(Limits::default(), [Arc::clone(&target)]), target)
}

fn two_sessions(node: &Arc<Node>) -> (Wire, Wire) {
    (
        Wire::logged_in_as(node, INITIATOR, isid(1), &[]),
        Wire::logged_in_as(node, OTHER, isid(2), &[]),
    )
}

fn to_lun(lun: u16, command: ScsiCommand) -> ScsiCommand {
    ScsiCommand {
        lun: Lun::from_number(lun),
        ..command
    }
}

/// How a command without data ends: GOOD, or with this sense.
fn test_unit_ready(wire: &mut Wire, lun: u16) -> Result<(), (u8, u8, u8)> {
    let command = to_lun(lun, wire.command(&[0; 6], Direction::None, 0));
    wire.send(&command, &[]);
    end_of_next(wire)
}

fn write(wire: &mut Wire, lun: u16, lba: u32, value: u8) -> Result<(), (u8, u8, u8)> {
    let command = to_lun(lun, wire.command(&write10(lba, 1), Direction::Write, 512));
    wire.send(&command, &[value; 512]);
    end_of_next(wire)
}

fn end_of_next(wire: &mut Wire) -> Result<(), (u8, u8, u8)> {
    match wire.next() {
        (Response::ScsiResponse(response), _) if response.status == 0 => Ok(()),
        answer => Err(sense(answer)),
    }
}

fn manage(wire: &mut Wire, function: TaskFunction, referenced: u32, ref_cmd_sn: Serial) {
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
        ref_cmd_sn,
        exp_data_sn: 0,
    };
    wire.send(&request, &[]);
}

fn outcome(wire: &mut Wire) -> TaskOutcome {
    match wire.next() {
        (Response::TaskManagement(response), _) => response.response,
        other => panic!("expected a task management response, got {other:?}"),
    }
}

#[test]
fn a_lun_comes_and_goes_without_disturbing_anybody() {
    let (node, target) = serve([memory_unit("a")]);
    let (mut one, mut two) = two_sessions(&node);
    one.hold = true;
    let long = one.command(&read10(0, 1), Direction::Read, 512);
    one.send(&long, &[]);
    target.device.insert(1, memory_unit("b")).unwrap();
    for wire in [&mut one, &mut two] {
        wire.pump();
        assert!(wire.answers.is_empty() && wire.connection.ended().is_none());
    }
    assert_eq!(test_unit_ready(&mut two, 0), Err(LUNS_CHANGED));
    assert_eq!(write(&mut two, 1, 0, 7), Ok(()));
    let _removal = target.device.remove(1).unwrap();
    two.pump();
    assert_eq!(write(&mut two, 1, 0, 7), Err(NO_SUCH_LUN));
    assert_eq!(test_unit_ready(&mut two, 0), Err(LUNS_CHANGED));
    assert_eq!(test_unit_ready(&mut two, 0), Ok(()));
    // What one had at work all the while ends as if nothing had been.
    let job = one.held.pop().expect("the read");
    one.run(job);
    one.pump();
    assert!(matches!(one.next(), (Response::DataIn(pdu), data) if pdu.itt == long.itt && data == [0; 512]));
    assert_eq!(test_unit_ready(&mut one, 0), Err(LUNS_CHANGED));
}

#[test]
fn commands_to_a_lun_that_goes_are_answered_at_once_though_its_medium_hangs() {
    let gate = Gate::new(64);
    let (node, target) = serve([unit(gate.clone(), "slow"), memory_unit("b")]);
    let (mut one, mut two) = two_sessions(&node);
    one.hold = true;
    let running = one.command(&write10(0, 1), Direction::Write, 512);
    one.send(&running, &[1; 512]);
    let queued = one.command(&write10(1, 1), Direction::Write, 512);
    one.send(&queued, &[2; 512]);
    let queued_job = one.held.pop().expect("the second write");
    let job = one.held.pop().expect("the first write");
    let elsewhere = to_lun(1, one.command(&write10(3, 1), Direction::Write, 512));
    one.send(&elsewhere, &[3; 512]);
    gate.shut();
    let mut removal = thread::scope(|scope| {
        let worker = scope.spawn(|| job.run(Wait::Allowed).expect("workers may block"));
        gate.wait_for(1);
        let removal = target.device.remove(0).unwrap();
        one.pump();
        two.pump();
        assert_eq!(end_of_next(&mut one), Err(NO_SUCH_LUN));
        assert_eq!(end_of_next(&mut one), Err(NO_SUCH_LUN));
        assert!(one.answers.is_empty(), "the command to the other LUN goes on");
        assert_eq!(test_unit_ready(&mut two, 1), Err(LUNS_CHANGED));
        assert_eq!(test_unit_ready(&mut two, 1), Ok(()), "and nobody else waits");
        assert!(!removal.is_drained());
        gate.open();
        one.connection.finished(one.now, worker.join().unwrap());
        removal
    });
    // Its end goes nowhere, and the one behind it never begins.
    one.run(queued_job);
    one.pump();
    assert!(one.answers.is_empty());
    assert!(removal.is_drained());
    removal.flush().unwrap();
    two.pump();
    assert!(removal.is_closed());
    let mut blocks = Vec::new();
    gate.read(0, 1024, &mut blocks, Wait::Allowed).unwrap();
    assert_eq!(blocks, [[1; 512], [0; 512]].concat());
    let job = one.held.pop().expect("the write to LUN 1");
    one.run(job);
    one.pump();
    assert_eq!(status(one.next()).status, 0);
}

#[test]
fn a_write_whose_data_is_still_to_come_is_refused_when_it_has_come() {
    let (node, target) = serve([memory_unit("a"), memory_unit("b")]);
    let mut wire = Wire::logged_in(&node, &[("ImmediateData", "No"), ("InitialR2T", "Yes")]);
    let command = wire.command(&write10(0, 1), Direction::Write, 512);
    wire.send(&command, &[]);
    let asked = r2t(wire.next());
    let mut removal = target.device.remove(0).unwrap();
    wire.pump();
    assert!(wire.answers.is_empty(), "the initiator is about to send");
    removal.flush().unwrap();
    assert!(removal.is_closed(), "what is to come does not keep the medium open");
    wire.data_out(command.itt, asked.ttt, 0, 0, true, &[1; 512]);
    assert_eq!(end_of_next(&mut wire), Err(NO_SUCH_LUN));
    wire.assert_alive();
}

fn rule(pattern: &str, mode: Mode) -> Rule {
    Rule {
        initiators: vec![NamePattern::new(pattern)],
        chap_users: Vec::new(),
        tunnel_users: Vec::new(),
        mode,
    }
}

#[test]
fn a_policy_holds_for_sessions_that_are_there() {
    let (node, target) = serve([memory_unit("a"), memory_unit("b")]);
    let (mut one, mut two) = two_sessions(&node);
    assert_eq!(write(&mut one, 0, 0, 1), Ok(()));
    target.set_policy(Policy {
        rules: vec![rule(INITIATOR, Mode::ReadOnly), rule(OTHER, Mode::ReadWrite)],
        lun_rules: BTreeMap::from([(1, vec![rule(OTHER, Mode::ReadWrite)])]),
        ..Policy::default()
    });
    one.pump();
    assert_eq!(test_unit_ready(&mut one, 0), Err(MODE_CHANGED));
    assert_eq!(test_unit_ready(&mut one, 0), Err(LUNS_CHANGED));
    assert_eq!(write(&mut one, 0, 0, 2), Err(WRITE_PROTECTED));
    assert_eq!(write(&mut one, 1, 0, 2), Err(NO_SUCH_LUN));
    assert_eq!(read(&mut one, 0, 1), [1; 512]);
    // For the other nothing has changed, and it hears of nothing.
    assert_eq!(write(&mut two, 0, 0, 3), Ok(()));
    assert_eq!(write(&mut two, 1, 0, 3), Ok(()));
    // Not admitted at all any more: dropped, and not let in again.
    target.set_policy(Policy {
        rules: vec![rule(OTHER, Mode::ReadWrite)],
        ..Policy::default()
    });
    one.pump();
    assert_eq!(one.connection.ended(), Some(Ended::Closed(CloseReason::Administrator)));
    drop(one);
    two.assert_alive();
    assert_eq!(target.session_count(), 1);
    assert_eq!(
        try_to_log_in(&node, INITIATOR, TARGET, 1, isid(1)),
        LoginStatus::AuthorizationFailure
    );
}

fn try_to_log_in(node: &Arc<Node>, initiator: &str, target: &str, tag: u16, isid: Isid) -> LoginStatus {
    let mut wire = from_portal(node, tag);
    let keys = [
        ("InitiatorName", initiator),
        ("TargetName", target),
        ("SessionType", "Normal"),
    ];
    let request = iscsi_pdu::LoginRequest {
        isid,
        ..login_request()
    };
    wire.login(&request, &text(&keys)).0.status
}

fn from_portal(node: &Arc<Node>, tag: u16) -> Wire {
    let portal = Portal {
        tag,
        ..Portal::default()
    };
    Wire::coming_by(node, Origin { portal, ..origin() })
}

#[test]
fn sessions_are_listed_and_one_can_be_dropped() {
    let (node, target) = serve([memory_unit("a")]);
    let (mut one, mut two) = two_sessions(&node);
    let list = target.sessions();
    let seen: Vec<_> = list
        .iter()
        .map(|session| {
            (
                session.who.initiator.as_str(),
                session.key.isid,
                session.key.portal_group,
            )
        })
        .collect();
    assert_eq!(seen, [(INITIATOR, isid(1), 1), (OTHER, isid(2), 1)]);
    assert!(
        list.iter()
            .all(|session| session.peer == origin().peer && session.tsih != 0)
    );
    assert_ne!(list[0].tsih, list[1].tsih);
    assert!(list[0].params.immediate_data);
    assert!(!target.drop_session(0));
    assert!(target.drop_session(list[0].tsih));
    one.pump();
    assert_eq!(one.connection.ended(), Some(Ended::Closed(CloseReason::Administrator)));
    drop(one);
    assert_eq!(target.sessions().len(), 1);
    assert!(!target.drop_session(list[0].tsih));
    two.assert_alive();
}

#[test]
fn one_initiator_port_has_a_session_by_each_portal_group() {
    let (node, target) = serve([memory_unit("a")]);
    let mut first = Wire::logged_in_as(&node, INITIATOR, isid(1), &[]);
    let listening = |tag: u16| Listening {
        address: ([192, 0, 2, 1], 3260 + tag).into(),
        portal: Portal {
            tag,
            ..Portal::default()
        },
    };
    node.set_portals(vec![listening(1), listening(2), listening(3)]);
    assert_eq!(*target.device.target_ports(), [1, 2, 3]);
    let mut wire = from_portal(&node, 2);
    let keys = [
        ("InitiatorName", INITIATOR),
        ("TargetName", TARGET),
        ("SessionType", "Normal"),
    ];
    let (response, answers) = wire.login(&login_request(), &text(&keys));
    assert!(response.status.is_success());
    assert!(answers.contains(&("TargetPortalGroupTag".to_owned(), "2".to_owned())));
    first.assert_alive();
    assert_eq!(target.session_count(), 2);
    // By the same portal group it takes the place of the one that was there.
    let mut again = from_portal(&node, 2);
    again.send(&login_request(), &text(&keys));
    wire.pump();
    assert_eq!(wire.connection.ended(), Some(Ended::Closed(CloseReason::Reinstated)));
    first.assert_alive();
    // A target that is behind some portal groups only is not there for others.
    target.set_portal_groups(vec![1, 3], &node.portals());
    assert_eq!(*target.device.target_ports(), [1, 3]);
    assert_eq!(try_to_log_in(&node, OTHER, TARGET, 2, isid(9)), LoginStatus::NotFound);
    assert!(try_to_log_in(&node, OTHER, TARGET, 3, isid(9)).is_success());
    first.assert_alive();
}

#[test]
fn targets_come_and_go_and_change_their_names() {
    const NEW: &str = "iqn.2026-11.net.farlun:new";
    const RENAMED: &str = "iqn.2026-11.net.farlun:renamed";
    let (node, target) = serve([memory_unit("a")]);
    let (mut one, mut two) = two_sessions(&node);
    let new = Target::new(NEW, None, Device::new(BTreeMap::from([(0, memory_unit("b"))])));
    node.add_target(Arc::clone(&new)).unwrap();
    assert!(node.add_target(new).is_err(), "the name is taken");
    assert!(try_to_log_in(&node, INITIATOR, NEW, 1, isid(1)).is_success());
    assert!(node.rename_target(TARGET, NEW).is_err());
    assert_eq!(node.rename_target("iqn.2026-11.net.farlun:nobody", RENAMED), Ok(false));
    assert_eq!(node.rename_target(TARGET, RENAMED), Ok(true));
    assert_eq!(*target.name(), RENAMED);
    one.assert_alive();
    assert_eq!(write(&mut one, 0, 0, 1), Ok(()), "who is in stays in");
    assert_eq!(
        try_to_log_in(&node, INITIATOR, TARGET, 1, isid(5)),
        LoginStatus::NotFound
    );
    assert!(try_to_log_in(&node, INITIATOR, RENAMED, 1, isid(5)).is_success());
    // Removed: nobody gets in, and who is in is asked to leave.
    assert!(node.remove_target(RENAMED, 1_000).is_some());
    assert!(node.remove_target(RENAMED, 1_000).is_none());
    assert_eq!(
        try_to_log_in(&node, INITIATOR, RENAMED, 1, isid(5)),
        LoginStatus::NotFound
    );
    for wire in [&mut one, &mut two] {
        wire.pump();
        wire.sleep_ms(1_001);
        assert!(wire.connection.ended().is_some());
    }
    assert_eq!(node.targets().len(), 1);
}

#[test]
fn limits_hold_for_those_who_come_after() {
    let (node, target) = serve([memory_unit("a")]);
    let mut old = Wire::logged_in_as(&node, INITIATOR, isid(1), &[]);
    let window = old.max_cmd_sn.distance(old.cmd_sn);
    node.set_limits(Limits {
        command_window: 8,
        sessions_per_target: 2,
        window_memory_bytes: 1,
        transfer_memory_bytes: 1,
        ..Limits::default()
    });
    // What is promised cannot be taken back, so memory stays as it was, and is told so.
    let (told, held) = (node.limits(), &node.budget);
    assert_eq!(told.window_memory_bytes, held.window.limit_bytes());
    assert_eq!(told.transfer_memory_bytes, held.transfer.limit_bytes());
    old.assert_alive();
    assert_eq!(old.max_cmd_sn.distance(old.cmd_sn), window);
    let new = Wire::logged_in_as(&node, OTHER, isid(2), &[]);
    assert!(new.max_cmd_sn.distance(new.cmd_sn) < 8, "{:?}", new.max_cmd_sn);
    assert_eq!(
        try_to_log_in(&node, OTHER, TARGET, 1, isid(3)),
        LoginStatus::OutOfResources
    );
    assert_eq!(target.session_count(), 2);
}

#[test]
fn functions_that_concern_everybody_wait_for_everybody() {
    for function in [
        TaskFunction::LogicalUnitReset,
        TaskFunction::ClearTaskSet,
        TaskFunction::TargetWarmReset,
    ] {
        let gate = Gate::new(64);
        let (node, _target) = serve([unit(gate.clone(), "slow")]);
        let (mut one, mut two) = two_sessions(&node);
        one.hold = true;
        let command = one.command(&write10(0, 1), Direction::Write, 512);
        one.send(&command, &[1; 512]);
        let job = one.held.pop().expect("the write");
        gate.shut();
        thread::scope(|scope| {
            let worker = scope.spawn(|| job.run(Wait::Allowed).expect("workers may block"));
            gate.wait_for(1);
            manage(&mut two, function, RESERVED_TAG, Serial(0));
            one.pump();
            two.sleep_ms(100);
            assert!(
                two.answers.is_empty(),
                "{function:?}: another session's write has not landed yet"
            );
            gate.open();
            one.connection.finished(one.now, worker.join().unwrap());
        });
        two.sleep_ms(10);
        assert_eq!(outcome(&mut two), TaskOutcome::Complete, "{function:?}");
        one.pump();
        assert_eq!(
            status(one.next()).status,
            0,
            "{function:?}: it had begun, and was done before the function was"
        );
        let heard = test_unit_ready(&mut one, 0);
        match function {
            TaskFunction::ClearTaskSet => heard.expect("the status of each command says all there is to say"),
            _ => assert_eq!(heard.expect_err("it is told of the reset").0, 0x6, "{function:?}"),
        }
    }
}

#[test]
fn functions_that_concern_everybody_answer_though_another_sessions_command_hangs() {
    let gate = Gate::new(64);
    let (node, _target) = serve([unit(gate.clone(), "slow")]);
    let (mut one, mut two) = two_sessions(&node);
    one.hold = true;
    let command = one.command(&write10(0, 1), Direction::Write, 512);
    one.send(&command, &[1; 512]);
    let job = one.held.pop().expect("the write");
    gate.shut();
    thread::scope(|scope| {
        scope.spawn(|| job.run(Wait::Allowed).expect("workers may block"));
        gate.wait_for(1);
        manage(&mut two, TaskFunction::ClearTaskSet, RESERVED_TAG, Serial(0));
        two.sleep_ms(Limits::default().abort_wait_ms + 1);
        assert_eq!(outcome(&mut two), TaskOutcome::Rejected);
        gate.open();
    });
}

#[test]
fn only_a_command_numbered_before_the_abort_is_aborted_unseen() {
    let (node, _target) = serve([memory_unit("a")]);
    let mut wire = Wire::logged_in(&node, &[]);
    // One that is on its way was numbered before; its place is used up.
    let lost = wire.command(&write10(0, 1), Direction::Write, 512);
    manage(&mut wire, TaskFunction::AbortTask, lost.itt, lost.cmd_sn);
    assert_eq!(outcome(&mut wire), TaskOutcome::Complete);
    wire.send(&lost, &[1; 512]);
    assert!(wire.answers.is_empty(), "it is passed over");
    // What has not been numbered yet cannot be meant: neither this number nor a later one.
    for ahead in [0, 1, 7] {
        let not_yet = wire.cmd_sn + ahead;
        manage(&mut wire, TaskFunction::AbortTask, 0x7777, not_yet);
        assert_eq!(outcome(&mut wire), TaskOutcome::NoSuchTask, "{ahead} ahead");
    }
    for lba in 0..8 {
        assert_eq!(write(&mut wire, 0, lba, 2), Ok(()), "its place was not used up");
    }
}

/// TARGET COLD RESET ends everybody's connection, so it is for those who may use every LUN there is.
#[test]
fn who_sees_a_part_of_the_target_does_not_reset_all_of_it() {
    let (node, target) = serve([memory_unit("a"), memory_unit("b")]);
    let (mut one, mut two) = two_sessions(&node);
    target.set_policy(Policy {
        lun_rules: [(1, vec![rule(INITIATOR, Mode::ReadWrite)])].into(),
        ..Policy::default()
    });
    one.pump();
    two.pump();
    manage(&mut two, TaskFunction::TargetColdReset, 0, Serial(0));
    assert_eq!(outcome(&mut two), TaskOutcome::NotAuthorized);
    one.pump();
    two.pump();
    one.assert_alive();
    two.assert_alive();
    // A LUN that is out of service is nobody's.
    target.set_policy(Policy::default());
    let removal = target.device.remove(1).expect("LUN 1");
    one.pump();
    two.pump();
    drop(removal);
    target.device.insert_offline(1).expect("LUN 1 is free");
    one.pump();
    two.pump();
    manage(&mut two, TaskFunction::TargetColdReset, 0, Serial(0));
    assert_eq!(outcome(&mut two), TaskOutcome::Complete);
    one.pump();
    assert_eq!(one.connection.ended(), Some(Ended::Closed(CloseReason::ColdReset)));
}
