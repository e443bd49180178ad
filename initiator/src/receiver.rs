//! A target's stream as pieces of PDUs: header, data as it comes, end.

use iscsi_pdu::{Decoder, DecoderLimits, Response, Trailer};

use crate::PeerError;

/// No PDU of a target has additional headers.
const MAX_AHS_BYTES: usize = 0;
/// Longest data segment before MaxRecvDataSegmentLength is declared (RFC 7143 §13.12).
pub(crate) const LOGIN_DATA_SEGMENT_BYTES: u32 = 8192;

#[derive(Debug)]
pub(crate) struct Receiver {
    decoder: Decoder,
    in_pdu: bool,
}

pub(crate) enum Piece<'a> {
    Header(Response),
    Data(&'a [u8]),
    End,
}

impl Receiver {
    pub(crate) fn new(max_data_segment_bytes: u32) -> Receiver {
        let decoder = Decoder::new(DecoderLimits {
            max_ahs_bytes: MAX_AHS_BYTES,
            max_data_segment_bytes,
        });
        Receiver { decoder, in_pdu: false }
    }

    pub(crate) fn set_digests(&mut self, header: bool, data: bool) {
        self.decoder.set_digests(header, data);
    }

    /// The next piece from the front of `input`; `None` when more is needed.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, PeerError> {
        if !self.in_pdu {
            let Some(header) = self.decoder.header(input)? else {
                return Ok(None);
            };
            self.in_pdu = true;
            return Ok(Some(Piece::Header(Response::parse(&header)?)));
        }
        let remaining = self.decoder.data_remaining() as usize;
        if remaining > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let (chunk, rest) = input.split_at(remaining.min(input.len()));
            self.decoder.data(chunk);
            *input = rest;
            return Ok(Some(Piece::Data(chunk)));
        }
        match self.decoder.trailer(input)? {
            None => Ok(None),
            Some(Trailer::Intact) => {
                self.in_pdu = false;
                Ok(Some(Piece::End))
            }
            Some(Trailer::DigestMismatch { received, computed }) => Err(PeerError::DataDigest { received, computed }),
        }
    }
}
