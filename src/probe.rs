//! `farlun probe`: what a portal has to offer, seen by an initiator: targets, LUNs, how far away they are.

mod login;
mod report;

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use initiator::{ChapOptions, Error, LoginOptions, Lun, PeerError, SendTargets, Session, Url};
use tokio::net::TcpStream;

use crate::exit::{Exit, Failure};
use crate::say::say;
use crate::signals;
use report::{LunReport, Report, TargetReport};

pub(crate) use report::RoundTrip;

/// Pings whose round trip is measured, unless told otherwise.
const PINGS: u32 = 20;
/// LUNs of one target that are looked at.
const LUNS_MAX: usize = 256;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// iscsi://[user@]host[:port][/target[/lun]]: a portal, one target, or one LUN
    url: Url,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// Pings to measure the round trip by
    #[arg(long, value_name = "N", default_value_t = PINGS, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// iSCSI name to log in with: a LUN that is not shared lets in only one
    #[arg(long, value_name = "NAME", default_value = INITIATOR)]
    initiator: String,
    /// How long to wait for each answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout_ms: u64,
    #[command(flatten)]
    chap: login::ChapArgs,
}

/// The name a probe logs in with.
pub(crate) const INITIATOR: &str = "iqn.2026-11.net.farlun:probe";

/// Looks, and prints what there is.
pub(crate) async fn run(args: ProbeArgs) -> Result<(), Failure> {
    let mut stop = signals::stop()?;
    let chap = args.chap.options(args.url.user.as_deref())?;
    let (report, refused) = tokio::select! {
        looked = look(&args, chap.as_ref()) => looked?,
        signal = stop.signal() => return Err(anyhow!("{signal}").into()),
    };
    if args.json {
        say!("{}", serde_json::to_string_pretty(&report).context("JSON")?);
    } else {
        report.print();
    }
    refused.map_or(Ok(()), Err)
}

/// A failure of the initiator, with its exit code.
pub(crate) fn failed(error: Error, what: impl std::fmt::Display) -> Failure {
    let exit = match &error {
        Error::Io(_) | Error::Timeout { .. } | Error::Peer(PeerError::Closed) => Exit::CannotConnect,
        Error::LoginRefused { .. } => Exit::Refused,
        _ => Exit::Failure,
    };
    // RFC 7143 §11.13.5, 02/02: not permitted to this initiator; farlun says so for LUNs that are another's as well.
    let hint = match &error {
        // 02/01: authentication failed.
        Error::LoginRefused { status, .. } if (status.class(), status.detail()) == (0x02, 0x01) => {
            " (it takes another user or secret: --user NAME --secret-file FILE)"
        }
        Error::LoginRefused { status, .. } if (status.class(), status.detail()) == (0x02, 0x02) => {
            " (or another initiator has its LUNs: they are not shared)"
        }
        _ => "",
    };
    Failure::new(exit, anyhow!("{what}: {error}{hint}"))
}

/// Logs in to a target, or to discovery.
pub(crate) async fn log_in(
    url: &Url,
    initiator_name: &str,
    target: Option<&str>,
    chap: Option<&ChapOptions>,
    timeout_ms: u64,
) -> Result<Session<TcpStream>, Error> {
    let stream = initiator::connect(&url.host, url.port, timeout_ms).await?;
    let mut options = LoginOptions::new(initiator_name, target);
    options.timeout_ms = timeout_ms;
    options.chap = chap.cloned();
    Session::login(stream, &options).await
}

/// The names of the targets at a portal.
pub(crate) async fn target_names(portal: std::net::SocketAddr, timeout_ms: u64) -> Result<Vec<String>, Error> {
    let url = Url {
        user: None,
        host: portal.ip().to_string(),
        port: portal.port(),
        target: None,
        lun: None,
    };
    let mut session = log_in(&url, INITIATOR, None, None, timeout_ms).await?;
    let found = session.send_targets(&SendTargets::All).await?;
    session.logout().await?;
    Ok(found.into_iter().map(|target| target.name).collect())
}

/// Everything that can be seen, and the first login that was refused.
async fn look(args: &ProbeArgs, chap: Option<&ChapOptions>) -> Result<(Report, Option<Failure>), Failure> {
    let url = &args.url;
    let portal = portal_of(url);
    let mut targets = Vec::new();
    if let Some(name) = &url.target {
        targets.push(TargetReport::new(name.clone(), Vec::new()));
    } else {
        let mut session = login::discovery(args, chap)
            .await
            .map_err(|error| failed(error, format!("cannot ask {portal} for its targets")))?;
        let found = session
            .send_targets(&SendTargets::All)
            .await
            .map_err(|error| failed(error, &portal))?;
        session.logout().await.map_err(|error| failed(error, &portal))?;
        for target in found {
            let addresses = target.addresses.iter().map(ToString::to_string);
            targets.push(TargetReport::new(target.name.clone(), addresses.collect()));
        }
    }
    let mut refused: Option<Failure> = None;
    for target in &mut targets {
        if let Err(error) = look_at(target, args, chap).await {
            let failure = failed(error, format!("{} at {portal}", target.name));
            // One that is named is the whole question; of several the others may still answer.
            if url.target.is_some() {
                return Err(failure);
            }
            target.error = Some(failure.to_string());
            refused.get_or_insert(failure);
        }
        // A LUN that is named has to be there; of all there are, one that does not answer is only shown.
        if let (Some(_), Some(error)) = (url.lun, target.luns.first().and_then(|lun| lun.error.as_ref())) {
            refused.get_or_insert(anyhow!("{url}: {error}").into());
        }
    }
    Ok((Report { portal, targets }, refused))
}

fn portal_of(url: &Url) -> String {
    let portal = Url {
        target: None,
        lun: None,
        ..url.clone()
    };
    portal.to_string()
}

async fn look_at(target: &mut TargetReport, args: &ProbeArgs, chap: Option<&ChapOptions>) -> Result<(), Error> {
    let mut session = login::normal(args, &target.name, chap).await?;
    target.alias = session.negotiated().key("TargetAlias").map(str::to_owned);
    let luns = match args.url.lun {
        Some(number) => vec![Lun::from_number(number)],
        None => session.report_luns().await?,
    };
    for lun in luns.into_iter().take(LUNS_MAX) {
        let mut report = LunReport::new(lun.to_string());
        match look_at_lun(&mut session, lun, &mut report).await {
            Ok(()) => {}
            Err(Error::Command(error)) => report.error = Some(error.to_string()),
            Err(error) => return Err(error),
        }
        target.luns.push(report);
    }
    target.round_trip = Some(ping(&mut session, args.count).await?);
    session.logout().await
}

async fn look_at_lun(session: &mut Session<TcpStream>, lun: Lun, report: &mut LunReport) -> Result<(), Error> {
    let inquiry = session.inquiry(lun).await?;
    if inquiry.qualifier != 0 {
        report.error = Some("there is no such LUN".to_owned());
        return Ok(());
    }
    report.vendor = inquiry.vendor;
    report.product = inquiry.product;
    report.revision = inquiry.revision;
    let capacity = session.read_capacity16(lun).await?;
    report.blocks = capacity.blocks;
    report.block_bytes = capacity.block_bytes;
    report.physical_block_bytes = u64::from(capacity.block_bytes) << capacity.physical_block_exponent;
    report.thin = capacity.thin;
    // Unit serial number (SPC-5 7.7.21): four bytes of header, then text. Not every target has one.
    match session.vpd(lun, 0x80).await {
        Ok(page) => {
            let serial = String::from_utf8_lossy(page.get(4..).unwrap_or_default());
            report.serial = Some(serial.trim_matches(['\0', ' ']).to_owned());
        }
        Err(Error::Command(_)) => {}
        Err(error) => return Err(error),
    }
    if let Some(caching) = session.caching(lun).await? {
        report.write_cache = Some(caching.write_cache);
        report.read_only = Some(caching.read_only);
    }
    Ok(())
}

/// Round trips through the target's iSCSI layer, one after the other.
pub(crate) async fn ping(session: &mut Session<TcpStream>, count: u32) -> Result<RoundTrip, Error> {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..count {
        times.push(session.nop(&b"farlun probe"[..]).await?);
    }
    Ok(RoundTrip::of(times))
}
