//! The table of text keys: each offer gets its answer, and no key is left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use iscsi_pdu::text::{Key, Kind, emit_hex};
use iscsi_pdu::{LoginRequest, LoginStatus, Lun, RESERVED_TAG, Response, Serial, Stage, TextRequest};
use target_core::iscsi::{Limits, Node, Origin};

use crate::chap_support as chap;
use crate::page::{self, Row, Table};
use crate::support::{INITIATOR, TARGET, Wire, login_request, node, origin, pairs, text};

pub const HEADING: &str = "Text keys";

/// What is written where nothing is offered or answered.
const NOTHING: &str = "nothing";

fn rows() -> Table {
    page::table(HEADING, &["Key", "Default", "Stage", "Offered", "Answered", "Remarks"])
}

#[test]
fn every_offer_gets_its_answer() {
    for row in rows().rows {
        let answered = match row.cell(2) {
            "security" => login(&row, Stage::Security, "Normal"),
            "CHAP" => chap(&row),
            "operational" => login(&row, Stage::Operational, "Normal"),
            "discovery" => login(&row, Stage::Operational, "Discovery"),
            "text" => full_feature(&row, None),
            "text, discovery" => full_feature(&row, Some(origin())),
            "text, forwarded" => full_feature(&row, Some(forwarded())),
            _ => row.fail("no such stage"),
        };
        if answered != row.cell(4) {
            row.fail(&format!("answered: {answered}"));
        }
    }
}

fn default_node() -> Arc<Node> {
    node(Limits::default())
}

/// A login with the names that have to be there, and the row's key with its offer.
fn login(row: &Row, stage: Stage, session_type: &str) -> String {
    let (key, offered) = (row.cell(0), row.cell(3));
    let mut keys = vec![("InitiatorName", INITIATOR), ("SessionType", session_type)];
    if session_type == "Normal" {
        keys.push(("TargetName", TARGET));
    }
    keys.retain(|(name, _)| *name != key);
    // `262144 (MaxBurstLength=65536)`: another key comes with it.
    let (offered, with) = offered.split_once(" (").unwrap_or((offered, ""));
    keys.extend(with.strip_suffix(')').and_then(|pair| pair.split_once('=')));
    if offered != NOTHING {
        keys.push((key, offered));
    }
    let request = LoginRequest {
        csg: stage,
        ..login_request()
    };
    let (response, answers) = Wire::new(&default_node()).login(&request, &text(&keys));
    if !response.status.is_success() {
        let [class, detail] = response.status.code().to_be_bytes();
        return format!("login {class:02X}/{detail:02X}");
    }
    let values: Vec<String> = answers
        .into_iter()
        .filter(|(name, _)| name == key)
        .map(|pair| pair.1)
        .collect();
    if values.is_empty() {
        NOTHING.to_owned()
    } else {
        values.join(" and ")
    }
}

/// A login to a target that asks for CHAP; offers in parentheses depend on its challenge.
fn chap(row: &Row) -> String {
    let node = chap::locked_node(chap::credentials());
    let (key, offered) = (row.cell(0), row.cell(3));
    let refused = |status: LoginStatus| {
        let [class, detail] = status.code().to_be_bytes();
        format!("login {class:02X}/{detail:02X}")
    };
    let one = |answers: &chap::Keys| chap::value(answers, key).unwrap_or(NOTHING).to_owned();
    match (key, offered) {
        ("AuthMethod", _) => {
            let mut keys = chap::names();
            let request = if offered == NOTHING {
                login_request()
            } else {
                keys.extend(chap::keys(&[(key, offered)]));
                chap::security()
            };
            let (response, answers) = Wire::new(&node).login(&request, &chap::encoded(&keys));
            if response.status.is_success() {
                one(&answers)
            } else {
                refused(response.status)
            }
        }
        ("CHAP_A", _) => {
            let mut wire = Wire::new(&node);
            let keys = [chap::names(), chap::keys(&[("AuthMethod", "CHAP")])].concat();
            wire.login(&chap::security(), &chap::encoded(&keys));
            let (response, answers) = chap::say(&mut wire, &chap::security(), &chap::keys(&[(key, offered)]));
            if response.status.is_success() {
                one(&answers)
            } else {
                refused(response.status)
            }
        }
        ("CHAP_I" | "CHAP_C", NOTHING) => {
            let (first, second) = (chap::asked(&node, "5").1, chap::asked(&node, "5").1);
            let ours = if first.challenge == second.challenge {
                "the same"
            } else {
                "ever new"
            };
            format!("({ours})")
        }
        _ => {
            let (mut wire, question) = chap::asked(&node, "7");
            let mut answer = question.answer(chap::USER, chap::SECRET);
            let challenge = emit_hex(&[0x5A; 32]);
            let mutual = chap::keys(&[("CHAP_I", "42"), ("CHAP_C", &challenge)]);
            match (key, offered) {
                ("CHAP_N" | "CHAP_R", "(right)") => {}
                ("CHAP_N" | "CHAP_R", "(right, and asks in turn)") => answer.extend(mutual),
                ("CHAP_N", "(unknown)") => answer = question.answer("nobody", chap::SECRET),
                ("CHAP_R", "(wrong)") => answer = question.answer(chap::USER, chap::OTHER_SECRET),
                ("CHAP_R", "(of another login)") => {
                    answer = chap::asked(&node, "7").1.answer(chap::USER, chap::SECRET);
                }
                ("CHAP_C", "(the target's own)") => {
                    let back = emit_hex(&question.challenge);
                    answer.extend(chap::keys(&[("CHAP_I", "42"), ("CHAP_C", &back)]));
                }
                ("CHAP_I", number) => answer.extend(chap::keys(&[("CHAP_I", number), ("CHAP_C", &challenge)])),
                _ => row.fail("nobody knows how to offer that"),
            }
            let (response, answers) = chap::say(&mut wire, &chap::security_over(), &answer);
            if !response.status.is_success() {
                return refused(response.status);
            }
            let theirs = chap::Question {
                identifier: 42,
                challenge: vec![0x5A; 32],
                ..question
            };
            match chap::value(&answers, key) {
                Some(value) if key == "CHAP_R" && value == emit_hex(&theirs.response(chap::OWN_SECRET)) => {
                    "(right)".to_owned()
                }
                _ => one(&answers),
            }
        }
    }
}

/// A connection that ends at a loopback address, as one forwarded by SSH does.
fn forwarded() -> Origin {
    Origin {
        local: Some(([127, 0, 0, 1], 13260).into()),
        peer: "127.0.0.1:50000".to_owned(),
        ..Origin::default()
    }
}

/// A Text Request with the row's offer, in a discovery session of this origin or in a normal one.
fn full_feature(row: &Row, discovery: Option<Origin>) -> String {
    let node = default_node();
    let mut wire = match discovery {
        Some(origin) => {
            let mut wire = Wire::coming_by(&node, origin);
            let keys = text(&[("InitiatorName", INITIATOR), ("SessionType", "Discovery")]);
            let (response, _) = wire.login(&login_request(), &keys);
            assert!(response.status.is_success());
            wire
        }
        None => Wire::logged_in(&node, &[]),
    };
    let request = TextRequest {
        immediate: true,
        final_bit: true,
        continue_: false,
        lun: Lun::default(),
        itt: 1,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    let offered = row.cell(3).replace("(empty)", "");
    wire.send(&request, &text(&[(row.cell(0), &offered)]));
    match wire.next() {
        (Response::Text(_), data) if data.is_empty() => NOTHING.to_owned(),
        (Response::Text(_), data) => {
            let answers = pairs(&data);
            match &answers[..] {
                [(key, value)] if key == row.cell(0) => value.clone(),
                several => several
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect::<Vec<_>>()
                    .join(" "),
            }
        }
        (Response::Reject(reject), _) => format!("Reject {:02X}", reject.reason.code()),
        other => row.fail(&format!("{other:?}")),
    }
}

#[test]
fn every_key_of_the_standard_is_there() {
    let on_page: BTreeSet<String> = rows().rows.iter().map(|row| row.cell(0).to_owned()).collect();
    for key in Key::all() {
        assert!(on_page.contains(key.name()), "{key} is not on the page");
    }
    for name in &on_page {
        assert!(
            Key::from_name(name).is_some() || name.starts_with("X-"),
            "{name} is no key"
        );
    }
}

#[test]
fn defaults_are_those_of_the_table_of_keys() {
    for row in rows().rows {
        let default = Key::from_name(row.cell(0))
            .map(|key| key.spec().kind)
            .map_or(String::new(), |kind| match kind {
                Kind::And { default } | Kind::Or { default } => if default { "Yes" } else { "No" }.to_owned(),
                Kind::Number { default, .. } => default.map_or(String::new(), |number| number.to_string()),
                Kind::List { default, .. } => default.unwrap_or_default().to_owned(),
                Kind::OneOf { default, .. } => default.to_owned(),
                Kind::Text | Kind::Binary { .. } | Kind::Obsolete => String::new(),
            });
        if row.cell(1) != default {
            row.fail(&format!("the default is {default:?}"));
        }
    }
}
