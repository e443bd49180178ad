//! Which TCP connections this end has opened: a bounded table.

use std::collections::HashMap;

use super::packet::{ACK, FIN, RST, SYN};

/// Connections remembered at once; the one idle for longest makes room for a new one.
pub const FLOWS_MAX: usize = 1024;

/// How long a connection that both ends have finished may still exchange last words (two maximum segment lifetimes
/// as Linux counts them), in milliseconds.
pub const CLOSED_FLOW_MS: u64 = 60_000;

/// A connection between the pair, by its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    last_ms: u64,
    local_fin: bool,
    remote_fin: bool,
    closed_ms: Option<u64>,
}

/// The table. Time is any clock in milliseconds that does not go back.
#[derive(Debug, Default)]
pub(super) struct Flows {
    table: HashMap<Flow, State>,
}

impl Flows {
    /// Whether a segment that our own kernel sends begins something: an opening (SYN without ACK), or a word on a
    /// connection that has been there before this table was (the device outlives the connection to the peer).
    pub(super) fn begins(&self, flow: Flow, flags: u8) -> bool {
        let opens = flags & (SYN | ACK | RST) == SYN;
        let speaks = flags & (SYN | ACK | RST) == ACK;
        opens || (speaks && !self.table.contains_key(&flow))
    }

    /// Notes a segment that our own kernel sends.
    pub(super) fn sent(&mut self, flow: Flow, flags: u8, now_ms: u64) {
        if self.begins(flow, flags) {
            self.make_room(now_ms);
            self.table.insert(flow, State::default());
        }
        if let Some(state) = self.table.get_mut(&flow) {
            state.last_ms = now_ms;
            state.local_fin |= flags & FIN != 0;
            state.note_end(flags, now_ms);
        }
    }

    /// Whether a segment from the peer belongs to a connection that we opened.
    pub(super) fn admits(&mut self, flow: Flow, flags: u8, now_ms: u64) -> bool {
        if !self.knows(flow, now_ms) {
            return false;
        }
        if let Some(state) = self.table.get_mut(&flow) {
            state.last_ms = now_ms;
            state.remote_fin |= flags & FIN != 0;
            state.note_end(flags, now_ms);
        }
        true
    }

    /// Whether the connection is open, or closed only just now.
    pub(super) fn knows(&mut self, flow: Flow, now_ms: u64) -> bool {
        match self.table.get(&flow) {
            Some(state) if state.is_over(now_ms) => {
                self.table.remove(&flow);
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    fn make_room(&mut self, now_ms: u64) {
        if self.table.len() < FLOWS_MAX {
            return;
        }
        self.table.retain(|_, state| !state.is_over(now_ms));
        while self.table.len() >= FLOWS_MAX {
            let oldest = self
                .table
                .iter()
                .min_by_key(|(_, state)| (state.closed_ms.is_none(), state.last_ms));
            let Some(oldest) = oldest.map(|(flow, _)| *flow) else {
                return;
            };
            self.table.remove(&oldest);
        }
    }
}

impl State {
    fn note_end(&mut self, flags: u8, now_ms: u64) {
        if flags & RST != 0 || (self.local_fin && self.remote_fin) {
            self.closed_ms.get_or_insert(now_ms);
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        self.closed_ms
            .is_some_and(|closed_ms| now_ms.saturating_sub(closed_ms) > CLOSED_FLOW_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow {
        local_port: 40000,
        remote_port: 3260,
    };

    #[test]
    fn only_what_was_opened() {
        let mut flows = Flows::default();
        assert!(!flows.admits(FLOW, SYN | ACK, 0));
        flows.sent(FLOW, SYN | ACK, 0);
        flows.sent(FLOW, RST, 0);
        flows.sent(FLOW, RST | ACK, 0);
        assert!(!flows.admits(FLOW, ACK, 0), "answers do not open");
        flows.sent(FLOW, SYN, 0);
        assert!(flows.admits(FLOW, SYN | ACK, 1));
        assert!(!flows.admits(
            Flow {
                local_port: 40001,
                ..FLOW
            },
            ACK,
            1
        ));
    }

    #[test]
    fn an_older_connection_is_learned_again() {
        let mut flows = Flows::default();
        flows.sent(FLOW, ACK, 0);
        assert!(flows.admits(FLOW, ACK, 1));
    }

    #[test]
    fn ends_with_both_fins_or_a_reset() {
        let mut flows = Flows::default();
        flows.sent(FLOW, SYN, 0);
        flows.sent(FLOW, FIN | ACK, 10);
        assert!(flows.admits(FLOW, ACK, 10 * CLOSED_FLOW_MS), "half closed may last");
        let end = 10 * CLOSED_FLOW_MS;
        assert!(flows.admits(FLOW, FIN | ACK, end));
        assert!(flows.admits(FLOW, FIN | ACK, end + CLOSED_FLOW_MS));
        assert!(!flows.admits(FLOW, ACK, end + CLOSED_FLOW_MS + 1));
        assert_eq!(flows.len(), 0);

        flows.sent(FLOW, SYN, 0);
        assert!(flows.admits(FLOW, RST | ACK, 5));
        assert!(!flows.admits(FLOW, ACK, 5 + CLOSED_FLOW_MS + 1));
        flows.sent(FLOW, SYN, end);
        assert!(
            flows.admits(FLOW, SYN | ACK, end + CLOSED_FLOW_MS + 1),
            "a new connection on the same ports"
        );
    }

    #[test]
    fn full_table_forgets_closed_then_idle() {
        let mut flows = Flows::default();
        let flow = |n: usize| Flow {
            local_port: u16::try_from(n).unwrap(),
            remote_port: 3260,
        };
        for n in 0..FLOWS_MAX {
            flows.sent(flow(n), SYN, 100 + n as u64);
        }
        assert!(flows.admits(flow(500), RST, 5000));
        flows.sent(flow(FLOWS_MAX), SYN, 5001);
        assert_eq!(flows.len(), FLOWS_MAX);
        assert!(!flows.knows(flow(500), 5001), "closed goes first");
        flows.sent(flow(FLOWS_MAX + 1), SYN, 5002);
        assert!(!flows.knows(flow(0), 5002), "then the one idle for longest");
        assert!(flows.knows(flow(1), 5002));
        assert_eq!(flows.len(), FLOWS_MAX);
    }
}
