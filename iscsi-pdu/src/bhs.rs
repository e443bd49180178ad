//! What every PDU shares: the 48-byte basic header segment and the small types in it (RFC 7143 §11.2).

use std::fmt;
use std::ops::{Add, AddAssign};

use crate::codes::wire_codes;

/// Length of the basic header segment (RFC 7143 §11.2.1).
pub const BHS_BYTES: usize = 48;

/// The tag value that means "no tag" in ITT, TTT and referenced tags (RFC 7143 §11.2.1.8, §11.7.4).
pub const RESERVED_TAG: u32 = 0xffff_ffff;

/// What the 24 bits of DataSegmentLength can say (RFC 7143 §11.2.1.6).
pub const MAX_DATA_SEGMENT_BYTES: u32 = 0x00ff_ffff;

wire_codes! {
    /// Operation codes of both directions (RFC 7143 §11.2.1.2).
    Opcode: u8 {
        /// NOP-Out, §11.18.
        NopOut = 0x00,
        /// SCSI Command, §11.3.
        ScsiCommand = 0x01,
        /// Task Management Function Request, §11.5.
        TaskManagementRequest = 0x02,
        /// Login Request, §11.12.
        LoginRequest = 0x03,
        /// Text Request, §11.10.
        TextRequest = 0x04,
        /// SCSI Data-Out, §11.7.
        DataOut = 0x05,
        /// Logout Request, §11.14.
        LogoutRequest = 0x06,
        /// SNACK Request, §11.16.
        Snack = 0x10,
        /// NOP-In, §11.19.
        NopIn = 0x20,
        /// SCSI Response, §11.4.
        ScsiResponse = 0x21,
        /// Task Management Function Response, §11.6.
        TaskManagementResponse = 0x22,
        /// Login Response, §11.13.
        LoginResponse = 0x23,
        /// Text Response, §11.11.
        TextResponse = 0x24,
        /// SCSI Data-In, §11.7.
        DataIn = 0x25,
        /// Logout Response, §11.15.
        LogoutResponse = 0x26,
        /// Ready To Transfer, §11.8.
        R2t = 0x31,
        /// Asynchronous Message, §11.9.
        AsyncMessage = 0x32,
        /// Reject, §11.17.
        Reject = 0x3f,
    }
}

impl Opcode {
    /// Whether initiators send it (RFC 7143 §11.2.1.2: target opcodes have bit 0x20).
    #[must_use]
    pub fn is_request(self) -> bool {
        self.code() & 0x20 == 0
    }
}

/// A PDU header that can be put on the wire.
pub trait Emit {
    /// Appends the BHS and any AHS, announcing `data_bytes` of data segment (at most [`MAX_DATA_SEGMENT_BYTES`];
    /// asserted). Digests and padding are [`Framing`](crate::Framing)'s.
    fn emit(&self, data_bytes: u32, out: &mut Vec<u8>);

    /// How many bytes [`emit`](Emit::emit) appends: 48 and any AHS.
    fn header_bytes(&self) -> usize {
        BHS_BYTES
    }
}

/// A logical unit number as it travels: eight bytes (RFC 7143 §11.2.1.7, SAM-5 4.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lun(pub [u8; 8]);

impl Lun {
    /// The single-level LUN with this number: peripheral device addressing below 256 (SAM-5 4.7.7.2), flat space
    /// below 16384 (4.7.7.3), extended flat space above (4.7.7.5.3).
    #[must_use]
    pub fn from_number(number: u16) -> Lun {
        let [high, low] = number.to_be_bytes();
        match number {
            0..=0xff => Lun([0, low, 0, 0, 0, 0, 0, 0]),
            0x100..=0x3fff => Lun([0x40 | high, low, 0, 0, 0, 0, 0, 0]),
            _ => Lun([0xd2, 0, high, low, 0, 0, 0, 0]),
        }
    }

    /// The number of a single-level LUN on bus 0; `None` for every other form of address (well-known units,
    /// hierarchies, other buses), none of which this crate's users export.
    #[must_use]
    pub fn number(self) -> Option<u16> {
        match self.0 {
            [0x00, low, 0, 0, 0, 0, 0, 0] => Some(u16::from(low)),
            [method @ 0x40..=0x7f, low, 0, 0, 0, 0, 0, 0] => Some(u16::from_be_bytes([method & 0x3f, low])),
            [0xd2, 0, high, low, 0, 0, 0, 0] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }
}

impl fmt::Debug for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lun({self})")
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{number}"),
            None => write!(f, "{:#018x}", u64::from_be_bytes(self.0)),
        }
    }
}

/// The initiator's part of the session identifier (RFC 7143 §11.12.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Isid(pub [u8; 6]);

impl fmt::Debug for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isid({self})")
    }
}

impl fmt::Display for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A 32-bit serial number that wraps: CmdSN, StatSN and their kin (RFC 7143 §4.2.2.1, arithmetic of RFC 1982).
///
/// Deliberately not `Ord`: the order is not transitive around the circle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Serial(pub u32);

impl Serial {
    /// Whether `self` comes before `other`. Two numbers exactly half the circle apart are in no order (RFC 1982
    /// §3.2): then neither is before the other.
    #[must_use]
    pub fn lt(self, other: Serial) -> bool {
        let ahead = other.0.wrapping_sub(self.0);
        ahead != 0 && ahead < 1 << 31
    }

    /// Whether `self` is `other` or comes before it.
    #[must_use]
    pub fn le(self, other: Serial) -> bool {
        self == other || self.lt(other)
    }

    /// How many steps forward from `earlier` to `self`, around the circle if need be.
    #[must_use]
    pub fn distance(self, earlier: Serial) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Add<u32> for Serial {
    type Output = Serial;
    fn add(self, steps: u32) -> Serial {
        Serial(self.0.wrapping_add(steps))
    }
}

impl AddAssign<u32> for Serial {
    fn add_assign(&mut self, steps: u32) {
        *self = *self + steps;
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lun_numbers() {
        assert_eq!(Lun::from_number(5).0, [0, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun::from_number(0x1234).0, [0x52, 0x34, 0, 0, 0, 0, 0, 0]);
        for number in 0..=u16::MAX {
            assert_eq!(Lun::from_number(number).number(), Some(number));
        }
        // Flat addressing may also be used for small numbers.
        assert_eq!(Lun([0x40, 7, 0, 0, 0, 0, 0, 0]).number(), Some(7));
        // REPORT LUNS well-known unit, a second level, another bus.
        for bytes in [
            [0xc1, 1, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Lun(bytes).number(), None);
        }
    }

    #[test]
    fn serials_wrap() {
        let last = Serial(u32::MAX);
        assert!(last.lt(Serial(0)) && last.lt(last + 1) && !Serial(0).lt(last));
        assert_eq!((last + 5).distance(last), 5);
        assert!(last.le(last) && !last.lt(last));
        assert!(!Serial(0).lt(Serial(1 << 31)) && !Serial(1 << 31).lt(Serial(0)));
    }
}
