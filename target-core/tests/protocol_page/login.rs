//! The table of login status codes: each that is given is provoked.

use std::collections::BTreeSet;

use iscsi_pdu::{Isid, LoginRequest, LoginStatus, Lun, NopOut, RESERVED_TAG, Response, Serial};
use target_core::iscsi::Limits;

use crate::page;
use crate::senses::Given;
use crate::source;
use crate::support::{INITIATOR, TARGET, Wire, login_request, node, node_with, text};

pub const HEADING: &str = "Login status";

const NAMES: [(&str, &str); 2] = [("InitiatorName", INITIATOR), ("TargetName", TARGET)];

/// Class and detail, as `02/01`.
fn code(text: &str) -> Option<u16> {
    let (class, detail) = text.split_once('/')?;
    Some(u16::from_be_bytes([page::hex(class)?, page::hex(detail)?]))
}

#[test]
fn every_status_is_given_as_the_page_says() {
    let table = page::table(HEADING, &["Status", "Name", "Given", "When"]);
    let mut on_page = BTreeSet::new();
    let names = source::names("LoginStatus::", &[]);
    let of_name = |name: &String| LoginStatus::ALL.iter().find(|status| format!("{status:?}") == *name);
    let used: BTreeSet<u16> = names.iter().filter_map(of_name).map(|status| status.code()).collect();
    for row in table.rows {
        let status = code(row.cell(0)).unwrap_or_else(|| row.fail("not class and detail"));
        assert!(on_page.insert(status), "{status:04X} is there twice");
        let given = Given::read(&row, 2);
        let came = provoke(status);
        if given == Given::No && used.contains(&status) {
            row.fail("the source uses it");
        }
        if came != (given == Given::Yes).then_some(status) {
            row.fail(&format!("provoked: {came:04X?}"));
        }
    }
    let all: BTreeSet<u16> = LoginStatus::ALL.iter().map(|status| status.code()).collect();
    assert_eq!(on_page, all, "every status of RFC 7143 §11.13.5");
}

/// Provokes a status; `None` where nobody knows how.
fn provoke(status: u16) -> Option<u16> {
    let first = login_request;
    Some(match status {
        0x0000 => try_login(&first(), &NAMES),
        0x0200 => try_login(&first(), &[&NAMES[..], &[("MaxBurstLength", "512"); 2]].concat()),
        0x0201 => {
            let request = LoginRequest {
                csg: iscsi_pdu::Stage::Security,
                ..first()
            };
            try_login(&request, &[&NAMES[..], &[("AuthMethod", "KRB5")]].concat())
        }
        0x0202 => {
            let node = node_with(Limits::default(), false);
            let _holder = Wire::logged_in_as(&node, "iqn.2026-11.net.farlun:holder", Isid([0x80, 0, 0, 0, 0, 2]), &[]);
            Wire::new(&node).login(&first(), &text(&NAMES)).0.status.code()
        }
        0x0203 => try_login(&first(), &[NAMES[0], ("TargetName", "iqn.2026-11.net.farlun:none")]),
        0x0204 => removed_during_login(),
        0x0205 => {
            let request = LoginRequest {
                version_min: 1,
                version_max: 1,
                ..first()
            };
            try_login(&request, &NAMES)
        }
        0x0206 => {
            let node = node(Limits::default());
            let mut wire = Wire::new(&node);
            let (response, _) = wire.login(&first(), &text(&NAMES));
            let second = LoginRequest {
                tsih: response.tsih,
                cid: 2,
                ..first()
            };
            Wire::new(&node).login(&second, &text(&NAMES)).0.status.code()
        }
        0x0207 => try_login(&first(), &NAMES[1..]),
        0x0209 => try_login(&first(), &[&NAMES[..], &[("SessionType", "Other")]].concat()),
        0x020A => {
            let request = LoginRequest {
                tsih: 0x7777,
                ..first()
            };
            try_login(&request, &NAMES)
        }
        0x020B => something_else_during_login(),
        0x0302 => {
            let limits = Limits {
                sessions_per_target: 1,
                ..Limits::default()
            };
            let node = node(limits);
            let _only = Wire::logged_in_as(&node, "iqn.2026-11.net.farlun:only", Isid([0x80, 0, 0, 0, 0, 2]), &[]);
            Wire::new(&node).login(&first(), &text(&NAMES)).0.status.code()
        }
        _ => return None,
    })
}

fn try_login(request: &LoginRequest, keys: &[(&str, &str)]) -> u16 {
    let node = node(Limits::default());
    Wire::new(&node).login(request, &text(keys)).0.status.code()
}

fn removed_during_login() -> u16 {
    let node = node(Limits::default());
    let mut wire = Wire::new(&node);
    let staying = LoginRequest {
        transit: false,
        ..login_request()
    };
    wire.login(&staying, &text(&NAMES));
    node.remove_target(TARGET, 0).expect("it is there");
    wire.login(&login_request(), &[]).0.status.code()
}

fn something_else_during_login() -> u16 {
    let mut wire = Wire::new(&node(Limits::default()));
    let staying = LoginRequest {
        transit: false,
        ..login_request()
    };
    wire.login(&staying, &text(&NAMES));
    let nop = NopOut {
        immediate: true,
        lun: Lun::default(),
        itt: 9,
        ttt: RESERVED_TAG,
        cmd_sn: wire.cmd_sn,
        exp_stat_sn: Serial(0),
    };
    wire.send(&nop, &[]);
    match wire.next() {
        (Response::Login(response), _) => response.status.code(),
        other => panic!("{other:?}"),
    }
}
