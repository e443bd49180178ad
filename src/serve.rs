//! `farlun serve`: exports LUNs until it is told to stop.

mod announce;
mod diff;
pub(crate) mod engine;
mod media;
mod perform;
mod portals;
mod stake;
mod tunnels;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

use crate::config::{self, ISCSI_PORT, Problems, Source};
use crate::control::server::{self as control, Control};
use crate::exit::{Exit, Failure, OrExit};
use crate::say::say;
use crate::{signals, state};
use diff::Desired;
use engine::{Engine, How, StartError};
use perform::Desk;
use tunnels::Tunnels;

/// How often the storage underneath LUNs with a threshold is looked at, in milliseconds.
const THRESHOLD_LOOK_MS: u64 = 10_000;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration; without one, a LUN of 1 GiB in the user's state directory is served on loopback
    config: Option<PathBuf>,
    /// Only check the configuration, and whether this machine can do it
    #[arg(long)]
    check: bool,
    /// Where to listen when there is no configuration; loopback only
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    listen: Option<SocketAddr>,
    /// Where to make the control socket, instead of where [control] or the user's runtime directory has it
    #[arg(long, value_name = "PATH", env = "FARLUN_CONTROL")]
    control: Option<PathBuf>,
}

/// Serves until SIGINT or SIGTERM, or SIGHUP without a configuration file.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let usage = |error: String| Failure::new(Exit::Usage, anyhow!(error));
    let source = match &args.config {
        Some(file) => Source::read(file).map_err(usage)?,
        None => unconfigured(&args)?,
    };
    let (plan, mut problems) = source.parse().map_err(usage)?;
    let secrets = config::load_secrets(&plan, &mut problems);
    start(&args, source, Desired { plan, secrets }, problems).await
}

/// What stands for no configuration.
fn unconfigured(args: &ServeArgs) -> Result<Source, Failure> {
    let usual = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ISCSI_PORT);
    let listen = args.listen.unwrap_or(usual);
    if !listen.ip().is_loopback() {
        let text = format!("{listen} is not loopback: that takes a configuration with allow_public = true");
        return Err(Failure::new(Exit::Usage, anyhow!(text)));
    }
    let directory = state::directory().ok_or_else(|| anyhow!("no home directory: set HOME, or XDG_STATE_HOME"))?;
    if !args.check {
        state::make_directory(&directory)?;
    }
    Ok(Source {
        file: None,
        text: config::without_file(&directory, listen),
    })
}

async fn start(args: &ServeArgs, source: Source, desired: Desired, mut problems: Problems) -> Result<(), Failure> {
    let has_file = source.file.is_some();
    let engine = Engine::new(source, &desired);
    for warning in problems.warnings() {
        if args.check {
            say!("{warning}");
        } else {
            tracing::warn!("{warning}");
        }
    }
    if args.check {
        config::survey_tunnel(&desired.plan, &mut problems);
        if let Err(error) = control::check(&desired.plan.control, args.control.as_deref()) {
            problems.add_passing(desired.plan.control.line, error.to_string());
        }
        if let Some(tunnel) = &desired.plan.tunnel {
            tunnels::check(tunnel, &mut problems);
        }
        engine.try_out(&desired, problems).map_err(wrong)?;
        say!("the configuration is right, and this machine can do it");
        return Ok(());
    }
    // Signals count from here on, so that what is created below is also closed in order. Without a file there is
    // nothing to read anew: then SIGHUP means that the terminal is gone.
    let (stop, reload) = if has_file {
        (signals::stop_but_hangup()?, Some(signals::reload()?))
    } else {
        (signals::stop()?, None)
    };
    let plan = desired.plan.clone();
    let control = Control::bind(&plan.control, args.control.as_deref()).unwrap_or_else(|error| {
        problems.add_passing(plan.control.line, format!("control socket: {error}"));
        None
    });
    let tunnels = match plan.tunnel.as_ref().map(Tunnels::bind).transpose() {
        Ok(tunnels) => tunnels,
        Err(error) => {
            problems.add_passing(
                plan.tunnel.as_ref().and_then(|tunnel| tunnel.line),
                format!("{error:#}"),
            );
            None
        }
    };
    engine.start(desired, problems).await.map_err(|error| match error {
        StartError::Problems(problems) => wrong(problems),
        StartError::Failed(error) => error.into(),
    })?;
    let addresses = engine.portal_addresses().await;
    let control_path = control.as_ref().map(|control| control.path().to_owned());
    let control = control.map(|control| tokio::spawn(control.run(Arc::new(Desk(Arc::clone(&engine))))));
    announce::announce(&plan, engine.node(), &addresses, control_path.as_deref());
    let served = serve(&engine, tunnels, stop, reload).await;
    if let Some(control) = control {
        control.abort();
        // So that its socket is gone.
        let _aborted = control.await;
    }
    served.or_exit(Exit::Failure)
}

fn wrong(problems: Problems) -> Failure {
    let exit = if problems.are_all_passing() {
        Exit::Failure
    } else {
        Exit::Usage
    };
    Failure::new(exit, problems)
}

/// Runs tunnels until `stop`, then closes everything.
async fn serve(
    engine: &Arc<Engine>,
    tunnels: Option<Tunnels>,
    mut stop: signals::Stop,
    reload: Option<Signal>,
) -> anyhow::Result<()> {
    let (tunnels_stop, tunnels_stopping) = watch::channel(false);
    let tunnels = tunnels.map(|tunnels| {
        let (server, table) = (engine.server().clone(), Arc::clone(engine.table()));
        tokio::spawn(tunnels.run(server, table, until(&tunnels_stopping)))
    });
    let reloading = tokio::spawn(reload_when_told(Arc::clone(engine), reload));
    let watching = tokio::spawn(watch_thresholds(Arc::clone(engine)));

    let signal = stop.signal().await;
    tracing::info!("{signal}: closing sessions and flushing every LUN");
    reloading.abort();
    watching.abort();
    // Sessions end before the tunnels they came through, so that initiators hear of it.
    let closed = async {
        engine.stop_accepting().await;
        engine.server().stop().await
    };
    let flushed = tokio::select! {
        flushed = closed => flushed,
        signal = stop.signal() => return Err(anyhow!("{signal} again: stopped without flushing, writes may be lost")),
    };
    tunnels_stop.send_replace(true);
    if let Some(tunnels) = tunnels {
        tunnels.await.context("tunnels")?;
    }
    if flushed.is_empty() {
        tracing::info!("every LUN is flushed");
        return Ok(());
    }
    let failed: Vec<String> = flushed.iter().map(ToString::to_string).collect();
    Err(anyhow!("writes may be lost: {}", failed.join("; ")))
}

/// Reads the configuration anew at every SIGHUP; what that comes to is told in the log.
async fn reload_when_told(engine: Arc<Engine>, hangup: Option<Signal>) {
    let Some(mut hangup) = hangup else { return };
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: reading the configuration anew");
        // Nobody is there to say --force.
        match engine.reload(How::default()).await {
            Ok(applied) if applied.changes.is_empty() => tracing::info!("nothing has changed"),
            Ok(applied) => applied.notes.iter().for_each(|note| tracing::info!("{note}")),
            Err(refusal) => tracing::error!("nothing was changed: {refusal}"),
        }
    }
}

/// Tells initiators of storage that fills up, whoever fills it.
async fn watch_thresholds(engine: Arc<Engine>) {
    loop {
        tokio::time::sleep(Duration::from_millis(THRESHOLD_LOOK_MS)).await;
        engine.check_thresholds().await;
    }
}

/// Resolves when it is time to stop, or when whoever would say so is gone.
fn until(stopping: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stopping = stopping.clone();
    async move {
        let _gone = stopping.wait_for(|stop| *stop).await;
    }
}
