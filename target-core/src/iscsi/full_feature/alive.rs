//! Whether anybody is still there (RFC 7143 §11.18, §11.19): NOPs, silence, and signs of life for the other end.

use std::time::{Duration, Instant};

use iscsi_pdu::pdu::{NopIn, NopOut, RejectReason};
use iscsi_pdu::{BHS_BYTES, Lun, RESERVED_TAG};

use super::FullFeature;
use super::farewell::Farewell;
use super::management::PendingManagement;
use crate::iscsi::output::Output;

impl FullFeature {
    /// RFC 7143 §11.18, §11.19.
    pub(super) fn nop_out(&mut self, nop: &NopOut, data: &[u8], bhs: &[u8; BHS_BYTES], out: &mut Output) {
        if nop.itt == RESERVED_TAG {
            if self.ping == Some(nop.ttt) {
                self.ping = None;
            }
            return;
        }
        if nop.ttt != RESERVED_TAG {
            return self.reject(RejectReason::InvalidPduField, bhs, out);
        }
        let echo = &data[..data.len().min(self.params.max_send_data_segment_bytes as usize)];
        let stat_sn = self.next_stat_sn();
        let reply = NopIn {
            lun: nop.lun,
            itt: nop.itt,
            ttt: RESERVED_TAG,
            stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
        };
        out.pdu(&reply, echo);
    }

    /// An unsolicited NOP-In that asks for nothing and carries the window (RFC 7143 §11.19).
    pub(super) fn announce_window(&mut self, out: &mut Output) {
        self.nop_in(RESERVED_TAG, out);
    }

    fn nop_in(&mut self, ttt: u32, out: &mut Output) {
        let nop = NopIn {
            lun: Lun::default(),
            itt: RESERVED_TAG,
            ttt,
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
        };
        out.pdu(&nop, &[]);
    }

    /// Something was sent; any of it shows the initiator that the line works. `had_waited` says that it had not
    /// been taken at once, `waits` that something is left even now.
    ///
    /// What has waited and is taken shows in turn that the initiator is there: one that only reads says nothing
    /// for minutes on a slow line.
    pub(in crate::iscsi) fn sent(
        &mut self,
        now: Instant,
        bytes: usize,
        had_waited: bool,
        waits: bool,
        out: &mut Output,
    ) {
        self.clock = now;
        self.counts.stats.bytes_out.add(bytes as u64);
        self.heard_unanswered_since = None;
        self.is_line_slow = waits;
        if had_waited {
            self.last_heard = now;
            self.ping = None;
        }
        if !self.sending.is_empty() && self.send_data(out) {
            self.open_window(out);
        }
    }

    /// Something was received, if only a part of a PDU.
    ///
    /// An initiator that uploads hears nothing until its write is complete, and its own NOP-Out waits
    /// behind what it has queued: open-iscsi gives up after 5 s without an answer to it. So while data keeps
    /// coming and nothing was sent for a while, something is sent.
    pub(in crate::iscsi) fn heard(&mut self, now: Instant, bytes: usize, out: &mut Output) {
        self.last_heard = now;
        self.counts.stats.bytes_in.add(bytes as u64);
        // Whatever comes is a sign of life, and the answer to the ping may be behind it.
        self.ping = None;
        let since = *self.heard_unanswered_since.get_or_insert(now);
        let patience = Duration::from_millis(self.limits.upload_ping_ms);
        if now.saturating_duration_since(since) >= patience && out.transmit.is_empty() {
            self.heard_unanswered_since = None;
            self.announce_window(out);
        }
    }

    /// When to call [`timeout`](Self::timeout) next.
    pub(in crate::iscsi) fn next_timeout(&self) -> Instant {
        let patience = Duration::from_millis(self.limits.idle_ping_ms);
        let silence = self.last_heard + if self.ping.is_some() { 2 * patience } else { patience };
        let aborts = self.pending_management.iter().map(PendingManagement::next_timeout);
        let others = [
            self.gates.next_timeout(),
            self.window.next_timeout(),
            self.farewell.as_ref().map(Farewell::deadline),
        ];
        aborts.chain(others.into_iter().flatten()).fold(silence, Instant::min)
    }

    /// Time has passed. Returns whether the initiator is to be given up.
    pub(in crate::iscsi) fn timeout(&mut self, now: Instant, out: &mut Output) -> bool {
        self.clock = now;
        self.expire_management(now, out);
        self.gates.timeout(now);
        self.window.timeout(now, self.tasks.held_count());
        let silence_ms = now.saturating_duration_since(self.last_heard).as_millis();
        let patience_ms = u128::from(self.limits.idle_ping_ms);
        if self.ping.is_some() {
            return silence_ms >= 2 * patience_ms;
        }
        if silence_ms >= patience_ms {
            let ttt = self.new_ttt();
            self.ping = Some(ttt);
            self.counts.stats.pings.add(1);
            self.nop_in(ttt, out);
        }
        false
    }
}
