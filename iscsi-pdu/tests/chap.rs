//! CHAP's arithmetic against answers computed elsewhere.

use iscsi_pdu::chap::{Digest, SECRET_MAX_BYTES, SECRET_MIN_BYTES, Secret, SecretError, response};
use iscsi_pdu::text::{emit_base64, emit_hex, parse_binary};

/// From Python's hashlib: `hashlib.new(name, b"\x2a" + b"0123456789abcdef" + bytes(range(32))).hexdigest()`.
const KNOWN: [(Digest, u8, &str, &str); 4] = [
    (Digest::Md5, 5, "md5", "0x5fdf0806fabbf071b43f51d0a3efece5"),
    (Digest::Sha1, 6, "sha1", "0x34316471f80cb6fbbcbe90d268d1b2fe1ffc3899"),
    (
        Digest::Sha256,
        7,
        "sha256",
        "0x2d84c1d469bd56155ff5417d7e43be7257c2b108e3079eb23af578704ebbad27",
    ),
    (
        Digest::Sha3_256,
        8,
        "sha3-256",
        "0xa62a875d29a7572b24cd4b4d933fe42cc899795a2165e222034d8dfddb75af2f",
    ),
];

#[test]
fn responses_are_what_python_says() {
    let secret = Secret::new(*b"0123456789abcdef").unwrap();
    let challenge: Vec<u8> = (0..32).collect();
    for (digest, code, name, expected) in KNOWN {
        let answer = response(digest, 0x2a, &secret, &challenge);
        assert_eq!(emit_hex(&answer), expected, "{digest}");
        assert_eq!(answer.len(), digest.output_bytes());
        assert_eq!(parse_binary(&emit_base64(&answer), 32), Ok(answer));
        assert_eq!(digest.code(), code);
        assert_eq!(Digest::from_code(u32::from(code)), Some(digest));
        assert_eq!(name.parse(), Ok(digest));
        assert_eq!(digest.to_string(), name);
    }
    for code in [0, 4, 9, 5 + 256, u32::MAX] {
        assert_eq!(Digest::from_code(code), None);
    }
    assert!("SHA256".parse::<Digest>().is_err());
}

#[test]
fn digests_are_in_order_of_strength() {
    assert!(Digest::STRONGEST_FIRST.is_sorted_by(|stronger, weaker| stronger > weaker));
}

#[test]
fn secrets_have_96_bits_and_are_not_shown() {
    let of = |bytes: usize| Secret::new(vec![b'q'; bytes]);
    for bytes in [0, 1, SECRET_MIN_BYTES - 1] {
        assert_eq!(of(bytes), Err(SecretError::TooShort { bytes }));
    }
    assert_eq!(of(SECRET_MAX_BYTES + 1), Err(SecretError::TooLong { bytes: 256 }));
    for bytes in [SECRET_MIN_BYTES, SECRET_MAX_BYTES] {
        let secret = of(bytes).unwrap();
        assert!(!format!("{secret:?}").contains('q'), "{secret:?}");
        assert_eq!(secret, of(bytes).unwrap());
    }
    assert_ne!(of(12), of(13));
    assert_ne!(of(12).unwrap(), Secret::new(*b"qqqqqqqqqqqr").unwrap());
}
