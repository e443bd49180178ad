//! Text: lists, values, limits, and the facts of the key table.

mod bodies;

use iscsi_pdu::text::*;
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: TextLimits = TextLimits {
    max_keys: 4,
    max_value_bytes: 300,
};

fn refused(text: &[u8]) -> TextError {
    parse(text, &LIMITS, Duplicates::Refused).expect_err("should be refused")
}

#[test]
fn a_login_text() {
    let text = b"InitiatorName=iqn.2004-10.com.example:home\0SessionType=Discovery\0AuthMethod=None\0X-empty=\0";
    let pairs = parse(text, &LIMITS, Duplicates::Refused).expect("sound");
    let pairs: Vec<_> = pairs.iter().map(|pair| (pair.key, pair.value)).collect();
    assert_eq!(
        pairs,
        [
            ("InitiatorName", "iqn.2004-10.com.example:home"),
            ("SessionType", "Discovery"),
            ("AuthMethod", "None"),
            ("X-empty", "")
        ]
    );
    assert_eq!(parse(b"", &LIMITS, Duplicates::Refused), Ok(vec![]));
    // Only the first equals sign ends the name: Base64 has them too.
    assert_eq!(
        parse(b"CHAP_C=0bAA==\0", &LIMITS, Duplicates::Refused).expect("sound")[0].value,
        "0bAA=="
    );
}

#[test]
fn texts_that_are_not_lists() {
    let long_name = [&[b'N'; 64][..], b"=1\0"].concat();
    let longest_name = [&[b'N'; 63][..], b"=1\0"].concat();
    let longest_value = [b"A=", &[b'v'; 300][..], b"\0"].concat();
    let long_value = [b"A=", &[b'v'; 301][..], b"\0"].concat();
    assert!(parse(&longest_name, &LIMITS, Duplicates::Refused).is_ok());
    assert!(parse(&longest_value, &LIMITS, Duplicates::Refused).is_ok());
    let a = || "A".to_owned();
    for (text, error) in [
        (&b"A=1"[..], TextError::Unterminated),
        (b"A=1\0B=2", TextError::Unterminated),
        (b"A\0", TextError::NoEqualsSign),
        (b"\0", TextError::NoEqualsSign),
        (b"A=1\0\0", TextError::NoEqualsSign),
        (b"=1\0", TextError::BadName),
        (b"A B=1\0", TextError::BadName),
        (b"\xc3\xa9=1\0", TextError::BadName),
        (&long_name, TextError::BadName),
        (
            &long_value,
            TextError::ValueTooLong {
                key: a(),
                max_bytes: 300,
            },
        ),
        (b"A=\xff\0", TextError::BadValue { key: a() }),
        (b"A=1\n2\0", TextError::BadValue { key: a() }),
        (b"A=1\0B=2\0A=1\0", TextError::Duplicate { key: a() }),
        (b"A=1\0B=1\0C=1\0D=1\0E=1\0", TextError::TooManyKeys { max_keys: 4 }),
    ] {
        assert_eq!(refused(text), error);
    }
    assert_eq!(
        parse(b"A=1\0A=1\0", &LIMITS, Duplicates::Allowed).map(|pairs| pairs.len()),
        Ok(2)
    );
}

#[test]
fn writing_keeps_to_its_bound() {
    let mut writer = TextWriter::new(16);
    writer.push("Key", 12).expect("7 bytes");
    assert_eq!(writer.push("LongerKey", 1), Err(TextError::TooLong { max_bytes: 16 }));
    writer.push("Longer", "1").expect("the remaining 9");
    assert_eq!(writer.push("A B", ""), Err(TextError::BadName));
    assert_eq!(
        writer.push("A", "\0B=1"),
        Err(TextError::BadValue { key: "A".to_owned() })
    );
    assert_eq!(writer.into_bytes(), b"Key=12\0Longer=1\0");
}

#[test]
fn segments_are_joined_over_the_c_bit() {
    let mut collector = TextCollector::new(CollectorLimits {
        max_bytes: 12,
        max_segments: 3,
    });
    assert_eq!(collector.feed(b"Ke", true), Ok(None));
    assert!(collector.in_progress());
    assert_eq!(collector.feed(b"", true), Ok(None));
    assert_eq!(collector.feed(b"y=1\0", false), Ok(Some(b"Key=1\0".to_vec())));
    assert!(!collector.in_progress());
    // Empty segments with C set, without end.
    assert_eq!(collector.feed(b"", true), Ok(None));
    assert_eq!(collector.feed(b"", true), Ok(None));
    assert_eq!(collector.feed(b"", true), Ok(None));
    assert_eq!(
        collector.feed(b"", true),
        Err(TextError::TooManySegments { max_segments: 3 })
    );
    assert!(!collector.in_progress());
    // Many small ones, and one large one.
    assert_eq!(collector.feed(&[b'A'; 8], true), Ok(None));
    assert_eq!(
        collector.feed(&[b'A'; 5], true),
        Err(TextError::TooLong { max_bytes: 12 })
    );
    assert_eq!(
        collector.feed(&[b'A'; 13], false),
        Err(TextError::TooLong { max_bytes: 12 })
    );
    assert_eq!(
        collector
            .feed(&[b'A'; 12], false)
            .map(|text| text.map(|text| text.len())),
        Ok(Some(12))
    );
}

#[test]
fn numbers() {
    for (text, number) in [
        ("0", 0),
        ("65536", 65536),
        ("0x10", 16),
        ("0XfF", 255),
        ("18446744073709551615", u64::MAX),
        ("0xffffffffffffffff", u64::MAX),
    ] {
        assert_eq!(parse_number(text), Ok(number), "{text}");
    }
    for text in [
        "",
        "-1",
        "+1",
        "01",
        "1.0",
        "0x",
        "x10",
        "1 ",
        "18446744073709551616",
        "0x10000000000000000",
        "Yes",
    ] {
        assert_eq!(parse_number(text), Err(ValueError::NotANumber), "{text}");
    }
    assert_eq!(parse_range("1~65535"), Ok(1..=65535));
    for text in ["2~1", "1", "1~", "~1", "1~2~3", "1-2"] {
        assert_eq!(parse_range(text), Err(ValueError::NotARange), "{text}");
    }
}

#[test]
fn booleans_lists_and_special_values() {
    assert_eq!((parse_boolean("Yes"), parse_boolean("No")), (Ok(true), Ok(false)));
    assert_eq!((boolean(true), boolean(false)), ("Yes", "No"));
    for text in ["yes", "NO", "", "1", "Yes "] {
        assert_eq!(parse_boolean(text), Err(ValueError::NotABoolean), "{text}");
    }
    assert_eq!(parse_list("CRC32C,None", 2), Ok(vec!["CRC32C", "None"]));
    for text in ["", "CRC32C,", ",None", "A,B,C", "A B"] {
        assert_eq!(parse_list(text, 2), Err(ValueError::NotAList), "{text}");
    }
    assert_eq!(parse_simple(&"v".repeat(255)).map(str::len), Ok(255));
    assert_eq!(parse_simple(&"v".repeat(256)), Err(ValueError::NotASimpleValue));
    assert_eq!(Special::of("NotUnderstood"), Some(Special::NotUnderstood));
    assert_eq!(Special::of("Irrelevant"), Some(Special::Irrelevant));
    assert_eq!(Special::of("Reject"), Some(Special::Reject));
    assert_eq!(Special::of("None"), None);
}

#[test]
fn binary_values() {
    // RFC 4648 §10.
    for (bytes, base64) in [
        (&b"f"[..], "0bZg=="),
        (b"fo", "0bZm8="),
        (b"foo", "0bZm9v"),
        (b"foob", "0bZm9vYg=="),
        (b"fooba", "0bZm9vYmE="),
    ] {
        assert_eq!(parse_binary(base64, 5), Ok(bytes.to_vec()));
        assert_eq!(emit_base64(bytes), base64);
    }
    assert_eq!(parse_binary("0x00fF10", 3), Ok(vec![0, 0xff, 0x10]));
    assert_eq!(parse_binary("0xf10", 3), Ok(vec![0x0f, 0x10]));
    assert_eq!(emit_hex(&[0, 0xff, 0x10]), "0x00ff10");
    for text in [
        "",
        "0",
        "ff",
        "0x",
        "0xfg",
        "0b",
        "0bZg=",
        "0bZg",
        "0bZh==",
        "0bZ===",
        "0bZg==Zg==",
        "0b====",
        "0é",
    ] {
        assert_eq!(parse_binary(text, 9), Err(ValueError::NotBinary), "{text}");
    }
    for text in ["0x01020304", "0bAQIDBA==", "0bAQIDBAUGBwg="] {
        assert_eq!(
            parse_binary(text, 3),
            Err(ValueError::TooLong { max_bytes: 3 }),
            "{text}"
        );
    }
}

/// Names, defaults and rules as §13 has them (section, name, kind).
#[test]
fn the_table_says_what_the_rfc_says() {
    use NumberRule::{Declared, Maximum, Minimum};
    let number = |min, max, default, rule| Kind::Number {
        min,
        max,
        default: Some(default),
        rule,
    };
    for (name, kind) in [
        ("MaxConnections", number(1, 65535, 1, Minimum)),
        ("InitialR2T", Kind::Or { default: true }),
        ("ImmediateData", Kind::And { default: true }),
        ("MaxRecvDataSegmentLength", number(512, 16_777_215, 8192, Declared)),
        ("MaxBurstLength", number(512, 16_777_215, 262_144, Minimum)),
        ("FirstBurstLength", number(512, 16_777_215, 65_536, Minimum)),
        ("DefaultTime2Wait", number(0, 3600, 2, Maximum)),
        ("DefaultTime2Retain", number(0, 3600, 20, Minimum)),
        ("MaxOutstandingR2T", number(1, 65535, 1, Minimum)),
        ("DataPDUInOrder", Kind::Or { default: true }),
        ("DataSequenceInOrder", Kind::Or { default: true }),
        ("ErrorRecoveryLevel", number(0, 2, 0, Minimum)),
        ("iSCSIProtocolLevel", number(0, 31, 1, Minimum)),
        ("IFMarker", Kind::Obsolete),
        ("OFMarkInt", Kind::Obsolete),
    ] {
        let key = Key::from_name(name).expect(name);
        assert_eq!(key.spec().kind, kind, "{name}");
    }
    for name in ["CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", "AuthMethod"] {
        assert_eq!(
            Key::from_name(name).expect(name).spec().phase,
            Phase::Security,
            "{name}"
        );
    }
    for name in ["HeaderDigest", "DataDigest", "MaxRecvDataSegmentLength"] {
        assert_eq!(
            Key::from_name(name).expect(name).spec().scope,
            Scope::Connection,
            "{name}"
        );
    }
    for name in ["TargetAddress", "TargetAlias", "TargetPortalGroupTag"] {
        assert_eq!(
            Key::from_name(name).expect(name).spec().senders,
            Senders::Target,
            "{name}"
        );
    }
    for name in ["MaxBurstLength", "InitialR2T", "TaskReporting", "MaxConnections"] {
        assert!(!Key::from_name(name).expect(name).spec().discovery, "{name}");
    }
    assert_eq!(Key::from_name("initialr2t"), None);
}

#[test]
fn every_key_finds_itself() {
    assert_eq!(Key::all().count(), 35);
    for key in Key::all() {
        assert_eq!(key.spec().key, key);
        assert_eq!(Key::from_name(key.name()), Some(key));
        if let Kind::Number {
            min,
            max,
            default: Some(default),
            ..
        } = key.spec().kind
        {
            assert!((min..=max).contains(&default), "{key}");
        }
    }
}

#[test]
fn results_of_negotiation() {
    assert_eq!(Key::MaxBurstLength.negotiate_number(1 << 20, 1 << 18), Ok(1 << 18));
    assert_eq!(Key::DefaultTime2Wait.negotiate_number(0, 2), Ok(2));
    assert_eq!(
        Key::MaxRecvDataSegmentLength.negotiate_number(8192, 8192),
        Err(ValueError::WrongKind)
    );
    let out_of_range = ValueError::OutOfRange {
        value: 511,
        min: 512,
        max: 16_777_215,
    };
    assert_eq!(Key::MaxBurstLength.negotiate_number(511, 512), Err(out_of_range));
    assert_eq!(Key::MaxBurstLength.parse_number("511"), Err(out_of_range));
    assert_eq!(Key::MaxBurstLength.parse_number("0x40000"), Ok(262_144));
    assert!(matches!(
        Key::MaxBurstLength.parse_number("4294967808"),
        Err(ValueError::OutOfRange {
            value: 4_294_967_808,
            ..
        })
    ));
    assert_eq!(Key::HeaderDigest.parse_number("1"), Err(ValueError::WrongKind));
    for (ours, offered) in [(false, false), (false, true), (true, false), (true, true)] {
        assert_eq!(Key::ImmediateData.negotiate_boolean(offered, ours), Ok(offered && ours));
        assert_eq!(Key::InitialR2T.negotiate_boolean(offered, ours), Ok(offered || ours));
    }
    assert_eq!(
        Key::MaxBurstLength.negotiate_boolean(true, true),
        Err(ValueError::WrongKind)
    );
    assert_eq!(choose(&["X-fast", "None", "CRC32C"], &["CRC32C", "None"]), Some("None"));
    assert_eq!(choose(&["X-fast"], &["CRC32C", "None"]), None);
    assert_eq!(Key::InitialR2T.default_boolean(), Some(true));
    assert_eq!(Key::MaxBurstLength.default_number(), Some(262_144));
}

proptest! {
    #[test]
    fn lists_survive_the_wire(pairs in vec(("[A-Z][a-zA-Z0-9.+@_-]{0,62}", "[^\\p{Cc}]{0,60}"), 0..8)) {
        let mut writer = TextWriter::new(8192);
        for (key, value) in &pairs {
            writer.push(key, value).expect("within the bound");
        }
        let limits = TextLimits::default();
        let bytes = writer.into_bytes();
        let read = parse(&bytes, &limits, Duplicates::Allowed).expect("what was written");
        let read: Vec<_> = read.iter().map(|pair| (pair.key.to_owned(), pair.value.to_owned())).collect();
        prop_assert_eq!(read, pairs);
    }

    #[test]
    fn binary_survives_the_wire(bytes in vec(any::<u8>(), 1..64)) {
        prop_assert_eq!(parse_binary(&emit_hex(&bytes), 64), Ok(bytes.clone()));
        prop_assert_eq!(parse_binary(&emit_base64(&bytes), 64), Ok(bytes));
    }

    #[test]
    fn any_bytes_as_a_text(bytes in vec(any::<u8>(), 0..2000)) {
        bodies::text(&bytes);
    }

    /// Bytes that look like lists, so that more than the first pair is reached.
    #[test]
    fn near_lists_as_a_text(
        records in vec(
            prop_oneof![
                "[A-Za-z_0-9=,~-]{0,20}",
                "(MaxBurstLength|InitialR2T|CHAP_C|HeaderDigest|DefaultTime2Wait)=(0[xb])?[0-9a-fA-F,~=]{0,9}",
            ],
            0..10,
        ),
        cut: prop::sample::Index,
    ) {
        let mut text: Vec<u8> = records.into_iter().flat_map(|record| [record.as_bytes(), &[0]].concat()).collect();
        bodies::text(&text);
        text.truncate(cut.index(text.len() + 1));
        bodies::text(&text);
    }
}
