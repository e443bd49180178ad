//! Hand-made bad logins and PDUs, and what each must lead to: one table for the state machine (`target-core`) and for
//! the daemon behind a socket (`integration`). Only bytes: nothing of the code under test is used here.
#![allow(dead_code, unreachable_pub, reason = "each of the two test crates uses its own part")]

pub mod bytes;
mod commands;
pub mod locked;
mod logins;
mod pdus;

use bytes::{FIRST, LAST, NAMES, NO_TAG};

/// Least number of rows that end in one of the ways of [`Seen::is_refusal`].
pub const ROWS_MIN: usize = 100;
/// The most that somebody who is not logged in is ever sent on one connection, in bytes.
pub const STRANGER_MAX_BYTES: usize = 4096;
/// LUN 0 must have this many blocks of 512 bytes.
pub const BLOCKS: u32 = 65536;

/// One thing the target says, as far as the table goes into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Reject, with its reason (RFC 7143 §11.17.1).
    Reject(u8),
    /// Login Response, with its status (§11.13.5).
    Login(u16),
    /// CHECK CONDITION: sense key, additional sense code and its qualifier.
    Check(u8, u8, u8),
    /// Another SCSI status.
    Status(u8),
    /// Data-In, with the length of its data segment.
    Data(usize),
    /// Ready To Transfer.
    R2t,
    /// Task Management Response (§11.6.1).
    Management(u8),
    /// Text Response; addresses and aliases are left out.
    Text(String),
    /// NOP-In that answers a NOP-Out.
    Nop,
    /// Logout Response (§11.15.1).
    Logout(u8),
    /// Some other PDU.
    Opcode(u8),
    /// The connection is closed. Without this as its last, a row leaves a connection that still works.
    Closed,
    /// Nothing is said and nothing can be: the target waits for the rest. It closes in the end.
    Waits,
}

impl Seen {
    /// Whether this is a Reject, an error of SCSI, task management or login, or the end of the connection.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Reject(_) | Self::Check(..) | Self::Closed | Self::Waits => true,
            Self::Login(status) => *status != 0,
            Self::Management(response) => *response != 0,
            Self::Logout(response) => *response != 0,
            _ => false,
        }
    }
}

/// Where a row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Before the first byte.
    Stranger,
    /// In a session, with these keys agreed on.
    Session(&'static str),
    /// In a discovery session.
    Discovery,
}

/// What a row does.
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits for one more answer.
    Wait,
    /// Waits for an R2T, and sends what is made of its target transfer tag.
    AnswerR2t(fn(u32) -> Vec<u8>),
    /// Waits for a Text Response, and sends what is made of its target transfer tag.
    AnswerText(fn(u32) -> Vec<u8>),
}

/// One bad thing.
pub struct Row {
    pub name: &'static str,
    pub start: Start,
    pub steps: Vec<Step>,
    /// All that comes back, in order.
    pub expected: Vec<Seen>,
}

/// The table.
pub fn rows() -> Vec<Row> {
    let mut rows = logins::rows();
    rows.extend(pdus::rows());
    rows.extend(commands::rows());
    rows
}

fn row(name: &'static str, start: Start, bytes: Vec<u8>, expected: Vec<Seen>) -> Row {
    Row {
        name,
        start,
        steps: vec![Step::Send(bytes)],
        expected,
    }
}

/// The other end of a connection that is closed, or says no more for the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    Quiet,
    Closed,
}

/// A way to the target.
pub trait Line {
    /// Sends what the target takes; a connection that is closed takes nothing.
    fn send(&mut self, bytes: &[u8]);
    /// Appends what came. When `quiet` nothing is expected to come, so there is no long wait for it.
    fn receive(&mut self, into: &mut Vec<u8>, quiet: bool) -> Result<(), Pause>;
    /// Says no more and waits for the target to close: by time, or by closing this side.
    fn outlast(&mut self, into: &mut Vec<u8>) -> Pause;
}

/// What a row led to.
#[derive(Debug)]
pub struct Outcome {
    pub seen: Vec<Seen>,
    /// Bytes that came before the login was over.
    pub stranger_bytes: usize,
}

/// An initiator of bytes on a line.
struct Player<'a> {
    line: &'a mut dyn Line,
    input: Vec<u8>,
    digests: bool,
    quiet: bool,
    bytes_in: usize,
}

/// A PDU that came.
struct Came {
    bhs: [u8; 48],
    data: Vec<u8>,
}

/// Tag of the NOP-Out that shows that a connection still works.
const PING: u32 = 0x7e57_7e57;

impl Player<'_> {
    fn next(&mut self) -> Result<Came, Pause> {
        loop {
            if let Some(came) = self.cut() {
                return Ok(came);
            }
            let before = self.input.len();
            let got = self.line.receive(&mut self.input, self.quiet);
            self.bytes_in += self.input.len() - before;
            got?;
        }
    }

    /// A whole PDU from the front of what has come.
    fn cut(&mut self) -> Option<Came> {
        let bhs: [u8; 48] = *self.input.first_chunk()?;
        assert_eq!(bhs[4], 0, "the target sends no additional headers");
        let length = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]) as usize;
        let digest = if self.digests { 4 } else { 0 };
        let start = 48 + digest;
        let end = start + length.next_multiple_of(4) + if length > 0 { digest } else { 0 };
        if self.input.len() < end {
            return None;
        }
        let data = self.input[start..start + length].to_vec();
        self.input.drain(..end);
        Some(Came { bhs, data })
    }

    fn log_in(&mut self, text: String) {
        self.line.send(&bytes::login(LAST, text).bytes());
        let came = self
            .next()
            .unwrap_or_else(|pause| panic!("no answer to the login: {pause:?}"));
        assert_eq!(see(&came), Some(Seen::Login(0)), "a good login is refused");
        self.digests = String::from_utf8_lossy(&came.data).contains("CRC32C");
    }

    /// Waits for a PDU that `Seen` says is the one; what comes before it is noted.
    fn wait_for(&mut self, seen: &mut Vec<Seen>, wanted: fn(&Seen) -> bool) -> Option<u32> {
        while let Ok(came) = self.next() {
            let Some(now) = see(&came) else { continue };
            let hit = wanted(&now);
            seen.push(now);
            if hit {
                return Some(word(&came.bhs, 20));
            }
        }
        None
    }
}

/// Plays one row.
pub fn play(row: &Row, line: &mut dyn Line) -> Outcome {
    let mut player = Player {
        line,
        input: Vec::new(),
        digests: false,
        quiet: false,
        bytes_in: 0,
    };
    match row.start {
        Start::Stranger => {}
        Start::Session(keys) => player.log_in(format!("{NAMES}{keys}")),
        Start::Discovery => player.log_in(bytes::DISCOVERY.to_owned()),
    }
    let mut seen = Vec::new();
    for step in &row.steps {
        match step {
            Step::Send(bytes) => player.line.send(bytes),
            Step::Wait => drop(player.wait_for(&mut seen, |_| true)),
            Step::AnswerR2t(make) => {
                let Some(ttt) = player.wait_for(&mut seen, |seen| *seen == Seen::R2t) else {
                    break;
                };
                player.line.send(&make(ttt));
            }
            Step::AnswerText(make) => {
                let text = |seen: &Seen| matches!(seen, Seen::Text(_));
                let Some(ttt) = player.wait_for(&mut seen, text) else {
                    break;
                };
                player.line.send(&make(ttt));
            }
        }
    }
    let lasts = !matches!(row.expected.last(), Some(Seen::Closed | Seen::Waits));
    // Commands may be answered after a NOP-Out that came later, so what is expected is waited for first.
    while seen.len() < row.expected.len() - usize::from(!lasts) {
        match player.next() {
            Ok(came) => seen.extend(see(&came)),
            Err(_) => break,
        }
    }
    if lasts {
        ping(&mut player, &mut seen);
    } else {
        player.quiet = row.expected.last() == Some(&Seen::Waits);
        end(&mut player, &mut seen);
    }
    let stranger_bytes = match row.start {
        Start::Stranger => player.bytes_in,
        _ => 0,
    };
    Outcome { seen, stranger_bytes }
}

/// The connection still works, and has nothing more to say.
fn ping(player: &mut Player<'_>, seen: &mut Vec<Seen>) {
    let digest = player.digests.then_some(0);
    player
        .line
        .send(&bytes::nop(PING, NO_TAG).data(*b"ping").with_digests(digest, digest));
    loop {
        match player.next() {
            Ok(came) if came.bhs[0] == 0x20 && word(&came.bhs, 16) == PING => {
                assert_eq!(came.data, b"ping");
                return;
            }
            Ok(came) => seen.extend(see(&came)),
            Err(Pause::Closed) => return seen.push(Seen::Closed),
            Err(Pause::Quiet) => return seen.push(Seen::Waits),
        }
    }
}

/// The connection is closed now, or once the target is tired of waiting.
fn end(player: &mut Player<'_>, seen: &mut Vec<Seen>) {
    loop {
        match player.next() {
            Ok(came) => seen.extend(see(&came)),
            Err(Pause::Closed) => return seen.push(Seen::Closed),
            Err(Pause::Quiet) => break,
        }
    }
    let before = player.input.len();
    let pause = player.line.outlast(&mut player.input);
    player.bytes_in += player.input.len() - before;
    while let Some(came) = player.cut() {
        seen.extend(see(&came));
    }
    // One that can be waited for, but does not end, is seen as nothing at all.
    if pause == Pause::Closed {
        seen.push(Seen::Waits);
    }
}

/// `None` for a NOP-In that nobody asked for: a ping, or news of the command window.
fn see(came: &Came) -> Option<Seen> {
    let (bhs, data) = (&came.bhs, &came.data);
    Some(match bhs[0] & 0x3f {
        0x20 if word(bhs, 16) == NO_TAG => return None,
        0x20 => Seen::Nop,
        0x21 if bhs[3] == 0x02 => {
            // RFC 7143 §11.4.7.2, SPC-5 4.5.3: two bytes of length, then fixed format.
            assert_eq!(data[2] & 0x7f, 0x70, "sense of fixed format");
            Seen::Check(data[4] & 0x0f, data[14], data[15])
        }
        0x21 => Seen::Status(bhs[3]),
        0x22 => Seen::Management(bhs[2]),
        0x23 => Seen::Login(u16::from_be_bytes([bhs[36], bhs[37]])),
        0x24 => Seen::Text(told(data)),
        0x25 => Seen::Data(data.len()),
        0x26 => Seen::Logout(bhs[2]),
        0x31 => Seen::R2t,
        0x3f => Seen::Reject(bhs[2]),
        opcode => Seen::Opcode(opcode),
    })
}

fn told(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let pairs = text.split_terminator('\0');
    let same = |pair: &&str| !pair.starts_with("TargetAddress=") && !pair.starts_with("TargetAlias=");
    pairs.filter(same).collect::<Vec<_>>().join(" ")
}

fn word(bhs: &[u8; 48], at: usize) -> u32 {
    u32::from_be_bytes([bhs[at], bhs[at + 1], bhs[at + 2], bhs[at + 3]])
}

/// What the next initiator does: it logs in, writes a block, reads it back, and logs out.
pub fn good_initiator() -> Row {
    let write = bytes::command(bytes::WRITE, 1, FIRST, 512, &bytes::cdb10(0x2a, 77, 1)).data(vec![0xa5; 512]);
    let read = bytes::command(bytes::READ, 2, FIRST + 1, 512, &bytes::cdb10(0x28, 77, 1));
    Row {
        name: "a good initiator",
        start: Start::Session(""),
        steps: vec![
            Step::Send(write.bytes()),
            Step::Wait,
            Step::Send(read.bytes()),
            Step::Wait,
            Step::Send(bytes::logout(0, 3).bytes()),
        ],
        expected: vec![Seen::Status(0), Seen::Data(512), Seen::Logout(0), Seen::Closed],
    }
}
