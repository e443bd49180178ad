//! Hostile bytes: every row of the table ends as it should, and harms nobody else; and whatever the bytes, nothing
//! panics and nothing grows without bound.

mod chap_support;
mod hostile;
#[path = "hostile/storm.rs"]
mod storm;
mod support;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostile::{BLOCKS, Line, Outcome, Pause, ROWS_MIN, Row, STRANGER_MAX_BYTES, Seen, bytes};
use proptest::prelude::*;
use target_core::iscsi::mailbox::Mailbox;
use target_core::iscsi::{Connection, Ended, Limits, Node};
use target_core::lun::Wait;

/// A connection whose shell does what it is there for at once.
struct Direct {
    connection: Connection,
    mailbox: Arc<Mailbox>,
    now: Instant,
    came: Vec<u8>,
}

impl Direct {
    fn new(node: &Arc<Node>) -> Self {
        let mailbox = Mailbox::new();
        let now = Instant::now();
        Self {
            connection: Connection::new(Arc::clone(node), &mailbox, support::origin(), now),
            mailbox,
            now,
            came: Vec::new(),
        }
    }

    fn pump(&mut self) {
        loop {
            let mut notices = Vec::new();
            self.mailbox.take(&mut notices);
            let mut idle = notices.is_empty();
            for notice in notices {
                self.connection.notice(self.now, notice);
            }
            while let Some(job) = self.connection.next_job() {
                idle = false;
                let finished = job.run(Wait::Allowed).expect("workers may block");
                self.connection.finished(self.now, finished);
            }
            while !self.connection.transmit().is_empty() {
                idle = false;
                let mut slices = [IoSlice::new(&[]); 16];
                let count = self.connection.transmit().gather(&mut slices);
                let before = self.came.len();
                slices[..count]
                    .iter()
                    .for_each(|slice| self.came.extend_from_slice(slice));
                let sent = self.came.len() - before;
                self.connection.sent(self.now, sent);
            }
            if idle {
                return;
            }
        }
    }
}

impl Line for Direct {
    fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            let before = rest.len();
            self.connection.receive(self.now, &mut rest);
            self.pump();
            // What is not taken although the queue is empty is not wanted any more.
            if rest.is_empty() || rest.len() == before {
                return;
            }
        }
    }

    fn receive(&mut self, into: &mut Vec<u8>, _quiet: bool) -> Result<(), Pause> {
        match (self.came.is_empty(), self.connection.ended()) {
            (false, _) => into.append(&mut self.came),
            (true, Some(_)) => return Err(Pause::Closed),
            (true, None) => return Err(Pause::Quiet),
        }
        Ok(())
    }

    /// Lets as much time pass as anything may take.
    fn outlast(&mut self, into: &mut Vec<u8>) -> Pause {
        let end = self.now + Duration::from_secs(120);
        while self.connection.ended().is_none() && self.connection.next_timeout() < end {
            self.now = self.now.max(self.connection.next_timeout());
            self.connection.timeout(self.now);
            self.pump();
        }
        into.append(&mut self.came);
        match self.connection.ended() {
            Some(ended) => {
                assert!(matches!(ended, Ended::LoginTimeout | Ended::Silent), "{ended}");
                Pause::Closed
            }
            None => Pause::Quiet,
        }
    }
}

fn play(node: &Arc<Node>, row: &Row) -> Outcome {
    let mut line = Direct::new(node);
    let outcome = hostile::play(row, &mut line);
    assert_eq!(line.connection.transmit().queued_bytes(), 0, "{}", row.name);
    assert_eq!(
        line.connection.wants_input(),
        line.connection.ended().is_none(),
        "{}",
        row.name
    );
    outcome
}

#[test]
fn every_row_of_the_table_ends_as_it_should_and_the_next_login_works() {
    assert_eq!(u64::from(BLOCKS), support::BLOCKS);
    let rows = hostile::rows();
    let refusals = rows
        .iter()
        .filter(|row| row.expected.iter().any(Seen::is_refusal))
        .count();
    assert!(
        refusals >= ROWS_MIN,
        "only {refusals} of {} rows are refused",
        rows.len()
    );

    let node = support::node(Limits::default());
    let good = hostile::good_initiator();
    let mut wrong = Vec::new();
    for row in &rows {
        let outcome = play(&node, row);
        if outcome.seen != row.expected {
            wrong.push(format!(
                "{}:\n    expected {:?}\n    seen     {:?}",
                row.name, row.expected, outcome.seen
            ));
        }
        assert!(
            outcome.stranger_bytes <= STRANGER_MAX_BYTES,
            "{}: a stranger is sent {} bytes",
            row.name,
            outcome.stranger_bytes
        );
        assert_eq!(play(&node, &good).seen, good.expected, "after {}", row.name);
        for pool in [&node.budget.window, &node.budget.transfer] {
            assert_eq!(pool.used_bytes(), 0, "after {}", row.name);
        }
        assert_eq!(node.targets()[0].session_count(), 0, "after {}", row.name);
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

#[test]
fn nobody_gets_into_a_locked_target() {
    let node = chap_support::locked_node(chap_support::credentials());
    for row in &hostile::locked::rows() {
        let outcome = play(&node, row);
        assert_eq!(outcome.seen, row.expected, "{}", row.name);
        assert!(outcome.stranger_bytes <= STRANGER_MAX_BYTES, "{}", row.name);
        assert_eq!(node.targets()[0].session_count(), 0, "after {}", row.name);
    }
}

#[test]
fn who_asks_for_much_and_takes_nothing_is_given_up() {
    let node = support::node(Limits::default());
    let mut line = Direct::new(&node);
    line.send(&bytes::login(bytes::LAST, bytes::NAMES).bytes());
    for number in 0..30 {
        let read = bytes::command(
            bytes::READ,
            number,
            bytes::FIRST + number,
            1 << 20,
            &bytes::cdb10(0x28, 0, 2048),
        );
        line.connection.receive(line.now, &mut &read.bytes()[..]);
        while let Some(job) = line.connection.next_job() {
            let finished = job.run(Wait::Allowed).expect("workers may block");
            line.connection.finished(line.now, finished);
        }
    }
    let queued = line.connection.transmit().queued_bytes();
    assert!((64 << 10..1 << 20).contains(&queued), "{queued} bytes are queued");
    let held = node.budget.transfer.used_bytes();
    assert!((1 << 20..8 << 20).contains(&held), "{held} bytes are held");
    // Half a PDU goes out, and then nothing is taken any more.
    line.connection.sent(line.now, 1000);
    while line.connection.ended().is_none() {
        line.now = line.connection.next_timeout();
        line.connection.timeout(line.now);
    }
    assert_eq!(line.connection.ended(), Some(Ended::Silent));
    assert!(
        line.connection.transmit().is_empty(),
        "a shell that waits for it to go out never ends"
    );
    line.connection
        .receive(line.now, &mut &bytes::nop(1, bytes::NO_TAG).bytes()[..]);
    assert!(line.connection.transmit().is_empty(), "something follows half a PDU");
    drop(line);
    assert_eq!(node.budget.transfer.used_bytes(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("FARLUN_SOAK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
    ))]

    #[test]
    fn whatever_comes_nothing_panics_and_nothing_grows(login in any::<u8>(), life in prop::collection::vec(any::<u8>(), 1..4000)) {
        let bytes = [&[login][..], &life].concat();
        storm::storm(&bytes);
    }
}
