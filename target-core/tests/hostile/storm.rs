//! Any bytes as a connection's life: what comes on the wire and in which pieces, well-made PDUs and spoilt ones,
//! when commands end, what other sessions do, and how time passes. The property test and the fuzz target share it.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iscsi_pdu::{BHS_BYTES, Decoder, DecoderLimits, Digest};
use target_core::iscsi::job::Job;
use target_core::iscsi::mailbox::{CloseReason, Mailbox, Notice};
use target_core::iscsi::{Connection, Limits, Node, Origin, Target};
use target_core::lun::{MemoryMedium, Wait};
use target_core::scsi::{Device, Identity, LogicalUnit};

/// Small, so that transfers and memory meet their bounds soon.
const LUN_BYTES: u64 = 1 << 20;
const WINDOW_MEMORY_BYTES: usize = 64 * 1024;
const TRANSFER_MEMORY_BYTES: usize = 256 * 1024;
/// No more is read above 8 MiB of queued output; to that comes what one PDU can add, and a LUN's worth of Data-In for
/// each command that is at work when the queue fills up.
const QUEUE_MAX_BYTES: usize = (8 << 20) + (4 << 20);

/// What the bytes decide.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn u8(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn take(&mut self, bytes: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct Storm {
    node: Arc<Node>,
    connection: Connection,
    mailbox: Arc<Mailbox>,
    now: Instant,
    jobs: VecDeque<Job>,
    header_digest: bool,
    data_digest: bool,
    cmd_sn: u32,
    decoder: Decoder,
    /// Task tag, target transfer tag, offset and length of R2Ts that came.
    r2ts: VecDeque<(u32, u32, u32, u32)>,
    /// Whether the header of a PDU from the target has come, and its end has not.
    in_data: bool,
    sent: Vec<u8>,
}

fn node() -> Arc<Node> {
    let medium = Arc::new(MemoryMedium::new(LUN_BYTES, 512).expect("a good size"));
    let identity = Identity {
        vendor: "FARLUN".to_owned(),
        product: "STORM".to_owned(),
        revision: "1".to_owned(),
        serial: "storm-0".to_owned(),
    };
    let device = Device::new(BTreeMap::from([(0, LogicalUnit::shared(medium, identity))]));
    let limits = Limits {
        window_memory_bytes: WINDOW_MEMORY_BYTES,
        transfer_memory_bytes: TRANSFER_MEMORY_BYTES,
        first_burst_bytes: 8192,
        command_window: 16,
        ..Limits::default()
    };
    Node::new(limits, [Target::new("iqn.2026-11.net.farlun:storm", None, device)])
}

/// Lives one life.
///
/// # Panics
/// When a bound is not kept.
pub(crate) fn storm(bytes: &[u8]) {
    let mut script = Script(bytes);
    let node = node();
    let flags = script.u8();
    let mailbox = Mailbox::new();
    let now = Instant::now();
    let limits = DecoderLimits {
        max_ahs_bytes: 0,
        max_data_segment_bytes: (1 << 24) - 1,
    };
    let mut storm = Storm {
        connection: Connection::new(Arc::clone(&node), &mailbox, Origin::default(), now),
        node: Arc::clone(&node),
        mailbox,
        now,
        jobs: VecDeque::new(),
        header_digest: false,
        data_digest: false,
        cmd_sn: 1,
        decoder: Decoder::new(limits),
        r2ts: VecDeque::new(),
        in_data: false,
        sent: Vec::new(),
    };
    if flags & 1 != 0 {
        storm.log_in(flags);
    }
    while !script.0.is_empty() {
        storm.step(&mut script);
        storm.check();
    }
    drop(storm);
    assert_eq!(node.budget.window.used_bytes(), 0, "window memory has not come back");
    assert_eq!(
        node.budget.transfer.used_bytes(),
        0,
        "transfer memory has not come back"
    );
    assert_eq!(node.targets()[0].session_count(), 0, "the session is still listed");
}

impl Storm {
    fn log_in(&mut self, flags: u8) {
        let mut text = b"InitiatorName=iqn.2026-11.net.farlun:s\0".to_vec();
        text.extend_from_slice(match flags & 2 {
            0 => b"TargetName=iqn.2026-11.net.farlun:storm\0",
            _ => b"SessionType=Discovery\0",
        });
        for (bit, keys) in [
            (4, &b"HeaderDigest=CRC32C\0"[..]),
            (8, b"DataDigest=CRC32C\0"),
            (16, b"InitialR2T=No\0FirstBurstLength=2048\0"),
            (32, b"MaxOutstandingR2T=4\0MaxBurstLength=4096\0"),
            (64, b"MaxRecvDataSegmentLength=512\0"),
        ] {
            if flags & bit != 0 {
                text.extend_from_slice(keys);
            }
        }
        let mut bhs = [0; BHS_BYTES];
        (bhs[0], bhs[1], bhs[8], bhs[27]) = (0x43, 0x87, 0x80, 1);
        let pdu = self.framed(bhs, &text);
        self.feed(&pdu, 0);
        let mut slices = [IoSlice::new(&[]); 4];
        let count = self.connection.transmit().gather(&mut slices);
        let answer = String::from_utf8_lossy(
            &slices[..count]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect::<Vec<_>>(),
        )
        .into_owned();
        self.drain(usize::MAX);
        self.header_digest = answer.contains("HeaderDigest=CRC32C");
        self.data_digest = answer.contains("DataDigest=CRC32C");
        self.decoder.set_digests(self.header_digest, self.data_digest);
        assert!(self.connection.describe().is_some(), "a good login is refused");
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.u8() {
            // Rarely: what is no PDU mostly ends the connection, and with it the life.
            kind if kind < 4 => {
                let length = usize::from(script.u8());
                let bytes = script.take(length).to_vec();
                self.feed(&bytes, script.u8());
            }
            kind if kind % 12 <= 5 => {
                let pdu = self.pdu(script);
                self.feed(&pdu, script.u8());
            }
            kind if kind % 12 == 6 => {
                // In order or not, in time or late, or never.
                let index = usize::from(script.u8()) % (self.jobs.len() + 1);
                if let Some(finished) = self.jobs.remove(index).and_then(|job| job.run(Wait::Allowed).ok()) {
                    self.mailbox.post(Notice::Finished(finished));
                }
            }
            kind if kind % 12 == 7 => {
                self.now += Duration::from_millis([1, 499, 2000, 15_000, 30_000][usize::from(script.u8()) % 5]);
                if self.connection.next_timeout() <= self.now {
                    self.connection.timeout(self.now);
                    let over = self.connection.ended().is_some();
                    assert!(over || self.connection.next_timeout() > self.now, "a busy timer");
                }
            }
            kind if kind % 12 == 8 => self.mailbox.post(match script.u8() {
                0 => Notice::Close(CloseReason::Reinstated),
                1 => Notice::Close(CloseReason::Stopping),
                2..=160 => Notice::CommandsAborted(0),
                _ => Notice::MemoryFreed,
            }),
            kind if kind % 12 == 9 => self.drain(usize::from(script.u8())),
            kind if kind % 12 == 10 => self.drain(usize::MAX),
            _ => {
                let mut notices = Vec::new();
                self.mailbox.take(&mut notices);
                for notice in notices {
                    self.connection.notice(self.now, notice);
                }
                for _ in 0..script.u8() % 8 {
                    self.jobs.extend(self.connection.next_job());
                }
            }
        }
    }

    /// A PDU that is in order, but for what the script spoils.
    fn pdu(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let kind = script.u8();
        let mut bhs = [0; BHS_BYTES];
        bhs[1] = 0x80;
        bhs[19] = script.u8() % 16;
        bhs[20..24].fill(0xff);
        let ahead = script.u8();
        let cmd_sn = self
            .cmd_sn
            .wrapping_add(if ahead >= 224 { u32::from(ahead - 224) } else { 0 });
        bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
        let mut data = vec![kind; usize::from(script.u16()) % 9000];
        match kind % 8 {
            0 => bhs[0] = 0x40,
            1 | 2 => {
                let write = kind % 8 == 1;
                let blocks = script.u8() % 65;
                (bhs[0], bhs[1]) = if write {
                    (0x01, 0x21 | (script.u8() & 0x80))
                } else {
                    (0x01, 0xc1)
                };
                bhs[20..24].copy_from_slice(&(u32::from(blocks) * 512).to_be_bytes());
                (bhs[32], bhs[36], bhs[37], bhs[40]) = (if write { 0x2a } else { 0x28 }, script.u8() % 9, 0, blocks);
                data.truncate(if write { usize::from(blocks) * 512 } else { 0 });
                if ahead < 224 {
                    self.cmd_sn = self.cmd_sn.wrapping_add(1);
                }
            }
            3 | 4 => {
                bhs[0] = 0x05;
                if let Some((itt, ttt, offset, length)) = self.r2ts.pop_front() {
                    bhs[16..20].copy_from_slice(&itt.to_be_bytes());
                    bhs[20..24].copy_from_slice(&ttt.to_be_bytes());
                    bhs[40..44].copy_from_slice(&offset.to_be_bytes());
                    data.resize(length as usize, kind);
                }
                bhs[24..28].fill(0);
            }
            5 => (bhs[0], bhs[1]) = (0x42, 0x80 | (script.u8() % 13)),
            6 => {
                (bhs[0], bhs[1]) = (0x44, script.u8() & 0xc0);
                data = [
                    &b"SendTargets=\0"[..],
                    b"X-a=b\0",
                    b"MaxRecvDataSegmentLength=512\0",
                    b"Send",
                ][usize::from(script.u8()) % 4]
                    .to_vec();
                bhs[20..24].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
            }
            _ => {
                (bhs[0], bhs[1]) = (
                    [0x46, 0x10, 0x43][usize::from(script.u8()) % 3],
                    0x80 | (script.u8() % 4),
                );
                data.clear();
            }
        }
        let mut pdu = self.framed(bhs, &data);
        // Most of them stay as they should be; the others have one byte changed, or two.
        let spoil = script.u8();
        for _ in 0..spoil.saturating_sub(180) / 32 {
            let at = usize::from(script.u8()) % 64;
            if let Some(byte) = pdu.get_mut(at) {
                *byte = script.u8();
            }
        }
        pdu
    }

    fn framed(&self, mut bhs: [u8; BHS_BYTES], data: &[u8]) -> Vec<u8> {
        bhs[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
        let mut pdu = bhs.to_vec();
        if self.header_digest {
            pdu.extend(Digest::of(&bhs).to_wire());
        }
        let start = pdu.len();
        pdu.extend(data);
        pdu.resize(start + data.len().next_multiple_of(4), 0);
        if self.data_digest && !data.is_empty() {
            pdu.extend(Digest::of(&pdu[start..]).to_wire());
        }
        pdu
    }

    /// Hands bytes over in pieces, some of them straight into the buffer they belong to.
    fn feed(&mut self, bytes: &[u8], pieces: u8) {
        let mut rest = bytes;
        let piece = match pieces {
            0..=127 => usize::MAX,
            128..=191 => usize::from(pieces - 127),
            _ => usize::from(pieces - 191) * 64,
        };
        while !rest.is_empty() {
            if !self.connection.wants_input() {
                let before = rest.len();
                self.connection.receive(self.now, &mut rest);
                assert_eq!(rest.len(), before, "bytes are taken that are not wanted");
                return;
            }
            let (part, later) = rest.split_at(rest.len().min(piece));
            if pieces & 1 != 0
                && let Some(landing) = self.connection.landing()
            {
                let count = landing.remaining_bytes.min(part.len());
                landing.buffer.extend_from_slice(&part[..count]);
                self.connection.landed(self.now, count);
                rest = &rest[count..];
                continue;
            }
            let mut input = part;
            self.connection.receive(self.now, &mut input);
            if input.len() == part.len() && self.connection.wants_input() {
                panic!("bytes are wanted, but not taken");
            }
            rest = if input.is_empty() {
                later
            } else {
                &rest[part.len() - input.len()..]
            };
            self.check();
        }
    }

    /// The peer takes what is there, up to a number of bytes.
    fn drain(&mut self, most: usize) {
        let mut left = most;
        while left > 0 && !self.connection.transmit().is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = self.connection.transmit().gather(&mut slices);
            let before = self.sent.len();
            for slice in &slices[..count] {
                let part = slice.len().min(left);
                self.sent.extend_from_slice(&slice[..part]);
                left -= part;
            }
            let bytes = self.sent.len() - before;
            self.connection.sent(self.now, bytes);
        }
        let sent = std::mem::take(&mut self.sent);
        self.read(&sent);
    }

    /// Notes the R2Ts among what the target says, which has to be well framed.
    fn read(&mut self, sent: &[u8]) {
        let mut input = sent;
        while !input.is_empty() {
            let remaining = self.decoder.data_remaining() as usize;
            if remaining > 0 {
                let (data, rest) = input.split_at(remaining.min(input.len()));
                self.decoder.data(data);
                input = rest;
                continue;
            }
            if self.in_data {
                if self.decoder.trailer(&mut input).expect("padding").is_some() {
                    self.r2ts.truncate(8);
                    self.in_data = false;
                }
                continue;
            }
            if let Some(header) = self.decoder.header(&mut input).expect("the target frames rightly") {
                self.in_data = true;
                let word = |at: usize| u32::from_be_bytes(*header.bhs[at..].first_chunk().expect("inside"));
                if header.bhs[0] == 0x31 {
                    self.r2ts.push_back((word(16), word(20), word(40), word(44)));
                }
            }
        }
    }

    fn check(&self) {
        for pool in [&self.node.budget.window, &self.node.budget.transfer] {
            assert!(
                pool.used_bytes() <= pool.limit_bytes(),
                "overdrawn: {}",
                pool.used_bytes()
            );
        }
        let queued = self.connection.transmit().queued_bytes();
        assert!(queued <= QUEUE_MAX_BYTES, "{queued} bytes are queued");
        assert!(
            queued < 8 << 20 || !self.connection.wants_input(),
            "more is wanted with {queued} bytes queued"
        );
        assert!(self.connection.ended().is_none() || !self.connection.wants_input());
    }
}
