//! Commands, Data-Outs and immediate commands in every order in which two or three of them can come, and with every
//! mistake at every place of each order.
//!
//! Orders are more than RFC 7143 lets an initiator choose from: it has unasked data in the order of its commands (§4.2.5.2)
//! and R2Ts answered in the order in which they came (§11.8), a target that takes any order takes those.

#[path = "orders/actor.rs"]
mod actor;
#[path = "orders/explore.rs"]
mod explore;
mod support;

use std::collections::VecDeque;
use std::sync::Arc;

use actor::{Actor, BLOCKS_EACH, Ending, Fault, Kind, Kind::*, Stage};
use explore::{Choices, explore};
use iscsi_pdu::{Response, ScsiCommand, Serial, TaskAttribute};
use support::answers::{pattern, read, status};
use support::{Direction, Wire, node, read10, write10};
use target_core::iscsi::{Limits, Node};

/// Where reads read, in blocks: nothing writes there.
const READ_LBA: u32 = 4096;

/// A session whose commands need several PDUs: bursts are of two blocks.
struct Bench {
    node: Arc<Node>,
    wire: Wire,
    /// What is in the blocks that are written to.
    disk: Vec<u8>,
    next_stat_sn: Option<Serial>,
    runs: u32,
    max_r2ts: u32,
    /// Whether somebody sends a command ahead of its turn.
    may_lag: bool,
}

impl Bench {
    fn new(max_r2ts: u32) -> Self {
        let limits = Limits {
            max_outstanding_r2t: 16,
            ..Limits::default()
        };
        let node = node(limits);
        let r2ts = max_r2ts.to_string();
        let keys = [
            ("InitialR2T", "No"),
            ("ImmediateData", "Yes"),
            ("FirstBurstLength", "1024"),
            ("MaxBurstLength", "1024"),
            ("MaxOutstandingR2T", r2ts.as_str()),
        ];
        let mut wire = Wire::logged_in(&node, &keys);
        let fill = wire.command(&write10(READ_LBA, 2), Direction::Write, 1024);
        wire.send(&fill, &pattern(1024, 77));
        assert_eq!(status(wire.next()).status, 0);
        Self {
            node,
            wire,
            disk: vec![0; 3 * BLOCKS_EACH as usize * 512],
            next_stat_sn: None,
            runs: 0,
            max_r2ts,
            may_lag: false,
        }
    }

    fn actors(&mut self, kinds: &[Kind]) -> Vec<Actor> {
        self.runs += 1;
        let seed = self.runs as u8;
        let actors = kinds.iter().zip(0..);
        actors
            .map(|(kind, place)| {
                Actor::new(
                    *kind,
                    place,
                    seed.wrapping_mul(7).wrapping_add(place as u8),
                    self.max_r2ts,
                )
            })
            .collect()
    }

    /// Lets the actors say what they have to say in the order that is chosen, and commands that are held end in the
    /// order that is chosen.
    fn play(&mut self, actors: &mut [Actor], choices: &mut Choices) {
        loop {
            let speakers: Vec<usize> = (0..actors.len()).filter(|index| actors[*index].has_more()).collect();
            let count = speakers.len() + self.wire.held.len();
            if count == 0 {
                return;
            }
            let chosen = choices.choose(count);
            match speakers.get(chosen) {
                Some(index) => actors[*index].speak(&mut self.wire),
                None => {
                    let job = self.wire.held.remove(chosen - speakers.len());
                    self.wire.run(job);
                    self.wire.pump();
                }
            }
            self.listen(actors);
        }
    }

    /// Gives every answer to whom it is for.
    fn listen(&mut self, actors: &mut [Actor]) {
        for (response, data) in std::mem::take(&mut self.wire.answers) {
            let numbers = explore::numbers(&response);
            // What came ahead of its turn is taken when the one before it is answered.
            let is_behind = self.may_lag && numbers.exp_cmd_sn + 1 == self.wire.cmd_sn;
            assert!(is_behind || numbers.exp_cmd_sn == self.wire.cmd_sn, "{response:?}");
            assert!(self.wire.cmd_sn.le(numbers.max_cmd_sn + 1), "{response:?}");
            if let Some(stat_sn) = numbers.stat_sn {
                assert_eq!(stat_sn, self.next_stat_sn.unwrap_or(stat_sn), "{response:?}");
                self.next_stat_sn = Some(if numbers.is_counted { stat_sn + 1 } else { stat_sn });
            }
            if matches!(response, Response::Reject(_)) {
                let itt = u32::from_be_bytes([data[16], data[17], data[18], data[19]]);
                let victim = actors.iter_mut().find(|actor| actor.itt == itt).expect("for somebody");
                victim.rejected(&response);
                continue;
            }
            let itt = explore::itt(&response);
            match actors.iter_mut().find(|actor| actor.has_tag(itt)) {
                Some(actor) => actor.hear(&response, &data),
                None => panic!("an answer to nobody: {response:?}"),
            }
        }
    }

    /// Everybody has what he is to have, nobody else's blocks have changed, and nothing is left over.
    fn check(&mut self, actors: &[Actor]) {
        for actor in actors {
            actor.check_answers();
            if let Some((start, stored)) = actor.stored() {
                self.disk[start..start + stored.len()].copy_from_slice(stored);
            }
        }
        assert_eq!(self.node.budget.transfer.used_bytes(), 0);
        assert!(self.wire.held.is_empty() && self.wire.answers.is_empty());
        let hold = std::mem::replace(&mut self.wire.hold, false);
        let found = read(&mut self.wire, 0, (self.disk.len() / 512) as u16);
        assert!(found == self.disk, "what {actors:?} stored");
        self.wire.hold = hold;
        self.next_stat_sn = None;
    }
}

/// Plays these commands in every order. Returns how many there were.
fn all_orders(bench: &mut Bench, kinds: &[Kind]) -> u64 {
    explore(|choices| {
        let mut actors = bench.actors(kinds);
        bench.play(&mut actors, choices);
        bench.check(&actors);
    })
}

/// In how many orders sequences of these lengths can be merged.
fn merges(lengths: impl IntoIterator<Item = u64>) -> u64 {
    let (mut total, mut count) = (0, 1);
    for length in lengths {
        for taken in 1..=length {
            total += 1;
            count = count * total / taken;
        }
    }
    count
}

fn pairs(kinds: &[Kind]) -> Vec<Vec<Kind>> {
    let pair = |(at, kind): (usize, &Kind)| kinds[at..].iter().map(|other| vec![*kind, *other]).collect::<Vec<_>>();
    kinds.iter().enumerate().flat_map(pair).collect()
}

const ALL: [Kind; 14] = [
    WriteImmediate,
    WriteUnasked,
    WriteMixed,
    WriteAsked,
    WriteAskedInParts,
    Read,
    TestUnitReady,
    UrgentWrite,
    UrgentAskedWrite,
    UrgentRead,
    Nop,
    UrgentNop,
    Abort,
    UrgentAbort,
];

#[test]
fn two_commands_in_every_order() {
    for max_r2ts in [1, 4, 16] {
        let mut bench = Bench::new(max_r2ts);
        for kinds in pairs(&ALL) {
            let orders = all_orders(&mut bench, &kinds);
            assert_eq!(orders, merges(kinds.iter().map(|kind| kind.pdus())), "{kinds:?}");
        }
    }
}

#[test]
fn two_commands_in_every_order_of_pdus_and_of_ends() {
    for max_r2ts in [1, 4] {
        let mut bench = Bench::new(max_r2ts);
        bench.wire.hold = true;
        for kinds in pairs(&ALL) {
            // The end of a command comes after all of its PDUs, like one more.
            let steps = kinds.iter().map(|kind| kind.pdus() + u64::from(kind.is_run()));
            assert_eq!(all_orders(&mut bench, &kinds), merges(steps), "{kinds:?}");
        }
    }
}

fn three(kinds: &[Kind], max_r2ts: u32) {
    let mut bench = Bench::new(max_r2ts);
    for (at, first) in kinds.iter().enumerate() {
        for pair in pairs(&kinds[at..]) {
            let kinds = [*first, pair[0], pair[1]];
            let orders = all_orders(&mut bench, &kinds);
            assert_eq!(orders, merges(kinds.iter().map(|kind| kind.pdus())), "{kinds:?}");
        }
    }
}

#[test]
fn three_writes_in_every_order() {
    three(&[WriteUnasked, WriteMixed, WriteAsked], 4);
}

#[test]
fn three_writes_in_every_order_with_one_r2t_each() {
    three(&[WriteMixed, WriteAsked, UrgentAskedWrite], 1);
}

#[test]
fn three_commands_of_all_kinds_in_every_order() {
    let rest = ALL
        .into_iter()
        .filter(|kind| !matches!(kind, WriteMixed | WriteAskedInParts | WriteUnasked));
    three(&rest.collect::<Vec<_>>(), 16);
}

#[test]
fn a_mistake_in_one_command_is_answered_exactly_and_touches_no_other_in_any_order() {
    let victims = [
        WriteUnasked,
        WriteMixed,
        WriteAsked,
        WriteAskedInParts,
        UrgentAskedWrite,
    ];
    let others = [WriteImmediate, WriteUnasked, WriteAsked, Read, UrgentWrite, Nop];
    let mut seen = [0u64; Fault::ALL.len()];
    for max_r2ts in [1, 4] {
        let mut bench = Bench::new(max_r2ts);
        for victim in victims {
            for (number, fault) in Fault::ALL.into_iter().enumerate() {
                for piece in 0..victim.pdus() - 1 {
                    let Some(ending) = fault.ending(victim, piece) else {
                        continue;
                    };
                    for other in others {
                        seen[number] += one_mistake(&mut bench, [victim, other], fault, piece, ending);
                    }
                }
            }
        }
    }
    assert!(
        seen.iter().all(|count| *count > 100),
        "every mistake was made: {seen:?}"
    );
}

fn one_mistake(bench: &mut Bench, kinds: [Kind; 2], fault: Fault, piece: u64, ending: Ending) -> u64 {
    explore(|choices| {
        let mut actors = bench.actors(&kinds);
        actors[0].plan(fault, piece, ending);
        bench.may_lag = fault == Fault::CommandAheadOfItsTurn;
        bench.play(&mut actors, choices);
        if ending == Ending::Waits {
            assert_eq!(actors[0].stage(), Stage::Open, "{kinds:?} {fault:?} at {piece}");
            actors[0].finish_late(&mut bench.wire);
            bench.listen(&mut actors);
            bench.play(&mut actors, choices);
        }
        bench.check(&actors);
    })
}

#[test]
fn what_came_ahead_of_its_turn_holds_nobody_whose_turn_it_is() {
    // Whichever of the two is the ordered one: it is the one behind the gap that has to wait.
    for (first, last) in [
        (TaskAttribute::Simple, TaskAttribute::Ordered),
        (TaskAttribute::Ordered, TaskAttribute::Simple),
        (TaskAttribute::Ordered, TaskAttribute::Ordered),
    ] {
        let mut wire = Wire::logged_in(&node(Limits::default()), &[]);
        let [now, missing, later] = [first, TaskAttribute::Simple, last].map(|attribute| ScsiCommand {
            attribute,
            ..wire.command(&read10(0, 1), Direction::Read, 512)
        });
        wire.send(&later, &[]);
        wire.send(&now, &[]);
        let answered = |wire: &mut Wire| -> Vec<u32> {
            let answers = std::mem::take(&mut wire.answers);
            answers.iter().map(|(response, _)| explore::itt(response)).collect()
        };
        assert_eq!(answered(&mut wire), [now.itt], "{first:?} {last:?}");
        wire.send(&missing, &[]);
        assert_eq!(answered(&mut wire), [missing.itt, later.itt], "{first:?} {last:?}");
    }
}

#[test]
fn as_many_r2ts_are_open_as_were_agreed_until_all_is_asked_for() {
    const BURSTS: usize = 20;
    for max_r2ts in [1, 4, 16] {
        let mut bench = Bench::new(max_r2ts);
        let wire = &mut bench.wire;
        let data = [pattern(BURSTS * 1024, 5), pattern(BURSTS * 1024, 6)];
        let commands = [0, 64].map(|lba| wire.command(&write10(lba, 40), Direction::Write, (BURSTS * 1024) as u32));
        for command in &commands {
            wire.send(command, &[]);
        }
        let mut open = [VecDeque::new(), VecDeque::new()];
        let mut answered = [0; 2];
        loop {
            for answer in std::mem::take(&mut wire.answers) {
                if let (Response::R2t(r2t), _) = answer {
                    let index = usize::from(r2t.itt == commands[1].itt);
                    open[index].push_back(r2t);
                } else {
                    assert_eq!(status(answer).exp_data_sn as usize, BURSTS, "as many R2Ts");
                }
            }
            for index in 0..2 {
                let expected = (BURSTS - answered[index]).min(max_r2ts as usize);
                assert_eq!(open[index].len(), expected, "{answered:?} are answered");
            }
            // The second goes ahead by one and a half.
            let index = usize::from(answered[1] * 2 < answered[0] * 3 || open[0].is_empty());
            let index = if open[index].is_empty() { 1 - index } else { index };
            let Some(r2t) = open[index].pop_front() else { break };
            let at = r2t.buffer_offset as usize;
            assert_eq!((r2t.r2t_sn as usize, at), (answered[index], answered[index] * 1024));
            wire.data_out(
                r2t.itt,
                r2t.ttt,
                0,
                r2t.buffer_offset,
                true,
                &data[index][at..at + 1024],
            );
            answered[index] += 1;
        }
        assert_eq!(answered, [BURSTS; 2]);
        assert!(read(wire, 0, 40) == data[0] && read(wire, 64, 40) == data[1]);
    }
}
