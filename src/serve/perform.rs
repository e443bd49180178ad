//! What clients of the control socket ask for, carried out.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use std::sync::Arc;
use target_core::iscsi::node::{self, Target};
use target_core::iscsi::params::Params;
use target_core::iscsi::policy::{Auth, Way};
use target_core::lun::WriteCache;

use super::engine::{Engine, How};
use crate::config::{LunPlan, MediumPlan, TargetPlan};
use crate::control::protocol::{
    Action, Applied, LunInfo, PortalInfo, Refusal, SessionInfo, Sessions, Status, TargetInfo, Targets, Why,
};
use crate::control::server::Performer;

/// The engine as clients see it.
#[derive(Debug)]
pub(crate) struct Desk(pub(crate) Arc<Engine>);

impl Performer for Desk {
    async fn perform(&self, action: Action, uid: u32) -> Result<serde_json::Value, Refusal> {
        let engine = &self.0;
        match action {
            Action::Status {} => json(&status(engine)),
            Action::Targets {} => json(&targets(engine)),
            Action::Sessions {} => json(&sessions(engine)),
            Action::DropSession { tsih } => {
                tracing::info!(uid, tsih, "told to drop a session");
                json(&drop_session(engine, tsih)?)
            }
            Action::Edit {
                edit,
                force,
                temporary,
                dry_run,
            } => {
                tracing::debug!(uid, ?edit, force, temporary, dry_run, "told to change");
                json(&engine.edit(&edit, temporary, How { force, dry_run }).await?)
            }
            Action::Rescan {
                target,
                lun,
                force,
                dry_run,
            } => json(&rescan(engine, &target, lun, How { force, dry_run })?),
            Action::Reload { force, dry_run } => {
                tracing::info!(uid, force, dry_run, "told to reload");
                json(&engine.reload(How { force, dry_run }).await?)
            }
        }
    }
}

fn json(answer: &impl Serialize) -> Result<serde_json::Value, Refusal> {
    serde_json::to_value(answer).map_err(Refusal::failed)
}

fn way(way: &Way) -> &'static str {
    match way {
        Way::Network => "network",
        Way::Tunnel { .. } => "tunnel",
    }
}

fn status(engine: &Engine) -> Status {
    let (view, node) = (engine.view(), engine.node());
    let targets = node.targets();
    let portals = node.portals();
    let portals = portals.iter().map(|listening| PortalInfo {
        address: listening.address.to_string(),
        group: listening.portal.tag,
        way: way(&listening.portal.way).to_owned(),
    });
    let slots = |target: &Arc<Target>| target.device.slots().len();
    let online = |target: &Arc<Target>| target.device.luns().len();
    let luns: usize = targets.iter().map(slots).sum();
    let plan = &view.desired.plan;
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: engine.started().elapsed().as_secs(),
        configuration: view.file.as_deref().map(whole),
        temporary_changes: view.temporary,
        portals: portals.collect(),
        tunnel_socket: plan.tunnel.as_ref().map(|tunnel| tunnel.socket.display().to_string()),
        metrics: plan.metrics.map(|metrics| metrics.address.to_string()),
        targets: targets.len(),
        luns,
        luns_offline: luns - targets.iter().map(online).sum::<usize>(),
        sessions: targets.iter().map(|target| target.session_count()).sum(),
    }
}

/// A path as it is for somebody in another directory.
fn whole(path: &Path) -> String {
    let whole = std::path::absolute(path);
    whole.as_deref().unwrap_or(path).display().to_string()
}

fn targets(engine: &Engine) -> Targets {
    let view = engine.view();
    let mut targets: Vec<TargetInfo> = view
        .desired
        .plan
        .targets
        .iter()
        .map(|plan| target(engine, plan))
        .collect();
    targets.sort_by(|one, other| one.name.cmp(&other.name));
    Targets { targets }
}

fn target(engine: &Engine, plan: &TargetPlan) -> TargetInfo {
    let found = engine.node().target(&plan.name);
    let rules = plan.policy.rules.len() + plan.policy.lun_rules.values().map(Vec::len).sum::<usize>();
    TargetInfo {
        name: plan.name.clone(),
        alias: plan.alias.clone(),
        auth: match plan.login.auth {
            Auth::None => "none",
            Auth::Chap => "chap",
        }
        .to_owned(),
        users: plan.login.users.clone(),
        mutual: plan.login.mutual.clone(),
        tunnel_only: plan.policy.tunnel_only,
        portal_groups: plan.portal_groups.clone(),
        rules,
        sessions: found.as_ref().map_or(0, |target| target.session_count()),
        luns: plan.luns.iter().map(|lun| lun_info(found.as_deref(), lun)).collect(),
    }
}

fn lun_info(target: Option<&Target>, plan: &LunPlan) -> LunInfo {
    let unit = target.and_then(|target| target.device.unit(plan.lun));
    let unit = unit.as_deref();
    let medium = match plan.medium {
        MediumPlan::File { .. } => "file",
        MediumPlan::Device { .. } => "device",
        MediumPlan::Memory { .. } => "memory",
    };
    LunInfo {
        lun: plan.lun,
        medium: medium.to_owned(),
        path: plan.medium.path().map(whole),
        size_bytes: unit.map(|unit| unit.medium().size_bytes()),
        block_size_bytes: plan.block_size_bytes,
        serial: plan.serial.clone(),
        online: unit.is_some(),
        read_only: plan.read_only,
        shared: plan.shared,
        removable: plan.removable,
        write_back: plan.write_cache == WriteCache::WriteBack,
        thin: unit.map(|unit| unit.properties().provisioning.is_some()),
        holder: unit.and_then(|unit| unit.holder()),
        iops_max: plan.rate.iops_max,
        bytes_per_second_max: plan.rate.bytes_per_second_max,
    }
}

fn sessions(engine: &Engine) -> Sessions {
    let mut sessions = Vec::new();
    for target in engine.node().targets() {
        let name = target.name();
        let of_target = target.sessions();
        sessions.extend(of_target.iter().map(|session| session_info(&name, session)));
    }
    Sessions { sessions }
}

fn session_info(target: &str, session: &node::SessionInfo) -> SessionInfo {
    let done = session.stats.snapshot();
    let age = SystemTime::now().duration_since(session.since).unwrap_or_default();
    let tunnel_user = match &session.who.way {
        Way::Tunnel { user } => user.clone(),
        Way::Network => None,
    };
    SessionInfo {
        target: target.to_owned(),
        tsih: session.tsih,
        initiator: session.key.initiator.clone(),
        isid: session.key.isid.0.iter().map(|byte| format!("{byte:02x}")).collect(),
        peer: session.peer.clone(),
        way: way(&session.who.way).to_owned(),
        tunnel_user,
        chap_user: session.who.chap_user.clone(),
        portal_group: session.key.portal_group,
        since_unix_s: session.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        age_s: age.as_secs(),
        negotiated: negotiated(&session.params),
        received_bytes: done.bytes_in,
        sent_bytes: done.bytes_out,
        commands: done.commands,
        queue_depth: done.queue_depth,
        queue_depth_max: done.queue_depth_max,
        latency_p50_us: done.latency.permille_us(500),
        latency_p99_us: done.latency.permille_us(990),
        latency_max_us: done.latency.permille_us(1000),
        digest_errors: done.header_digest_errors + done.data_digest_errors,
    }
}

/// Keys as RFC 7143 §13 has them.
fn negotiated(params: &Params) -> Vec<(String, String)> {
    let digest = |on: bool| if on { "CRC32C" } else { "None" }.to_owned();
    let boolean = |yes: bool| if yes { "Yes" } else { "No" }.to_owned();
    [
        ("HeaderDigest", digest(params.header_digest)),
        ("DataDigest", digest(params.data_digest)),
        ("InitialR2T", boolean(params.initial_r2t)),
        ("ImmediateData", boolean(params.immediate_data)),
        ("MaxBurstLength", params.max_burst_bytes.to_string()),
        ("FirstBurstLength", params.first_burst_bytes.to_string()),
        ("MaxOutstandingR2T", params.max_outstanding_r2t.to_string()),
        (
            "MaxSendDataSegmentLength",
            params.max_send_data_segment_bytes.to_string(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn drop_session(engine: &Engine, tsih: u16) -> Result<Applied, Refusal> {
    for target in engine.node().targets() {
        let session = target.sessions().into_iter().find(|session| session.tsih == tsih);
        if let Some(session) = session
            && target.drop_session(tsih)
        {
            return Ok(Applied {
                changes: vec![format!(
                    "- session {tsih} of {} at {}",
                    session.key.initiator,
                    target.name()
                )],
                notes: vec!["initiators log in again by themselves: change access to keep one out".to_owned()],
                lun: None,
            });
        }
    }
    Err(Refusal::wrong(format!(
        "there is no session {tsih}: farlun session list shows those there are"
    )))
}

/// Takes over the size that a device has now.
fn rescan(engine: &Engine, name: &str, lun: u16, how: How) -> Result<Applied, Refusal> {
    let view = engine.view();
    let plan = view
        .desired
        .plan
        .targets
        .iter()
        .find(|plan| plan.name.eq_ignore_ascii_case(name));
    let plan = plan.ok_or_else(|| {
        Refusal::wrong(format!(
            "there is no target {name}: farlun target list shows those there are"
        ))
    })?;
    let plan = plan.luns.iter().find(|plan| plan.lun == lun);
    let Some(MediumPlan::Device { path }) = plan.map(|plan| &plan.medium) else {
        return Err(Refusal::wrong(format!(
            "LUN {lun} of {name} is no device: name the size it is to have"
        )));
    };
    let unit = engine.node().target(name).and_then(|target| target.device.unit(lun));
    let unit =
        unit.ok_or_else(|| Refusal::wrong(format!("LUN {lun} of {name} is offline: farlun lun online first")))?;
    let old = unit.medium().size_bytes();
    let new = unit.medium().storage_bytes();
    let new = new.map_err(|error| Refusal::failed(format!("{}: {error}", path.display())))?;
    let mut applied = Applied::default();
    if new == old {
        applied.notes.push(format!("{} has the size it had", path.display()));
        return Ok(applied);
    }
    let (old, shown) = (crate::config::Size(old), crate::config::Size(new));
    let change = format!("~ LUN {lun} of {name}: {old} to {shown}");
    let smaller = new < old.0;
    let lost = format!("{} has become smaller, {shown} after {old}", path.display());
    match how {
        How { dry_run: true, .. } if smaller => applied.notes.push(format!("{lost}: needs --force")),
        How { dry_run: true, .. } => {}
        How { force: false, .. } if smaller => {
            return Err(Refusal {
                why: Why::AtStake,
                text: format!("{lost}: use --force to take that over"),
            });
        }
        _ => {
            tokio::task::block_in_place(|| unit.resize(new)).map_err(Refusal::failed)?;
            tracing::info!("{change}");
        }
    }
    applied.changes.push(change);
    Ok(applied)
}
