//! What is different between what is served and what is to be: a list of changes, each small enough to be carried out,
//! undone and told by itself.

use std::collections::BTreeSet;

use crate::config::{LunPlan, MediumPlan, MetricsPlan, Plan, PortalPlan, Secrets, Size, TargetPlan};

/// A plan with the secrets it needs.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    /// What to serve.
    pub(crate) plan: Plan,
    /// The secrets of its users.
    pub(crate) secrets: Secrets,
}

/// One change. Targets are named by their new names.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A target gets another name.
    RenameTarget {
        /// The old one.
        from: String,
        /// The new one.
        to: String,
    },
    /// A target goes, with all its LUNs.
    RemoveTarget(TargetPlan),
    /// A target comes; its LUNs are changes of their own.
    AddTarget(TargetPlan),
    /// What a target is beside its LUNs.
    SetTarget {
        /// As it is to be.
        target: TargetPlan,
        /// What is different, for people.
        what: Vec<&'static str>,
    },
    /// A LUN goes; its file or device stays.
    RemoveLun {
        /// Name of the target.
        target: String,
        /// As it was.
        lun: LunPlan,
    },
    /// A LUN comes.
    AddLun {
        /// Name of the target.
        target: String,
        /// As it is to be.
        lun: LunPlan,
    },
    /// A LUN has to be opened anew to be what it is to be.
    ReplaceLun {
        /// Name of the target.
        target: String,
        /// As it was.
        old: LunPlan,
        /// As it is to be.
        new: LunPlan,
        /// What is different, for people.
        what: Vec<&'static str>,
    },
    /// A LUN becomes larger or smaller.
    ResizeLun {
        /// Name of the target.
        target: String,
        /// Its number.
        lun: u16,
        /// The old size, if the plan had one.
        from: Option<Size>,
        /// The new one.
        to: Size,
    },
    /// What a LUN is and can become while it is used.
    SetLun {
        /// Name of the target.
        target: String,
        /// As it was.
        old: LunPlan,
        /// As it is to be.
        new: LunPlan,
        /// What is different, for people.
        what: Vec<&'static str>,
    },
    /// A LUN is taken out of service.
    Offline {
        /// Name of the target.
        target: String,
        /// As it was.
        lun: LunPlan,
    },
    /// A LUN is taken into service again.
    Online {
        /// Name of the target.
        target: String,
        /// As it is to be.
        lun: LunPlan,
    },
    /// A portal goes.
    RemovePortal(PortalPlan),
    /// A portal comes.
    AddPortal(PortalPlan),
    /// Who may discover.
    Discovery,
    /// Bounds for connections to come.
    Limits,
    /// Where metrics are.
    Metrics(Option<MetricsPlan>),
    /// Something that only a start can change.
    Restart(&'static str),
}

/// Everything that is different.
pub(crate) fn diff(old: &Desired, new: &Desired) -> Vec<Change> {
    let mut changes = Vec::new();
    let old_targets = &old.plan.targets;
    let new_targets = &new.plan.targets;
    let named = |targets: &[TargetPlan], name: &str| targets.iter().any(|target| target.name == name);
    let mut renamed: Vec<(&TargetPlan, &TargetPlan)> = Vec::new();
    for target in new_targets.iter().filter(|target| !named(old_targets, &target.name)) {
        let gone = old_targets.iter().filter(|gone| !named(new_targets, &gone.name));
        let taken = |gone: &TargetPlan| renamed.iter().any(|(taken, _)| taken.name == gone.name);
        let same = gone.filter(|gone| is_same(gone, target)).find(|gone| !taken(gone));
        if let Some(old) = same {
            changes.push(Change::RenameTarget {
                from: old.name.clone(),
                to: target.name.clone(),
            });
            renamed.push((old, target));
        }
    }
    for target in old_targets {
        let stays = named(new_targets, &target.name) || renamed.iter().any(|(old, _)| old.name == target.name);
        if !stays {
            changes.push(Change::RemoveTarget(target.clone()));
        }
    }
    for target in new_targets {
        let before = old_targets.iter().find(|old| old.name == target.name);
        let before = before.or_else(|| {
            let pair = renamed.iter().find(|(_, new)| new.name == target.name);
            pair.map(|(old, _)| *old)
        });
        match before {
            Some(before) => target_changes(before, target, old, new, &mut changes),
            None => {
                changes.push(Change::AddTarget(target.clone()));
                changes.extend(target.luns.iter().map(|lun| Change::AddLun {
                    target: target.name.clone(),
                    lun: lun.clone(),
                }));
            }
        }
    }
    node_changes(old, new, &mut changes);
    changes
}

/// Whether a target that is gone and one that is new are the same disks.
fn is_same(old: &TargetPlan, new: &TargetPlan) -> bool {
    let serials =
        |target: &TargetPlan| -> BTreeSet<String> { target.luns.iter().map(|lun| lun.serial.clone()).collect() };
    !old.luns.is_empty() && serials(old) == serials(new)
}

fn target_changes(before: &TargetPlan, after: &TargetPlan, old: &Desired, new: &Desired, changes: &mut Vec<Change>) {
    let mut what = Vec::new();
    let mut differs = |is: bool, name: &'static str| {
        if is {
            what.push(name);
        }
    };
    differs(before.alias != after.alias, "alias");
    differs(before.policy.auth != after.policy.auth, "auth");
    differs(before.login.users != after.login.users, "users");
    differs(before.login.mutual != after.login.mutual, "mutual");
    let users = after.login.users.iter().chain(&after.login.mutual);
    differs(
        users.into_iter().any(|user| old.secrets.differs(&new.secrets, user)),
        "secrets",
    );
    differs(old.plan.min_digest != new.plan.min_digest, "min_digest");
    differs(before.policy.tunnel_only != after.policy.tunnel_only, "tunnel_only");
    let rules = before.policy.rules != after.policy.rules || before.policy.lun_rules != after.policy.lun_rules;
    differs(rules, "access");
    differs(before.portal_groups != after.portal_groups, "portal_groups");
    differs(before.rate.iops_max != after.rate.iops_max, "iops_max");
    differs(
        before.rate.bytes_per_second_max != after.rate.bytes_per_second_max,
        "bytes_per_second_max",
    );
    if !what.is_empty() {
        changes.push(Change::SetTarget {
            target: after.clone(),
            what,
        });
    }
    let target = || after.name.clone();
    for lun in &before.luns {
        if !after.luns.iter().any(|other| other.lun == lun.lun) {
            changes.push(Change::RemoveLun {
                target: target(),
                lun: lun.clone(),
            });
        }
    }
    for lun in &after.luns {
        match before.luns.iter().find(|other| other.lun == lun.lun) {
            Some(old) => lun_changes(&target(), old, lun, changes),
            None => changes.push(Change::AddLun {
                target: target(),
                lun: lun.clone(),
            }),
        }
    }
}

fn lun_changes(target: &str, old: &LunPlan, new: &LunPlan, changes: &mut Vec<Change>) {
    let target = target.to_owned();
    match (old.offline, new.offline) {
        (false, true) => {
            let lun = old.clone();
            return changes.push(Change::Offline { target, lun });
        }
        (true, false) => {
            let lun = new.clone();
            return changes.push(Change::Online { target, lun });
        }
        // What else is different counts when it is online again.
        (true, true) => return,
        (false, false) => {}
    }
    let what = needs_opening(old, new);
    if !what.is_empty() {
        let (old, new) = (old.clone(), new.clone());
        return changes.push(Change::ReplaceLun { target, old, new, what });
    }
    if let (from, Some(to)) = (old.medium.size(), new.medium.size())
        && from != Some(to)
    {
        changes.push(Change::ResizeLun {
            target: target.clone(),
            lun: new.lun,
            from,
            to,
        });
    }
    let mut what = Vec::new();
    let mut differs = |is: bool, name: &'static str| {
        if is {
            what.push(name);
        }
    };
    differs(old.read_only != new.read_only, "read_only");
    differs(old.shared != new.shared, "shared");
    differs(old.rate.iops_max != new.rate.iops_max, "iops_max");
    differs(
        old.rate.bytes_per_second_max != new.rate.bytes_per_second_max,
        "bytes_per_second_max",
    );
    if !what.is_empty() {
        let (old, new) = (old.clone(), new.clone());
        changes.push(Change::SetLun { target, old, new, what });
    }
}

/// What of a LUN cannot change while it is open.
fn needs_opening(old: &LunPlan, new: &LunPlan) -> Vec<&'static str> {
    let differs = [
        (!old.medium.is_at_same_place(&new.medium), "medium"),
        (old.block_size_bytes != new.block_size_bytes, "block_size_bytes"),
        (
            old.physical_block_size_bytes != new.physical_block_size_bytes,
            "physical_block_size_bytes",
        ),
        (old.provisioning != new.provisioning, "provisioning"),
        (
            old.thin_threshold_percent != new.thin_threshold_percent,
            "thin_threshold_percent",
        ),
        (old.write_cache != new.write_cache, "write_cache"),
        (old.removable != new.removable, "removable"),
        (old.copy_offload != new.copy_offload, "copy_offload"),
        (old.unmap_command != new.unmap_command, "unmap_command"),
        (
            old.unmapped_reads_anything != new.unmapped_reads_anything,
            "unmapped_reads",
        ),
        (old.serial != new.serial, "serial"),
    ];
    let different = differs.into_iter().filter(|(is, _)| *is);
    different.map(|(_, name)| name).collect()
}

fn node_changes(old: &Desired, new: &Desired, changes: &mut Vec<Change>) {
    let key = |portal: &PortalPlan| (portal.address, portal.group, portal.announce.clone());
    let same = |one: &PortalPlan, other: &PortalPlan| key(one) == key(other);
    let (old_portals, new_portals) = (&old.plan.portals, &new.plan.portals);
    let missing = |portal: &PortalPlan, list: &[PortalPlan]| !list.iter().any(|other| same(portal, other));
    for portal in old_portals.iter().filter(|portal| missing(portal, new_portals)) {
        changes.push(Change::RemovePortal(portal.clone()));
    }
    for portal in new_portals.iter().filter(|portal| missing(portal, old_portals)) {
        changes.push(Change::AddPortal(portal.clone()));
    }
    let users = |desired: &Desired| {
        let discovery = &desired.plan.discovery;
        (discovery.auth, discovery.users.clone(), discovery.mutual.clone())
    };
    let discovery = &new.plan.discovery;
    let named = discovery.users.iter().chain(&discovery.mutual);
    let other_secrets = named.into_iter().any(|user| old.secrets.differs(&new.secrets, user));
    if users(old) != users(new) || other_secrets || old.plan.min_digest != new.plan.min_digest {
        changes.push(Change::Discovery);
    }
    limits_changes(old, new, changes);
    let address = |desired: &Desired| desired.plan.metrics.map(|metrics| metrics.address);
    if address(old) != address(new) {
        changes.push(Change::Metrics(new.plan.metrics));
    }
    let tunnel = |desired: &Desired| {
        let mut tunnel = desired.plan.tunnel.clone();
        if let Some(tunnel) = &mut tunnel {
            tunnel.line = None;
        }
        tunnel
    };
    if tunnel(old) != tunnel(new) {
        changes.push(Change::Restart("[tunnel]"));
    }
    let control = |desired: &Desired| {
        let mut control = desired.plan.control.clone();
        control.line = None;
        control
    };
    if control(old) != control(new) {
        changes.push(Change::Restart("[control]"));
    }
}

fn limits_changes(old: &Desired, new: &Desired, changes: &mut Vec<Change>) {
    let (old, new) = (&old.plan.limits, &new.plan.limits);
    // The accounts are made once: what is reserved in them cannot move.
    if old.window_memory_bytes != new.window_memory_bytes {
        changes.push(Change::Restart("window_memory_bytes"));
    }
    if old.transfer_memory_bytes != new.transfer_memory_bytes {
        changes.push(Change::Restart("transfer_memory_bytes"));
    }
    let mut rest = old.clone();
    rest.window_memory_bytes = new.window_memory_bytes;
    rest.transfer_memory_bytes = new.transfer_memory_bytes;
    // Limits are numbers only, and have no equality of their own.
    if format!("{rest:?}") != format!("{new:?}") {
        changes.push(Change::Limits);
    }
}

impl MediumPlan {
    /// Its size, if the plan says one.
    pub(crate) fn size(&self) -> Option<Size> {
        match self {
            Self::File { size, .. } => *size,
            Self::Device { .. } => None,
            Self::Memory { size } => Some(*size),
        }
    }

    /// Whether both are the same blocks, of whatever size.
    pub(crate) fn is_at_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { path: one, .. }, Self::File { path: two, .. })
            | (Self::Device { path: one }, Self::Device { path: two }) => one == two,
            (Self::Memory { .. }, Self::Memory { .. }) => true,
            _ => false,
        }
    }

    /// The file or device.
    pub(crate) fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::File { path, .. } | Self::Device { path } => Some(path),
            Self::Memory { .. } => None,
        }
    }
}

impl std::fmt::Display for Change {
    /// `+` comes, `-` goes, `~` changes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RenameTarget { from, to } => write!(f, "~ target {from}: renamed to {to}"),
            Self::RemoveTarget(target) => write!(f, "- target {}", target.name),
            Self::AddTarget(target) => write!(f, "+ target {}", target.name),
            Self::SetTarget { target, what } => write!(f, "~ target {}: {}", target.name, what.join(", ")),
            Self::RemoveLun { target, lun } => write!(f, "- LUN {} of {target} ({})", lun.lun, lun.medium),
            Self::AddLun { target, lun } => {
                let offline = if lun.offline { ", offline" } else { "" };
                write!(f, "+ LUN {} of {target} ({}{offline})", lun.lun, lun.medium)
            }
            Self::ReplaceLun { target, new, what, .. } => {
                write!(f, "~ LUN {} of {target}: opened anew for {}", new.lun, what.join(", "))
            }
            Self::ResizeLun { target, lun, from, to } => match from {
                Some(from) => write!(f, "~ LUN {lun} of {target}: {from} to {to}"),
                None => write!(f, "~ LUN {lun} of {target}: to {to}"),
            },
            Self::SetLun { target, new, what, .. } => write!(f, "~ LUN {} of {target}: {}", new.lun, what.join(", ")),
            Self::Offline { target, lun } => write!(f, "~ LUN {} of {target}: offline", lun.lun),
            Self::Online { target, lun } => write!(f, "~ LUN {} of {target}: online", lun.lun),
            Self::RemovePortal(portal) => write!(f, "- portal {portal}"),
            Self::AddPortal(portal) => write!(f, "+ portal {portal}"),
            Self::Discovery => write!(f, "~ discovery"),
            Self::Limits => write!(f, "~ limits, for connections to come"),
            Self::Metrics(Some(metrics)) => write!(f, "~ metrics at {}", metrics.address),
            Self::Metrics(None) => write!(f, "- metrics"),
            Self::Restart(what) => write!(f, "~ {what}: after a restart"),
        }
    }
}

impl std::fmt::Display for PortalPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (group {}", self.address, self.group)?;
        if let Some(announced) = &self.announce {
            write!(f, ", announced as {announced}")?;
        }
        f.write_str(")")
    }
}

impl std::fmt::Display for MediumPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, size: None } => write!(f, "file {}", path.display()),
            Self::File { path, size: Some(size) } => write!(f, "file {}, {size}", path.display()),
            Self::Device { path } => write!(f, "device {}", path.display()),
            Self::Memory { size } => write!(f, "memory, {size}"),
        }
    }
}

#[cfg(test)]
mod tests;
