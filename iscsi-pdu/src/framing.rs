//! What goes around an emitted header and its data: digests and padding (RFC 7143 §11.2.3, §11.2.4).

use crate::{Digest, Emit};

/// How many zero bytes follow a data segment of this length (RFC 7143 §11.2.4).
#[must_use]
pub fn padding(data_bytes: u32) -> usize {
    (data_bytes.wrapping_neg() & 3) as usize
}

/// Which digests the connection uses in this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Framing {
    /// HeaderDigest=CRC32C was negotiated.
    pub header_digest: bool,
    /// DataDigest=CRC32C was negotiated.
    pub data_digest: bool,
}

impl Framing {
    /// Appends BHS, AHS and the header digest. `data_bytes` of data, then [`trailer`](Framing::trailer), must follow.
    pub fn header(&self, pdu: &impl Emit, data_bytes: u32, out: &mut Vec<u8>) {
        let start = out.len();
        pdu.emit(data_bytes, out);
        if self.header_digest {
            let digest = Digest::of(&out[start..]);
            out.extend_from_slice(&digest.to_wire());
        }
    }

    /// Appends what follows `data`, the whole data segment: padding and data digest. Nothing after no data.
    pub fn trailer(&self, data: &[u8], out: &mut Vec<u8>) {
        self.trailer_of_parts(&[data], out);
    }

    /// [`trailer`](Framing::trailer) of a data segment sent from several places.
    pub fn trailer_of_parts(&self, parts: &[&[u8]], out: &mut Vec<u8>) {
        let data_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let zeroes = &[0; 3][..data_bytes.wrapping_neg() & 3];
        out.extend_from_slice(zeroes);
        if self.data_digest && data_bytes > 0 {
            let digest = parts
                .iter()
                .fold(Digest::EMPTY, |digest, part| digest.append(part))
                .append(zeroes);
            out.extend_from_slice(&digest.to_wire());
        }
    }

    /// Appends a whole PDU with its data segment, at most [`MAX_DATA_SEGMENT_BYTES`](crate::MAX_DATA_SEGMENT_BYTES)
    /// (asserted).
    pub fn pdu(&self, pdu: &impl Emit, data: &[u8], out: &mut Vec<u8>) {
        self.header(pdu, u32::try_from(data.len()).unwrap_or(u32::MAX), out);
        out.extend_from_slice(data);
        self.trailer(data, out);
    }
}
