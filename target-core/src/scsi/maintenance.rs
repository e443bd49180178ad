//! MAINTENANCE IN: target port groups and task management functions (SPC-5 6.37, 6.41).

use super::request::{Planned, Request, answer, be32};
use super::sense::Sense;
use super::vpd::TARGET_PORT_GROUP;

/// AO_SUP: ports can be active/optimized, and in no other state.
const ACTIVE_OPTIMIZED_SUPPORTED: u8 = 0x01;
/// ASYMMETRIC ACCESS STATE active/optimized.
const ACTIVE_OPTIMIZED: u8 = 0x00;

/// What [`FullFeature`](crate::iscsi) carries out, as bits of bytes 0 and 1 of the answer: ABORT TASK, ABORT TASK SET,
/// CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK, and target resets (TRS); QUERY TASK SET. No ACA, no wakeup, no I_T
/// NEXUS RESET.
const TASK_MANAGEMENT: [u8; 2] = [0x80 | 0x40 | 0x10 | 0x08 | 0x04 | 0x02, 0x02];

/// REPORT TARGET PORT GROUPS: one group of all ports, active/optimized.
pub(super) fn target_port_groups(request: &Request<'_>) -> Planned {
    let ports = request.nexus.target_ports();
    let [high, low] = TARGET_PORT_GROUP.to_be_bytes();
    let mut groups = vec![
        ACTIVE_OPTIMIZED,
        ACTIVE_OPTIMIZED_SUPPORTED,
        high,
        low,
        0,
        // STATUS CODE: nothing has changed the state.
        0,
        0,
        u8::try_from(ports.len()).unwrap_or(u8::MAX),
    ];
    for port in ports.iter().take(usize::from(u8::MAX)) {
        let [high, low] = port.to_be_bytes();
        groups.extend_from_slice(&[0, 0, high, low]);
    }
    // PARAMETER DATA FORMAT.
    let header = match request.cdb[1] >> 5 {
        0b000 => Vec::new(),
        // Extended: FORMAT TYPE 1; the IMPLICIT TRANSITION TIME is that of states that never change.
        0b001 => vec![0x10, 0, 0, 0],
        _ => return Err(Sense::cdb_field(1, 7)),
    };
    let body = [header, groups].concat();
    let mut data = (body.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(&body);
    answer(data, be32(request.cdb, 6))
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
pub(super) fn task_management_functions(request: &Request<'_>) -> Planned {
    let [first, second] = TASK_MANAGEMENT;
    let mut data = vec![first, second, 0, 0];
    // REPD: with timeouts, which we do not name.
    if request.cdb[2] & 0x80 != 0 {
        data[3] = 0x0C;
        data.extend_from_slice(&[0; 12]);
    }
    answer(data, be32(request.cdb, 6))
}
