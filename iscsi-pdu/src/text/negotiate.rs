//! What comes out when an offer meets what we would take: pure functions over the table.

use crate::text::{Key, Kind, NumberRule, ValueError, parse_number};

impl Key {
    /// Reads a number this key allows.
    pub fn parse_number(self, value: &str) -> Result<u32, ValueError> {
        let number = parse_number(value)?;
        let Kind::Number { min, max, .. } = self.spec().kind else {
            return Err(ValueError::WrongKind);
        };
        match u32::try_from(number) {
            Ok(fits) if (min..=max).contains(&fits) => Ok(fits),
            _ => Err(ValueError::OutOfRange {
                value: number,
                min,
                max,
            }),
        }
    }

    /// The result of an offered number and ours: the lesser or the greater, as the key says (RFC 7143 §6.2.2).
    /// Declared numbers have no result; they and offers the key does not allow are errors.
    pub fn negotiate_number(self, offered: u32, ours: u32) -> Result<u32, ValueError> {
        match self.spec().kind {
            Kind::Number { min, max, .. } if !(min..=max).contains(&offered) => Err(ValueError::OutOfRange {
                value: u64::from(offered),
                min,
                max,
            }),
            Kind::Number {
                rule: NumberRule::Minimum,
                ..
            } => Ok(offered.min(ours)),
            Kind::Number {
                rule: NumberRule::Maximum,
                ..
            } => Ok(offered.max(ours)),
            _ => Err(ValueError::WrongKind),
        }
    }

    /// The result of an offered boolean and ours: AND or OR, as the key says (RFC 7143 §6.2.2).
    pub fn negotiate_boolean(self, offered: bool, ours: bool) -> Result<bool, ValueError> {
        match self.spec().kind {
            Kind::And { .. } => Ok(offered && ours),
            Kind::Or { .. } => Ok(offered || ours),
            _ => Err(ValueError::WrongKind),
        }
    }

    /// The number in force without negotiation.
    #[must_use]
    pub fn default_number(self) -> Option<u32> {
        match self.spec().kind {
            Kind::Number { default, .. } => default,
            _ => None,
        }
    }

    /// The boolean in force without negotiation.
    #[must_use]
    pub fn default_boolean(self) -> Option<bool> {
        match self.spec().kind {
            Kind::And { default } | Kind::Or { default } => Some(default),
            _ => None,
        }
    }
}

/// The first of the offered values that is supported (RFC 7143 §6.2.1); `None` when none is, and the answer `Reject`.
#[must_use]
pub fn choose<'a>(offered: &[&'a str], supported: &[&str]) -> Option<&'a str> {
    offered.iter().copied().find(|value| supported.contains(value))
}
