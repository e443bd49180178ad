//! Vital product data (SPC-5 7.7): who the unit is and by which ports it is reached. What the pages say about limits
//! is in [`limits`].

use super::inquiry::{ascii, padded};
use super::ports::TargetPort;
use super::request::Request;
use super::sense::{MAX_SENSE_BYTES, Sense};
use super::unit::LogicalUnit;
use super::{Identity, copy, limits, sanitize};
use crate::lun::WriteCache;

/// The pages there are, in order.
const PAGES: [u8; 9] = [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0xB0, 0xB1, 0xB2];

/// Third-party copy (SPC-4 7.8.17), where it is offered.
const THIRD_PARTY_COPY: u8 = 0x8F;

/// The one target port group: every port leads to every block in the same way.
pub(super) const TARGET_PORT_GROUP: u16 = 1;

/// A page with its header.
pub(super) fn page(request: &Request<'_>, code: u8) -> Result<Vec<u8>, Sense> {
    let unit = request.unit;
    let body = match code {
        0x00 => {
            let mut pages = PAGES.to_vec();
            if copy::is_offered(unit) {
                pages.push(THIRD_PARTY_COPY);
                pages.sort_unstable();
            }
            pages
        }
        THIRD_PARTY_COPY if copy::is_offered(unit) => copy::report::third_party_copy(unit),
        0x80 => ascii(&unit.identity().serial, 36),
        0x83 => identification(request),
        0x86 => extended_inquiry(request),
        0x87 => mode_page_policy(),
        0x88 => scsi_ports(request),
        0xB0 => limits::block_limits(unit),
        0xB1 => characteristics(unit),
        0xB2 => limits::provisioning(unit),
        _ => return Err(Sense::cdb_field(2, 7)),
    };
    let mut page = vec![0x00, code];
    page.extend_from_slice(&(body.len() as u16).to_be_bytes());
    page.extend_from_slice(&body);
    Ok(page)
}

/// What a designator names (SPC-5 table 487, ASSOCIATION).
#[derive(Clone, Copy)]
#[repr(u8)]
enum Association {
    LogicalUnit = 0x00,
    TargetPort = 0x10,
    TargetDevice = 0x20,
}

/// Code sets (SPC-5 table 26).
const BINARY: u8 = 0x1;
const ASCII: u8 = 0x2;
const UTF8: u8 = 0x3;
/// Designator types (SPC-5 table 488).
const T10_VENDOR: u8 = 0x1;
const NAA: u8 = 0x3;
const RELATIVE_PORT: u8 = 0x4;
const PORT_GROUP: u8 = 0x5;
const NAME_STRING: u8 = 0x8;

/// A designation descriptor (SPC-5 7.7.6.1); ports and devices carry the protocol, iSCSI, along (PIV).
fn designator(association: Association, code_set: u8, kind: u8, designator: &[u8]) -> Vec<u8> {
    let (protocol, piv) = match association {
        Association::LogicalUnit => (0x00, 0x00),
        Association::TargetPort | Association::TargetDevice => (0x50, 0x80),
    };
    let mut bytes = vec![
        protocol | code_set,
        piv | association as u8 | kind,
        0,
        designator.len() as u8,
    ];
    bytes.extend_from_slice(designator);
    bytes
}

/// A SCSI name string: UTF-8, ended by a zero and padded to four bytes (SPC-5 7.7.6.11).
fn name_string(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    // An iSCSI name has at most 223 bytes (RFC 7143 §4.2.7.1) and fits with its tag.
    bytes.truncate(251);
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Device identification (SPC-5 7.7.6): of the logical unit an NAA locally assigned and a T10 vendor ID designator,
/// of the port that is asked its number, its group and its name, and the name of the target.
fn identification(request: &Request<'_>) -> Vec<u8> {
    let identity = request.unit.identity();
    let port = request.nexus.target_port();
    let t10 = [
        padded::<8>(&identity.vendor).to_vec(),
        padded::<16>(&identity.product).to_vec(),
        ascii(&identity.serial, 36),
    ]
    .concat();
    let [high, low] = port.relative().to_be_bytes();
    let [group_high, group_low] = TARGET_PORT_GROUP.to_be_bytes();
    use Association::{LogicalUnit, TargetDevice, TargetPort};
    [
        designator(LogicalUnit, BINARY, NAA, &naa_locally_assigned(&identity.serial)),
        designator(LogicalUnit, ASCII, T10_VENDOR, &t10),
        designator(TargetPort, BINARY, RELATIVE_PORT, &[0, 0, high, low]),
        designator(TargetPort, BINARY, PORT_GROUP, &[0, 0, group_high, group_low]),
        designator(TargetPort, UTF8, NAME_STRING, &name_string(&port.name())),
        designator(TargetDevice, UTF8, NAME_STRING, &name_string(port.target())),
    ]
    .concat()
}

/// Extended INQUIRY data (SPC-5 7.7.7): no protection information, no firmware; task attributes count within a session.
fn extended_inquiry(request: &Request<'_>) -> Vec<u8> {
    let mut body = vec![0; 60];
    // HEADSUP, ORDSUP, SIMPSUP.
    body[1] = 0x07;
    if request.unit.properties().write_cache == WriteCache::WriteBack {
        // V_SUP: there is a volatile cache.
        body[2] = 0x01;
    }
    body[9] = MAX_SENSE_BYTES;
    body
}

/// Mode page policy (SPC-5 7.7.10): all pages and subpages shared, not affecting other logical units.
fn mode_page_policy() -> Vec<u8> {
    vec![0x3F, 0xFF, 0x00, 0x00]
}

/// Block device characteristics (SBC-4 6.6.2): a medium that does not rotate.
fn characteristics(unit: &LogicalUnit) -> Vec<u8> {
    let mut body = vec![0; 60];
    body[1] = 0x01;
    // WABEREQ 01b: after BLOCK ERASE blocks can be read without having been written.
    if sanitize::is_offered(unit, sanitize::BLOCK_ERASE) {
        body[3] = 0x40;
    }
    body
}

/// SCSI ports (SPC-5 7.7.15): every target port with its name; initiator ports are not ours.
fn scsi_ports(request: &Request<'_>) -> Vec<u8> {
    let target = request.nexus.target_port().target();
    let mut body = Vec::new();
    for tag in request.nexus.target_ports() {
        let name = name_string(&TargetPort::new(target, tag).name());
        let descriptors = designator(Association::TargetPort, UTF8, NAME_STRING, &name);
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&tag.to_be_bytes());
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&(descriptors.len() as u16).to_be_bytes());
        body.extend_from_slice(&descriptors);
    }
    body
}

/// Whether a designator of this type names a unit. Of those that identification reports only this one fits where a
/// unit is named in 20 bytes.
pub(super) fn is_named(identity: &Identity, kind: u8, designator: &[u8]) -> bool {
    kind == NAA && designator == naa_locally_assigned(&identity.serial)
}

/// NAA 3h (SPC-5 7.7.6.6.3): 60 bits that nobody hands out, here a hash of the serial number (FNV-1a, then
/// mixed). It names disks on the initiators, so it must never change.
fn naa_locally_assigned(serial: &str) -> [u8; 8] {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for &byte in serial.as_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^= hash >> 31;
    (hash >> 4 | 0x3 << 60).to_be_bytes()
}
