//! What a login has settled: the operational parameters of one session (RFC 7143 §13).

/// Longest FirstBurstLength that is ever agreed to (RFC 7143 §13.14), in bytes: it is reserved for every command of
/// the window.
pub const FIRST_BURST_MAX_BYTES: u32 = 1024 * 1024;
/// Longest MaxRecvDataSegmentLength that is ever declared (RFC 7143 §13.12), in bytes.
pub const RECV_DATA_SEGMENT_MAX_BYTES: u32 = 1024 * 1024;
/// Longest MaxBurstLength there is (RFC 7143 §13.13), in bytes.
pub const BURST_MAX_BYTES: u32 = (1 << 24) - 1;
/// Greatest MaxOutstandingR2T that is ever agreed to (RFC 7143 §13.17).
pub const OUTSTANDING_R2T_MAX: u16 = 16;

/// Values in force. Starts with the defaults of RFC 7143 §13; the names are the RFC's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// HeaderDigest=CRC32C (§13.1).
    pub header_digest: bool,
    /// DataDigest=CRC32C (§13.1).
    pub data_digest: bool,
    /// InitialR2T (§13.10): no unsolicited Data-Out PDUs.
    pub initial_r2t: bool,
    /// ImmediateData (§13.11).
    pub immediate_data: bool,
    /// MaxRecvDataSegmentLength the initiator declared (§13.12): the most data in a PDU to it, in bytes.
    pub max_send_data_segment_bytes: u32,
    /// MaxBurstLength (§13.13), in bytes.
    pub max_burst_bytes: u32,
    /// FirstBurstLength (§13.14), in bytes.
    pub first_burst_bytes: u32,
    /// MaxOutstandingR2T (§13.17).
    pub max_outstanding_r2t: u16,
    /// iSCSIProtocolLevel (RFC 7144 §7.1.1): 1 is RFC 7143, 2 adds QUERY TASK and its like.
    pub protocol_level: u8,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            initial_r2t: true,
            immediate_data: true,
            max_send_data_segment_bytes: 8192,
            max_burst_bytes: 262_144,
            first_burst_bytes: 65_536,
            max_outstanding_r2t: 1,
            protocol_level: 1,
        }
    }
}

impl Params {
    /// The most data a command may bring along without being asked, in bytes.
    pub fn unsolicited_bytes(&self) -> u32 {
        if self.immediate_data || !self.initial_r2t {
            self.first_burst_bytes.min(self.max_burst_bytes)
        } else {
            0
        }
    }
}

/// Discovery or normal (RFC 7143 §13.21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionType {
    /// SendTargets and nothing else.
    Discovery,
    /// SCSI commands.
    Normal,
}
