//! CRC32C as iSCSI writes it (RFC 7143 §13.1; examples in §A.4).

use std::fmt;

/// Length of a header or data digest on the wire.
pub const DIGEST_BYTES: usize = 4;

/// A CRC32C over a header or a data segment with its padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub u32);

impl Digest {
    /// The digest of no bytes, to [`append`](Digest::append) to.
    pub const EMPTY: Digest = Digest(0);

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(crc32c::crc32c(bytes))
    }

    /// The digest of what came before and these bytes.
    #[must_use]
    pub fn append(self, bytes: &[u8]) -> Digest {
        Digest(crc32c::crc32c_append(self.0, bytes))
    }

    /// As it travels: RFC 7143's examples show the least significant byte first.
    #[must_use]
    pub fn to_wire(self) -> [u8; DIGEST_BYTES] {
        self.0.to_le_bytes()
    }

    /// The digest a peer sent.
    #[must_use]
    pub fn from_wire(bytes: [u8; DIGEST_BYTES]) -> Digest {
        Digest(u32::from_le_bytes(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.to_wire()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7143 §A.4, "CRC Examples", bytes as printed there.
    #[test]
    fn examples_of_the_rfc() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        assert_eq!(Digest::of(&[0; 32]).to_wire(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(Digest::of(&[0xff; 32]).to_wire(), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(Digest::of(&rising).to_wire(), [0x4e, 0x79, 0xdd, 0x46]);
        assert_eq!(Digest::of(&falling).to_wire(), [0x5c, 0xdb, 0x3f, 0x11]);
        let mut read10 = [0; 48];
        read10[..2].copy_from_slice(&[0x01, 0xc0]);
        read10[16] = 0x14;
        read10[22..24].copy_from_slice(&[0x04, 0x00]);
        read10[27] = 0x14;
        read10[31] = 0x18;
        read10[32] = 0x28;
        read10[40] = 0x02;
        assert_eq!(Digest::of(&read10).to_wire(), [0x56, 0x3a, 0x96, 0xd9]);
    }

    #[test]
    fn parts_give_the_digest_of_the_whole() {
        assert_eq!(Digest::of(b"farlun").append(b" digest"), Digest::of(b"farlun digest"));
    }
}
