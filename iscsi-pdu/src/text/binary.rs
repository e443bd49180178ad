//! Binary values: hexadecimal (`0x...`) and Base64 (`0b...`) constants (RFC 7143 §6.1; RFC 4648 §4).

use crate::text::ValueError;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Reads a binary constant of at most `max_bytes` decoded. An odd number of hexadecimal digits stands for a leading
/// zero digit.
pub fn parse_binary(value: &str, max_bytes: usize) -> Result<Vec<u8>, ValueError> {
    let (prefix, digits) = value.split_at_checked(2).ok_or(ValueError::NotBinary)?;
    let decoded = match prefix {
        "0x" | "0X" => {
            within(digits.len().div_ceil(2), max_bytes)?;
            from_hex(digits.as_bytes())
        }
        "0b" | "0B" => {
            within(digits.trim_end_matches('=').len() / 4 * 3, max_bytes)?;
            from_base64(digits.as_bytes())
        }
        _ => None,
    };
    let decoded = decoded.ok_or(ValueError::NotBinary)?;
    within(decoded.len(), max_bytes)?;
    Ok(decoded)
}

/// The hexadecimal constant for these bytes.
#[must_use]
pub fn emit_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    "0x".chars()
        .chain(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]))
        .collect()
}

/// The Base64 constant for these bytes.
#[must_use]
pub fn emit_base64(bytes: &[u8]) -> String {
    let mut text = String::from("0b");
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for place in 0..4 {
            let sextet = bits >> (18 - 6 * place) & 0x3f;
            text.push(if place > group.len() {
                '='
            } else {
                char::from(ALPHABET[sextet as usize])
            });
        }
    }
    text
}

fn within(bytes: usize, max_bytes: usize) -> Result<(), ValueError> {
    if bytes > max_bytes {
        Err(ValueError::TooLong { max_bytes })
    } else {
        Ok(())
    }
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() {
        return None;
    }
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).map(|value| value as u8);
    let (odd, pairs) = digits.split_at(digits.len() % 2);
    let odd = odd.iter().map(nibble);
    let pairs = pairs
        .chunks_exact(2)
        .map(|pair| Some(nibble(&pair[0])? << 4 | nibble(&pair[1])?));
    odd.chain(pairs).collect()
}

fn from_base64(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let mut groups = digits.chunks_exact(4).peekable();
    while let Some(group) = groups.next() {
        let filled = if groups.peek().is_some() || group[3] != b'=' {
            4
        } else if group[2] != b'=' {
            3
        } else {
            2
        };
        let mut bits = 0_u32;
        for digit in &group[..filled] {
            bits = bits << 6 | ALPHABET.iter().position(|letter| letter == digit)? as u32;
        }
        bits <<= 6 * (4 - filled);
        let [_, decoded @ ..] = bits.to_be_bytes();
        let (decoded, unused) = decoded.split_at(filled - 1);
        // Bits that are not part of a byte must be zero, or two texts would mean the same.
        if unused.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(decoded);
    }
    Some(bytes)
}
