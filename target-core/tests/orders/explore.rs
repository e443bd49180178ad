//! Walking through every sequence of choices, and the numbers of an answer.

use iscsi_pdu::{RESERVED_TAG, Response, Serial};

/// What is chosen where there is a choice.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// What was taken, of how many.
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    /// One of `count`.
    pub(super) fn choose(&mut self, count: usize) -> usize {
        if self.at == self.path.len() {
            self.path.push((0, count));
        }
        let (taken, of) = self.path[self.at];
        assert_eq!(of, count, "the same choices lead to the same place");
        self.at += 1;
        taken
    }

    /// Goes on to the next sequence; `false` when there is none.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((taken, of)) = self.path.pop() {
            if taken + 1 < of {
                self.path.push((taken + 1, of));
                return true;
            }
        }
        false
    }
}

/// Says what was chosen when a run fails.
struct Witness<'a>(&'a mut Choices);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let taken: Vec<usize> = self.0.path.iter().map(|(taken, _)| *taken).collect();
            eprintln!("the order that failed: {taken:?}");
        }
    }
}

/// Runs with every sequence of choices. Returns how many there were.
pub(super) fn explore(mut run: impl FnMut(&mut Choices)) -> u64 {
    let mut choices = Choices::default();
    let mut runs = 0;
    loop {
        let witness = Witness(&mut choices);
        run(&mut *witness.0);
        drop(witness);
        runs += 1;
        if !choices.advance() {
            return runs;
        }
    }
}

/// What every answer carries.
pub(super) struct Numbers {
    pub(super) stat_sn: Option<Serial>,
    /// Whether the next one has the next StatSN.
    pub(super) is_counted: bool,
    pub(super) exp_cmd_sn: Serial,
    pub(super) max_cmd_sn: Serial,
}

pub(super) fn numbers(response: &Response) -> Numbers {
    let (stat_sn, is_counted, exp_cmd_sn, max_cmd_sn) = match response {
        Response::NopIn(pdu) => (
            Some(pdu.stat_sn),
            pdu.itt != RESERVED_TAG,
            pdu.exp_cmd_sn,
            pdu.max_cmd_sn,
        ),
        Response::ScsiResponse(pdu) => (Some(pdu.stat_sn), true, pdu.exp_cmd_sn, pdu.max_cmd_sn),
        Response::TaskManagement(pdu) => (Some(pdu.stat_sn), true, pdu.exp_cmd_sn, pdu.max_cmd_sn),
        Response::DataIn(pdu) => {
            let stat_sn = pdu.status.as_ref().map(|status| status.stat_sn);
            (stat_sn, true, pdu.exp_cmd_sn, pdu.max_cmd_sn)
        }
        Response::R2t(pdu) => (Some(pdu.stat_sn), false, pdu.exp_cmd_sn, pdu.max_cmd_sn),
        Response::Reject(pdu) => (Some(pdu.stat_sn), true, pdu.exp_cmd_sn, pdu.max_cmd_sn),
        other => panic!("unexpected {other:?}"),
    };
    Numbers {
        stat_sn,
        is_counted,
        exp_cmd_sn,
        max_cmd_sn,
    }
}

pub(super) fn itt(response: &Response) -> u32 {
    match response {
        Response::NopIn(pdu) => pdu.itt,
        Response::R2t(pdu) => pdu.itt,
        other => super::support::answers::itt(other),
    }
}
