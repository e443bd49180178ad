//! The table of what the target does without being asked, and that of asynchronous messages.

use std::collections::BTreeSet;
use std::sync::Arc;

use iscsi_pdu::{AsyncEvent, Isid, Lun, RESERVED_TAG, Response, Serial, TaskFunction, TaskManagementRequest};
use target_core::iscsi::{Limits, Node};

use crate::page;
use crate::pdus::{answered, yes_or_no};
use crate::support::{Direction, INITIATOR, TARGET, Wire, answers, login_request, node, text, write10};

pub const HEADING: &str = "What the target does unasked";
pub const EVENTS: &str = "Asynchronous messages";

/// What happens, and the wire it happens to, with what came over it.
type Case = (&'static str, fn() -> Wire);

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    ("15 s without an end of the login", || {
        let mut wire = Wire::new(&node(Limits::default()));
        wire.sleep_ms(Limits::default().login_timeout_ms);
        wire
    }),
    ("30 s of silence", || happens(|_, wire| wire.sleep_ms(Limits::default().idle_ping_ms))),
    ("60 s of silence", || happens(|_, wire| wire.sleep_ms(2 * Limits::default().idle_ping_ms))),
    ("2 s of an upload in which nothing else is sent", || happens(|_, wire| upload(wire))),
    ("a login with the same initiator name and ISID", || happens(|node, wire| {
        // It is answered once the old session is gone.
            let keys = text(&[("InitiatorName", INITIATOR), ("TargetName", TARGET)]);
            Wire::new(node).send(&login_request(), &keys);
        wire.pump();
    })),
    ("TARGET COLD RESET by another session", || happens(|node, wire| {
        let mut other = Wire::logged_in_as(node, "iqn.2026-11.net.farlun:other", Isid([0x80, 0, 0, 0, 0, 2]), &[]);
        other.send(&cold_reset(&other), b"");
        wire.pump();
    })),
    ("an administrator drops the session", || happens(|node, wire| {
        let target = node.target(TARGET).expect("the target");
        let session = target.sessions().remove(0);
        assert!(target.drop_session(session.tsih));
        wire.pump();
    })),
    ("the target is removed, and the initiator does not log out in time", || happens(|node, wire| {
        node.remove_target(TARGET, 10_000).expect("the target");
        wire.pump();
        wire.sleep_ms(10_000);
    })),
];

fn happens(what: impl FnOnce(&Arc<Node>, &mut Wire)) -> Wire {
    let node = node(Limits::default());
    let mut wire = Wire::logged_in(&node, &[]);
    what(&node, &mut wire);
    wire
}

/// The answer to an R2T trickles in.
fn upload(wire: &mut Wire) {
    let write = wire.command(&write10(0, 200), Direction::Write, 200 * 512);
    wire.send(&write, b"");
    let ttt = answers::r2t(wire.next()).ttt;
    let limits = Limits::default();
    for number in 0..3 {
        wire.sleep_ms(limits.upload_ping_ms / 2);
        wire.data_out(write.itt, ttt, number, 512 * number, false, &[0; 512]);
    }
}

fn cold_reset(wire: &Wire) -> TaskManagementRequest {
    TaskManagementRequest {
        immediate: true,
        function: TaskFunction::TargetColdReset,
        lun: Lun::default(),
        itt: 9,
        referenced_task_tag: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(0),
        exp_data_sn: 0,
    }
}

#[test]
fn everything_happens_as_the_page_says() {
    let rows = page::table(HEADING, &["Occasion", "Comes"]).rows;
    for row in &rows {
        let Some((_, run)) = CASES.iter().find(|case| case.0 == row.cell(0)) else {
            row.fail("nobody knows how to bring that about")
        };
        let came = answered(&run());
        if came != row.cell(1) {
            row.fail(&format!("came: {came}"));
        }
    }
    for (name, _) in CASES {
        assert_eq!(
            rows.iter().filter(|row| row.cell(0) == *name).count(),
            1,
            "rows of {name}"
        );
    }
}

#[test]
fn asynchronous_messages_have_the_events_on_the_page() {
    let mut sent = BTreeSet::new();
    for (_, run) in CASES {
        sent.extend(run().answers.iter().filter_map(|(response, _)| match response {
            Response::AsyncMessage(message) => Some(message.event.code()),
            _ => None,
        }));
    }
    let rows = page::table(EVENTS, &["Event", "Name", "Sent", "When"]).rows;
    let all: BTreeSet<u8> = AsyncEvent::ALL.iter().map(|event| event.code()).collect();
    assert_eq!(rows.iter().map(|row| row.hex(0)).collect::<BTreeSet<u8>>(), all);
    for row in rows {
        if sent.contains(&row.hex(0)) != yes_or_no(&row, 2) {
            row.fail("that is not so");
        }
    }
}
