//! Bounds and offers: what peers may ask for, and how long they may take.

/// Bounds and offers of a node. Each is a default that a configuration may change.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time in which a login must be finished, in milliseconds.
    pub login_timeout_ms: u64,
    /// Silence after which an initiator is asked whether it is still there (NOP-In), in milliseconds; as
    /// much silence again ends the connection.
    pub idle_ping_ms: u64,
    /// While data keeps arriving and nothing has been sent for this long, in milliseconds, an unsolicited
    /// NOP-In tells a quiet initiator that the line works.
    pub upload_ping_ms: u64,
    /// Time after which a task management function answers even if the medium has not, in milliseconds.
    pub abort_wait_ms: u64,
    /// Commands a session may have open at a time.
    pub command_window: u32,
    /// Immediate commands (SCSI and task management) a session may have at work at a time.
    pub immediate_commands: u32,
    /// MaxRecvDataSegmentLength the target declares, in bytes.
    pub max_recv_data_segment_bytes: u32,
    /// FirstBurstLength the target offers, in bytes.
    pub first_burst_bytes: u32,
    /// MaxBurstLength the target offers, in bytes.
    pub max_burst_bytes: u32,
    /// MaxOutstandingR2T the target offers.
    pub max_outstanding_r2t: u16,
    /// Memory for what initiators may send unasked, over all sessions, in bytes.
    pub window_memory_bytes: usize,
    /// Memory for what the target asked for or read, over all sessions, in bytes.
    pub transfer_memory_bytes: usize,
    /// Sessions one initiator name may have on one target.
    pub sessions_per_initiator: usize,
    /// Sessions on one target.
    pub sessions_per_target: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_timeout_ms: 15_000,
            idle_ping_ms: 30_000,
            upload_ping_ms: 2_000,
            abort_wait_ms: 500,
            command_window: 512,
            immediate_commands: 32,
            max_recv_data_segment_bytes: 1024 * 1024,
            first_burst_bytes: 256 * 1024,
            // The largest multiple of 1024 below 2**24, what open-iscsi asks for by default.
            max_burst_bytes: 16_776_192,
            max_outstanding_r2t: 4,
            window_memory_bytes: 512 * 1024 * 1024,
            transfer_memory_bytes: 512 * 1024 * 1024,
            sessions_per_initiator: 32,
            sessions_per_target: 1024,
        }
    }
}
