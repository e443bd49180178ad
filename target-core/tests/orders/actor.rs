//! One command of an initiator: what it has to say, what it heard, and the mistake it makes.

use std::collections::VecDeque;

use iscsi_pdu::{
    Lun, NopOut, R2t, RESERVED_TAG, RejectReason, Response, ScsiCommand, Serial, TaskFunction, TaskManagementRequest,
    TaskOutcome, sense_bytes,
};

use super::READ_LBA;
use super::support::answers::pattern;
use super::support::{Direction, Wire, read10, write10};

/// Sense key and additional sense code.
type Sense = (u8, u8, u8);

const BLOCK_BYTES: usize = 512;
/// Blocks that belong to one actor.
pub(super) const BLOCKS_EACH: u32 = 4;
/// Both FirstBurstLength and MaxBurstLength.
const BURST_BYTES: usize = 1024;
/// A target transfer tag that the target never gave out.
const FOREIGN_TAG: u32 = 0x7777_7777;
/// A task tag of no task.
const NOBODY: u32 = 0x6666_6666;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A block with the command.
    WriteImmediate,
    /// Two blocks, each in a Data-Out of its own that nobody asked for.
    WriteUnasked,
    /// A block with the command, one unasked, one asked for.
    WriteMixed,
    /// Four blocks for two R2Ts.
    WriteAsked,
    /// The same, each R2T answered by two Data-Outs.
    WriteAskedInParts,
    Read,
    TestUnitReady,
    /// An immediate command with a block.
    UrgentWrite,
    /// An immediate command of four blocks for two R2Ts.
    UrgentAskedWrite,
    UrgentRead,
    Nop,
    UrgentNop,
    /// ABORT TASK of a task that is not there, in turn.
    Abort,
    UrgentAbort,
}

impl Kind {
    /// How many PDUs it takes.
    pub(super) fn pdus(self) -> u64 {
        match self {
            Self::WriteUnasked | Self::WriteMixed | Self::WriteAsked | Self::UrgentAskedWrite => 3,
            Self::WriteAskedInParts => 5,
            _ => 1,
        }
    }

    /// Whether a worker may get it.
    pub(super) fn is_run(self) -> bool {
        use Kind::{Abort, Nop, TestUnitReady, UrgentAbort, UrgentNop};
        !matches!(self, TestUnitReady | Nop | UrgentNop | Abort | UrgentAbort)
    }

    fn is_urgent(self) -> bool {
        matches!(
            self,
            Self::UrgentWrite | Self::UrgentAskedWrite | Self::UrgentRead | Self::UrgentNop | Self::UrgentAbort
        )
    }

    fn write_bytes(self) -> usize {
        match self {
            Self::WriteImmediate | Self::UrgentWrite => 512,
            Self::WriteUnasked => 1024,
            Self::WriteMixed => 1536,
            Self::WriteAsked | Self::WriteAskedInParts | Self::UrgentAskedWrite => 2048,
            _ => 0,
        }
    }

    fn immediate_bytes(self) -> usize {
        match self {
            Self::WriteImmediate | Self::UrgentWrite | Self::WriteMixed => 512,
            _ => 0,
        }
    }

    /// Bytes that come unasked, those with the command among them; none when F is set.
    fn unasked_bytes(self) -> Option<usize> {
        matches!(self, Self::WriteUnasked | Self::WriteMixed).then_some(BURST_BYTES)
    }

    fn piece_bytes(self) -> usize {
        match self {
            Self::WriteAsked | Self::UrgentAskedWrite => BURST_BYTES,
            _ => BLOCK_BYTES,
        }
    }

    /// Whether this Data-Out is the last of its sequence, whether of all, and whether it was asked for.
    fn place_of(self, piece: u64) -> Place {
        let is_last = piece + 2 == self.pdus();
        let (ends_sequence, is_asked) = match self {
            Self::WriteUnasked => (is_last, false),
            Self::WriteMixed => (true, is_last),
            Self::WriteAskedInParts => (piece % 2 == 1, true),
            _ => (true, true),
        };
        Place {
            ends_sequence,
            is_last,
            is_asked,
        }
    }
}

struct Place {
    ends_sequence: bool,
    is_last: bool,
    is_asked: bool,
}

/// INCORRECT AMOUNT OF DATA, as RFC 7143 §11.4.7.2 has it.
const AMOUNT: Ending = Ending::Failed((0x0b, 0x0c, 0x0d));
/// UNEXPECTED UNSOLICITED DATA.
const UNEXPECTED: Ending = Ending::Failed((0x0b, 0x0c, 0x0c));

/// How a command with a mistake ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Good,
    Failed((u8, u8, u8)),
    /// Without an answer.
    Aborted,
    /// Not before the initiator says that its sequence is over; then well, or not.
    Waits,
}

/// What goes wrong at one Data-Out, or just before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    WrongNumber,
    WrongOffset,
    TooMuch,
    FinalTooEarly,
    NotFinal,
    ForeignTag,
    SentTwice,
    AbortedMeanwhile,
    TagUsedAgain,
    CommandAgain,
    CommandBehindTheWindow,
    CommandBeyondTheWindow,
    UrgentWithOddNumber,
    CommandAheadOfItsTurn,
}

impl Fault {
    pub(super) const ALL: [Self; 14] = [
        Self::WrongNumber,
        Self::WrongOffset,
        Self::TooMuch,
        Self::FinalTooEarly,
        Self::NotFinal,
        Self::ForeignTag,
        Self::SentTwice,
        Self::AbortedMeanwhile,
        Self::TagUsedAgain,
        Self::CommandAgain,
        Self::CommandBehindTheWindow,
        Self::CommandBeyondTheWindow,
        Self::UrgentWithOddNumber,
        Self::CommandAheadOfItsTurn,
    ];

    /// What becomes of a command that makes this mistake at this Data-Out; `None` when it cannot be made there.
    pub(super) fn ending(self, victim: Kind, piece: u64) -> Option<Ending> {
        let place = victim.place_of(piece);
        Some(match self {
            Self::FinalTooEarly if place.ends_sequence => return None,
            Self::NotFinal if !place.ends_sequence => return None,
            Self::WrongNumber | Self::WrongOffset | Self::TooMuch | Self::FinalTooEarly => AMOUNT,
            Self::NotFinal => Ending::Waits,
            Self::ForeignTag => UNEXPECTED,
            Self::SentTwice if place.is_last => Ending::Good,
            Self::SentTwice if place.ends_sequence => UNEXPECTED,
            Self::SentTwice => AMOUNT,
            Self::AbortedMeanwhile => Ending::Aborted,
            _ => Ending::Good,
        })
    }

    /// How often the target says that something is wrong.
    fn rejects(self, victim: Kind, piece: u64, max_r2ts: usize) -> usize {
        let place = victim.place_of(piece);
        match self {
            // The next sequence begins before this one is over.
            Self::NotFinal => usize::from(!place.is_last && (max_r2ts > 1 || !place.is_asked)),
            Self::AbortedMeanwhile
            | Self::CommandBehindTheWindow
            | Self::CommandBeyondTheWindow
            | Self::UrgentWithOddNumber
            | Self::CommandAheadOfItsTurn => 0,
            // Its number says nothing, its tag does.
            Self::CommandAgain => usize::from(victim.is_urgent()),
            _ => 1,
        }
    }
}

/// One Data-Out.
#[derive(Debug, Clone, Copy)]
struct Piece {
    ttt: u32,
    data_sn: u32,
    offset: usize,
    bytes: usize,
    final_bit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Fresh,
    Open,
    Done,
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    piece: u64,
    ending: Ending,
}

pub(super) struct Actor {
    kind: Kind,
    lba: u32,
    data: Vec<u8>,
    max_r2ts: usize,
    pub(super) itt: u32,
    command: Option<ScsiCommand>,
    stage: Stage,
    pieces: VecDeque<Piece>,
    pieces_sent: u64,
    asked_bytes: usize,
    r2ts: u32,
    open_r2ts: usize,
    /// What was read so far.
    data_in: Vec<u8>,
    /// How it ended.
    status: Option<(u8, Option<Sense>)>,
    plan: Option<Plan>,
    /// Other requests of this actor that are answered.
    extra: Vec<u32>,
    late_end: Option<Piece>,
    rejects_due: usize,
    rejects: usize,
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} ({:?}, {:?}, {:?})",
            self.kind, self.stage, self.status, self.plan
        )
    }
}

impl Actor {
    pub(super) fn new(kind: Kind, place: u32, seed: u8, max_r2ts: u32) -> Self {
        Self {
            kind,
            lba: place * BLOCKS_EACH,
            data: pattern(kind.write_bytes(), seed),
            max_r2ts: max_r2ts as usize,
            itt: NOBODY,
            command: None,
            stage: Stage::Fresh,
            pieces: VecDeque::new(),
            pieces_sent: 0,
            asked_bytes: kind.unasked_bytes().unwrap_or(kind.immediate_bytes()),
            r2ts: 0,
            open_r2ts: 0,
            data_in: Vec::new(),
            status: None,
            plan: None,
            extra: Vec::new(),
            late_end: None,
            rejects_due: 0,
            rejects: 0,
        }
    }

    /// Makes a mistake at its Data-Out number `piece`.
    pub(super) fn plan(&mut self, fault: Fault, piece: u64, ending: Ending) {
        self.rejects_due = fault.rejects(self.kind, piece, self.max_r2ts);
        self.plan = Some(Plan { fault, piece, ending });
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn has_tag(&self, itt: u32) -> bool {
        self.itt == itt || self.extra.contains(&itt)
    }

    pub(super) fn has_more(&self) -> bool {
        self.stage == Stage::Fresh || !self.pieces.is_empty()
    }

    fn is_aborted(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.ending == Ending::Aborted) && !self.extra.is_empty()
    }

    /// Sends its next PDU.
    pub(super) fn speak(&mut self, wire: &mut Wire) {
        if self.stage == Stage::Fresh {
            self.stage = Stage::Open;
            return self.begin(wire);
        }
        let piece = self.pieces.pop_front().expect("it has more");
        let number = self.pieces_sent;
        self.pieces_sent += 1;
        if self.stage == Stage::Done && !self.is_aborted() {
            // For a task that is over already.
            self.rejects_due += 1;
        }
        match &self.plan {
            Some(plan) if plan.piece == number => {
                let fault = plan.fault;
                self.send_wrong(fault, piece, wire);
            }
            _ => self.send(piece, wire),
        }
        if piece.final_bit && piece.ttt != RESERVED_TAG {
            self.open_r2ts -= 1;
        }
    }

    fn begin(&mut self, wire: &mut Wire) {
        self.itt = wire.next_itt;
        let kind = self.kind;
        let blocks = (kind.write_bytes() / BLOCK_BYTES) as u16;
        let mut command = match kind {
            Kind::Nop | Kind::UrgentNop => return self.nop(wire),
            Kind::Abort | Kind::UrgentAbort => return self.management(NOBODY, kind == Kind::UrgentAbort, wire),
            Kind::TestUnitReady => wire.command(&[0; 6], Direction::None, 0),
            Kind::Read | Kind::UrgentRead => wire.command(&read10(READ_LBA, 2), Direction::Read, 1024),
            _ => wire.command(&write10(self.lba, blocks), Direction::Write, kind.write_bytes() as u32),
        };
        if kind.is_urgent() {
            command.immediate = true;
            wire.cmd_sn = command.cmd_sn;
        }
        if let Some(unasked_bytes) = kind.unasked_bytes() {
            command.final_bit = false;
            self.cut(RESERVED_TAG, kind.immediate_bytes(), unasked_bytes);
        }
        wire.send(&command, &self.data[..kind.immediate_bytes()]);
        self.command = Some(command);
    }

    fn nop(&mut self, wire: &mut Wire) {
        wire.next_itt += 1;
        let nop = NopOut {
            immediate: self.kind.is_urgent(),
            lun: Lun::default(),
            itt: self.itt,
            ttt: RESERVED_TAG,
            cmd_sn: wire.cmd_sn,
            exp_stat_sn: Serial(0),
        };
        if !nop.immediate {
            wire.cmd_sn += 1;
        }
        wire.send(&nop, b"ping");
    }

    fn management(&mut self, referenced_task_tag: u32, immediate: bool, wire: &mut Wire) {
        let itt = wire.next_itt;
        wire.next_itt += 1;
        let request = TaskManagementRequest {
            immediate,
            function: TaskFunction::AbortTask,
            lun: Lun::from_number(0),
            itt,
            referenced_task_tag,
            cmd_sn: wire.cmd_sn,
            exp_stat_sn: Serial(0),
            // Behind the window: whoever is not there will not come.
            ref_cmd_sn: Serial(50),
            exp_data_sn: 0,
        };
        if !immediate {
            wire.cmd_sn += 1;
        }
        if referenced_task_tag != NOBODY {
            self.extra.push(itt);
        }
        wire.send(&request, &[]);
    }

    /// Cuts a sequence into Data-Outs.
    fn cut(&mut self, ttt: u32, start: usize, end: usize) {
        let step = self.kind.piece_bytes();
        for (offset, data_sn) in (start..end).step_by(step).zip(0..) {
            let bytes = step.min(end - offset);
            self.pieces.push_back(Piece {
                ttt,
                data_sn,
                offset,
                bytes,
                final_bit: offset + bytes == end,
            });
        }
    }

    fn send(&self, piece: Piece, wire: &mut Wire) {
        let mut data = self.data.get(piece.offset..).unwrap_or_default().to_vec();
        data.resize(piece.bytes, 0xee);
        let offset = piece.offset as u32;
        wire.data_out(self.itt, piece.ttt, piece.data_sn, offset, piece.final_bit, &data);
    }

    fn send_wrong(&mut self, fault: Fault, piece: Piece, wire: &mut Wire) {
        let ready = |wire: &mut Wire| wire.command(&[0; 6], Direction::None, 0);
        let mut wrong = piece;
        match fault {
            Fault::WrongNumber => wrong.data_sn += 1,
            Fault::WrongOffset => wrong.offset += BLOCK_BYTES,
            Fault::TooMuch => wrong.bytes += BLOCK_BYTES,
            Fault::FinalTooEarly => wrong.final_bit = true,
            Fault::NotFinal => {
                wrong.final_bit = false;
                self.late_end = Some(Piece {
                    offset: piece.offset + piece.bytes,
                    data_sn: piece.data_sn + 1,
                    bytes: 0,
                    ..piece
                });
            }
            Fault::ForeignTag => self.send(
                Piece {
                    ttt: FOREIGN_TAG,
                    ..piece
                },
                wire,
            ),
            Fault::SentTwice => self.send(piece, wire),
            Fault::AbortedMeanwhile => {
                // In turn or not.
                self.management(self.itt, piece.offset.is_multiple_of(BURST_BYTES), wire);
                self.stage = Stage::Done;
            }
            Fault::TagUsedAgain => {
                let again = ScsiCommand {
                    itt: self.itt,
                    ..ready(wire)
                };
                wire.send(&again, &[]);
            }
            Fault::CommandAgain => {
                let again = self.command.clone().expect("it was sent");
                wire.send(&again, &self.data[..self.kind.immediate_bytes()]);
            }
            Fault::CommandBehindTheWindow | Fault::CommandBeyondTheWindow => {
                let stray = ready(wire);
                wire.cmd_sn = stray.cmd_sn;
                let beyond = fault == Fault::CommandBeyondTheWindow;
                let cmd_sn = stray.cmd_sn + if beyond { 1000 } else { u32::MAX };
                wire.send(&ScsiCommand { cmd_sn, ..stray }, &[]);
            }
            Fault::UrgentWithOddNumber => {
                let urgent = ready(wire);
                wire.cmd_sn = urgent.cmd_sn;
                self.extra.push(urgent.itt);
                let odd = ScsiCommand {
                    immediate: true,
                    cmd_sn: urgent.cmd_sn + 0x4000_0000,
                    ..urgent
                };
                wire.send(&odd, &[]);
            }
            Fault::CommandAheadOfItsTurn => {
                let (first, second) = (ready(wire), ready(wire));
                self.extra.extend([first.itt, second.itt]);
                wire.send(&second, &[]);
                wire.send(&first, &[]);
            }
        }
        self.send(wrong, wire);
    }

    /// Says that a sequence is over that was left open.
    pub(super) fn finish_late(&mut self, wire: &mut Wire) {
        let end = self.late_end.take().expect("it left something open");
        self.send(end, wire);
    }

    pub(super) fn rejected(&mut self, response: &Response) {
        let Response::Reject(reject) = response else {
            unreachable!("only Rejects")
        };
        let fault = self.plan.as_ref().map(|plan| plan.fault);
        let expected = match fault {
            Some(Fault::TagUsedAgain | Fault::CommandAgain) => RejectReason::TaskInProgress,
            Some(_) => RejectReason::ProtocolError,
            None => panic!("rejected without a mistake: {self:?}"),
        };
        assert_eq!(reject.reason, expected, "{self:?}");
        self.rejects += 1;
    }

    pub(super) fn hear(&mut self, response: &Response, data: &[u8]) {
        match response {
            Response::R2t(r2t) => self.asked(r2t),
            Response::NopIn(_) => {
                assert_eq!(data, b"ping");
                self.end(0, None);
            }
            Response::TaskManagement(answer) if self.extra.contains(&answer.itt) => {
                assert_eq!(answer.response, TaskOutcome::Complete, "{self:?}");
            }
            Response::TaskManagement(answer) => {
                assert_eq!(answer.response, TaskOutcome::NoSuchTask);
                self.end(0, None);
            }
            Response::ScsiResponse(answer) if self.extra.contains(&answer.itt) => {
                assert_eq!(answer.status, 0);
                self.extra.retain(|itt| *itt != answer.itt);
            }
            Response::ScsiResponse(answer) => {
                let sense = (answer.status == 2).then(|| {
                    let sense = sense_bytes(data).expect("sense");
                    (sense[2] & 0x0f, sense[12], sense[13])
                });
                assert!(answer.status != 0 || answer.exp_data_sn == self.r2ts, "{answer:?}");
                self.end(answer.status, sense);
            }
            Response::DataIn(answer) => {
                assert_eq!(answer.buffer_offset as usize, self.data_in.len());
                self.data_in.extend_from_slice(data);
                if let Some(status) = &answer.status {
                    self.end(status.status, None);
                }
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn end(&mut self, status: u8, sense: Option<(u8, u8, u8)>) {
        assert_eq!(
            self.stage,
            Stage::Open,
            "answered once, and not after an abort: {self:?}"
        );
        self.stage = Stage::Done;
        self.status = Some((status, sense));
    }

    /// RFC 7143 §11.8.
    fn asked(&mut self, r2t: &R2t) {
        let total = self.data.len();
        let desired = (total - self.asked_bytes).min(BURST_BYTES);
        assert_eq!(
            (
                r2t.r2t_sn,
                r2t.buffer_offset as usize,
                r2t.desired_data_transfer_length as usize
            ),
            (self.r2ts, self.asked_bytes, desired),
            "{self:?}"
        );
        self.r2ts += 1;
        self.open_r2ts += 1;
        assert!(
            desired > 0 && self.open_r2ts <= self.max_r2ts,
            "{self:?} has {}",
            self.open_r2ts
        );
        self.cut(r2t.ttt, self.asked_bytes, self.asked_bytes + desired);
        self.asked_bytes += desired;
    }

    /// It heard what it was to hear.
    pub(super) fn check_answers(&self) {
        let expected = match self.plan.as_ref().map(|plan| plan.ending) {
            None | Some(Ending::Good) => Some((0, None)),
            Some(Ending::Failed(sense)) => Some((2, Some(sense))),
            Some(Ending::Aborted) => None,
            // Two sequences were open at a time: an end that comes from behind does not fit, nor does the next answer.
            Some(Ending::Waits) if self.rejects > 0 => {
                let qualifier = if self.kind == Kind::WriteMixed { 0x0d } else { 0x0c };
                Some((2, Some((0x0b, 0x0c, qualifier))))
            }
            Some(Ending::Waits) => Some((0, None)),
        };
        assert_eq!(self.status, expected, "{self:?}");
        assert!(self.is_aborted() || self.extra.is_empty(), "{self:?}");
        assert_eq!(self.rejects, self.rejects_due, "{self:?}");
        if matches!(self.kind, Kind::Read | Kind::UrgentRead) {
            assert!(self.data_in == pattern(1024, 77), "{self:?}");
        }
    }

    /// What it is to have written, and where in bytes; nothing if it failed.
    pub(super) fn stored(&self) -> Option<(usize, &[u8])> {
        let is_good = matches!(self.status, Some((0, _)));
        is_good.then_some((self.lba as usize * BLOCK_BYTES, &self.data[..]))
    }
}
