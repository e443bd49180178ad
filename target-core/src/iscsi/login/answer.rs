//! Login responses (RFC 7143 §11.13).

use iscsi_pdu::pdu::{LoginRequest, LoginResponse, LoginStatus, Stage};
use iscsi_pdu::{BHS_BYTES, Isid, Serial};

use super::Login;
use crate::iscsi::output::Output;

/// What a login response says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: LoginStatus,
    pub(super) transit: bool,
    pub(super) text: Vec<u8>,
    pub(super) tsih: Option<u16>,
    /// ExpCmdSN and MaxCmdSN of a session that has begun.
    pub(super) window: Option<(Serial, Serial)>,
}

impl Answer {
    pub(super) fn stay(text: Vec<u8>) -> Self {
        Self {
            status: LoginStatus::Success,
            transit: false,
            text,
            tsih: None,
            window: None,
        }
    }

    pub(super) fn transit(text: Vec<u8>) -> Self {
        Self {
            transit: true,
            ..Self::stay(text)
        }
    }

    pub(super) fn refusal(status: LoginStatus) -> Self {
        Self {
            status,
            ..Self::stay(Vec::new())
        }
    }
}

impl Login {
    pub(super) fn respond(&mut self, request: &LoginRequest, answer: Answer, out: &mut Output) {
        let (exp_cmd_sn, max_cmd_sn) = answer.window.unwrap_or((request.cmd_sn, request.cmd_sn));
        let response = LoginResponse {
            transit: answer.transit,
            continue_: false,
            csg: request.csg,
            nsg: if answer.transit { request.nsg } else { request.csg },
            version_max: 0,
            version_active: 0,
            isid: request.isid,
            tsih: answer.tsih.unwrap_or(request.tsih),
            itt: request.itt,
            stat_sn: self.stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            status: answer.status,
        };
        self.stat_sn += 1;
        out.pdu(&response, &answer.text);
    }

    /// Anything but a login request is a mistake here (RFC 7143 §6.3, status 020Bh).
    pub(in crate::iscsi) fn refuse_other_pdu(&mut self, bhs: &[u8; BHS_BYTES], out: &mut Output) {
        // A stranger that has not said anything sensible yet is not answered at all.
        if let Some(leading) = self.leading {
            self.refuse_header(bhs, leading.isid, LoginStatus::InvalidDuringLogin, out);
        }
    }

    /// A login request with a field that cannot be.
    pub(in crate::iscsi) fn refuse_malformed(&mut self, bhs: &[u8; BHS_BYTES], out: &mut Output) {
        let isid = Isid([bhs[8], bhs[9], bhs[10], bhs[11], bhs[12], bhs[13]]);
        self.refuse_header(bhs, isid, LoginStatus::InitiatorError, out);
    }

    fn refuse_header(&mut self, bhs: &[u8; BHS_BYTES], isid: Isid, status: LoginStatus, out: &mut Output) {
        let stage = self.leading.map_or(Stage::Security, |leading| leading.stage);
        let request = LoginRequest {
            transit: false,
            continue_: false,
            csg: stage,
            nsg: stage,
            version_max: 0,
            version_min: 0,
            isid,
            tsih: 0,
            itt: u32::from_be_bytes([bhs[16], bhs[17], bhs[18], bhs[19]]),
            cid: 0,
            cmd_sn: Serial(u32::from_be_bytes([bhs[24], bhs[25], bhs[26], bhs[27]])),
            exp_stat_sn: self.stat_sn,
        };
        self.respond(&request, Answer::refusal(status), out);
    }
}
