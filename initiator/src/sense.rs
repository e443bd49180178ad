//! Sense data, as far as a message or a test needs it (SPC-5 4.4).

use std::fmt;

/// Sense data in either format.
#[derive(Clone, PartialEq, Eq)]
pub struct Sense {
    /// SENSE KEY.
    pub key: u8,
    /// ADDITIONAL SENSE CODE.
    pub asc: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub ascq: u8,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Sense {
    /// UNIT ATTENTION (SPC-5 4.4.8).
    pub const UNIT_ATTENTION: u8 = 0x06;

    /// Reads fixed (0x70, 0x71) or descriptor (0x72, 0x73) format; `None` for anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Sense> {
        let at = |index: usize| bytes.get(index).copied();
        // Codes missing from short fixed-format sense are zero (SPC-5 4.4.3).
        let (key, asc, ascq) = match at(0)? & 0x7f {
            0x70 | 0x71 => (at(2)?, at(12).unwrap_or(0), at(13).unwrap_or(0)),
            0x72 | 0x73 => (at(1)?, at(2)?, at(3)?),
            _ => return None,
        };
        Some(Sense {
            key: key & 0x0f,
            asc,
            ascq,
            bytes: bytes.to_vec(),
        })
    }

    /// Name of the sense key (SPC-5 4.4.8).
    #[must_use]
    pub fn key_name(&self) -> &'static str {
        match self.key {
            0x0 => "NO SENSE",
            0x1 => "RECOVERED ERROR",
            0x2 => "NOT READY",
            0x3 => "MEDIUM ERROR",
            0x4 => "HARDWARE ERROR",
            0x5 => "ILLEGAL REQUEST",
            0x6 => "UNIT ATTENTION",
            0x7 => "DATA PROTECT",
            0x8 => "BLANK CHECK",
            0x9 => "VENDOR SPECIFIC",
            0xa => "COPY ABORTED",
            0xb => "ABORTED COMMAND",
            0xd => "VOLUME OVERFLOW",
            0xe => "MISCOMPARE",
            0xf => "COMPLETED",
            _ => "RESERVED",
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:02x}/{:02x}", self.key_name(), self.asc, self.ascq)
    }
}

impl fmt::Debug for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sense({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let fixed = Sense::parse(&[0x70, 0, 0x05, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0x01, 0, 0, 0, 0]).expect("fixed");
        assert_eq!((fixed.key, fixed.asc, fixed.ascq), (5, 0x24, 1));
        assert_eq!(fixed.to_string(), "ILLEGAL REQUEST 24/01");
        let descriptor = Sense::parse(&[0x72, 0x06, 0x29, 0x00, 0, 0, 0, 0]).expect("descriptor");
        assert_eq!(
            (descriptor.key, descriptor.asc, descriptor.ascq),
            (Sense::UNIT_ATTENTION, 0x29, 0)
        );
        assert_eq!(Sense::parse(&[]), None);
        assert_eq!(Sense::parse(&[0x72, 6]), None);
        assert_eq!(Sense::parse(&[0x7f, 0, 0, 0]), None);
    }
}
