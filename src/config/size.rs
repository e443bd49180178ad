//! Sizes as people write them: `256MiB`, `1.5TiB`, `80GB`, or a plain number of bytes.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A number of bytes, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Size(pub(crate) u64);

/// What may stand in the file: a string with a unit, or bytes.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a size such as \"256MiB\", \"80GB\" or a number of bytes"
)]
enum Written {
    Text(String),
    Bytes(i64),
}

/// Units, binary ones first.
const UNITS: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not_a_size = || format!("{text:?} is not a size: write a number and a unit, \"256MiB\" or \"80GB\"");
        let text_trimmed = text.trim();
        let split = text_trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
            .unwrap_or(text_trimmed.len());
        let (number, unit) = text_trimmed.split_at(split);
        let unit_bytes = match unit.trim() {
            "" | "B" => 1,
            unit => {
                let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
                known.ok_or_else(not_a_size)?.1
            }
        };
        let number = number.replace('_', "");
        let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
        let whole: u64 = whole.parse().map_err(|_| not_a_size())?;
        let mut bytes = u128::from(whole) * u128::from(unit_bytes);
        if !fraction.is_empty() {
            let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 6);
            let scale = 10_u128.pow(digits.ok_or_else(not_a_size)?);
            let part: u64 = fraction.parse().map_err(|_| not_a_size())?;
            bytes += u128::from(part) * u128::from(unit_bytes) / scale;
        }
        match u64::try_from(bytes) {
            Ok(0) => Err("a size of 0 bytes holds nothing".to_owned()),
            // What off_t can say.
            Ok(bytes) if bytes <= i64::MAX.cast_unsigned() => Ok(Self(bytes)),
            _ => Err(format!("{text:?} is more than any file can hold")),
        }
    }
}

impl TryFrom<Written> for Size {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Text(text) => text.parse(),
            Written::Bytes(bytes) => match u64::try_from(bytes) {
                Ok(0) | Err(_) => Err(format!("a size of {bytes} bytes holds nothing")),
                Ok(bytes) => Ok(Self(bytes)),
            },
        }
    }
}

impl fmt::Display for Size {
    /// In the largest binary unit that says it exactly, else with one decimal and the bytes behind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = &UNITS[..5];
        let exact = units.iter().rev().find(|(_, unit)| self.0.is_multiple_of(*unit));
        if let Some((name, unit)) = exact.filter(|(_, unit)| self.0 / unit < 10 * 1024) {
            return write!(f, "{} {name}", self.0 / unit);
        }
        match units.iter().rev().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) => write!(f, "{:.1} {name} ({} bytes)", self.0 as f64 / *unit as f64, self.0),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in [
            ("512", 512),
            ("4096B", 4096),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("256M", 256 << 20),
            ("1.5TiB", 3 << 39),
            ("80GB", 80_000_000_000),
            ("1_000 kB", 1_000_000),
            ("16TiB", 16 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "MiB",
            "0",
            "0GiB",
            "-1",
            "1 parsec",
            "1.2.3M",
            "99999999999TiB",
            "9EB",
            "1.2345678G",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_people_would() {
        for (bytes, text) in [
            (512, "512 bytes"),
            (1 << 20, "1 MiB"),
            (256 << 20, "256 MiB"),
            (3 << 29, "1536 MiB"),
            (80_000_000_000, "74.5 GiB (80000000000 bytes)"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
