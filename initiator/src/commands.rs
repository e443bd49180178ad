//! The SCSI commands a probe and most tests need, by name.

use bytes::Bytes;
use iscsi_pdu::Lun;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{CommandError, Error, PeerError, ScsiOutcome, Sense, Session, Transfer};

/// Standard INQUIRY data and VPD pages: what is asked for, in bytes.
const INQUIRY_BYTES: u16 = 255;
/// Parameter data of REPORT LUNS asked for: 8 and 8 for each of 1024 units.
const REPORT_LUNS_BYTES: u32 = 8 + 8 * 1024;
/// READ CAPACITY(16) parameter data (SBC-4 5.21.2).
const CAPACITY_BYTES: u32 = 32;
/// How often a command is repeated because of a unit attention.
const MAX_UNIT_ATTENTIONS: usize = 4;

/// FUA in byte 1 of READ and WRITE (SBC-4 5.16, 5.43).
const FUA: u8 = 0x08;

/// Standard INQUIRY data (SPC-5 6.7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// PERIPHERAL QUALIFIER: 0 when the unit is there.
    pub qualifier: u8,
    /// PERIPHERAL DEVICE TYPE: 0x00 is a direct access block device.
    pub device_type: u8,
    /// T10 VENDOR IDENTIFICATION, without trailing blanks.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, without trailing blanks.
    pub product: String,
    /// PRODUCT REVISION LEVEL, without trailing blanks.
    pub revision: String,
    /// All of it.
    pub bytes: Bytes,
}

/// READ CAPACITY(16) parameter data (SBC-4 5.21.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes in a logical block.
    pub block_bytes: u32,
    /// Logical blocks in a physical one, as a power of two.
    pub physical_block_exponent: u8,
    /// LBPME: blocks may be unmapped.
    pub thin: bool,
    /// LBPRZ: unmapped blocks read as zeroes.
    pub unmapped_reads_zero: bool,
}

impl Capacity {
    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u128 {
        u128::from(self.blocks) * u128::from(self.block_bytes)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// TEST UNIT READY (SPC-5 6.43), once, with whatever status it ends.
    pub async fn test_unit_ready(&mut self, lun: Lun) -> Result<ScsiOutcome, Error> {
        self.scsi(lun, [0; 16], Transfer::None).await
    }

    /// INQUIRY (SPC-5 6.7).
    pub async fn inquiry(&mut self, lun: Lun) -> Result<Inquiry, Error> {
        let bytes = self.inquiry_bytes(lun, 0, 0).await?;
        let short = CommandError::ShortData {
            command: "INQUIRY",
            bytes: bytes.len(),
        };
        let (Some(&first), Some(vendor), Some(product), Some(revision)) =
            (bytes.first(), bytes.get(8..16), bytes.get(16..32), bytes.get(32..36))
        else {
            return Err(short.into());
        };
        let text = |field: &[u8]| String::from_utf8_lossy(field).trim_end().to_owned();
        Ok(Inquiry {
            qualifier: first >> 5,
            device_type: first & 0x1f,
            vendor: text(vendor),
            product: text(product),
            revision: text(revision),
            bytes,
        })
    }

    /// A vital product data page with its header (SPC-5 7.7).
    pub async fn vpd(&mut self, lun: Lun, page: u8) -> Result<Bytes, Error> {
        let bytes = self.inquiry_bytes(lun, 1, page).await?;
        match bytes.get(1) {
            None => Err(CommandError::ShortData {
                command: "INQUIRY",
                bytes: bytes.len(),
            }
            .into()),
            Some(found) if *found != page => Err(PeerError::Malformed { what: "VPD page code" }.into()),
            Some(_) => Ok(bytes),
        }
    }

    async fn inquiry_bytes(&mut self, lun: Lun, evpd: u8, page: u8) -> Result<Bytes, Error> {
        let [high, low] = INQUIRY_BYTES.to_be_bytes();
        let cdb = cdb(&[&[0x12, evpd, page, high, low]]);
        self.repeated("INQUIRY", lun, cdb, Transfer::In(INQUIRY_BYTES.into()))
            .await
    }

    /// READ CAPACITY(16) (SBC-4 5.21).
    pub async fn read_capacity16(&mut self, lun: Lun) -> Result<Capacity, Error> {
        const COMMAND: &str = "READ CAPACITY(16)";
        let cdb = cdb(&[&[0x9e, 0x10], &[0; 8], &CAPACITY_BYTES.to_be_bytes()]);
        let data = self.repeated(COMMAND, lun, cdb, Transfer::In(CAPACITY_BYTES)).await?;
        let Some(([last @ .., _, _, _, _], rest)) = data.split_first_chunk::<12>() else {
            return Err(CommandError::ShortData {
                command: COMMAND,
                bytes: data.len(),
            }
            .into());
        };
        let block_bytes = u32::from_be_bytes([data[8], data[9], data[10], data[11]]);
        let (exponent, flags) = (rest.get(1).copied().unwrap_or(0), rest.get(2).copied().unwrap_or(0));
        // A medium of no blocks cannot be said; one of 2^64 does not exist.
        let blocks = u64::from_be_bytes(*last).saturating_add(1);
        Ok(Capacity {
            blocks,
            block_bytes,
            physical_block_exponent: exponent & 0x0f,
            thin: flags & 0x80 != 0,
            unmapped_reads_zero: flags & 0x40 != 0,
        })
    }

    /// READ(16) (SBC-4 5.19): `blocks` of `block_bytes` from `lba` on.
    pub async fn read16(&mut self, lun: Lun, lba: u64, blocks: u32, block_bytes: u32) -> Result<Bytes, Error> {
        const COMMAND: &str = "READ(16)";
        let bytes = blocks
            .checked_mul(block_bytes)
            .ok_or(Error::Misuse("a command moves less than 4 GiB"))?;
        let cdb = cdb(&[&[0x88, 0], &lba.to_be_bytes(), &blocks.to_be_bytes()]);
        let data = self.repeated(COMMAND, lun, cdb, Transfer::In(bytes)).await?;
        if data.len() < bytes as usize {
            return Err(CommandError::ShortData {
                command: COMMAND,
                bytes: data.len(),
            }
            .into());
        }
        Ok(data)
    }

    /// WRITE(16) (SBC-4 5.46): whole blocks to `lba` and on; with `fua` on stable storage before it returns.
    pub async fn write16(
        &mut self,
        lun: Lun,
        lba: u64,
        block_bytes: u32,
        data: impl Into<Bytes>,
        fua: bool,
    ) -> Result<(), Error> {
        let data = data.into();
        if block_bytes == 0 || !data.len().is_multiple_of(block_bytes as usize) {
            return Err(Error::Misuse("data to write must be whole blocks"));
        }
        let blocks = u32::try_from(data.len() / block_bytes as usize)
            .map_err(|_| Error::Misuse("a command moves less than 4 GiB"))?;
        let cdb = cdb(&[
            &[0x8a, if fua { FUA } else { 0 }],
            &lba.to_be_bytes(),
            &blocks.to_be_bytes(),
        ]);
        self.repeated("WRITE(16)", lun, cdb, Transfer::Out(data))
            .await
            .map(drop)
    }

    /// SYNCHRONIZE CACHE(16) (SBC-4 5.37) of the whole medium.
    pub async fn synchronize_cache(&mut self, lun: Lun) -> Result<(), Error> {
        self.repeated("SYNCHRONIZE CACHE(16)", lun, cdb(&[&[0x91]]), Transfer::None)
            .await
            .map(drop)
    }

    /// REPORT LUNS (SPC-5 6.34), asked of LUN 0; at most 1024 of them.
    pub async fn report_luns(&mut self) -> Result<Vec<Lun>, Error> {
        const COMMAND: &str = "REPORT LUNS";
        let cdb = cdb(&[&[0xa0, 0, 0, 0, 0, 0], &REPORT_LUNS_BYTES.to_be_bytes()]);
        let data = self
            .repeated(COMMAND, Lun::default(), cdb, Transfer::In(REPORT_LUNS_BYTES))
            .await?;
        let Some((length, _)) = data.split_first_chunk::<4>() else {
            return Err(CommandError::ShortData {
                command: COMMAND,
                bytes: data.len(),
            }
            .into());
        };
        let length = u32::from_be_bytes(*length) as usize;
        let list = data.get(8..).unwrap_or_default();
        let (luns, _) = list[..length.min(list.len())].as_chunks::<8>();
        Ok(luns.iter().map(|lun| Lun(*lun)).collect())
    }

    /// A command whose status must be GOOD; a unit attention is taken note of and the command repeated.
    async fn repeated(
        &mut self,
        command: &'static str,
        lun: Lun,
        cdb: [u8; 16],
        transfer: Transfer,
    ) -> Result<Bytes, Error> {
        let mut attentions = 0;
        loop {
            let outcome = self.scsi(lun, cdb, transfer.clone()).await?;
            match &outcome.sense {
                Some(sense) if sense.key == Sense::UNIT_ATTENTION && attentions < MAX_UNIT_ATTENTIONS => {
                    attentions += 1;
                }
                _ => return Ok(outcome.good(command)?),
            }
        }
    }
}

/// Fields one after the other, the rest zero.
fn cdb(fields: &[&[u8]]) -> [u8; 16] {
    let mut cdb = [0; 16];
    for (byte, value) in cdb.iter_mut().zip(fields.iter().copied().flatten()) {
        *byte = *value;
    }
    cdb
}
