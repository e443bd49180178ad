//! What to ask for at login, and what came of it.

use iscsi_pdu::text::Key;
use iscsi_pdu::{Isid, Stage};

use crate::ChapOptions;

/// What a login offers.
#[derive(Debug, Clone)]
pub struct LoginOptions {
    /// Our iSCSI name.
    pub initiator_name: String,
    /// The target to use; `None` for a discovery session.
    pub target_name: Option<String>,
    /// Our part of the session's identity: the same name, target and ISID again reinstate the session.
    pub isid: Isid,
    /// 0, or a session's handle to add a connection to it.
    pub tsih: u16,
    /// Connection identifier.
    pub cid: u16,
    /// Offer CRC32C for headers (`CRC32C,None`).
    pub header_digest: bool,
    /// Offer CRC32C for data.
    pub data_digest: bool,
    /// Offered InitialR2T; `Yes` on either side means that every burst waits for an R2T.
    pub initial_r2t: bool,
    /// Offered ImmediateData.
    pub immediate_data: bool,
    /// MaxRecvDataSegmentLength we declare, in bytes.
    pub max_recv_data_segment_bytes: u32,
    /// Offered FirstBurstLength, in bytes.
    pub first_burst_bytes: u32,
    /// Offered MaxBurstLength, in bytes.
    pub max_burst_bytes: u32,
    /// Offered MaxOutstandingR2T.
    pub max_outstanding_r2t: u32,
    /// Log in by CHAP, and by nothing else; `None`: without authentication. Only with security as first stage.
    pub chap: Option<ChapOptions>,
    /// Where to begin: security negotiation or the operational stage at once.
    pub first_stage: Stage,
    /// Further keys to send in the operational stage, as they are: for tests.
    pub extra_keys: Vec<(String, String)>,
    /// How long to wait for each answer, in milliseconds.
    pub timeout_ms: u64,
}

impl LoginOptions {
    /// A normal session with `target_name`, or discovery without, under a name of ours and a fresh random ISID.
    #[must_use]
    pub fn new(initiator_name: impl Into<String>, target_name: Option<&str>) -> LoginOptions {
        LoginOptions {
            initiator_name: initiator_name.into(),
            target_name: target_name.map(str::to_owned),
            isid: random_isid(),
            tsih: 0,
            cid: 0,
            header_digest: false,
            data_digest: false,
            initial_r2t: false,
            immediate_data: true,
            max_recv_data_segment_bytes: 256 * 1024,
            first_burst_bytes: 256 * 1024,
            // The greatest multiple of 512 that the key's 24 bits can say (RFC 7143 §13.13).
            max_burst_bytes: (1 << 24) - 512,
            max_outstanding_r2t: 4,
            chap: None,
            first_stage: Stage::Security,
            extra_keys: Vec::new(),
            timeout_ms: 10_000,
        }
    }
}

/// Type 10b, random (RFC 7143 §11.12.5). Without a source of randomness the qualifier is zero: two such sessions of
/// one initiator name would then replace each other, nothing worse.
fn random_isid() -> Isid {
    let mut isid = [0x80, 0, 0, 0, 0, 0];
    if getrandom::fill(&mut isid[1..]).is_err() {
        isid[1..].fill(0);
    }
    Isid(isid)
}

/// What holds in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Headers carry CRC32C.
    pub header_digest: bool,
    /// Data segments carry CRC32C.
    pub data_digest: bool,
    /// Every burst but immediate data waits for an R2T.
    pub initial_r2t: bool,
    /// Commands may bring data.
    pub immediate_data: bool,
    /// Longest data segment to us, in bytes.
    pub max_recv_data_segment_bytes: u32,
    /// Longest data segment to the target, in bytes (its MaxRecvDataSegmentLength).
    pub max_send_data_segment_bytes: u32,
    /// Longest solicited burst, in bytes.
    pub max_burst_bytes: u32,
    /// Longest unsolicited burst, in bytes.
    pub first_burst_bytes: u32,
    /// R2Ts the target may have outstanding per command.
    pub max_outstanding_r2t: u32,
    /// Connections in the session.
    pub max_connections: u32,
    /// Seconds to wait before logging in again after a failure.
    pub default_time_to_wait_s: u32,
    /// Seconds the target keeps tasks after a failure.
    pub default_time_to_retain_s: u32,
    /// Always 0 here.
    pub error_recovery_level: u32,
    /// Always `Yes` here.
    pub data_pdu_in_order: bool,
    /// Always `Yes` here.
    pub data_sequence_in_order: bool,
    /// The session's handle.
    pub tsih: u16,
    /// Every key the target sent, in order.
    pub from_target: Vec<(String, String)>,
}

impl Negotiated {
    /// Before any negotiation (the defaults of RFC 7143 §13), with our own declared length.
    pub(crate) fn defaults(options: &LoginOptions) -> Negotiated {
        // The table has a default for each of these; a test holds it to that.
        let number = |key: Key| key.default_number().unwrap_or_default();
        let boolean = |key: Key| key.default_boolean().unwrap_or(true);
        Negotiated {
            header_digest: false,
            data_digest: false,
            initial_r2t: boolean(Key::InitialR2T),
            immediate_data: boolean(Key::ImmediateData),
            max_recv_data_segment_bytes: options.max_recv_data_segment_bytes,
            max_send_data_segment_bytes: number(Key::MaxRecvDataSegmentLength),
            max_burst_bytes: number(Key::MaxBurstLength),
            first_burst_bytes: number(Key::FirstBurstLength),
            max_outstanding_r2t: number(Key::MaxOutstandingR2T),
            max_connections: number(Key::MaxConnections),
            default_time_to_wait_s: number(Key::DefaultTime2Wait),
            default_time_to_retain_s: number(Key::DefaultTime2Retain),
            error_recovery_level: number(Key::ErrorRecoveryLevel),
            data_pdu_in_order: boolean(Key::DataPDUInOrder),
            data_sequence_in_order: boolean(Key::DataSequenceInOrder),
            tsih: 0,
            from_target: Vec::new(),
        }
    }

    /// A key as the target sent it last.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&str> {
        self.from_target
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}
