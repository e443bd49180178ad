//! What is served, and the one way to change it: a plan is compared with the one before, everything that may fail is
//! tried out first, and only what is different is touched. A start is a change from nothing.

mod commit;
mod prepare;
mod rules;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use target_core::iscsi::Node;
use target_core::iscsi::node::Target;
use target_core::iscsi::policy::Auth;
use target_core::iscsi::shape::Rate;
use target_core::lun::Medium;
use target_core::scsi::LogicalUnit;
use target_core::server::Server;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::diff::{Change, Desired, diff};
use super::media;
use super::portals::{Portals, Table};
use super::stake::at_stake;
use crate::config::{self, Edit, LoginPlan, LunPlan, Plan, Problems, RatePlan, Source, TargetPlan, Warning};
use crate::control::protocol::{Applied, Refusal, Why};
use crate::{metrics, state};
use commit::Commit;

/// How long a change waits for the one before it, in milliseconds.
const TURN_MS: u64 = 30_000;

/// A node with everything around it.
#[derive(Debug)]
pub(crate) struct Engine {
    server: Server,
    table: Arc<Table>,
    started: Instant,
    serving: Mutex<Serving>,
    /// The same for those who only look: a change under way does not keep them waiting.
    view: RwLock<Arc<View>>,
}

/// What is served now.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The configuration as it was read or written last.
    source: Source,
    /// The same with temporary changes.
    running: String,
    desired: Desired,
    /// What has been warned of already.
    warned: Vec<Warning>,
    portals: Portals,
    metrics: Option<metrics::Server>,
}

/// What can be seen of it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// What is served.
    pub(crate) desired: Desired,
    /// The file.
    pub(crate) file: Option<PathBuf>,
    /// Whether there are temporary changes.
    pub(crate) temporary: bool,
}

/// How to make a change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// Even if sessions or data are at stake.
    pub(crate) force: bool,
    /// Only tell what would change.
    pub(crate) dry_run: bool,
}

/// A configuration that has been read and checked as a whole, as far as that goes without a look at what changes.
struct Checked {
    desired: Desired,
    problems: Problems,
}

fn check(source: &Source) -> Result<Checked, String> {
    let (plan, mut problems) = source.parse()?;
    let secrets = config::load_secrets(&plan, &mut problems);
    let desired = Desired { plan, secrets };
    Ok(Checked { desired, problems })
}

impl Engine {
    /// Nothing is served yet. What is to be is only looked at for what cannot change later.
    pub(crate) fn new(source: Source, desired: &Desired) -> Arc<Self> {
        let server = Server::new(Node::new(desired.plan.limits.clone(), []));
        let table = Table::new(Arc::clone(server.node()));
        let nothing = Desired {
            plan: Plan {
                targets: Vec::new(),
                portals: Vec::new(),
                discovery: LoginPlan::default(),
                metrics: None,
                ..desired.plan.clone()
            },
            secrets: desired.secrets.clone(),
        };
        let view = View {
            desired: nothing.clone(),
            file: source.file.clone(),
            temporary: false,
        };
        Arc::new(Self {
            started: Instant::now(),
            serving: Mutex::new(Serving {
                running: source.text.clone(),
                source,
                desired: nothing,
                warned: Vec::new(),
                portals: Portals::new(server.clone(), Arc::clone(&table)),
                metrics: None,
            }),
            server,
            table,
            view: RwLock::new(Arc::new(view)),
        })
    }

    /// What is behind all portals.
    pub(crate) fn node(&self) -> &Arc<Node> {
        self.server.node()
    }

    /// What moves the bytes.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// All portals.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Since when it is there.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// What is served, to look at.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins to serve what was given to [`new`](Self::new). `problems` are those found so far; nothing is touched when
    /// there are any.
    ///
    /// # Errors
    /// What is in the way. Nothing is served then.
    pub(crate) async fn start(self: &Arc<Self>, desired: Desired, problems: Problems) -> Result<(), StartError> {
        let mut serving = self.serving.lock().await;
        serving.warned = problems.warnings().collect();
        let changes = diff(&serving.desired, &desired);
        let prepared = self.prepare(&changes, &desired.plan, problems)?;
        self.commit(&mut serving, &changes, desired, prepared)
            .await
            .map_err(StartError::Failed)?;
        self.show(&serving);
        Ok(())
    }

    /// Looks for everything that would be in the way of [`start`](Self::start), and leaves all as it is.
    pub(crate) fn try_out(&self, desired: &Desired, problems: Problems) -> Result<(), Problems> {
        let view = self.view();
        let changes = diff(&view.desired, desired);
        match self.prepare(&changes, &desired.plan, problems) {
            Ok(_) => Ok(()),
            Err(StartError::Problems(problems)) => Err(problems),
            Err(StartError::Failed(error)) => {
                let mut problems = Problems::without_file();
                problems.add_passing(None, format!("{error:#}"));
                Err(problems)
            }
        }
    }

    /// Where the configured portals listen.
    pub(crate) async fn portal_addresses(&self) -> Vec<std::net::SocketAddr> {
        self.serving.lock().await.portals.addresses()
    }

    /// Accepts nobody any more.
    pub(crate) async fn stop_accepting(&self) {
        // A change that hangs at a medium must not keep the program.
        if let Ok(mut serving) = self.turn().await {
            serving.portals.stop_all().await;
            serving.stop_metrics().await;
        }
    }

    /// Reads the file anew.
    ///
    /// # Errors
    /// It is wrong, or not what it asks for could be done; what is served is as before then.
    pub(crate) async fn reload(self: &Arc<Self>, how: How) -> Result<Applied, Refusal> {
        let mut serving = self.turn().await?;
        let Some(file) = &serving.source.file else {
            return Err(Refusal::wrong(
                "farlun serves without a configuration file: start it as farlun serve FILE",
            ));
        };
        let source = Source::read(file).map_err(Refusal::wrong)?;
        let text = source.text.clone();
        let changes = self.change(&mut serving, &source, how, || Ok(())).await?;
        if !how.dry_run {
            serving.source = source;
            serving.running = text;
            self.show(&serving);
        }
        Ok(changes)
    }

    /// Changes the configuration, and what is served.
    ///
    /// # Errors
    /// It cannot be changed like that; file and what is served are as before then.
    pub(crate) async fn edit(self: &Arc<Self>, edit: &Edit, temporary: bool, how: How) -> Result<Applied, Refusal> {
        if temporary && edit.resizes_a_file() {
            // The file on disk keeps the size whatever is undone: the next start would refuse it.
            return Err(Refusal::wrong("a size cannot be temporary: leave --temporary out"));
        }
        let mut serving = self.turn().await?;
        let (running, lun) = edit.apply(&serving.running).map_err(Refusal::wrong)?;
        let new = Source {
            text: running,
            ..serving.source.clone()
        };
        if temporary {
            let mut applied = self.change(&mut serving, &new, how, || Ok(())).await?;
            if !how.dry_run {
                serving.running = new.text;
                self.show(&serving);
                applied
                    .notes
                    .push("this lasts until the next farlun reload or start".to_owned());
            }
            applied.lun = lun;
            return Ok(applied);
        }
        let file = serving.source.file.clone().ok_or_else(|| {
            Refusal::wrong(
                "farlun serves without a configuration file: start it as farlun serve FILE, or use --temporary",
            )
        })?;
        let shown = file.display().to_string();
        let old = Source::read(&file).map_err(Refusal::wrong)?;
        if old.text != serving.source.text {
            return Err(Refusal::wrong(format!(
                "{shown} was changed since it was read: farlun reload --dry-run shows how, farlun reload takes it over"
            )));
        }
        let written = Source {
            text: edit.apply(&old.text).map_err(Refusal::wrong)?.0,
            file: Some(file.clone()),
        };
        // What is served may differ by temporary changes: the file has to be right by itself.
        let checked = check(&written).map_err(Refusal::wrong)?;
        if !checked.problems.is_empty() {
            return Err(Refusal::wrong(checked.problems));
        }
        let cannot = |error: std::io::Error| {
            Refusal::failed(format!(
                "cannot write {shown}: {error}: let farlun write there (ReadWritePaths= under systemd), or use --temporary"
            ))
        };
        let write = || config::replace(&file, &written.text).map_err(cannot);
        let result = self.change(&mut serving, &new, how, write).await;
        match result {
            Ok(mut applied) => {
                if !how.dry_run {
                    serving.source = written;
                    serving.running = new.text;
                    self.show(&serving);
                }
                applied.lun = lun;
                Ok(applied)
            }
            Err(refusal) => {
                let now = Source::read(&file).map(|now| now.text);
                if now.as_ref() == Ok(&written.text)
                    && let Err(error) = config::replace(&file, &old.text)
                {
                    return Err(Refusal::failed(format!(
                        "{refusal}; and {shown} could not be put back ({error}): it has the change that was not made"
                    )));
                }
                Err(refusal)
            }
        }
    }

    /// Looks how full the storage is underneath the LUNs that have a threshold: others may be filling it.
    pub(crate) async fn check_thresholds(&self) {
        let (view, node) = (self.view(), Arc::clone(self.node()));
        // A file system that hangs is not to take us with it.
        let looked = tokio::task::spawn_blocking(move || {
            for target in &view.desired.plan.targets {
                let Some(found) = node.target(&target.name) else {
                    continue;
                };
                let luns = target.luns.iter().filter(|lun| lun.thin_threshold_percent.is_some());
                // It is told once: to somebody.
                luns.filter_map(|lun| found.device.unit(lun.lun))
                    .filter(|unit| unit.user().is_some())
                    .for_each(|unit| unit.check_threshold());
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "thresholds");
        }
    }

    /// From what is served to what `source` says. `write` is called when everything is ready and nothing is changed.
    async fn change(
        self: &Arc<Self>,
        serving: &mut Serving,
        source: &Source,
        how: How,
        write: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Applied, Refusal> {
        let checked = tokio::task::block_in_place(|| check(source)).map_err(Refusal::wrong)?;
        if !checked.problems.is_empty() {
            return Err(Refusal::wrong(checked.problems));
        }
        let warnings: Vec<Warning> = checked.problems.warnings().collect();
        let changes = self.reopened_where_needed(diff(&serving.desired, &checked.desired));
        let lost = at_stake(&changes, self.node());
        let new_warnings = warnings.iter().filter(|warning| !serving.warned.contains(warning));
        let new_warnings: Vec<String> = new_warnings.map(ToString::to_string).collect();
        let mut applied = Applied {
            changes: changes.iter().map(ToString::to_string).collect(),
            ..Applied::default()
        };
        let try_out = |problems| {
            let prepared = tokio::task::block_in_place(|| self.prepare(&changes, &checked.desired.plan, problems));
            prepared.map_err(|error| match error {
                StartError::Problems(problems) if !problems.are_all_passing() => Refusal::wrong(problems),
                StartError::Problems(problems) => Refusal::failed(problems),
                StartError::Failed(error) => Refusal::failed(format!("{error:#}")),
            })
        };
        if how.dry_run {
            // What would be in the way is part of the answer.
            drop(try_out(checked.problems)?);
            let need_force = lost.into_iter().map(|lost| format!("{lost}: needs --force"));
            applied.notes.extend(need_force);
            applied.notes.extend(new_warnings);
            return Ok(applied);
        }
        if !how.force && !lost.is_empty() {
            return Err(Refusal {
                why: Why::AtStake,
                text: format!("{}: use --force if that is what you want", lost.join("; ")),
            });
        }
        let prepared = try_out(checked.problems)?;
        write()?;
        let done = self.commit(serving, &changes, checked.desired, prepared).await;
        if done.is_err() {
            // What could not be put back is offline now.
            self.show(serving);
        }
        applied.notes = done.map_err(|error| Refusal::failed(format!("{error:#}")))?;
        applied.notes.extend(new_warnings);
        serving.warned = warnings;
        for change in &changes {
            tracing::info!("{change}");
        }
        Ok(applied)
    }

    /// A unit whose medium was opened for reading alone cannot become writable as it is.
    fn reopened_where_needed(&self, changes: Vec<Change>) -> Vec<Change> {
        let node = self.node();
        let read_only = |target: &str, lun: u16| {
            let unit = node.target(target).and_then(|target| target.device.unit(lun));
            unit.is_some_and(|unit| unit.properties().read_only)
        };
        let reopened = |change| match change {
            Change::SetLun { target, old, new, what } if !new.read_only && read_only(&target, new.lun) => {
                Change::ReplaceLun { target, old, new, what }
            }
            change => change,
        };
        changes.into_iter().map(reopened).collect()
    }

    fn prepare(
        &self,
        changes: &[Change],
        plan: &Plan,
        mut problems: Problems,
    ) -> Result<prepare::Prepared, StartError> {
        let opened: Vec<&LunPlan> = changes.iter().filter_map(prepare::opens).map(|(_, lun)| lun).collect();
        let served = |path: &std::path::Path| {
            let view = self.view();
            let mut luns = view.desired.plan.targets.iter().flat_map(|target| &target.luns);
            luns.any(|lun| !lun.offline && lun.medium.path() == Some(path))
        };
        let new_portals: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::AddPortal(portal) => Some(portal),
                _ => None,
            })
            .collect();
        // What is served already has been looked at when it was opened.
        let looked_at = opened.into_iter().filter(|lun| !lun.medium.path().is_some_and(served));
        config::survey(plan, looked_at, &new_portals, &mut problems);
        let prepared = prepare::prepare(changes, &mut problems);
        if !problems.is_empty() {
            return Err(StartError::Problems(problems));
        }
        Ok(prepared)
    }

    async fn commit(
        self: &Arc<Self>,
        serving: &mut Serving,
        changes: &[Change],
        desired: Desired,
        mut prepared: prepare::Prepared,
    ) -> anyhow::Result<Vec<String>> {
        tokio::task::block_in_place(|| prepared.create(changes))?;
        let notes = Commit::new(self, serving, &desired, prepared).run(changes).await?;
        serving.desired = desired;
        Ok(notes)
    }

    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, Serving>, Refusal> {
        let turn = tokio::time::timeout(Duration::from_millis(TURN_MS), self.serving.lock()).await;
        turn.map_err(|_| Refusal::failed("another change is still under way: try again later"))
    }

    fn show(&self, serving: &Serving) {
        let view = View {
            desired: serving.desired.clone(),
            file: serving.source.file.clone(),
            temporary: serving.running != serving.source.text,
        };
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// A unit as a plan has it, with the reservations it had.
    fn unit(&self, lun: &LunPlan, medium: Arc<dyn Medium>) -> anyhow::Result<Arc<LogicalUnit>> {
        let unit = media::unit(lun, medium);
        unit.shaper().set(rate(lun.rate));
        // What is in memory does not outlive us, and neither do reservations of it.
        if lun.medium.path().is_some()
            && let Some(kept) = state::reservations(&lun.serial)?
        {
            let shown = kept.file().display().to_string();
            unit.keep_reservations(Arc::new(kept))
                .with_context(|| format!("persistent reservations kept in {shown}: mend that file, or remove it"))?;
        }
        Ok(unit)
    }

    /// Sets what can change while a unit is used.
    fn set_unit(&self, unit: &LogicalUnit, lun: &LunPlan) {
        unit.set_shared(lun.shared);
        unit.shaper().set(rate(lun.rate));
        if unit.is_read_only() != lun.read_only {
            let _writes_that_run = unit.set_read_only(lun.read_only);
        }
    }

    /// Sets everything a target is beside its LUNs.
    fn set_target(&self, target: &Target, plan: &TargetPlan, desired: &Desired) {
        target.set_alias(plan.alias.clone());
        target.set_credentials(desired.secrets.credentials(&desired.plan, &plan.login));
        target.set_portal_groups(plan.portal_groups.clone(), &self.node().portals());
        target.set_session_rate(rate(plan.rate));
        target.set_policy(plan.policy.clone());
    }

    fn set_discovery(&self, desired: &Desired) {
        let login = &desired.plan.discovery;
        let credentials = desired.secrets.credentials(&desired.plan, login);
        let wanted = (login.auth == Auth::Chap).then_some(credentials);
        self.node().set_discovery_credentials(wanted);
    }
}

fn rate(plan: RatePlan) -> Rate {
    Rate {
        iops: plan.iops_max.unwrap_or(0),
        bytes_per_s: plan.bytes_per_second_max.unwrap_or(0),
    }
}

impl Serving {
    async fn set_metrics(&mut self, engine: &Arc<Engine>, listener: Option<TcpListener>) {
        self.stop_metrics().await;
        self.metrics = listener.map(|listener| metrics::Server::start(listener, Arc::clone(engine)));
    }

    async fn stop_metrics(&mut self) {
        if let Some(metrics) = self.metrics.take() {
            metrics.stop().await;
        }
    }
}

/// Why a change was not made.
#[derive(Debug)]
pub(crate) enum StartError {
    /// Found before anything was touched.
    Problems(Problems),
    /// Tried, and taken back.
    Failed(anyhow::Error),
}
