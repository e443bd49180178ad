//! What a target is beside its LUNs, kept to be put back.

use std::sync::Arc;

use target_core::iscsi::Node;
use target_core::iscsi::node::Target;
use target_core::iscsi::policy::{Credentials, Policy};
use target_core::iscsi::shape::Rate;

/// As it was at one moment.
pub(super) struct Rules {
    alias: Arc<Option<String>>,
    policy: Arc<Policy>,
    credentials: Arc<Credentials>,
    portal_groups: Arc<Vec<u16>>,
    session_rate: Rate,
}

impl Rules {
    /// Those of a target now.
    pub(super) fn of(target: &Target) -> Self {
        Self {
            alias: target.alias(),
            policy: target.policy(),
            credentials: target.credentials(),
            portal_groups: target.portal_groups(),
            session_rate: target.session_rate(),
        }
    }

    /// Makes them hold at a target of this node.
    pub(super) fn put(&self, target: &Target, node: &Node) {
        target.set_alias(self.alias.as_ref().clone());
        target.set_credentials(self.credentials.as_ref().clone());
        target.set_portal_groups(self.portal_groups.as_ref().clone(), &node.portals());
        target.set_session_rate(self.session_rate);
        target.set_policy(self.policy.as_ref().clone());
    }
}
