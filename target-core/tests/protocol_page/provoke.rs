//! Provoking each sense code that a command can end with.

use target_core::scsi::{LogicalUnit, Nexus, Response, Status};

use crate::faults::{Fault, broken};
use crate::page::Sense;
use crate::samples::{self, EJECT, REGISTRANTS_ONLY};
use crate::scsi_support::gate::Gate;
use crate::scsi_support::{
    self, cdb_10, cdb_16, device, good, identity, read_10, run, sense, unmap_cdb, unmap_list, write_10,
};
use crate::support::{self, Direction, Wire, answers};
use crate::units::{self, BLOCKS, Kind};

/// Provokes a sense code; `None` where nobody knows how.
pub fn provoke(code: Sense) -> Option<Sense> {
    let thin = || Kind::Thin.nexus();
    let response = match code {
        (0x00, 0x00, 0x00) => {
            let data = good(&thin(), &[0x03, 0, 0, 0, 18, 0], &[]);
            return Some((data[2] & 0x0F, data[12], data[13]));
        }
        (0x02, 0x04, 0x1B) => sanitizing(),
        (0x02, 0x04, 0x12) => {
            let device = Kind::Thin.device();
            let nexus = units::attach(&device);
            drop(nexus);
            drop(device.set_offline(0).expect("nobody has it"));
            let nexus = device
                .attach(scsi_support::INITIATOR, scsi_support::PORT)
                .expect("nobody else");
            run(&nexus, &[0; 6], &[])
        }
        (0x02, 0x3A, 0x00) => {
            let nexus = Kind::Removable.nexus();
            good(&nexus, &EJECT, &[]);
            run(&nexus, &read_10(0, 1), &[])
        }
        (0x03, 0x0C, 0x00) => run(&broken(Fault::Broken), &write_10(0, 1), &[0; 512]),
        (0x03, 0x11, 0x00) => run(&broken(Fault::Broken), &read_10(0, 1), &[]),
        (0x03, 0x31, 0x03) => {
            let nexus = broken(Fault::Broken);
            let mut and_wait = samples::OVERWRITE.0;
            and_wait[1] &= 0x7F;
            run(&nexus, &and_wait, &samples::OVERWRITE.1);
            run(&nexus, &[0; 6], &[])
        }
        (0x05, 0x0E, 0x03) => run(&thin(), &cdb_10(0x41, 0, 0, 1), &[0; 100]),
        (0x05, 0x1A, 0x00) => run(&thin(), &cdb_10(0x42, 0, 0, 4), &[0; 4]),
        (0x05, 0x20, 0x00) => run(&thin(), &[0xFF; 16], &[]),
        (0x05, 0x21, 0x00) => run(&thin(), &read_10(BLOCKS as u32, 1), &[]),
        (0x05, 0x24, 0x00) => run(&thin(), &cdb_10(0x28, 0x20, 0, 1), &[]),
        (0x05, 0x25, 0x00) => scsi_support::run_at(&thin(), [0, 9, 0, 0, 0, 0, 0, 0], &read_10(0, 1), &[]),
        (0x05, 0x26, 0x00) => {
            let too_many = unmap_list(&[(0, 1); 257]);
            run(&thin(), &unmap_cdb(&too_many), &too_many)
        }
        (0x05, 0x26, 0x04) => wrong_release(),
        (0x05, 0x39, 0x00) => run(&thin(), &[0x1A, 0, 0xC8, 0, 252, 0], &[]),
        (0x05, 0x53, 0x02) => {
            let nexus = Kind::Removable.nexus();
            good(&nexus, &[0x1E, 0, 0, 0, 0x01, 0], &[]);
            run(&nexus, &EJECT, &[])
        }
        (0x05, 0x55, 0x04) => too_many_registrations(),
        (0x05, 0x26, 0x06) => copy(&[samples::copy_list()[16..48].repeat(17)], &[]),
        (0x05, 0x26, 0x07) => copy(&[changed(16, 0, 0xE0)], &[]),
        (0x05, 0x26, 0x08) => copy(&[], &[samples::copy_list()[48..].repeat(17)]),
        (0x05, 0x26, 0x09) => copy(&[], &[changed(48, 0, 0x01)]),
        (0x05, 0x26, 0x0B) => {
            let mut inline = samples::copy_list();
            inline[15] = 1;
            let (cdb, data) = samples::copy(&inline);
            run(&Kind::CopyOffload.nexus(), &cdb, &data)
        }
        (0x0A, 0x00, 0x00) => copy(&[changed(16, 0, 0xE4)], &[changed(48, 12, 0x7F)]),
        (0x0A, 0x08, 0x04) => copy(&[changed(16, 0, 0xE4)], &[changed(48, 5, 9)]),
        (0x0A, 0x0D, 0x02) => copy(&[changed(16, 1, 0x20)], &[changed(48, 0, 0x02)]),
        (0x07, 0x27, 0x00) => run(&Kind::ReadOnly.nexus(), &write_10(0, 1), &[0; 512]),
        (0x07, 0x27, 0x02) => {
            let nexus = thin();
            write_protect(&nexus);
            run(&nexus, &write_10(0, 1), &[0; 512])
        }
        (0x07, 0x27, 0x07) => run(&broken(Fault::Full), &write_10(0, 1), &[0; 512]),
        (0x0B, 0x0C, 0x0C) => return Some(unasked_data()),
        (0x0B, 0x0C, 0x0D) => return Some(wrong_amount_of_data()),
        (0x0B, 0x47, 0x05) => return Some(bad_data_digest()),
        (0x0E, 0x1D, 0x00) => run(&thin(), &cdb_16(0x8F, 0x02, 0, 1), &[0xFF; 512]),
        _ => return None,
    };
    Some(sense(&response))
}

/// The descriptor at this place of the samples' copy, with one byte changed.
fn changed(from: usize, at: usize, byte: u8) -> Vec<u8> {
    let list = samples::copy_list();
    let mut descriptor = list[from..if from == 16 { 48 } else { list.len() }].to_vec();
    descriptor[at] = byte;
    descriptor
}

/// EXTENDED COPY with these CSCD and segment descriptors.
fn copy(targets: &[Vec<u8>], segments: &[Vec<u8>]) -> Response {
    let (targets, segments) = (targets.concat(), segments.concat());
    let mut list = samples::copy_list();
    list.truncate(16);
    list[2..4].copy_from_slice(&(targets.len() as u16).to_be_bytes());
    list[8..12].copy_from_slice(&(segments.len() as u32).to_be_bytes());
    let (cdb, data) = samples::copy(&[list, targets, segments].concat());
    run(&Kind::CopyOffload.nexus(), &cdb, &data)
}

/// A read while the writes of SANITIZE stand at a gate.
fn sanitizing() -> Response {
    let gate = Gate::new(BLOCKS);
    gate.shut();
    let unit = LogicalUnit::shared(gate.clone(), identity());
    let nexus = units::attach(&device([(0, unit)]));
    good(&nexus, &samples::OVERWRITE.0, &samples::OVERWRITE.1);
    gate.wait_for(1);
    let response = run(&nexus, &read_10(0, 1), &[]);
    gate.open();
    response
}

/// Sets SWP in the control mode page (SPC-5 7.5.9).
pub fn write_protect(nexus: &Nexus) {
    let list = [0, 0, 0, 0, 0x0A, 0x0A, 0, 0x10, 0x08, 0x40, 0, 0, 0, 0, 0, 0];
    good(nexus, &[0x15, 0x10, 0, 0, list.len() as u8, 0], &list);
}

/// RELEASE of another type than is held.
fn wrong_release() -> Response {
    let nexus = Kind::Thin.nexus();
    for (cdb, data) in [samples::register(), samples::reserve(REGISTRANTS_ONLY)] {
        good(&nexus, &cdb, &data);
    }
    let (_, data) = samples::reserve(REGISTRANTS_ONLY);
    run(&nexus, &[0x5F, 0x02, 0x01, 0, 0, 0, 0, 0, 24, 0], &data)
}

/// Registrations under ever new ports until there is no room.
fn too_many_registrations() -> Response {
    let device = Kind::Thin.device();
    let (cdb, data) = samples::register();
    for number in 0..100_000 {
        let nexus = device
            .attach(scsi_support::INITIATOR, &format!("port {number}"))
            .expect("shared");
        units::settle(&nexus);
        let response = run(&nexus, &cdb, &data);
        if response.status != Status::Good {
            return response;
        }
    }
    panic!("registrations without bound");
}

fn scsi_sense(wire: &mut Wire) -> Sense {
    let at = wire
        .answers
        .iter()
        .position(|(response, _)| matches!(response, iscsi_pdu::Response::ScsiResponse(_)))
        .expect("a SCSI response");
    answers::sense(wire.answers.remove(at).expect("it is there"))
}

fn unasked_data() -> Sense {
    let node = support::node(target_core::iscsi::Limits::default());
    let mut wire = Wire::logged_in(&node, &[("ImmediateData", "No")]);
    let command = wire.command(&write_10(0, 1), Direction::Write, 512);
    wire.send(&command, &[0; 512]);
    scsi_sense(&mut wire)
}

/// The last Data-Out of an R2T comes too early.
fn wrong_amount_of_data() -> Sense {
    let node = support::node(target_core::iscsi::Limits::default());
    let mut wire = Wire::logged_in(&node, &[]);
    let command = wire.command(&write_10(0, 2), Direction::Write, 1024);
    wire.send(&command, &[]);
    let r2t = answers::r2t(wire.next());
    wire.data_out(command.itt, r2t.ttt, 0, 0, true, &[0; 512]);
    scsi_sense(&mut wire)
}

fn bad_data_digest() -> Sense {
    let node = support::node(target_core::iscsi::Limits::default());
    let mut wire = Wire::logged_in(&node, &[("DataDigest", "CRC32C")]);
    let command = wire.command(&write_10(0, 1), Direction::Write, 512);
    let mut bytes = Vec::new();
    wire.framing.pdu(&command, &[0; 512], &mut bytes);
    let last = bytes.len() - 1;
    bytes[last] ^= 0xFF;
    wire.send_bytes(&bytes);
    scsi_sense(&mut wire)
}
