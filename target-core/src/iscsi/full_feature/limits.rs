//! How fast the commands of a session may begin: its own limit, and those of its LUNs.

use std::sync::Arc;
use std::time::Instant;

use crate::iscsi::mailbox::Sender;
use crate::iscsi::shape::{Gate, Shaper};

/// The gates that commands go through before they begin. Those of LUNs are made when they are needed: nearly
/// no LUN has a limit.
#[derive(Debug)]
pub(super) struct Gates {
    session: Option<Gate>,
    luns: Vec<([u8; 8], Gate)>,
    mailbox: Sender,
}

impl Gates {
    pub(super) fn new(session: Option<&Arc<Shaper>>, mailbox: Sender) -> Self {
        Self {
            session: session.map(|shaper| Gate::new(shaper, mailbox.clone())),
            luns: Vec::new(),
            mailbox,
        }
    }

    /// Whether a command of so many bytes may begin as far as its LUN goes; if so, it is charged for.
    pub(super) fn pass_lun(&mut self, lun: [u8; 8], shaper: &Arc<Shaper>, now: Instant, bytes: u64) -> bool {
        if !shaper.is_limited() {
            return true;
        }
        let index = self.luns.iter().position(|(other, _)| *other == lun);
        let index = index.unwrap_or_else(|| {
            self.luns.push((lun, Gate::new(shaper, self.mailbox.clone())));
            self.luns.len() - 1
        });
        let gate = &mut self.luns[index].1;
        if !gate.is_of(shaper) {
            *gate = Gate::new(shaper, self.mailbox.clone());
        }
        gate.pass(now, bytes)
    }

    /// The same as far as the session goes.
    pub(super) fn pass_session(&mut self, now: Instant, bytes: u64) -> bool {
        self.session.as_mut().is_none_or(|gate| gate.pass(now, bytes))
    }

    /// When some command may have to wait no longer.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref().and_then(Gate::shut_until);
        let luns = self.luns.iter().filter_map(|(_, gate)| gate.shut_until());
        luns.chain(session).min()
    }

    /// Opens the gates whose time has come: who wants to go through asks again.
    pub(super) fn timeout(&mut self, now: Instant) {
        for gate in self.all() {
            if gate.shut_until().is_some_and(|until| until <= now) {
                gate.reopen();
            }
        }
    }

    /// The limits are others now.
    pub(super) fn reopen(&mut self) {
        self.all().for_each(Gate::reopen);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Gate> {
        self.luns.iter_mut().map(|(_, gate)| gate).chain(&mut self.session)
    }
}
