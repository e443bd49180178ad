//! The other end of the line: a target's PDUs as a test scripts them, over an in-memory stream.
#![allow(dead_code, reason = "each test file uses some of it")]

use bytes::Bytes;
use initiator::{Error, LoginOptions, Negotiated, Session, Transfer};
use iscsi_pdu::text::{Duplicates, TextLimits, TextWriter, parse};
use iscsi_pdu::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

pub(crate) const TARGET: &str = "iqn.2004-10.com.example:disk";
pub(crate) const INITIATOR: &str = "iqn.2004-10.com.example:home";
pub(crate) const PIPE_BYTES: usize = 64 * 1024;

/// Keys that allow all that the initiator offers, with small sizes so that every rule is met early.
pub(crate) const KEYS: &[(&str, &str)] = &[
    ("HeaderDigest", "None"),
    ("DataDigest", "None"),
    ("MaxRecvDataSegmentLength", "1024"),
    ("InitialR2T", "No"),
    ("ImmediateData", "Yes"),
    ("MaxBurstLength", "4096"),
    ("FirstBurstLength", "2048"),
    ("MaxOutstandingR2T", "1"),
];

pub(crate) fn options() -> LoginOptions {
    LoginOptions {
        timeout_ms: 5000,
        ..LoginOptions::new(INITIATOR, Some(TARGET))
    }
}

pub(crate) struct Peer {
    pub(crate) stream: DuplexStream,
    pub(crate) decoder: Decoder,
    pub(crate) framing: Framing,
    pub(crate) stat_sn: Serial,
    pub(crate) exp_cmd_sn: Serial,
    pub(crate) max_cmd_sn: Serial,
    buffered: Vec<u8>,
}

impl Peer {
    pub(crate) fn pair(pipe_bytes: usize) -> (DuplexStream, Peer) {
        let (near, far) = duplex(pipe_bytes);
        let limits = DecoderLimits {
            max_ahs_bytes: 1020,
            max_data_segment_bytes: MAX_DATA_SEGMENT_BYTES,
        };
        let peer = Peer {
            stream: far,
            decoder: Decoder::new(limits),
            framing: Framing::default(),
            stat_sn: Serial(1000),
            exp_cmd_sn: Serial(1),
            max_cmd_sn: Serial(64),
            buffered: Vec::new(),
        };
        (near, peer)
    }

    /// The next request; `None` when the initiator has closed.
    pub(crate) async fn try_recv(&mut self) -> Option<(Request, Vec<u8>)> {
        let mut header = None;
        let mut data = Vec::new();
        loop {
            let mut input = self.buffered.as_slice();
            if header.is_none() {
                header = self.decoder.header(&mut input).expect("sound framing");
            }
            if header.is_some() {
                let wanted = (self.decoder.data_remaining() as usize).min(input.len());
                self.decoder.data(&input[..wanted]);
                data.extend_from_slice(&input[..wanted]);
                input = &input[wanted..];
                if self.decoder.data_remaining() == 0
                    && let Some(trailer) = self.decoder.trailer(&mut input).expect("sound framing")
                {
                    assert_eq!(trailer, Trailer::Intact);
                    self.buffered = input.to_vec();
                    let request = Request::parse(&header?).expect("a good request");
                    if let Some(cmd_sn) = request.cmd_sn()
                        && !matches!(request, Request::Login(_))
                    {
                        assert_eq!(cmd_sn, self.exp_cmd_sn, "CmdSN of {request:?}");
                        if !request.immediate() {
                            assert!(cmd_sn.le(self.max_cmd_sn), "beyond the window: {request:?}");
                            self.exp_cmd_sn += 1;
                        }
                    }
                    return Some((request, data));
                }
            }
            self.buffered = input.to_vec();
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).await.expect("readable") {
                0 => return None,
                bytes => self.buffered.extend_from_slice(&chunk[..bytes]),
            }
        }
    }

    pub(crate) async fn recv(&mut self) -> (Request, Vec<u8>) {
        self.try_recv().await.expect("a request")
    }

    pub(crate) async fn command(&mut self) -> (ScsiCommand, Vec<u8>) {
        match self.recv().await {
            (Request::ScsiCommand(command), data) => (command, data),
            other => panic!("expected a SCSI Command, got {other:?}"),
        }
    }

    pub(crate) async fn data_out(&mut self) -> (DataOut, Vec<u8>) {
        match self.recv().await {
            (Request::DataOut(header), data) => (header, data),
            other => panic!("expected a Data-Out, got {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, pdu: &impl Emit, data: &[u8]) {
        let mut bytes = Vec::new();
        self.framing.pdu(pdu, data, &mut bytes);
        self.stream.write_all(&bytes).await.expect("writable");
    }

    pub(crate) fn next_stat_sn(&mut self) -> Serial {
        let stat_sn = self.stat_sn;
        self.stat_sn += 1;
        stat_sn
    }

    pub(crate) fn login_response(&mut self, request: &LoginRequest) -> LoginResponse {
        LoginResponse {
            transit: request.transit,
            continue_: false,
            csg: request.csg,
            nsg: request.nsg,
            version_max: 0,
            version_active: 0,
            isid: request.isid,
            tsih: 7,
            itt: request.itt,
            stat_sn: self.next_stat_sn(),
            exp_cmd_sn: request.cmd_sn,
            max_cmd_sn: self.max_cmd_sn,
            status: LoginStatus::Success,
        }
    }

    pub(crate) async fn login_request(&mut self) -> (LoginRequest, Vec<(String, String)>) {
        match self.recv().await {
            (Request::Login(request), data) => (request, pairs(&data)),
            other => panic!("expected a Login Request, got {other:?}"),
        }
    }

    /// A whole login with these keys in the operational stage; digests are taken from them.
    pub(crate) async fn login(&mut self, keys: &[(&str, &str)]) {
        let (request, _) = self.login_request().await;
        let answer = self.login_response(&request);
        self.send(&answer, &text(&[("AuthMethod", "None"), ("TargetPortalGroupTag", "1")]))
            .await;
        let (request, _) = self.login_request().await;
        let answer = self.login_response(&request);
        self.send(&answer, &text(keys)).await;
        let on = |name| keys.contains(&(name, "CRC32C"));
        self.framing = Framing {
            header_digest: on("HeaderDigest"),
            data_digest: on("DataDigest"),
        };
        self.decoder
            .set_digests(self.framing.header_digest, self.framing.data_digest);
    }

    pub(crate) fn scsi_response(&mut self, itt: u32, status: u8) -> ScsiResponse {
        ScsiResponse {
            response: ServiceResponse::Completed,
            status,
            itt,
            snack_tag: 0,
            stat_sn: self.next_stat_sn(),
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn,
            exp_data_sn: 0,
            bidirectional_residual: Residual::None,
            residual: Residual::None,
        }
    }

    pub(crate) async fn good(&mut self, itt: u32) {
        let response = self.scsi_response(itt, 0);
        self.send(&response, &[]).await;
    }

    pub(crate) fn r2t(&self, itt: u32, r2t_sn: u32, buffer_offset: u32, length: u32) -> R2t {
        R2t {
            lun: Lun::default(),
            itt,
            ttt: 0x700 + r2t_sn,
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn,
            r2t_sn,
            buffer_offset,
            desired_data_transfer_length: length,
        }
    }

    pub(crate) fn data_in(&mut self, itt: u32, data_sn: u32, buffer_offset: u32, last: bool) -> DataIn {
        let status = DataInStatus {
            status: 0,
            stat_sn: self.stat_sn,
            residual: Residual::None,
        };
        if last {
            self.stat_sn += 1;
        }
        DataIn {
            final_bit: last,
            acknowledge: false,
            status: last.then_some(status),
            lun: Lun::default(),
            itt,
            ttt: RESERVED_TAG,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn,
            data_sn,
            buffer_offset,
        }
    }

    pub(crate) fn nop_in(&mut self, itt: u32, ttt: u32) -> NopIn {
        let stat_sn = self.stat_sn;
        if itt != RESERVED_TAG {
            self.stat_sn += 1;
        }
        NopIn {
            lun: Lun::default(),
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.max_cmd_sn,
        }
    }

    /// Answers the logout and closes.
    pub(crate) async fn logout(mut self) {
        match self.recv().await {
            (Request::Logout(request), data) => {
                assert_eq!((request.reason, data.len()), (LogoutReason::CloseSession, 0));
                let response = LogoutResponse {
                    response: LogoutOutcome::Closed,
                    itt: request.itt,
                    stat_sn: self.next_stat_sn(),
                    exp_cmd_sn: self.exp_cmd_sn,
                    max_cmd_sn: self.max_cmd_sn,
                    time_to_wait_s: 2,
                    time_to_retain_s: 0,
                };
                self.send(&response, &[]).await;
            }
            other => panic!("expected a Logout Request, got {other:?}"),
        }
    }
}

pub(crate) fn text(keys: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = TextWriter::new(8192);
    for (key, value) in keys {
        writer.push(key, value).expect("short");
    }
    writer.into_bytes()
}

pub(crate) fn pairs(text: &[u8]) -> Vec<(String, String)> {
    let pairs = parse(text, &TextLimits::default(), Duplicates::Refused).expect("a list of keys");
    pairs
        .iter()
        .map(|pair| (pair.key.to_owned(), pair.value.to_owned()))
        .collect()
}

/// A session on one side, the peer that let it in on the other.
pub(crate) async fn session_with(
    options: &LoginOptions,
    keys: &[(&str, &str)],
    pipe_bytes: usize,
    max_cmd_sn: u32,
) -> (Session<DuplexStream>, Peer) {
    let (near, mut peer) = Peer::pair(pipe_bytes);
    peer.max_cmd_sn = Serial(max_cmd_sn);
    let (session, ()) = tokio::join!(Session::login(near, options), peer.login(keys));
    (session.expect("login"), peer)
}

pub(crate) async fn session() -> (Session<DuplexStream>, Peer) {
    session_with(&options(), KEYS, PIPE_BYTES, 64).await
}

/// A login against keys of the operational stage, and what came of it.
pub(crate) async fn login_outcome(options: &LoginOptions, keys: &[(&str, &str)]) -> Result<Negotiated, Error> {
    let (near, mut peer) = Peer::pair(PIPE_BYTES);
    let (session, ()) = tokio::join!(Session::login(near, options), peer.login(keys));
    session.map(|session| session.negotiated().clone())
}

pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Data for the target.
pub(crate) fn write(data: &[u8]) -> Transfer {
    Transfer::Out(Bytes::copy_from_slice(data))
}

/// [`KEYS`] with some replaced.
pub(crate) fn keys(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = KEYS
        .iter()
        .filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
    kept.chain(changes).copied().collect()
}
