//! An initiator made of bytes and a clock made of numbers, to drive [`Connection`]s without sockets.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part of this")]

pub mod answers;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_pdu::{
    Cdb, DataOut, Decoder, DecoderLimits, Emit, Framing, Isid, LoginRequest, LoginResponse, Lun, NopOut, RESERVED_TAG,
    Response, ScsiCommand, Serial, Stage, TaskAttribute, Trailer,
};
use target_core::iscsi::job::Job;
use target_core::iscsi::mailbox::Mailbox;
use target_core::iscsi::{Connection, Limits, Node, Origin, Target};
use target_core::lun::{MemoryMedium, Wait};
use target_core::scsi::{Device, Identity, LogicalUnit};

/// The target of [`node`].
pub const TARGET: &str = "iqn.2026-11.net.farlun:test";
/// The default initiator.
pub const INITIATOR: &str = "iqn.2026-11.net.farlun:initiator";
/// LUN 0 of [`TARGET`], in blocks of 512 bytes.
pub const BLOCKS: u64 = 64 * 1024;

/// Where connections come from: over the network to 192.0.2.1:3260.
pub fn origin() -> Origin {
    Origin {
        local: Some(([192, 0, 2, 1], 3260).into()),
        peer: "192.0.2.2:50000".to_owned(),
        ..Origin::default()
    }
}

/// A node with one target of one shared LUN in memory.
pub fn node(limits: Limits) -> Arc<Node> {
    node_with(limits, true)
}

/// The same, shared or not.
pub fn node_with(limits: Limits, shared: bool) -> Arc<Node> {
    node_with_luns(limits, &[shared])
}

/// A node with one target of as many LUNs, shared or not.
pub fn node_with_luns(limits: Limits, shared: &[bool]) -> Arc<Node> {
    let luns = shared
        .iter()
        .zip(0..)
        .map(|(shared, number)| (number, unit(number, *shared)));
    let device = Device::new(BTreeMap::from_iter(luns));
    Node::new(limits, [Target::new(TARGET, Some("a test".to_owned()), device)])
}

fn unit(number: u16, shared: bool) -> Arc<LogicalUnit> {
    let medium = Arc::new(MemoryMedium::new(BLOCKS * 512, 512).expect("small enough"));
    let identity = Identity {
        vendor: "FARLUN".to_owned(),
        product: "TEST".to_owned(),
        revision: "1".to_owned(),
        serial: format!("test-{number}"),
    };
    if shared {
        LogicalUnit::shared(medium, identity)
    } else {
        LogicalUnit::new(medium, identity)
    }
}

/// What came back.
pub type Answer = (Response, Vec<u8>);

/// One connection with an initiator of bytes on the other end.
pub struct Wire {
    pub connection: Connection,
    pub mailbox: Arc<Mailbox>,
    pub now: Instant,
    pub answers: VecDeque<Answer>,
    /// Commands are kept here instead of being run.
    pub hold: bool,
    pub held: Vec<Job>,
    pub framing: Framing,
    decoder: Decoder,
    pub cmd_sn: Serial,
    pub max_cmd_sn: Serial,
    pub next_itt: u32,
    /// Bytes the target has sent, in all.
    pub bytes_out: usize,
}

impl Wire {
    pub fn new(node: &Arc<Node>) -> Self {
        Self::coming_by(node, origin())
    }

    /// A connection that comes from somewhere in particular.
    pub fn coming_by(node: &Arc<Node>, origin: Origin) -> Self {
        let mailbox = Mailbox::new();
        let now = Instant::now();
        let connection = Connection::new(Arc::clone(node), &mailbox, origin, now);
        let limits = DecoderLimits {
            max_ahs_bytes: 0,
            max_data_segment_bytes: 16 * 1024 * 1024 - 1,
        };
        Self {
            connection,
            mailbox,
            now,
            answers: VecDeque::new(),
            hold: false,
            held: Vec::new(),
            framing: Framing::default(),
            decoder: Decoder::new(limits),
            cmd_sn: Serial(100),
            max_cmd_sn: Serial(100),
            next_itt: 1,
            bytes_out: 0,
        }
    }

    /// A connection that is logged in, with these operational keys offered.
    pub fn logged_in(node: &Arc<Node>, keys: &[(&str, &str)]) -> Self {
        Self::logged_in_as(node, INITIATOR, Isid([0x80, 0, 0, 0, 0, 1]), keys)
    }

    pub fn logged_in_as(node: &Arc<Node>, initiator: &str, isid: Isid, keys: &[(&str, &str)]) -> Self {
        let mut wire = Self::new(node);
        let mut offered = vec![
            ("InitiatorName", initiator),
            ("TargetName", TARGET),
            ("SessionType", "Normal"),
        ];
        offered.extend_from_slice(keys);
        let response = wire.login(
            &LoginRequest {
                isid,
                ..login_request()
            },
            &text(&offered),
        );
        assert!(response.0.status.is_success() && response.0.transit, "{response:?}");
        wire.adopt(&response.1);
        wire
    }

    /// Uses what the login settled from the next PDU on.
    fn adopt(&mut self, answers: &[(String, String)]) {
        let on = |key: &str| answers.iter().any(|(name, value)| name == key && value == "CRC32C");
        self.framing = Framing {
            header_digest: on("HeaderDigest"),
            data_digest: on("DataDigest"),
        };
        self.decoder
            .set_digests(self.framing.header_digest, self.framing.data_digest);
    }

    /// Sends a login request and takes its answer.
    pub fn login(&mut self, request: &LoginRequest, data: &[u8]) -> (LoginResponse, Vec<(String, String)>) {
        self.send(request, data);
        match self.answers.pop_front() {
            Some((Response::Login(response), data)) => (response, pairs(&data)),
            other => panic!(
                "expected a login response, got {other:?}; ended: {:?}",
                self.connection.ended()
            ),
        }
    }

    pub fn send(&mut self, pdu: &impl Emit, data: &[u8]) {
        let mut bytes = Vec::new();
        self.framing.pdu(pdu, data, &mut bytes);
        self.send_bytes(&bytes);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        self.connection.receive(self.now, &mut rest);
        self.pump();
    }

    /// Runs what can be run, and takes what the target says.
    pub fn pump(&mut self) {
        loop {
            let mut notices = Vec::new();
            self.mailbox.take(&mut notices);
            let mut idle = notices.is_empty();
            for notice in notices {
                self.connection.notice(self.now, notice);
            }
            while let Some(job) = self.connection.next_job() {
                idle = false;
                if self.hold { self.held.push(job) } else { self.run(job) }
            }
            idle &= self.take_output() == 0;
            self.connection.settle(|| self.now);
            if idle {
                return;
            }
        }
    }

    /// Runs a command that was held.
    pub fn run(&mut self, job: Job) {
        let finished = job.run(Wait::Allowed).expect("workers may block");
        self.connection.finished(self.now, finished);
    }

    fn take_output(&mut self) -> usize {
        let mut bytes = Vec::new();
        while !self.connection.transmit().is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let count = self.connection.transmit().gather(&mut slices);
            let joined: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            self.connection.sent(self.now, joined.len());
            bytes.extend(joined);
        }
        self.bytes_out += bytes.len();
        self.decode(&bytes);
        bytes.len()
    }

    fn decode(&mut self, mut input: &[u8]) {
        while let Some(header) = self.decoder.header(&mut input).expect("the target frames rightly") {
            let length = self.decoder.data_remaining() as usize;
            let (data, rest) = input.split_at(length);
            self.decoder.data(data);
            input = rest;
            let trailer = self.decoder.trailer(&mut input).expect("the target pads rightly");
            assert_eq!(trailer, Some(Trailer::Intact), "the target's digest is wrong");
            let response = Response::parse(&header).expect("the target's headers are right");
            self.max_cmd_sn = max_cmd_sn(&response);
            self.answers.push_back((response, data.to_vec()));
        }
        assert!(input.is_empty(), "the target sends whole PDUs");
    }

    /// Lets time pass, in milliseconds, as the shell does: no timeout is missed on the way.
    pub fn sleep_ms(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            let due = self.connection.next_timeout();
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.connection.timeout(self.now);
            assert!(
                self.connection.next_timeout() > self.now || self.connection.ended().is_some(),
                "a busy timer"
            );
            self.pump();
            if self.connection.ended().is_some() {
                break;
            }
        }
        self.now = end;
    }

    /// A header for a SCSI command in turn.
    pub fn command(&mut self, cdb: &[u8], direction: Direction, edtl: u32) -> ScsiCommand {
        let command = ScsiCommand {
            immediate: false,
            final_bit: true,
            read: direction == Direction::Read,
            write: direction == Direction::Write,
            attribute: TaskAttribute::Simple,
            lun: Lun::from_number(0),
            itt: self.next_itt,
            expected_data_transfer_length: edtl,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: Serial(0),
            cdb: Cdb::new(cdb).expect("short enough"),
            bidirectional_read_length: None,
        };
        self.next_itt += 1;
        self.cmd_sn += 1;
        command
    }

    /// Sends a Data-Out that answers `itt`/`ttt`.
    pub fn data_out(&mut self, itt: u32, ttt: u32, data_sn: u32, offset: u32, final_bit: bool, data: &[u8]) {
        let pdu = DataOut {
            final_bit,
            lun: Lun::from_number(0),
            itt,
            ttt,
            exp_stat_sn: Serial(0),
            data_sn,
            buffer_offset: offset,
        };
        self.send(&pdu, data);
    }

    /// A NOP-Out that is answered shows that the connection still works.
    pub fn assert_alive(&mut self) {
        let itt = self.next_itt;
        self.next_itt += 1;
        let nop = NopOut {
            immediate: true,
            lun: Lun::default(),
            itt,
            ttt: RESERVED_TAG,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: Serial(0),
        };
        self.answers.clear();
        self.send(&nop, b"ping");
        let answered = self
            .answers
            .iter()
            .any(|(response, data)| matches!(response, Response::NopIn(nop) if nop.itt == itt) && data == b"ping");
        assert!(
            answered,
            "no answer to a NOP-Out: {:?}, ended {:?}",
            self.answers,
            self.connection.ended()
        );
        self.answers.clear();
    }

    pub fn next(&mut self) -> Answer {
        self.answers.pop_front().expect("an answer")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    None,
    Read,
    Write,
}

/// A login request that wants to go from the operational stage to the full-feature phase.
pub fn login_request() -> LoginRequest {
    LoginRequest {
        transit: true,
        continue_: false,
        csg: Stage::Operational,
        nsg: Stage::FullFeature,
        version_max: 0,
        version_min: 0,
        isid: Isid([0x80, 0, 0, 0, 0, 1]),
        tsih: 0,
        itt: 7,
        cid: 1,
        cmd_sn: Serial(100),
        exp_stat_sn: Serial(0),
    }
}

pub fn text(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs
        .iter()
        .flat_map(|(key, value)| format!("{key}={value}\0").into_bytes())
        .collect()
}

pub fn pairs(data: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(data).expect("text");
    let split = |record: &str| {
        let (key, value) = record.split_once('=').expect("key=value");
        (key.to_owned(), value.to_owned())
    };
    text.split_terminator('\0').map(split).collect()
}

pub fn read10(lba: u32, blocks: u16) -> [u8; 10] {
    cdb10(0x28, lba, blocks)
}

pub fn write10(lba: u32, blocks: u16) -> [u8; 10] {
    cdb10(0x2a, lba, blocks)
}

fn cdb10(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn max_cmd_sn(response: &Response) -> Serial {
    match response {
        Response::NopIn(pdu) => pdu.max_cmd_sn,
        Response::ScsiResponse(pdu) => pdu.max_cmd_sn,
        Response::TaskManagement(pdu) => pdu.max_cmd_sn,
        Response::Login(pdu) => pdu.max_cmd_sn,
        Response::Text(pdu) => pdu.max_cmd_sn,
        Response::DataIn(pdu) => pdu.max_cmd_sn,
        Response::Logout(pdu) => pdu.max_cmd_sn,
        Response::R2t(pdu) => pdu.max_cmd_sn,
        Response::Reject(pdu) => pdu.max_cmd_sn,
        Response::AsyncMessage(pdu) => pdu.max_cmd_sn,
    }
}
