//! Text in the full-feature phase (RFC 7143 §11.10, §11.11): SendTargets, and little else.

use iscsi_pdu::pdu::{RejectReason, TextRequest, TextResponse};
use iscsi_pdu::text::{
    CollectorLimits, Duplicates, Key, NOT_UNDERSTOOD, Pair, REJECT, TextCollector, TextError, TextLimits, TextWriter,
    parse,
};
use iscsi_pdu::{BHS_BYTES, Lun, RESERVED_TAG};

use super::{FullFeature, Kind, reach};
use crate::iscsi::node::Target;
use crate::iscsi::output::Output;
use crate::iscsi::policy::{Policy, Who};

/// Text of one logical request, in bytes, and the PDUs it may be spread over.
const REQUEST_LIMITS: CollectorLimits = CollectorLimits {
    max_bytes: 16 * 1024,
    max_segments: 16,
};
/// Keys in one logical request, and the bytes of a value.
const KEY_LIMITS: TextLimits = TextLimits {
    max_keys: 64,
    max_value_bytes: 1024,
};
/// The answer to one request, over all PDUs it is spread over, in bytes: room for thousands of targets.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// A text exchange: a request may come, and an answer may go, in several PDUs.
#[derive(Debug)]
pub(super) struct TextExchange {
    collector: TextCollector,
    /// The tag under which the rest of a request is to come.
    rest_ttt: Option<u32>,
    /// The answer that is being sent, how much of it is out, and the tag to ask for the rest by, or to say more by
    /// when all of it is out and the request was not the last.
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    text: Vec<u8>,
    sent: usize,
    ttt: u32,
}

impl Default for TextExchange {
    fn default() -> Self {
        Self {
            collector: TextCollector::new(REQUEST_LIMITS),
            rest_ttt: None,
            answer: None,
        }
    }
}

impl FullFeature {
    pub(super) fn text(&mut self, request: &TextRequest, data: &[u8], bhs: &[u8; BHS_BYTES], out: &mut Output) {
        if request.final_bit && request.continue_ {
            return self.reject(RejectReason::ProtocolError, bhs, out);
        }
        if request.ttt != RESERVED_TAG {
            return self.continue_text(request, data, bhs, out);
        }
        // A new request gives up what was left of an exchange before it (RFC 7143 §11.10.4).
        self.text.answer = None;
        self.text.collector.clear();
        self.take_text(request, data, bhs, out);
    }

    /// The first or a further part of a request.
    fn take_text(&mut self, request: &TextRequest, data: &[u8], bhs: &[u8; BHS_BYTES], out: &mut Output) {
        self.text.rest_ttt = None;
        match self.text.collector.feed(data, request.continue_) {
            Ok(None) => self.ask_for_more_text(request, out),
            Ok(Some(text)) => match self.answer_text(&text) {
                Ok(answer) => {
                    let ttt = self.new_ttt();
                    self.text.answer = Some(Answer {
                        text: answer,
                        sent: 0,
                        ttt,
                    });
                    self.send_text(request, out);
                }
                Err(error) => {
                    tracing::debug!(%error, "text request refused");
                    self.reject(RejectReason::ProtocolError, bhs, out);
                }
            },
            Err(_) => self.reject(RejectReason::ProtocolError, bhs, out),
        }
    }

    /// A request under a tag of ours: the rest of a request, or a demand for the rest of an answer.
    fn continue_text(&mut self, request: &TextRequest, data: &[u8], bhs: &[u8; BHS_BYTES], out: &mut Output) {
        let expected = self
            .text
            .answer
            .as_ref()
            .is_some_and(|answer| answer.ttt == request.ttt);
        let is_out = |answer: &Answer| answer.sent == answer.text.len();
        if expected && self.text.answer.as_ref().is_some_and(is_out) {
            // The initiator goes on with the negotiation, or ends it.
            self.text.answer = None;
            return self.take_text(request, data, bhs, out);
        }
        if expected && data.is_empty() {
            return self.send_text(request, out);
        }
        if self.text.rest_ttt == Some(request.ttt) {
            return self.take_text(request, data, bhs, out);
        }
        self.reject(RejectReason::ProtocolError, bhs, out);
    }

    fn ask_for_more_text(&mut self, request: &TextRequest, out: &mut Output) {
        let ttt = self.new_ttt();
        self.text.rest_ttt = Some(ttt);
        self.text_response(request, false, false, ttt, &[], out);
    }

    /// Sends as much of the answer as fits in a PDU.
    fn send_text(&mut self, request: &TextRequest, out: &mut Output) {
        let Some(mut answer) = self.text.answer.take() else {
            return;
        };
        let end = answer
            .text
            .len()
            .min(answer.sent + self.params.max_send_data_segment_bytes as usize);
        let complete = end == answer.text.len();
        // Who has more to say has the last word: F answers F only (RFC 7143 §11.11.1).
        let is_last = complete && request.final_bit;
        let ttt = if is_last { RESERVED_TAG } else { answer.ttt };
        self.text_response(request, is_last, !complete, ttt, &answer.text[answer.sent..end], out);
        if !is_last {
            answer.sent = end;
            self.text.answer = Some(answer);
        }
    }

    fn text_response(
        &mut self,
        request: &TextRequest,
        final_bit: bool,
        continue_: bool,
        ttt: u32,
        data: &[u8],
        out: &mut Output,
    ) {
        let stat_sn = self.next_stat_sn();
        let response = TextResponse {
            final_bit,
            continue_,
            lun: Lun::default(),
            itt: request.itt,
            ttt,
            stat_sn,
            exp_cmd_sn: self.window.exp_cmd_sn(),
            max_cmd_sn: self.window.max_cmd_sn(),
        };
        out.pdu(&response, data);
    }

    fn answer_text(&mut self, text: &[u8]) -> Result<Vec<u8>, TextError> {
        let mut answers = TextWriter::new(ANSWER_MAX_BYTES);
        for pair in parse(text, &KEY_LIMITS, Duplicates::Refused)? {
            self.answer_pair(pair, &mut answers)?;
        }
        Ok(answers.into_bytes())
    }

    fn answer_pair(&mut self, pair: Pair<'_>, answers: &mut TextWriter) -> Result<(), TextError> {
        match Key::from_name(pair.key) {
            Some(Key::SendTargets) => self.send_targets(pair.value, answers),
            // The one operational key that may be declared anew (RFC 7143 §13.12).
            Some(key @ Key::MaxRecvDataSegmentLength) => match key.parse_number(pair.value) {
                Ok(bytes) => {
                    self.params.max_send_data_segment_bytes = bytes;
                    Ok(())
                }
                Err(_) => answers.push(pair.key, REJECT),
            },
            Some(Key::InitiatorAlias) => Ok(()),
            Some(_) => answers.push(pair.key, REJECT),
            // That an answer of ours was not understood needs no answer (RFC 7143 §6.2).
            None if pair.value == NOT_UNDERSTOOD => Ok(()),
            None => answers.push(pair.key, NOT_UNDERSTOOD),
        }
    }

    /// RFC 7143 Appendix C. `All` is for discovery sessions; in a normal one only its own target is told.
    fn send_targets(&self, which: &str, answers: &mut TextWriter) -> Result<(), TextError> {
        match (which, &self.kind) {
            ("All", Kind::Discovery { who }) => self
                .node
                .targets()
                .iter()
                .try_for_each(|target| self.tell_if_visible(target, who, answers)),
            ("All", Kind::Normal { .. }) | ("", Kind::Discovery { .. }) => {
                answers.push(Key::SendTargets.name(), REJECT)
            }
            ("", Kind::Normal { registration, .. }) => self.tell(registration.target(), answers),
            // An unknown name, or that of a target which is none of his business, is answered with nothing: no record.
            (name, Kind::Discovery { who }) => match self.node.target(name) {
                Some(target) => self.tell_if_visible(&target, who, answers),
                None => Ok(()),
            },
            (name, Kind::Normal { registration, .. }) => {
                let own = registration.target();
                if own.name().eq_ignore_ascii_case(name) {
                    self.tell(own, answers)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn tell_if_visible(&self, target: &Target, who: &Who, answers: &mut TextWriter) -> Result<(), TextError> {
        if may_come(&target.policy(), who) {
            self.tell(target, answers)
        } else {
            Ok(())
        }
    }

    fn tell(&self, target: &Target, answers: &mut TextWriter) -> Result<(), TextError> {
        let serves = |tag| target.is_in_portal_group(tag);
        let Some(addresses) = reach::addresses(&self.origin, &self.node.portals(), serves) else {
            return Ok(());
        };
        answers.push(Key::TargetName.name(), target.name())?;
        addresses
            .into_iter()
            .try_for_each(|(address, tag)| answers.push(Key::TargetAddress.name(), format_args!("{address},{tag}")))
    }
}

/// Whether a login of `who` may be let in. By which CHAP user that will be is not known yet, so that is left open.
fn may_come(policy: &Policy, who: &Who) -> bool {
    let mut policy = policy.clone();
    let rules = policy.rules.iter_mut().chain(policy.lun_rules.values_mut().flatten());
    rules.for_each(|rule| rule.chap_users.clear());
    policy.admits(who)
}
