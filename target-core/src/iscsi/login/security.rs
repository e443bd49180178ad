//! The security stage: which method, whether it went well, and whether who it is may come in (RFC 7143 §6.3.2, §12).

use std::sync::Arc;

use iscsi_pdu::pdu::LoginRequest;
use iscsi_pdu::text::{NONE, TextWriter, choose, parse_list};

use super::{KEYS_MAX, Login, LoginError};
use crate::iscsi::chap::{ChapError, ChapKeys, Credentials, Dialog, excerpt};
use crate::iscsi::params::SessionType;
use crate::iscsi::policy::{Auth, Who};

/// AuthMethod by its names in RFC 7143 §12.1.
const CHAP: &str = "CHAP";

/// How far the security stage has come.
#[derive(Debug, Default)]
pub(super) enum Security {
    /// No method has been agreed on.
    #[default]
    Open,
    /// AuthMethod=None.
    Without,
    /// AuthMethod=CHAP.
    Chap(Dialog),
}

impl Security {
    /// Whether something has begun that is not over.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Self::Chap(dialog) if dialog.user().is_none())
    }
}

impl Login {
    /// Answers AuthMethod: the first of the list that will do here.
    pub(super) fn choose_method(&mut self, offered: &str) -> Result<&'static str, LoginError> {
        let credentials = self.credentials()?;
        let methods: &[&str] = match (self.needs_chap()?, credentials.users.is_empty()) {
            (true, _) => &[CHAP],
            (false, false) => &[CHAP, NONE],
            (false, true) => &[NONE],
        };
        let list = parse_list(offered, KEYS_MAX).unwrap_or_default();
        match choose(&list, methods) {
            Some(CHAP) => {
                self.security = Security::Chap(Dialog::new(credentials));
                Ok(CHAP)
            }
            Some(_) => {
                self.security = Security::Without;
                Ok(NONE)
            }
            None => Err(LoginError::NoAuthMethod(excerpt(offered))),
        }
    }

    /// Takes the keys of CHAP in one request. `method_is_new`: this request has only just asked for CHAP.
    pub(super) fn authenticate(
        &mut self,
        keys: &ChapKeys<'_>,
        method_is_new: bool,
        answers: &mut TextWriter,
    ) -> Result<(), LoginError> {
        let Some(first) = keys.first() else { return Ok(()) };
        let outcome = match &mut self.security {
            Security::Chap(dialog) if !method_is_new => dialog.answer(keys, answers),
            _ => Err(ChapError::OutOfTurn(first)),
        };
        outcome.map_err(|error| LoginError::Chap {
            initiator: self
                .names
                .as_ref()
                .map(|names| names.initiator.clone())
                .unwrap_or_default(),
            error,
        })
    }

    /// Who it is, once that is shown as far as it has to be: nothing else happens before.
    pub(super) fn admit(&mut self, request: &LoginRequest) -> Result<(), LoginError> {
        if self.who.is_some() {
            return Ok(());
        }
        let names = self.names()?;
        let initiator = names.initiator.clone();
        let chap_user = match &self.security {
            Security::Chap(dialog) => dialog.user().map(str::to_owned),
            Security::Open | Security::Without => None,
        };
        if chap_user.is_none() && (self.needs_chap()? || self.security.is_under_way()) {
            return Err(LoginError::NotAuthenticated { initiator });
        }
        let who = Arc::new(Who {
            initiator,
            chap_user,
            way: self.origin.portal.way.clone(),
        });
        if names.session_type == SessionType::Normal {
            self.check_admitted(&who)?;
            self.check_own_session(&who, request)?;
        }
        self.check_tsih(request)?;
        self.who = Some(who);
        Ok(())
    }

    /// Whether a rule of the target lets `who` in.
    pub(super) fn check_admitted(&self, who: &Who) -> Result<(), LoginError> {
        if self.target()?.policy().admits(who) {
            return Ok(());
        }
        Err(LoginError::NotAdmitted {
            initiator: who.initiator.clone(),
            chap_user: who.chap_user.clone(),
        })
    }

    /// Session reinstatement (RFC 7143 §6.3.5) is for those who began the session: an initiator's name is easily taken.
    fn check_own_session(&self, who: &Who, request: &LoginRequest) -> Result<(), LoginError> {
        let key = self.key(who.initiator.clone(), request.isid);
        if self.target()?.may_have(&key, who) {
            return Ok(());
        }
        Err(LoginError::SessionOfAnother {
            initiator: who.initiator.clone(),
        })
    }

    fn needs_chap(&self) -> Result<bool, LoginError> {
        Ok(match self.names()?.session_type {
            SessionType::Discovery => self.node.discovery_credentials().is_some(),
            SessionType::Normal => self.target()?.policy().auth == Auth::Chap,
        })
    }

    /// The secrets that hold for what is wanted.
    fn credentials(&self) -> Result<Arc<Credentials>, LoginError> {
        Ok(match self.names()?.session_type {
            SessionType::Discovery => Arc::new((*self.node.discovery_credentials()).clone().unwrap_or_default()),
            SessionType::Normal => self.target()?.credentials(),
        })
    }
}
