//! Reads values of each type (RFC 7143 §6.1).

use std::ops::RangeInclusive;

use nom::Parser;
use nom::bytes::complete::{tag, tag_no_case};
use nom::character::complete::{digit1, hex_digit1};
use nom::combinator::all_consuming;
use nom::sequence::{preceded, separated_pair};

use crate::text::ValueError;

/// The affirmative (RFC 7143 §6.1).
pub const YES: &str = "Yes";
/// The negative.
pub const NO: &str = "No";
/// The value that stands for no choice in lists.
pub const NONE: &str = "None";
/// Answer to an unknown key (RFC 7143 §6.2).
pub const NOT_UNDERSTOOD: &str = "NotUnderstood";
/// Answer to a key that does not matter in this context.
pub const IRRELEVANT: &str = "Irrelevant";
/// Answer to a value that cannot be taken.
pub const REJECT: &str = "Reject";

/// Longest simple value (RFC 7143 §6.1).
pub const MAX_SIMPLE_VALUE_BYTES: usize = 255;

/// The reserved answers of RFC 7143 §6.2 (`None` is an ordinary value).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// The key is unknown.
    NotUnderstood,
    /// The key does not matter here.
    Irrelevant,
    /// The value cannot be taken.
    Reject,
}

impl Special {
    /// Whether a value is one of them.
    #[must_use]
    pub fn of(value: &str) -> Option<Special> {
        match value {
            NOT_UNDERSTOOD => Some(Special::NotUnderstood),
            IRRELEVANT => Some(Special::Irrelevant),
            REJECT => Some(Special::Reject),
            _ => None,
        }
    }
}

/// The text of a boolean.
#[must_use]
pub fn boolean(value: bool) -> &'static str {
    if value { YES } else { NO }
}

/// `Yes` or `No`, spelled so.
pub fn parse_boolean(value: &str) -> Result<bool, ValueError> {
    match value {
        YES => Ok(true),
        NO => Ok(false),
        _ => Err(ValueError::NotABoolean),
    }
}

/// A decimal constant without leading zeroes or a hexadecimal one (`0x`), of up to 64 bits.
pub fn parse_number(value: &str) -> Result<u64, ValueError> {
    number(value).ok_or(ValueError::NotANumber)
}

fn number(value: &str) -> Option<u64> {
    let hexadecimal = all_consuming(preceded(tag_no_case::<_, _, ()>("0x"), hex_digit1)).parse(value);
    if let Ok((_, digits)) = hexadecimal {
        return u64::from_str_radix(digits, 16).ok();
    }
    let (_, digits) = all_consuming(digit1::<_, ()>).parse(value).ok()?;
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    digits.parse().ok()
}

/// Two numbers with a tilde between, the lower first.
pub fn parse_range(value: &str) -> Result<RangeInclusive<u64>, ValueError> {
    let bound = || nom::bytes::complete::take_till1::<_, _, ()>(|c| c == '~');
    let (_, (low, high)) = all_consuming(separated_pair(bound(), tag("~"), bound()))
        .parse(value)
        .map_err(|_| ValueError::NotARange)?;
    match (number(low), number(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        _ => Err(ValueError::NotARange),
    }
}

/// A simple value: letters, digits and `. - + @ _ / [ ] :` (text-value of RFC 7143 §6.1), up to 255 of them.
pub fn parse_simple(value: &str) -> Result<&str, ValueError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-+@_/[]:".contains(&byte);
    if value.is_empty() || value.len() > MAX_SIMPLE_VALUE_BYTES || !value.bytes().all(fits) {
        return Err(ValueError::NotASimpleValue);
    }
    Ok(value)
}

/// Simple values with commas between, at most `max_items`, in the sender's order of preference.
pub fn parse_list(value: &str, max_items: usize) -> Result<Vec<&str>, ValueError> {
    let mut items = Vec::new();
    for item in value.split(',') {
        if items.len() == max_items {
            return Err(ValueError::NotAList);
        }
        items.push(parse_simple(item).map_err(|_| ValueError::NotAList)?);
    }
    Ok(items)
}
