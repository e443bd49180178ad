//! MODE SENSE of the caching page: whether a LUN has a write cache and takes writes.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{CommandError, Error, Lun, Session, Transfer};

/// MODE SENSE (6) (SPC-5 6.14): operation code, DBD, caching page (SBC-4 6.5.6), allocation length.
const MODE_SENSE_CACHING: [u8; 6] = [0x1a, 0x08, 0x08, 0x00, 0xff, 0x00];
/// The parameter header in front of the page (SPC-5 7.5.6), in bytes: there are no block descriptors with DBD.
const HEADER_BYTES: usize = 4;

/// What the page says (SBC-4 6.5.6) and the header before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caching {
    /// WCE: written data may be lost with the power until it is synchronized.
    pub write_cache: bool,
    /// WP: the LUN refuses writes.
    pub read_only: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// MODE SENSE(6) (SPC-5 6.14) of the caching page; `None` when the target does not say.
    pub async fn caching(&mut self, lun: Lun) -> Result<Option<Caching>, Error> {
        let mut cdb = [0; 16];
        cdb[..MODE_SENSE_CACHING.len()].copy_from_slice(&MODE_SENSE_CACHING);
        let length = u32::from(MODE_SENSE_CACHING[4]);
        match self.scsi(lun, cdb, Transfer::In(length)).await?.good("MODE SENSE(6)") {
            Ok(data) => Ok(parse(&data)),
            Err(CommandError::Status { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn parse(data: &[u8]) -> Option<Caching> {
    let descriptors = usize::from(*data.get(3)?);
    let page = data.get(HEADER_BYTES + descriptors..)?;
    // PAGE CODE without PS and SPF.
    (*page.first()? & 0x3f == 0x08).then_some(())?;
    Some(Caching {
        write_cache: page.get(2)? & 0x04 != 0,
        read_only: data.get(2)? & 0x80 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_page_are_read() {
        let both = [23, 0, 0x80, 0, 0x08, 18, 0x04, 0];
        assert_eq!(
            parse(&both),
            Some(Caching {
                write_cache: true,
                read_only: true
            })
        );
        let with_descriptor = [31, 0, 0x10, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x88, 18, 0x00];
        assert_eq!(
            parse(&with_descriptor),
            Some(Caching {
                write_cache: false,
                read_only: false
            })
        );
        for short in [
            &both[..0],
            &both[..4],
            &both[..6],
            &[23, 0, 0, 0, 0x0a, 10, 4][..],
            &[3, 0, 0, 255][..],
        ] {
            assert_eq!(parse(short), None);
        }
    }
}
