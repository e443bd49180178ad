//! Carrying out changes. What can fail comes first; if it does, what was done is undone, and what cannot be undone is
//! told.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use target_core::iscsi::node::Target;
use target_core::iscsi::policy::Credentials;
use target_core::scsi::{Device, Removal};
use tokio::time::Instant;

use super::prepare::{Key, Prepared};
use super::rules::Rules;
use super::{Engine, Serving};
use crate::config::{LunPlan, PortalPlan, TargetPlan};
use crate::serve::diff::{Change, Desired};
use crate::serve::{media, portals};

/// How long the sessions of a target that goes may take to log out, in milliseconds.
const LOGOUT_WITHIN_MS: u64 = 2_000;
/// How long the last commands of a LUN that goes may take, in milliseconds. Then it is left to itself.
const REMOVE_WAIT_MS: u64 = 10_000;
/// How often it is looked at meanwhile, in milliseconds.
const LOOK_AGAIN_MS: u64 = 5;

/// What was done, and how it is undone.
enum Undo {
    Rename { from: String, to: String },
    Online { target: String, lun: LunPlan },
    Size { target: String, lun: u16, bytes: u64 },
    Insert { target: String, lun: LunPlan },
    Remove { target: String, lun: u16 },
    AddTarget { plan: Box<TargetPlan>, target: Arc<Target> },
    RemoveTarget { name: String },
    Listen(PortalPlan),
    Unlisten(PortalPlan),
    Offline { target: String, lun: u16 },
    Rules { target: Arc<Target>, before: Rules },
    Discovery(Arc<Option<Credentials>>),
}

/// A commit on its way.
pub(super) struct Commit<'a> {
    engine: &'a Arc<Engine>,
    serving: &'a mut Serving,
    new: &'a Desired,
    prepared: Prepared,
    undo: Vec<Undo>,
    notes: Vec<String>,
}

impl<'a> Commit<'a> {
    pub(super) fn new(engine: &'a Arc<Engine>, serving: &'a mut Serving, new: &'a Desired, prepared: Prepared) -> Self {
        Self {
            engine,
            serving,
            new,
            prepared,
            undo: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Carries the changes out. What else there is to know is returned.
    ///
    /// # Errors
    /// What did not work, and what of it remains.
    pub(super) async fn run(mut self, changes: &[Change]) -> anyhow::Result<Vec<String>> {
        for step in [Step::Refusable, Step::Leave, Step::Rule, Step::Come] {
            for change in changes {
                if let Err(error) = self.carry_out(step, change).await {
                    let error = error.context(format!("{change}"));
                    let remains = self.take_back().await;
                    if remains.is_empty() {
                        return Err(error.context("nothing was changed"));
                    }
                    let remains = remains.join("; ");
                    return Err(error.context(format!("not everything could be taken back ({remains})")));
                }
            }
        }
        for change in changes {
            self.settle(change).await;
        }
        self.prepared.created.keep();
        Ok(self.notes)
    }

    async fn carry_out(&mut self, step: Step, change: &Change) -> anyhow::Result<()> {
        match (step, change) {
            (Step::Refusable, Change::RenameTarget { from, to }) => {
                self.engine.node().rename_target(from, to)?;
                let (from, to) = (from.clone(), to.clone());
                self.undo.push(Undo::Rename { from, to });
            }
            (Step::Refusable, Change::Offline { target, lun }) => {
                let removal = self.device(target)?.set_offline(lun.lun)?;
                let (target, lun) = (target.clone(), lun.clone());
                self.undo.push(Undo::Online { target, lun });
                self.gone(removal).await.context("it is not closed yet")?;
            }
            (Step::Refusable, Change::ResizeLun { target, lun, to, .. }) => {
                let unit = self
                    .device(target)?
                    .unit(*lun)
                    .ok_or_else(|| anyhow!("it is not there"))?;
                let bytes = unit.medium().size_bytes();
                let size = to.0;
                tokio::task::block_in_place(|| unit.resize(size))?;
                let (target, lun) = (target.clone(), *lun);
                self.undo.push(Undo::Size { target, lun, bytes });
            }
            (Step::Leave, Change::RemovePortal(portal)) => {
                self.serving.portals.stop(portal.address).await;
                self.undo.push(Undo::Listen(portal.clone()));
            }
            (Step::Leave, Change::RemoveLun { target, lun }) => {
                let removal = self.device(target)?.remove(lun.lun)?;
                self.left(target, lun, removal).await;
            }
            (Step::Leave, Change::ReplaceLun { target, old, .. }) => {
                let removal = self.device(target)?.remove(old.lun)?;
                self.left(target, old, removal).await;
            }
            (Step::Leave, Change::RemoveTarget(plan)) => self.remove_target(plan).await?,
            (Step::Rule, Change::SetTarget { target: plan, .. }) => {
                let target = self.engine.node().target(&plan.name);
                let target = target.ok_or_else(|| anyhow!("it is not there"))?;
                let before = Rules::of(&target);
                self.engine.set_target(&target, plan, self.new);
                self.undo.push(Undo::Rules { target, before });
            }
            (Step::Rule, Change::Discovery) => {
                let before = self.engine.node().discovery_credentials();
                self.undo.push(Undo::Discovery(before));
                self.engine.set_discovery(self.new);
            }
            (Step::Come, Change::AddTarget(plan)) => {
                let target = Target::new(&plan.name, plan.alias.clone(), Device::new(Default::default()));
                // Before anybody can log in.
                self.engine.set_target(&target, plan, self.new);
                self.engine.node().add_target(target)?;
                self.undo.push(Undo::RemoveTarget {
                    name: plan.name.clone(),
                });
            }
            (Step::Come, Change::AddLun { target, lun } | Change::ReplaceLun { target, new: lun, .. }) => {
                self.insert(target, lun)?;
                let (target, lun) = (target.clone(), lun.lun);
                self.undo.push(Undo::Remove { target, lun });
            }
            (Step::Come, Change::Online { target, lun }) => {
                let medium = self.medium(target, lun)?;
                let unit = self.engine.unit(lun, medium)?;
                self.device(target)?.set_online(lun.lun, unit)?;
                let (target, lun) = (target.clone(), lun.lun);
                self.undo.push(Undo::Offline { target, lun });
            }
            (Step::Come, Change::AddPortal(portal)) => {
                let listener = match self.prepared.listeners.remove(&portal.address) {
                    Some(listener) => listener,
                    None => portals::listen(portal.address)
                        .map_err(|error| anyhow!(portals::explain(portal.address, &error)))?,
                };
                self.serving.portals.start(portal, listener);
                self.undo.push(Undo::Unlisten(portal.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    /// What cannot fail.
    async fn settle(&mut self, change: &Change) {
        let node = self.engine.node();
        match change {
            Change::SetLun { target, new, .. } => {
                if let Some(unit) = node.target(target).and_then(|target| target.device.unit(new.lun)) {
                    self.engine.set_unit(&unit, new);
                }
            }
            Change::Limits => node.set_limits(self.new.plan.limits.clone()),
            Change::Metrics(_) => {
                let listener = self.prepared.metrics.take();
                self.serving.set_metrics(self.engine, listener).await;
            }
            Change::Restart(what) => self.notes.push(format!("{what} changes when farlun is started again")),
            Change::RemovePortal(portal) => {
                self.notes.push(format!(
                    "connections that came through {} go on: farlun session drop ends one",
                    portal.address
                ));
            }
            Change::RemoveLun { lun, .. } => {
                if let Some(path) = lun.medium.path() {
                    self.notes.push(format!("{} stays as it is", path.display()));
                }
            }
            Change::RenameTarget { .. } => {
                self.notes
                    .push("sessions go on; whoever logs in anew has to use the new name".to_owned());
            }
            _ => {}
        }
    }

    fn device(&self, target: &str) -> anyhow::Result<Arc<Device>> {
        let target = self.engine.node().target(target);
        target
            .map(|target| Arc::clone(&target.device))
            .ok_or_else(|| anyhow!("its target is not there"))
    }

    fn medium(&mut self, target: &str, lun: &LunPlan) -> anyhow::Result<Arc<dyn target_core::lun::Medium>> {
        let key: Key = (target.to_owned(), lun.lun);
        if let Some(medium) = self.prepared.media.remove(&key) {
            return Ok(medium);
        }
        let opened = tokio::task::block_in_place(|| media::open(lun))?;
        opened.ok_or_else(|| anyhow!("{} is gone", lun.medium))
    }

    fn insert(&mut self, target: &str, lun: &LunPlan) -> anyhow::Result<()> {
        let device = self.device(target)?;
        if lun.offline {
            device.insert_offline(lun.lun)?;
            return Ok(());
        }
        let medium = self.medium(target, lun)?;
        device.insert(lun.lun, self.engine.unit(lun, medium)?)?;
        Ok(())
    }

    async fn remove_target(&mut self, plan: &TargetPlan) -> anyhow::Result<()> {
        let target = self.engine.node().remove_target(&plan.name, LOGOUT_WITHIN_MS);
        let target = target.ok_or_else(|| anyhow!("it is not there"))?;
        self.undo.push(Undo::AddTarget {
            plan: Box::new(plan.clone()),
            target: Arc::clone(&target),
        });
        // Their last writes are theirs to make.
        let end = Instant::now() + Duration::from_millis(LOGOUT_WITHIN_MS);
        while target.session_count() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        }
        for lun in &plan.luns {
            if let Ok(removal) = target.device.remove(lun.lun) {
                let closed = self.gone(removal).await;
                self.note_if_open(&plan.name, lun, closed);
            }
        }
        Ok(())
    }

    async fn left(&mut self, target: &str, lun: &LunPlan, removal: Removal) {
        self.undo.push(Undo::Insert {
            target: target.to_owned(),
            lun: lun.clone(),
        });
        let closed = self.gone(removal).await;
        self.note_if_open(target, lun, closed);
    }

    fn note_if_open(&mut self, target: &str, lun: &LunPlan, closed: anyhow::Result<()>) {
        if let Err(error) = closed {
            let text = format!("LUN {} of {target}: {error:#}", lun.lun);
            tracing::warn!("{text}");
            self.notes.push(text);
        }
    }

    /// Waits until a unit is flushed and closed.
    async fn gone(&self, mut removal: Removal) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_millis(REMOVE_WAIT_MS);
        let wait = async |removal: &Removal, is: fn(&Removal) -> bool| {
            while !is(removal) {
                if Instant::now() >= end {
                    return Err(anyhow!("commands are still at its medium: it is closed when they end"));
                }
                tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
            }
            Ok(())
        };
        wait(&removal, Removal::is_drained).await?;
        tokio::task::block_in_place(|| removal.flush()).context("its last writes may be lost")?;
        wait(&removal, Removal::is_closed).await
    }

    /// Undoes what was done, the last first. Returns what could not be undone.
    async fn take_back(&mut self) -> Vec<String> {
        let mut remains = Vec::new();
        while let Some(undo) = self.undo.pop() {
            if let Err(text) = self.take_back_one(undo).await {
                tracing::error!("{text}");
                remains.push(text);
            }
        }
        remains
    }

    async fn take_back_one(&mut self, undo: Undo) -> Result<(), String> {
        let node = Arc::clone(self.engine.node());
        match undo {
            Undo::Rename { from, to } => {
                let renamed = node.rename_target(&to, &from);
                renamed
                    .map(drop)
                    .map_err(|error| format!("target {to} keeps its new name: {error}"))
            }
            Undo::Online { target, lun } => {
                let reopened = self.reopen(&lun);
                let unit = reopened.map_err(|error| self.stays_offline(&target, &lun, &error))?;
                let device = self.device(&target);
                let online = device.and_then(|device| Ok(device.set_online(lun.lun, unit)?));
                online.map_err(|error| self.stays_offline(&target, &lun, &error))
            }
            Undo::Insert { target, lun } if lun.offline => self
                .device(&target)
                .and_then(|device| Ok(device.insert_offline(lun.lun)?))
                .map_err(|error| format!("LUN {} of {target} is gone: {error}", lun.lun)),
            Undo::Insert { target, lun } => {
                let device = self.device(&target).map_err(|error| error.to_string())?;
                let back = self.reopen(&lun).and_then(|unit| Ok(device.insert(lun.lun, unit)?));
                back.map_err(|error| {
                    // So that it can be taken into service again when what is in the way is gone.
                    let _there_already = device.insert_offline(lun.lun);
                    self.stays_offline(&target, &lun, &error)
                })
            }
            Undo::Size { target, lun, bytes } => {
                let unit = self.device(&target).ok().and_then(|device| device.unit(lun));
                let resized = unit.map(|unit| tokio::task::block_in_place(|| unit.resize(bytes)));
                match resized {
                    Some(Err(error)) => Err(format!("LUN {lun} of {target} keeps its new size: {error}")),
                    _ => Ok(()),
                }
            }
            Undo::Remove { target, lun } => {
                if let Ok(removal) = self.device(&target).and_then(|device| Ok(device.remove(lun)?))
                    && let Err(error) = self.gone(removal).await
                {
                    return Err(format!("LUN {lun} of {target}: {error:#}"));
                }
                Ok(())
            }
            Undo::Offline { target, lun } => {
                let device = self.device(&target).map_err(|error| error.to_string())?;
                let removal = match device.set_offline(lun) {
                    Ok(removal) => removal,
                    Err(error) => return Err(format!("LUN {lun} of {target} stays online: {error}")),
                };
                let closed = self.gone(removal).await;
                closed.map_err(|error| format!("LUN {lun} of {target}: {error:#}"))
            }
            Undo::RemoveTarget { name } => {
                node.remove_target(&name, 0);
                Ok(())
            }
            Undo::AddTarget { plan, target } => self.target_back(&plan, &target),
            Undo::Rules { target, before } => {
                before.put(&target, &node);
                Ok(())
            }
            Undo::Discovery(before) => {
                node.set_discovery_credentials(before.as_ref().clone());
                Ok(())
            }
            Undo::Listen(portal) => {
                let listener = portals::listen(portal.address);
                let listener = listener.map_err(|error| portals::explain(portal.address, &error))?;
                self.serving.portals.start(&portal, listener);
                Ok(())
            }
            Undo::Unlisten(portal) => {
                self.serving.portals.stop(portal.address).await;
                Ok(())
            }
        }
    }

    /// A target that was taken out is retired for good: another one takes its place.
    fn target_back(&mut self, plan: &TargetPlan, old: &Target) -> Result<(), String> {
        let target = Target::new(&plan.name, plan.alias.clone(), Device::new(Default::default()));
        Rules::of(old).put(&target, self.engine.node());
        let added = self.engine.node().add_target(target);
        added.map_err(|error| format!("target {} is gone: {error}", plan.name))?;
        let mut failed = Vec::new();
        for lun in &plan.luns {
            let insert = |device: Arc<Device>| -> anyhow::Result<()> {
                if lun.offline {
                    return Ok(device.insert_offline(lun.lun)?);
                }
                let inserted = self.reopen(lun).and_then(|unit| Ok(device.insert(lun.lun, unit)?));
                if inserted.is_err() {
                    device.insert_offline(lun.lun)?;
                }
                inserted
            };
            if let Err(error) = self.device(&plan.name).and_then(insert) {
                failed.push(self.stays_offline(&plan.name, lun, &error));
            }
        }
        failed.push(format!("sessions of target {} have been ended", plan.name));
        Err(failed.join("; "))
    }

    fn reopen(&self, lun: &LunPlan) -> anyhow::Result<Arc<target_core::scsi::LogicalUnit>> {
        let medium = tokio::task::block_in_place(|| media::open(lun))?;
        let medium = medium.ok_or_else(|| anyhow!("{} is gone", lun.medium))?;
        self.engine.unit(lun, medium)
    }

    /// What is served is another thing than the plan says: the plan is put right, so that the next change starts from
    /// what is.
    fn stays_offline(&mut self, target: &str, lun: &LunPlan, error: &anyhow::Error) -> String {
        // It has the name that it will have back.
        let renamed = self.undo.iter().find_map(|undo| match undo {
            Undo::Rename { from, to } if to == target => Some(from.as_str()),
            _ => None,
        });
        let name = renamed.unwrap_or(target);
        let targets = &mut self.serving.desired.plan.targets;
        let plan = targets.iter_mut().find(|plan| plan.name == name);
        if let Some(plan) = plan.and_then(|plan| plan.luns.iter_mut().find(|plan| plan.lun == lun.lun)) {
            plan.offline = true;
        }
        format!(
            "LUN {} of {target} stays offline: {error:#}; farlun reload tries again",
            lun.lun
        )
    }
}

/// In which order changes are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// What may be refused because of sessions.
    Refusable,
    /// What goes, and makes room.
    Leave,
    /// Who may do what, before there is more to do it to.
    Rule,
    /// What comes.
    Come,
}
