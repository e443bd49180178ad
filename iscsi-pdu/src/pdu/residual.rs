//! The residual count and its two bits (RFC 7143 §11.4.5.1).

/// How the bytes moved differ from those expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Residual {
    /// They do not.
    #[default]
    None,
    /// This many bytes of the expected length were not moved (U).
    Underflow(u32),
    /// This many bytes more would have been moved, had the initiator expected them (O).
    Overflow(u32),
}

impl Residual {
    /// The residual of moving `actual` bytes where `expected` were announced.
    #[must_use]
    pub fn of(expected: u32, actual: u64) -> Residual {
        match u64::from(expected).checked_sub(actual) {
            Some(0) => Residual::None,
            // Not more than `expected`, so it fits.
            Some(short) => Residual::Underflow(short as u32),
            // A command that would move more than 4 GiB too much says so with the largest count there is.
            None => Residual::Overflow(u32::try_from(actual - u64::from(expected)).unwrap_or(u32::MAX)),
        }
    }

    /// The count, whichever way.
    #[must_use]
    pub fn count(self) -> u32 {
        match self {
            Residual::None => 0,
            Residual::Underflow(count) | Residual::Overflow(count) => count,
        }
    }

    /// `None` when both bits are set.
    pub(crate) fn from_bits(overflow: bool, underflow: bool, count: u32) -> Option<Residual> {
        match (overflow, underflow) {
            (false, false) => Some(Residual::None),
            (true, false) => Some(Residual::Overflow(count)),
            (false, true) => Some(Residual::Underflow(count)),
            (true, true) => None,
        }
    }

    pub(crate) fn bits(self, overflow: u8, underflow: u8) -> u8 {
        match self {
            Residual::None => 0,
            Residual::Overflow(_) => overflow,
            Residual::Underflow(_) => underflow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residual_of_lengths() {
        assert_eq!(Residual::of(512, 512), Residual::None);
        assert_eq!(Residual::of(512, 36), Residual::Underflow(476));
        assert_eq!(Residual::of(0, 512), Residual::Overflow(512));
        assert_eq!(Residual::of(0, 1 << 40), Residual::Overflow(u32::MAX));
    }
}
