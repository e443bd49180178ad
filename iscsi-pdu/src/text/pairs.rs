//! `key=value` lists: read with every bound checked, and written within one (RFC 7143 §6.1).

use std::fmt;

use nom::bytes::complete::{tag, take_till, take_while_m_n};
use nom::{IResult, Parser};

use crate::text::TextError;

/// Longest key name (RFC 7143 §6.1: key-name is at most 63 bytes).
const MAX_NAME_BYTES: usize = 63;

/// What is taken from one exchange.
#[derive(Clone, Copy, Debug)]
pub struct TextLimits {
    /// Pairs in all.
    pub max_keys: usize,
    /// One value, in bytes as sent (encoded). RFC 7143 §6.1 gives 255 for simple values; binary ones and lists may be
    /// longer.
    pub max_value_bytes: usize,
}

impl Default for TextLimits {
    /// 64 keys of up to 8192 bytes: what §6.2 asks everyone to be able to receive is 8192 bytes in all.
    fn default() -> TextLimits {
        TextLimits {
            max_keys: 64,
            max_value_bytes: 8192,
        }
    }
}

/// Whether a key may come more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// A negotiation: once each (RFC 7143 §6.2).
    Refused,
    /// An answer to SendTargets: one TargetName per target (RFC 7143 appendix C).
    Allowed,
}

/// One key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Name, known or not ([`Key::from_name`](crate::text::Key::from_name)).
    pub key: &'a str,
    /// Value, free of control characters.
    pub value: &'a str,
}

/// Cuts a complete text (all segments joined, see [`TextCollector`](crate::text::TextCollector)) into pairs, in order.
pub fn parse<'a>(text: &'a [u8], limits: &TextLimits, duplicates: Duplicates) -> Result<Vec<Pair<'a>>, TextError> {
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if pairs.len() == limits.max_keys {
            return Err(TextError::TooManyKeys {
                max_keys: limits.max_keys,
            });
        }
        let (after, record) = record(rest).map_err(|_| TextError::Unterminated)?;
        let pair = pair(record, limits)?;
        if duplicates == Duplicates::Refused && pairs.iter().any(|earlier| earlier.key == pair.key) {
            return Err(TextError::Duplicate {
                key: pair.key.to_owned(),
            });
        }
        pairs.push(pair);
        rest = after;
    }
    Ok(pairs)
}

/// Everything up to a zero byte, which is taken too.
fn record(input: &[u8]) -> IResult<&[u8], &[u8], ()> {
    let (rest, (record, _)) = (take_till(|byte| byte == 0), tag(&[0][..])).parse(input)?;
    Ok((rest, record))
}

fn pair<'a>(record: &'a [u8], limits: &TextLimits) -> Result<Pair<'a>, TextError> {
    let name_end = record
        .iter()
        .position(|byte| *byte == b'=')
        .ok_or(TextError::NoEqualsSign)?;
    let (name, value) = (&record[..name_end], &record[name_end + 1..]);
    let key = key_name(name)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .and_then(|(_, name)| std::str::from_utf8(name).ok())
        .ok_or(TextError::BadName)?;
    if value.len() > limits.max_value_bytes {
        return Err(TextError::ValueTooLong {
            key: key.to_owned(),
            max_bytes: limits.max_value_bytes,
        });
    }
    match std::str::from_utf8(value) {
        Ok(value) if !value.chars().any(char::is_control) => Ok(Pair { key, value }),
        _ => Err(TextError::BadValue { key: key.to_owned() }),
    }
}

/// RFC 7143 §6.1: a standard-label, and `#` for the extension keys of §13.22 (`X#name`).
fn key_name(input: &[u8]) -> IResult<&[u8], &[u8], ()> {
    take_while_m_n(1, MAX_NAME_BYTES, |byte: u8| {
        byte.is_ascii_alphanumeric() || b".-+@_#".contains(&byte)
    })
    .parse(input)
}

/// A text being written, within a bound.
#[derive(Debug)]
pub struct TextWriter {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl TextWriter {
    /// An empty text of at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> TextWriter {
        TextWriter {
            bytes: Vec::new(),
            max_bytes,
        }
    }

    /// Appends one pair, or nothing when it does not fit or the name or value (our own, or one we repeat) could not be
    /// read back.
    pub fn push(&mut self, key: &str, value: impl fmt::Display) -> Result<(), TextError> {
        let value = value.to_string();
        if !matches!(key_name(key.as_bytes()), Ok((rest, _)) if rest.is_empty()) {
            return Err(TextError::BadName);
        }
        if value.chars().any(char::is_control) {
            return Err(TextError::BadValue { key: key.to_owned() });
        }
        if self.bytes.len() + key.len() + value.len() + 2 > self.max_bytes {
            return Err(TextError::TooLong {
                max_bytes: self.max_bytes,
            });
        }
        for part in [key.as_bytes(), b"=", value.as_bytes(), &[0]] {
            self.bytes.extend_from_slice(part);
        }
        Ok(())
    }

    /// Length so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The text.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
