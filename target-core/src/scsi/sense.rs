//! Sense data: what was wrong, in fixed format (SPC-5 4.4.3).

/// Length of the fixed-format sense data we send, in bytes.
const FIXED_BYTES: usize = 18;

/// Sense keys (SPC-5 table 49).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Key {
    NoSense = 0x00,
    MediumError = 0x03,
    HardwareError = 0x04,
    IllegalRequest = 0x05,
    UnitAttention = 0x06,
    DataProtect = 0x07,
    AbortedCommand = 0x0B,
    Miscompare = 0x0E,
}

/// One condition: sense key, additional sense code and qualifier, and what goes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sense {
    key: Key,
    code: (u8, u8),
    information: Option<u32>,
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

    /// The same with the INFORMATION field, if the value fits its four bytes (SPC-5 4.4.3, VALID).
    pub(crate) fn with_information(mut self, value: u64) -> Self {
        self.information = u32::try_from(value).ok();
        self
    }

    /// Fixed-format bytes, current error (response code 70h).
    pub(crate) fn fixed(&self) -> [u8; FIXED_BYTES] {
        let mut bytes = [0; FIXED_BYTES];
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        if let Some(information) = self.information {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[7] = (FIXED_BYTES - 8) as u8;
        bytes[12] = self.code.0;
        bytes[13] = self.code.1;
        bytes[15..18].copy_from_slice(&self.key_specific);
        bytes
    }

    /// Descriptor-format bytes without descriptors (SPC-5 4.4.2), as REQUEST SENSE with DESC asks for.
    pub(crate) fn descriptor(&self) -> [u8; 8] {
        [0x72, self.key as u8, self.code.0, self.code.1, 0, 0, 0, 0]
    }
}

/// Sense key specific data, field pointer (SPC-5 4.4.2.4.2): `flags` holds SKSV, C/D and BPV.
const fn pointer(flags: u8, byte: u16, bit: u8) -> [u8; 3] {
    [flags | (bit & 0x07), (byte >> 8) as u8, byte as u8]
}
