//! Sense data: what was wrong, in fixed or descriptor format (SPC-5 4.4).

/// Length of the fixed-format sense data we send, in bytes.
const FIXED_BYTES: usize = 18;
/// Most that [`Sense::bytes`] gives in either format, in bytes: VPD 86 reports it (SPC-5 7.7.7).
pub(crate) const MAX_SENSE_BYTES: u8 = 28;

/// How sense data is laid out: D_SENSE of the control mode page, or DESC of REQUEST SENSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Response code 70h (SPC-5 4.4.3).
    Fixed,
    /// Response code 72h (SPC-5 4.4.2).
    Descriptor,
}

/// Sense keys (SPC-5 table 49).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Key {
    NoSense = 0x00,
    NotReady = 0x02,
    MediumError = 0x03,
    HardwareError = 0x04,
    IllegalRequest = 0x05,
    UnitAttention = 0x06,
    DataProtect = 0x07,
    CopyAborted = 0x0A,
    AbortedCommand = 0x0B,
    Miscompare = 0x0E,
}

/// One condition: sense key, additional sense code and qualifier, and what goes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sense {
    key: Key,
    code: (u8, u8),
    information: Option<u64>,
    key_specific: [u8; 3],
}

impl Sense {
    pub(crate) const fn new(key: Key, code: (u8, u8)) -> Self {
        Self {
            key,
            code,
            information: None,
            key_specific: [0; 3],
        }
    }

    const fn illegal(code: (u8, u8)) -> Self {
        Self::new(Key::IllegalRequest, code)
    }

    /// NO SENSE.
    pub(crate) const NONE: Self = Self::new(Key::NoSense, (0x00, 0x00));
    /// INVALID COMMAND OPERATION CODE.
    pub(crate) const INVALID_OPCODE: Self = Self::illegal((0x20, 0x00));
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
    pub(crate) const LBA_OUT_OF_RANGE: Self = Self::illegal((0x21, 0x00));
    /// LOGICAL UNIT NOT SUPPORTED.
    pub(crate) const NO_SUCH_LUN: Self = Self::illegal((0x25, 0x00));
    /// PARAMETER LIST LENGTH ERROR.
    pub(crate) const PARAMETER_LIST_LENGTH: Self = Self::illegal((0x1A, 0x00));
    /// SAVING PARAMETERS NOT SUPPORTED.
    pub(crate) const SAVING_NOT_SUPPORTED: Self = Self::illegal((0x39, 0x00));
    /// WRITE PROTECTED.
    pub(crate) const WRITE_PROTECTED: Self = Self::new(Key::DataProtect, (0x27, 0x00));
    /// SPACE ALLOCATION FAILED WRITE PROTECT (SBC-4 4.7.3.6).
    pub(crate) const NO_SPACE: Self = Self::new(Key::DataProtect, (0x27, 0x07));
    /// UNRECOVERED READ ERROR.
    pub(crate) const READ_ERROR: Self = Self::new(Key::MediumError, (0x11, 0x00));
    /// WRITE ERROR.
    pub(crate) const WRITE_ERROR: Self = Self::new(Key::MediumError, (0x0C, 0x00));
    /// MEDIUM NOT PRESENT.
    pub(crate) const NO_MEDIUM: Self = Self::new(Key::NotReady, (0x3A, 0x00));
    /// COPY ABORTED, and no more to say: a unit could not read or write.
    pub(crate) const COPY_ABORTED: Self = Self::new(Key::CopyAborted, (0x00, 0x00));
    /// UNREACHABLE COPY TARGET.
    pub(crate) const UNREACHABLE_COPY_TARGET: Self = Self::new(Key::CopyAborted, (0x08, 0x04));
    /// COPY TARGET DEVICE NOT REACHABLE.
    pub(crate) const COPY_TARGET_NOT_REACHABLE: Self = Self::new(Key::CopyAborted, (0x0D, 0x02));
    /// TOO MANY TARGET DESCRIPTORS.
    pub(crate) const TOO_MANY_TARGETS: Self = Self::illegal((0x26, 0x06));
    /// UNSUPPORTED TARGET DESCRIPTOR TYPE CODE.
    pub(crate) const UNKNOWN_TARGET_DESCRIPTOR: Self = Self::illegal((0x26, 0x07));
    /// TOO MANY SEGMENT DESCRIPTORS.
    pub(crate) const TOO_MANY_SEGMENTS: Self = Self::illegal((0x26, 0x08));
    /// UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE.
    pub(crate) const UNKNOWN_SEGMENT_DESCRIPTOR: Self = Self::illegal((0x26, 0x09));
    /// INLINE DATA LENGTH EXCEEDED.
    pub(crate) const INLINE_DATA_LIMIT: Self = Self::illegal((0x26, 0x0B));
    /// LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
    pub(crate) const SANITIZE_IN_PROGRESS: Self = Self::new(Key::NotReady, (0x04, 0x1B));
    /// SANITIZE COMMAND FAILED.
    pub(crate) const SANITIZE_FAILED: Self = Self::new(Key::MediumError, (0x31, 0x03));
    /// LOGICAL UNIT NOT READY, OFFLINE.
    pub(crate) const OFFLINE: Self = Self::new(Key::NotReady, (0x04, 0x12));
    /// MEDIUM REMOVAL PREVENTED.
    pub(crate) const REMOVAL_PREVENTED: Self = Self::illegal((0x53, 0x02));
    /// LOGICAL UNIT SOFTWARE WRITE PROTECTED: SWP of the control mode page.
    pub(crate) const SOFTWARE_WRITE_PROTECTED: Self = Self::new(Key::DataProtect, (0x27, 0x02));
    /// INTERNAL TARGET FAILURE.
    pub(crate) const INTERNAL: Self = Self::new(Key::HardwareError, (0x44, 0x00));
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the transport announced another amount of data.
    pub(crate) const WRONG_DATA_LENGTH: Self = Self::illegal((0x0E, 0x03));
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    pub(crate) const INVALID_RELEASE: Self = Self::illegal((0x26, 0x04));
    /// INSUFFICIENT REGISTRATION RESOURCES.
    pub(crate) const TOO_MANY_REGISTRATIONS: Self = Self::illegal((0x55, 0x04));
    /// MISCOMPARE DURING VERIFY OPERATION.
    pub(crate) const MISCOMPARE: Self = Self::new(Key::Miscompare, (0x1D, 0x00));

    /// INVALID FIELD IN CDB, pointing at the bit (7 is the highest) of the byte.
    pub(crate) const fn cdb_field(byte: u16, bit: u8) -> Self {
        let mut sense = Self::illegal((0x24, 0x00));
        sense.key_specific = pointer(0xC8, byte, bit);
        sense
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at the bit of the byte.
    pub(crate) const fn parameter_field(byte: u16, bit: u8) -> Self {
        let mut sense = Self::illegal((0x26, 0x00));
        sense.key_specific = pointer(0x88, byte, bit);
        sense
    }

    /// The same with the progress of what it tells of, in parts of 65536 (SPC-5 4.4.2.4.4).
    pub(crate) const fn with_progress(mut self, progress: u16) -> Self {
        let [high, low] = progress.to_be_bytes();
        self.key_specific = [0x80, high, low];
        self
    }

    /// The same with the INFORMATION field.
    pub(crate) const fn with_information(mut self, value: u64) -> Self {
        self.information = Some(value);
        self
    }

    /// The bytes of a current error in this format.
    pub(crate) fn bytes(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Fixed => self.fixed().to_vec(),
            Format::Descriptor => self.descriptor(),
        }
    }

    /// Fixed format. INFORMATION is there only if it fits four bytes (SPC-5 4.4.3, VALID).
    fn fixed(&self) -> [u8; FIXED_BYTES] {
        let mut bytes = [0; FIXED_BYTES];
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        if let Some(information) = self.information.and_then(|value| u32::try_from(value).ok()) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[7] = (FIXED_BYTES - 8) as u8;
        bytes[12] = self.code.0;
        bytes[13] = self.code.1;
        bytes[15..18].copy_from_slice(&self.key_specific);
        bytes
    }

    fn descriptor(&self) -> Vec<u8> {
        let mut bytes = vec![0x72, self.key as u8, self.code.0, self.code.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            // Information (SPC-5 4.4.2.2), VALID.
            bytes.extend_from_slice(&[0x00, 0x0A, 0x80, 0]);
            bytes.extend_from_slice(&information.to_be_bytes());
        }
        if self.key_specific != [0; 3] {
            // Sense key specific (SPC-5 4.4.2.4).
            let [flags, high, low] = self.key_specific;
            bytes.extend_from_slice(&[0x02, 0x06, 0, 0, flags, high, low, 0]);
        }
        bytes[7] = (bytes.len() - 8) as u8;
        bytes
    }
}

/// Sense key specific data, field pointer (SPC-5 4.4.2.4.2): `flags` holds SKSV, C/D and BPV.
const fn pointer(flags: u8, byte: u16, bit: u8) -> [u8; 3] {
    [flags | (bit & 0x07), (byte >> 8) as u8, byte as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_carry_the_same() {
        for sense in [
            Sense::NONE,
            Sense::cdb_field(0x1FF, 5),
            Sense::parameter_field(3, 0),
            Sense::LBA_OUT_OF_RANGE.with_information(0xFFFF_FFFF),
            Sense::cdb_field(1, 2).with_information(u64::MAX),
        ] {
            let (fixed, descriptor) = (sense.bytes(Format::Fixed), sense.bytes(Format::Descriptor));
            assert_eq!(
                (fixed[2], fixed[12], fixed[13]),
                (descriptor[1], descriptor[2], descriptor[3])
            );
            assert_eq!(descriptor.len(), 8 + usize::from(descriptor[7]));
            assert!(descriptor.len() <= usize::from(MAX_SENSE_BYTES));
        }
    }

    #[test]
    fn information_of_eight_bytes_is_in_the_descriptor_only() {
        let sense = Sense::LBA_OUT_OF_RANGE.with_information(0x1_0203_0405);
        let fixed = sense.bytes(Format::Fixed);
        assert_eq!((fixed[0], &fixed[3..7]), (0x70, &[0; 4][..]), "VALID is 0");
        assert_eq!(
            sense.bytes(Format::Descriptor),
            [
                0x72, 5, 0x21, 0, 0, 0, 0, 12, 0x00, 0x0A, 0x80, 0, 0, 0, 0, 1, 2, 3, 4, 5
            ]
        );
        let sense = Sense::LBA_OUT_OF_RANGE.with_information(0x0203_0405);
        assert_eq!(sense.bytes(Format::Fixed)[..7], [0xF0, 0, 5, 2, 3, 4, 5]);
    }

    #[test]
    fn field_pointers() {
        // SKSV, C/D (a CDB), BPV, bit 5; byte 0x1FF (SPC-5 table 37).
        let sense = Sense::cdb_field(0x1FF, 5);
        assert_eq!(sense.bytes(Format::Fixed)[15..], [0xCD, 0x01, 0xFF]);
        assert_eq!(
            sense.bytes(Format::Descriptor),
            [0x72, 5, 0x24, 0, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0xCD, 0x01, 0xFF, 0]
        );
        // C/D is 0: a parameter list.
        assert_eq!(Sense::parameter_field(3, 0).bytes(Format::Fixed)[15..], [0x88, 0, 3]);
    }

    #[test]
    fn nothing_wrong() {
        assert_eq!(Sense::NONE.bytes(Format::Descriptor), [0x72, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            Sense::NONE.bytes(Format::Fixed),
            [0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}
