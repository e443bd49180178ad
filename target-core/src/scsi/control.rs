//! Commands about the unit, not its blocks, that need data from the initiator or may wait: MODE SELECT, PERSISTENT
//! RESERVE OUT and the like.

use super::execute::{Action, Job, Outcome};
use super::request::{Plan, Request, padded};

/// Such a command, ready to run once its parameter list is here.
#[derive(Debug)]
pub(super) struct Control {
    cdb: [u8; 16],
    data_out_bytes: u32,
    data_in_bytes: u32,
    ports: Vec<u16>,
    run: fn(&Job<'_>, &Control) -> Outcome,
}

impl Control {
    /// A plan to call `run` with as much data from the initiator as said. It answers no more than `data_in_bytes`.
    pub(super) fn plan(
        request: &Request<'_>,
        data_out_bytes: u32,
        data_in_bytes: u32,
        run: fn(&Job<'_>, &Control) -> Outcome,
    ) -> Plan {
        Plan::Run(Action::Control(Self {
            cdb: padded(request.cdb),
            data_out_bytes,
            data_in_bytes,
            ports: Vec::new(),
            run,
        }))
    }

    /// The same for a command that has to know the relative identifiers of all target ports.
    pub(super) fn plan_with_ports(
        request: &Request<'_>,
        data_out_bytes: u32,
        ports: Vec<u16>,
        run: fn(&Job<'_>, &Control) -> Outcome,
    ) -> Plan {
        Plan::Run(Action::Control(Self {
            cdb: padded(request.cdb),
            data_out_bytes,
            data_in_bytes: 0,
            ports,
            run,
        }))
    }

    /// The CDB, zeroes behind it.
    pub(super) fn cdb(&self) -> &[u8; 16] {
        &self.cdb
    }

    /// Relative identifiers of the target ports.
    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub(super) fn data_out_bytes(&self) -> u64 {
        u64::from(self.data_out_bytes)
    }

    pub(super) fn data_in_bytes(&self) -> u64 {
        u64::from(self.data_in_bytes)
    }

    pub(super) fn run(&self, job: &Job<'_>) -> Outcome {
        (self.run)(job, self)
    }
}
