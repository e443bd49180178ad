//! `farlun serve`: exports LUNs until it is told to stop.

mod announce;
mod media;
mod portals;
mod tunnels;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use target_core::iscsi::{Node, Portal};
use target_core::server::Server;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{self, ISCSI_PORT, Plan, Problems};
use crate::exit::{Exit, Failure, OrExit};
use crate::say::say;
use crate::signals;
use tunnels::Tunnels;

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
}

/// Serves until SIGINT, SIGTERM or SIGHUP.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let (plan, problems) = match &args.config {
        Some(file) => config::read(file).map_err(|error| Failure::new(Exit::Usage, anyhow!(error)))?,
        None => unconfigured(&args)?,
    };
    start(plan, problems, args.check).await
}

/// The plan for no configuration.
fn unconfigured(args: &ServeArgs) -> Result<(Plan, Problems), Failure> {
    let usual = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ISCSI_PORT);
    let listen = args.listen.unwrap_or(usual);
    if !listen.ip().is_loopback() {
        let text = format!("{listen} is not loopback: that takes a configuration with allow_public = true");
        return Err(Failure::new(Exit::Usage, anyhow!(text)));
    }
    let directory = state_directory().ok_or_else(|| anyhow!("no home directory: set HOME, or XDG_STATE_HOME"))?;
    if !args.check {
        make_directory(&directory)?;
    }
    Ok((config::without_file(&directory, listen), Problems::without_file()))
}

/// Where LUNs are kept without configuration (XDG Base Directory Specification; file-hierarchy(7) for root).
fn state_directory() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return Some(state.join("farlun"));
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/farlun"));
    }
    Some(absolute("HOME")?.join(".local/state/farlun"))
}

/// Nobody else's business: LUNs hold file systems.
fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the directory {}", path.display()))
}

async fn start(plan: Plan, mut problems: Problems, only_check: bool) -> Result<(), Failure> {
    config::survey(&plan, &mut problems);
    let opened = media::open_existing(&plan, &mut problems);
    if only_check {
        portals::check(&plan, &mut problems);
        if let Some(tunnel) = &plan.tunnel {
            tunnels::check(tunnel, &mut problems);
        }
    }
    if !problems.is_empty() {
        let exit = if problems.are_all_passing() {
            Exit::Failure
        } else {
            Exit::Usage
        };
        return Err(Failure::new(exit, problems));
    }
    if only_check {
        say!("the configuration is right, and this machine can do it");
        return Ok(());
    }
    // Signals count from here on, so that what is created below is also closed in order.
    let stop = signals::stop()?;
    let listeners = portals::bind(&plan)?;
    let tunnels = plan.tunnel.as_ref().map(Tunnels::bind).transpose()?;
    let targets = opened.into_targets(&plan)?;
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    let server = Server::new(Node::new(plan.limits.clone(), targets.iter().cloned()));
    announce::announce(&plan, &targets, &addresses);
    serve(&server, listeners, tunnels, stop).await.or_exit(Exit::Failure)
}

/// Runs portals and tunnels until `stop`, then closes everything.
async fn serve(
    server: &Server,
    listeners: Vec<TcpListener>,
    tunnels: Option<Tunnels>,
    mut stop: signals::Stop,
) -> anyhow::Result<()> {
    let (portals_stop, portals_stopping) = watch::channel(false);
    let (tunnels_stop, tunnels_stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (server, until) = (server.clone(), until(&portals_stopping));
        tasks.spawn(async move { server.serve(listener, Portal::default(), until).await });
    }
    let tunnels = tunnels.map(|tunnels| tokio::spawn(tunnels.run(server.clone(), until(&tunnels_stopping))));

    let signal = stop.signal().await;
    tracing::info!("{signal}: closing sessions and flushing every LUN");
    portals_stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
    // Sessions end before the tunnels they came through, so that initiators hear of it.
    let flushed = tokio::select! {
        flushed = server.stop() => flushed,
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

/// Resolves when it is time to stop, or when whoever would say so is gone.
fn until(stopping: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stopping = stopping.clone();
    async move {
        let _gone = stopping.wait_for(|stop| *stop).await;
    }
}
