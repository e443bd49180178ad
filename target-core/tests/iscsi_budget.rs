//! Memory is reserved before it is promised: several sessions, random commands, a tiny budget.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use iscsi_pdu::{DataOut, Isid, Lun, Response, Serial};
use proptest::prelude::*;
use support::{BLOCKS, Direction, Wire, node, read10, write10};
use target_core::iscsi::{Limits, Node};

const SESSIONS: usize = 3;
const FIRST_BURST: u32 = 4096;
const WINDOW_BYTES: usize = 5 * FIRST_BURST as usize;
const TRANSFER_BYTES: usize = 96 * 1024;

#[derive(Debug, Clone)]
enum Step {
    /// A session sends a command, if its window lets it.
    Command { session: usize, write: bool, blocks: u16 },
    /// A session answers its oldest R2T.
    Data { session: usize },
    /// A session's oldest running command ends.
    Finish { session: usize },
    /// A session takes what the target has for it.
    Listen { session: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..SESSIONS;
    prop_oneof![
        3 => (session.clone(), any::<bool>(), 1u16..=160)
            .prop_map(|(session, write, blocks)| Step::Command { session, write, blocks }),
        3 => session.clone().prop_map(|session| Step::Data { session }),
        2 => session.clone().prop_map(|session| Step::Finish { session }),
        2 => session.prop_map(|session| Step::Listen { session }),
    ]
}

/// An initiator that keeps the rules, and takes its time.
struct Session {
    wire: Wire,
    open: BTreeSet<u32>,
    writes: BTreeMap<u32, u32>,
    r2ts: VecDeque<iscsi_pdu::R2t>,
    failures: Vec<String>,
}

impl Session {
    fn new(node: &Arc<Node>, number: u8) -> Self {
        let keys = [
            ("InitialR2T", "Yes"),
            ("ImmediateData", "Yes"),
            ("FirstBurstLength", "4096"),
            ("MaxOutstandingR2T", "4"),
            ("MaxBurstLength", "16384"),
        ];
        let name = format!("iqn.2026-11.net.farlun:s{number}");
        let mut wire = Wire::logged_in_as(node, &name, Isid([0x80, 0, 0, 0, 0, number]), &keys);
        wire.hold = true;
        Self {
            wire,
            open: BTreeSet::new(),
            writes: BTreeMap::new(),
            r2ts: VecDeque::new(),
            failures: Vec::new(),
        }
    }

    fn command(&mut self, write: bool, blocks: u16) {
        if self.wire.max_cmd_sn.lt(self.wire.cmd_sn) {
            return;
        }
        let bytes = u32::from(blocks) * 512;
        let lba = u32::from(blocks) % (BLOCKS as u32 - 256);
        let (cdb, direction) = if write {
            (write10(lba, blocks), Direction::Write)
        } else {
            (read10(lba, blocks), Direction::Read)
        };
        let command = self.wire.command(&cdb, direction, bytes);
        self.open.insert(command.itt);
        let immediate = if write { bytes.min(FIRST_BURST) } else { 0 };
        if write {
            self.writes.insert(command.itt, bytes);
        }
        self.wire.send(&command, &vec![0x5a; immediate as usize]);
        self.listen();
    }

    fn listen(&mut self) {
        self.wire.pump();
        for (response, _) in std::mem::take(&mut self.wire.answers) {
            match response {
                Response::R2t(r2t) => self.r2ts.push_back(r2t),
                Response::ScsiResponse(pdu) => {
                    if pdu.status != 0 {
                        self.failures.push(format!("{pdu:?}"));
                    }
                    self.open.remove(&pdu.itt);
                }
                Response::DataIn(pdu) => {
                    if pdu.status.is_some() {
                        self.open.remove(&pdu.itt);
                    }
                }
                Response::NopIn(_) => {}
                other => self.failures.push(format!("{other:?}")),
            }
        }
    }

    fn data(&mut self) {
        let Some(r2t) = self.r2ts.pop_front() else { return };
        let pdu = DataOut {
            final_bit: true,
            lun: Lun::default(),
            itt: r2t.itt,
            ttt: r2t.ttt,
            exp_stat_sn: Serial(0),
            data_sn: 0,
            buffer_offset: r2t.buffer_offset,
        };
        self.wire
            .send(&pdu, &vec![0xa5; r2t.desired_data_transfer_length as usize]);
        self.listen();
    }

    fn finish(&mut self) {
        if !self.wire.held.is_empty() {
            let job = self.wire.held.remove(0);
            self.wire.run(job);
            self.listen();
        }
    }
}

fn check(node: &Node) {
    for (pool, name) in [(&node.budget.window, "window"), (&node.budget.transfer, "transfer")] {
        assert!(
            pool.used_bytes() <= pool.limit_bytes(),
            "{name} pool overdrawn: {}",
            pool.used_bytes()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("FARLUN_SOAK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200)
    ))]

    #[test]
    fn a_tiny_budget_is_never_overdrawn_and_everybody_gets_on(steps in prop::collection::vec(step(), 1..200)) {
        let limits = Limits {
            first_burst_bytes: FIRST_BURST,
            window_memory_bytes: WINDOW_BYTES,
            transfer_memory_bytes: TRANSFER_BYTES,
            ..Limits::default()
        };
        let node = node(limits);
        let mut sessions: Vec<Session> = (0..SESSIONS).map(|number| Session::new(&node, number as u8)).collect();
        for step in steps {
            match step {
                Step::Command { session, write, blocks } => sessions[session].command(write, blocks),
                Step::Data { session } => sessions[session].data(),
                Step::Finish { session } => sessions[session].finish(),
                Step::Listen { session } => sessions[session].listen(),
            }
            check(&node);
        }
        // Whoever keeps answering gets everything answered: nobody waits for anybody in a circle.
        for _ in 0..10_000 {
            for session in &mut sessions {
                session.data();
                session.finish();
                session.listen();
            }
            check(&node);
            if sessions.iter().all(|session| session.open.is_empty()) {
                break;
            }
        }
        for session in &sessions {
            prop_assert!(session.open.is_empty(), "never answered: {:?}", session.open);
            prop_assert!(session.failures.is_empty(), "{:?}", session.failures);
            prop_assert!(session.wire.cmd_sn.le(session.wire.max_cmd_sn), "the window is open again");
        }
        prop_assert_eq!(node.budget.transfer.used_bytes(), 0, "all of it came back");
        drop(sessions);
        prop_assert_eq!(node.budget.window.used_bytes(), 0);
    }
}

/// Anybody may discover, often and for long.
#[test]
fn discovery_sessions_leave_no_less_memory_for_others() {
    let limits = Limits {
        transfer_memory_bytes: 1024 * 1024,
        ..Limits::default()
    };
    let node = node(limits);
    let strangers: Vec<_> = (0..100)
        .map(|_| {
            let mut wire = Wire::new(&node);
            let keys = [("InitiatorName", "iqn.stranger"), ("SessionType", "Discovery")];
            let login = wire.login(&support::login_request(), &support::text(&keys));
            assert!(login.0.transit);
            wire
        })
        .collect();
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No")];
    let mut wire = Wire::logged_in(&node, &keys);
    for _ in 0..4 {
        let write = wire.command(&write10(0, 512), Direction::Write, 256 * 1024);
        wire.send(&write, &[]);
        assert!(matches!(wire.next().0, Response::R2t(_)), "all memory is its own");
    }
    drop(strangers);
}
