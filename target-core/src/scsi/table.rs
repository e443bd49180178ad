//! The one table of commands: it drives dispatch, the check of reserved bits, and what is reported about them.

use super::mode::{self, select};
use super::request::{Planned, Request};
use super::reserve::out;
use super::sense::Sense;
use super::unit::LogicalUnit;
use super::{
    absent, atomic, block, compare, copy, inquiry, limits, opcodes, provision, reserve, sanitize, simple, upkeep,
};

/// Operation code of UNMAP.
const UNMAP: u8 = 0x42;

/// Who may send a command, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everyone, at any time, whatever unit attention is pending (SPC-5 5.14).
    Always,
    /// Everyone, once unit attentions have been reported; RESERVE (6) alone forbids it.
    Harmless,
    /// Everyone, even while another holds the unit.
    Release,
    /// Who is admitted to the LUN; the command looks at reservations itself.
    Reserve,
    /// Who is admitted to the LUN and allowed to read.
    Read,
    /// Who is admitted to the LUN and allowed to write.
    Write,
}

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) opcode: u8,
    /// In the low five bits of byte 1, where the operation code needs one.
    pub(super) service_action: Option<u8>,
    /// CDB usage data (SPC-5 6.35.3): which bits are looked at. Its length is that of the CDB.
    pub(super) usage: &'static [u8],
    pub(super) access: Access,
    pub(super) plan: fn(&Request<'_>) -> Planned,
}

/// NACA, the one bit of CONTROL that is looked at, in order to refuse it (SAM-6 5.2).
const CONTROL: u8 = 0x04;
/// GROUP NUMBER: accepted and, without group statistics, of no effect (SBC-4 5.13).
const GROUP: u8 = 0x1F;
/// Protection bits, DPO and BYTCHK, in byte 1 of VERIFY and WRITE AND VERIFY.
const VERIFY: u8 = 0xF6;
/// Protection bits, DPO and FUA, in byte 1 of READ and WRITE.
const FLAGS: u8 = 0xF8;

const fn command(opcode: u8, access: Access, usage: &'static [u8], plan: fn(&Request<'_>) -> Planned) -> Command {
    Command {
        opcode,
        service_action: None,
        usage,
        access,
        plan,
    }
}

const fn service(
    opcode: u8,
    service_action: u8,
    access: Access,
    usage: &'static [u8],
    plan: fn(&Request<'_>) -> Planned,
) -> Command {
    Command {
        opcode,
        service_action: Some(service_action),
        usage,
        access,
        plan,
    }
}

use Access::{Always, Harmless, Read, Release, Reserve, Write};

/// In the order of operation codes.
#[rustfmt::skip]
static COMMANDS: &[Command] = &[
    command(0x00, Harmless, &[0x00, 0, 0, 0, 0, CONTROL], simple::test_unit_ready),
    command(0x03, Always, &[0x03, 0x01, 0, 0, 0xFF, CONTROL], simple::request_sense),
    command(0x08, Read, &[0x08, 0x1F, 0xFF, 0xFF, 0xFF, CONTROL], block::read),
    command(0x0A, Write, &[0x0A, 0x1F, 0xFF, 0xFF, 0xFF, CONTROL], block::write),
    command(0x12, Always, &[0x12, 0x01, 0xFF, 0xFF, 0xFF, CONTROL], inquiry::inquiry),
    command(0x15, Write, &[0x15, 0x11, 0, 0, 0xFF, CONTROL], select::plan_6),
    command(0x16, Reserve, &[0x16, 0, 0, 0, 0, CONTROL], reserve::reserve_6),
    command(0x17, Release, &[0x17, 0, 0, 0, 0, CONTROL], reserve::release_6),
    command(0x1A, Write, &[0x1A, 0x08, 0xFF, 0xFF, 0xFF, CONTROL], mode::sense_6),
    command(0x1B, Harmless, &[0x1B, 0x01, 0, 0x0F, 0xF7, CONTROL], simple::start_stop_unit),
    command(0x1C, Write, &[0x1C, 0x01, 0xFF, 0xFF, 0xFF, CONTROL], super::diagnose::receive),
    command(0x1D, Write, &[0x1D, 0xF7, 0, 0xFF, 0xFF, CONTROL], super::diagnose::send),
    command(0x1E, Harmless, &[0x1E, 0, 0, 0, 0x03, CONTROL], simple::prevent_allow),
    command(0x25, Harmless, &[0x25, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0x01, CONTROL], block::read_capacity_10),
    command(0x28, Read, &[0x28, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, CONTROL], block::read),
    command(0x2A, Write, &[0x2A, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, CONTROL], block::write),
    command(0x2E, Write, &[0x2E, VERIFY, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, CONTROL], compare::plan_write_and_verify),
    command(0x2F, Read, &[0x2F, VERIFY, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, CONTROL], compare::plan_verify),
    command(0x34, Read, &[0x34, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, CONTROL], compare::prefetch),
    command(0x35, Write, &[0x35, 0x06, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, CONTROL], block::synchronize_cache),
    command(0x37, Read, &[0x37, 0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], simple::read_defect_data),
    command(0x41, Write, &[0x41, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, 0xFF, 0xFF, CONTROL], provision::plan_write_same),
    command(0x42, Write, &[0x42, 0x01, 0, 0, 0, 0, GROUP, 0xFF, 0xFF, CONTROL], provision::plan_unmap),
    service(0x48, sanitize::OVERWRITE, Write, &[0x48, 0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], sanitize::plan),
    service(0x48, sanitize::BLOCK_ERASE, Write, &[0x48, 0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], sanitize::plan),
    service(0x48, sanitize::EXIT_FAILURE_MODE, Write, &[0x48, 0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], sanitize::plan),
    command(0x4C, Write, &[0x4C, 0x03, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, CONTROL], super::log::select),
    command(0x4D, Harmless, &[0x4D, 0x01, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], super::log::sense),
    command(0x55, Write, &[0x55, 0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], select::plan_10),
    command(0x5A, Write, &[0x5A, 0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, CONTROL], mode::sense_10),
    service(0x5E, 0x00, Harmless, &[0x5E, 0x1F, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], reserve::read_keys),
    service(0x5E, 0x01, Harmless, &[0x5E, 0x1F, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], reserve::read_reservation),
    service(0x5E, 0x02, Harmless, &[0x5E, 0x1F, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], reserve::report_capabilities),
    service(0x5E, 0x03, Harmless, &[0x5E, 0x1F, 0, 0, 0, 0, 0, 0xFF, 0xFF, CONTROL], reserve::read_full_status),
    service(0x5F, 0x00, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x5F, 0x01, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x5F, 0x02, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x5F, 0x03, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x5F, 0x04, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x5F, 0x05, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x5F, 0x06, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x5F, 0x07, Reserve, &[0x5F, 0x1F, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, CONTROL], out::plan),
    service(0x83, 0x00, Write, &[0x83, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], copy::plan),
    service(0x84, copy::report::COPY_STATUS, Read, &[0x84, 0x1F, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], copy::report::copy_status),
    service(0x84, copy::report::OPERATING_PARAMETERS, Read, &[0x84, 0x1F, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], copy::report::operating_parameters),
    command(0x88, Read, &[0x88, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], block::read),
    command(0x89, Write, &[0x89, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0xFF, GROUP, CONTROL], compare::plan_compare_and_write),
    command(0x8A, Write, &[0x8A, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], block::write),
    command(0x8B, Write, &[0x8B, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], compare::plan_or_write),
    command(0x8E, Write, &[0x8E, VERIFY, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], compare::plan_write_and_verify),
    command(0x8F, Read, &[0x8F, VERIFY, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], compare::plan_verify),
    command(0x90, Read, &[0x90, 0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], compare::prefetch),
    command(0x91, Write, &[0x91, 0x06, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], block::synchronize_cache),
    command(0x93, Write, &[0x93, 0xF9, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], provision::plan_write_same),
    command(0x9C, Write, &[0x9C, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], atomic::plan),
    service(0x9E, 0x10, Harmless, &[0x9E, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, CONTROL], block::read_capacity_16),
    service(0x9E, 0x12, Read, &[0x9E, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], provision::plan_lba_status),
    command(0xA0, Always, &[0xA0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], absent::report_luns),
    service(0xA3, 0x0A, Harmless, &[0xA3, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], super::maintenance::target_port_groups),
    service(0xA3, 0x0C, Write, &[0xA3, 0x1F, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], opcodes::report),
    service(0xA3, 0x0D, Write, &[0xA3, 0x1F, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], super::maintenance::task_management_functions),
    command(0xA8, Read, &[0xA8, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], block::read),
    command(0xAA, Write, &[0xAA, FLAGS, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], block::write),
    command(0xAE, Write, &[0xAE, VERIFY, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], compare::plan_write_and_verify),
    command(0xAF, Read, &[0xAF, VERIFY, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, GROUP, CONTROL], compare::plan_verify),
    command(0xB7, Read, &[0xB7, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, CONTROL], simple::read_defect_data),
];

/// Index of the first command of each operation code, 0xFF where there is none.
static INDEX: [u8; 256] = index();

const fn index() -> [u8; 256] {
    let mut table = [0xFF; 256];
    let mut at = COMMANDS_LENGTH;
    while at > 0 {
        at -= 1;
        table[COMMANDS[at].opcode as usize] = at as u8;
    }
    table
}
const COMMANDS_LENGTH: usize = COMMANDS.len();

/// Every command there is.
pub(super) fn all() -> &'static [Command] {
    COMMANDS
}

/// Whether a unit offers a command: UNMAP needs a medium that can deallocate.
pub(super) fn is_offered(command: &Command, unit: &LogicalUnit) -> bool {
    match (command.opcode, command.service_action) {
        (UNMAP, _) => limits::offers_unmap(unit),
        (upkeep::SANITIZE, Some(action)) => sanitize::is_offered(unit, action),
        (atomic::WRITE_ATOMIC, _) => atomic::is_offered(unit),
        (copy::EXTENDED_COPY | copy::RECEIVE_COPY_RESULTS, _) => copy::is_offered(unit),
        _ => true,
    }
}

/// The command a CDB names.
pub(super) fn find(cdb: &[u8]) -> Result<&'static Command, Sense> {
    let &opcode = cdb.first().ok_or(Sense::INVALID_OPCODE)?;
    let first = usize::from(INDEX[usize::from(opcode)]);
    let candidates = COMMANDS.get(first..).ok_or(Sense::INVALID_OPCODE)?;
    for command in candidates.iter().take_while(|command| command.opcode == opcode) {
        match command.service_action {
            Some(action) if cdb.get(1).is_none_or(|byte| byte & 0x1F != action) => {}
            _ => return Ok(command),
        }
    }
    // The operation code is known, its service action is not.
    Err(Sense::cdb_field(1, 4))
}

impl Command {
    /// The CDB cut to its length, with no bit set that the command does not look at (SPC-5 4.2.5: reserved).
    pub(super) fn check<'a>(&self, cdb: &'a [u8]) -> Result<&'a [u8], Sense> {
        let cdb = cdb
            .get(..self.usage.len())
            .ok_or(Sense::cdb_field(cdb.len() as u16, 7))?;
        for (at, (&byte, &used)) in cdb.iter().zip(self.usage).enumerate().skip(1) {
            let refused = byte & !used;
            if refused != 0 {
                return Err(Sense::cdb_field(at as u16, refused.ilog2() as u8));
            }
        }
        if cdb[cdb.len() - 1] & CONTROL != 0 {
            return Err(Sense::cdb_field(cdb.len() as u16 - 1, 2));
        }
        Ok(cdb)
    }
}
