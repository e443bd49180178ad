//! Before a login is over, at a target that asks for CHAP: what does not get past the question (RFC 7143 §6.3.2, §12).
//!
//! Only bytes that are the same in every login, so nothing here answers the challenge.

use super::Seen::{Closed, Login, Waits};
use super::bytes::{C, DISCOVERY, LAST, NAMES, NO_TAG, login, nop};
use super::{Row, Seen, Start, row};

/// Stays in the security stage.
const STAY: u8 = 0x00;
/// From the security stage to the operational one, and straight to the full-feature phase.
const GO_ON: u8 = 0x81;
const GO_TO_THE_END: u8 = 0x83;

/// Names, and CHAP as the method.
fn begun() -> Vec<u8> {
    login(STAY, [NAMES, "AuthMethod=CHAP\0"].concat()).bytes()
}

/// The same, and asked by the target.
fn asked() -> Vec<u8> {
    [begun(), login(STAY, "CHAP_A=7\0").bytes()].concat()
}

/// Requests after good ones that are refused.
fn after(name: &'static str, good: Vec<u8>, answers: usize, flags: u8, text: impl Into<Vec<u8>>, status: u16) -> Row {
    let mut expected = vec![Login(0); answers];
    expected.extend([Login(status), Closed]);
    row(
        name,
        Start::Stranger,
        [good, login(flags, text).bytes()].concat(),
        expected,
    )
}

/// The table.
pub fn rows() -> Vec<Row> {
    let first = |name, flags, more: &str, status| after(name, Vec::new(), 0, flags, [NAMES, more].concat(), status);
    let second = |name, flags, text: &str, status| after(name, begun(), 1, flags, text, status);
    let third = |name, flags, text: String, status| after(name, asked(), 2, flags, text, status);
    let waits = |name, bytes: Vec<u8>, answers: usize| {
        let mut expected: Vec<Seen> = vec![Login(0); answers];
        expected.push(Waits);
        row(name, Start::Stranger, bytes, expected)
    };
    let digits = |count: usize| "ab".repeat(count);
    vec![
        first("past the question: operational stage", LAST, "", 0x0201),
        first("past the question: T without a method", GO_ON, "", 0x0201),
        first("past the question: to the end", GO_TO_THE_END, "", 0x0201),
        first("past the question: None", GO_ON, "AuthMethod=None\0", 0x0201),
        first("past the question: None, without T", STAY, "AuthMethod=None\0", 0x0201),
        first(
            "past the question: other methods",
            STAY,
            "AuthMethod=KRB5,SRP,None\0",
            0x0201,
        ),
        first("CHAP in lower case", STAY, "AuthMethod=chap\0", 0x0201),
        first("an empty method before CHAP", STAY, "AuthMethod=,CHAP\0", 0x0201),
        first(
            "100 methods",
            STAY,
            &format!("AuthMethod={}\0", ["CHAP"; 100].join(",")),
            0x0201,
        ),
        first("algorithm with the method", STAY, "AuthMethod=CHAP\0CHAP_A=7\0", 0x0200),
        first(
            "algorithm before the method",
            STAY,
            "CHAP_A=7\0AuthMethod=CHAP\0",
            0x0200,
        ),
        first("algorithm without a method", STAY, "CHAP_A=7\0", 0x0200),
        first("answer without a question", GO_ON, "CHAP_N=root\0CHAP_R=0x00\0", 0x0200),
        second("the operational stage without T", LAST, "", 0x0200),
        second("the method twice", STAY, "AuthMethod=None\0", 0x0200),
        second(
            "the target is another now",
            STAY,
            "TargetName=iqn.2026-11.net.farlun:other\0",
            0x0200,
        ),
        second(
            "the session is a discovery now",
            GO_ON,
            "SessionType=Discovery\0",
            0x0200,
        ),
        second(
            "answer in place of the algorithm",
            GO_ON,
            "CHAP_N=root\0CHAP_R=0x00\0",
            0x0200,
        ),
        second(
            "challenge in place of the algorithm",
            STAY,
            "CHAP_I=1\0CHAP_C=0x00\0",
            0x0200,
        ),
        second(
            "algorithm and answer",
            GO_ON,
            "CHAP_A=7\0CHAP_N=root\0CHAP_R=0x00\0",
            0x0200,
        ),
        third("algorithm again", STAY, "CHAP_A=7\0".into(), 0x0200),
        third("the method again", GO_ON, "AuthMethod=None\0".into(), 0x0200),
        third("name alone", GO_ON, "CHAP_N=root\0".into(), 0x0207),
        third("response alone", GO_ON, "CHAP_R=0x00\0".into(), 0x0207),
        third("challenge alone", GO_ON, "CHAP_I=1\0CHAP_C=0x00\0".into(), 0x0207),
        third(
            "response twice",
            GO_ON,
            "CHAP_N=root\0CHAP_R=0x00\0CHAP_R=0x01\0".into(),
            0x0200,
        ),
        third("response is empty", GO_ON, "CHAP_N=root\0CHAP_R=\0".into(), 0x0200),
        third(
            "response without prefix",
            GO_ON,
            format!("CHAP_N=root\0CHAP_R={}\0", digits(32)),
            0x0200,
        ),
        third(
            "response of no digits",
            GO_ON,
            "CHAP_N=root\0CHAP_R=0x\0".into(),
            0x0200,
        ),
        third(
            "response of odd digits",
            GO_ON,
            "CHAP_N=root\0CHAP_R=0x12xz\0".into(),
            0x0200,
        ),
        third(
            "response of bad base64",
            GO_ON,
            "CHAP_N=root\0CHAP_R=0bA\0".into(),
            0x0200,
        ),
        third("response of UTF-8", GO_ON, "CHAP_N=root\0CHAP_R=0xßß\0".into(), 0x0200),
        third(
            "response of 1025 bytes",
            GO_ON,
            format!("CHAP_N=root\0CHAP_R=0x{}\0", digits(1025)),
            0x0200,
        ),
        third(
            "response of 4000 bytes",
            GO_ON,
            format!("CHAP_N=root\0CHAP_R=0x{}\0", digits(3900)),
            0x0200,
        ),
        third(
            "name of 256 bytes",
            GO_ON,
            format!("CHAP_N={}\0CHAP_R=0x00\0", "n".repeat(256)),
            0x0200,
        ),
        third(
            "name with a line feed",
            GO_ON,
            "CHAP_N=ro\not\0CHAP_R=0x00\0".into(),
            0x0200,
        ),
        third(
            "identifier of 256",
            GO_ON,
            "CHAP_N=root\0CHAP_R=0x00\0CHAP_I=256\0CHAP_C=0x00\0".into(),
            0x0200,
        ),
        third(
            "identifier of -1",
            GO_ON,
            "CHAP_N=root\0CHAP_R=0x00\0CHAP_I=-1\0CHAP_C=0x00\0".into(),
            0x0200,
        ),
        third(
            "challenge of 1025 bytes",
            GO_ON,
            format!("CHAP_N=root\0CHAP_R=0x00\0CHAP_I=1\0CHAP_C=0x{}\0", digits(1025)),
            0x0200,
        ),
        third(
            "operational key with the answer",
            GO_ON,
            "MaxBurstLength=512\0CHAP_N=root\0CHAP_R=0x00\0".into(),
            0x0200,
        ),
        row(
            "something else in place of the answer",
            Start::Stranger,
            [asked(), nop(1, NO_TAG).bytes()].concat(),
            vec![Login(0), Login(0), Login(0x020b), Closed],
        ),
        waits("says no more after the method", begun(), 1),
        waits("says no more after the question", asked(), 2),
        waits(
            "half an answer",
            [asked(), login(C, "CHAP_N=root\0CHAP_R=0x").bytes()].concat(),
            3,
        ),
        row(
            "asks for T for ever",
            Start::Stranger,
            [asked(), login(GO_ON, "").bytes().repeat(63)].concat(),
            [vec![Login(0); 64], vec![Login(0x0200), Closed]].concat(),
        ),
        // Discovery is not locked here, and is no way in.
        row(
            "a discovery that wants a target after all",
            Start::Stranger,
            [
                login(GO_ON, DISCOVERY).bytes(),
                login(LAST, "TargetName=iqn.2026-11.net.farlun:test\0").bytes(),
            ]
            .concat(),
            vec![Login(0), Login(0x0200), Closed],
        ),
    ]
}
