//! What is lost by a change: sessions that lose a LUN they have, data that is cut off. Such changes need `--force`.

use std::sync::Arc;

use target_core::iscsi::Node;
use target_core::iscsi::node::Target;
use target_core::iscsi::policy::{Auth, Mode};
use target_core::scsi::LogicalUnit;

use super::diff::Change;
use crate::config::{LunPlan, MediumPlan, Size, TargetPlan};

/// What is lost, for people; nothing if nothing is.
pub(crate) fn at_stake(changes: &[Change], node: &Node) -> Vec<String> {
    // Sessions are still known by the old names.
    let old_name = |name: &str| {
        let renamed = changes.iter().find_map(|change| match change {
            Change::RenameTarget { from, to } if to == name => Some(from.clone()),
            _ => None,
        });
        renamed.unwrap_or_else(|| name.to_owned())
    };
    let target = |name: &str| node.target(&old_name(name));
    let unit = |name: &str, lun: u16| target(name).and_then(|target| target.device.unit(lun));
    let mut lost = Vec::new();
    for change in changes {
        match change {
            Change::RemoveTarget(plan) => {
                lost.extend(plan.luns.iter().filter_map(|lun| forgotten(&plan.name, lun)));
                if let Some(found) = target(&plan.name) {
                    lost.extend(sessions(&found).map(|who| format!("{who} loses target {}", plan.name)));
                }
            }
            Change::RenameTarget { from, .. } => {
                if let Some(found) = node.target(from) {
                    lost.extend(sessions(&found).map(|who| format!("{who} could not log in to {from} again")));
                }
            }
            Change::Offline { target, lun } => lost.extend(forgotten(target, lun)),
            Change::RemoveLun { target, lun } => {
                lost.extend(forgotten(target, lun));
                lost.extend(user(unit(target, lun.lun)).map(|who| format!("{who} loses LUN {} of {target}", lun.lun)));
            }
            Change::ReplaceLun { target, old, new, .. } => {
                lost.extend(forgotten(target, old));
                let (what, lun) = if old.serial == new.serial && old.medium.is_at_same_place(&new.medium) {
                    ("is interrupted at", old.lun)
                } else {
                    ("gets another disk for", old.lun)
                };
                lost.extend(user(unit(target, lun)).map(|who| format!("{who} {what} LUN {lun} of {target}")));
            }
            Change::ResizeLun { target, lun, to, .. } => {
                let now = unit(target, *lun).map(|unit| unit.medium().size_bytes());
                lost.extend(
                    now.filter(|now| to.0 < *now)
                        .map(|now| format!("LUN {lun} of {target} loses what is beyond {to}, of {}", Size(now))),
                );
            }
            Change::SetLun { target, old, new, .. } if new.read_only && !old.read_only => {
                lost.extend(
                    user(unit(target, new.lun))
                        .map(|who| format!("{who} can write no more to LUN {} of {target}", new.lun)),
                );
            }
            Change::SetTarget { target: plan, .. } => {
                if let Some(found) = target(&plan.name) {
                    lost.extend(by_policy(&found, plan));
                }
            }
            _ => {}
        }
    }
    lost
}

/// What is in memory and nowhere else.
fn forgotten(target: &str, lun: &LunPlan) -> Option<String> {
    let is = matches!(lun.medium, MediumPlan::Memory { .. }) && !lun.offline;
    is.then(|| {
        format!(
            "LUN {} of {target} is in memory, and what it holds is gone then",
            lun.lun
        )
    })
}

fn user(unit: Option<Arc<LogicalUnit>>) -> Option<String> {
    unit?.user()
}

fn sessions(target: &Target) -> impl Iterator<Item = String> {
    target
        .sessions()
        .into_iter()
        .map(|session| session.who.initiator.clone())
}

/// Sessions that another policy would drop, or show less.
fn by_policy(target: &Target, plan: &TargetPlan) -> Vec<String> {
    let (policy, name) = (&plan.policy, &plan.name);
    let may_log_in =
        |user: Option<&String>| policy.auth == Auth::None || user.is_some_and(|user| plan.login.users.contains(user));
    let before = target.policy();
    let mut lost = Vec::new();
    for session in target.sessions() {
        let who = &session.who.initiator;
        if !policy.admits(&session.who) || !may_log_in(session.who.chap_user.as_ref()) {
            lost.push(format!("{who} may log in to {name} no more"));
            continue;
        }
        let group = session.key.portal_group;
        let leads = |groups: &[u16]| groups.is_empty() || groups.contains(&group);
        if leads(&target.portal_groups()) && !leads(&plan.portal_groups) {
            lost.push(format!(
                "{who} came to {name} by portal group {group}, and could not log in there again"
            ));
        }
        for lun in target.device.slots().keys() {
            match (before.lun_mode(&session.who, *lun), policy.lun_mode(&session.who, *lun)) {
                (Some(_), None) => lost.push(format!("{who} loses LUN {lun} of {name}")),
                (Some(Mode::ReadWrite), Some(Mode::ReadOnly)) => {
                    lost.push(format!("{who} can write no more to LUN {lun} of {name}"));
                }
                _ => {}
            }
        }
    }
    lost
}
