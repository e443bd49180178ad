//! `farlun session`: who is logged in, and how it goes for them.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::target::find;
use super::{CommonArgs, show};
use crate::control::protocol::{Action, Applied, SessionInfo, Sessions};
use crate::exit::{Exit, Failure};
use crate::say::say;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// All sessions, or those of one target
    List {
        /// iSCSI name of the target
        target: Option<String>,
    },
    /// Everything about one session
    Show {
        /// Its number in the list (TSIH)
        session: u16,
    },
    /// End a session; the initiator may log in again
    Drop {
        /// Its number in the list (TSIH)
        session: u16,
    },
}

/// Asks and shows.
pub(crate) async fn run(args: SessionArgs) -> Result<(), Failure> {
    let common = &args.common;
    match args.command {
        SessionCommand::List { target } => {
            let mut all: Sessions = common.control.ask(&Action::Sessions {}).await?;
            if let Some(target) = target {
                let target = find(common, &target).await?.name;
                all.sessions
                    .retain(|session| session.target.eq_ignore_ascii_case(&target));
            }
            if common.json {
                return show::json(&all);
            }
            list(&all.sessions);
        }
        SessionCommand::Show { session } => {
            let all: Sessions = common.control.ask(&Action::Sessions {}).await?;
            let found = all.sessions.into_iter().find(|found| found.tsih == session);
            let Some(found) = found else {
                let text = format!("there is no session {session}: farlun session list shows those there are");
                return Err(Failure::new(Exit::Usage, anyhow!(text)));
            };
            if common.json {
                return show::json(&found);
            }
            one(&found);
        }
        SessionCommand::Drop { session } => {
            let applied: Applied = common.control.ask(&Action::DropSession { tsih: session }).await?;
            show::applied(&applied, common.json, false)?;
        }
    }
    Ok(())
}

/// By which way, and who came on it.
fn way(session: &SessionInfo) -> String {
    match &session.tunnel_user {
        Some(user) => format!("{} ({user})", session.way),
        None => session.way.clone(),
    }
}

fn list(sessions: &[SessionInfo]) {
    if sessions.is_empty() {
        say!("nobody is logged in");
        return;
    }
    let rows: Vec<[String; 11]> = sessions
        .iter()
        .map(|session| {
            [
                session.tsih.to_string(),
                session.target.clone(),
                session.initiator.clone(),
                session.peer.clone(),
                way(session),
                session.chap_user.clone().unwrap_or_else(|| "-".to_owned()),
                show::age(session.age_s),
                show::bytes(session.received_bytes),
                show::bytes(session.sent_bytes),
                session.queue_depth.to_string(),
                format!(
                    "{} / {} / {}",
                    show::at_most(session.latency_p50_us),
                    show::at_most(session.latency_p99_us),
                    show::at_most(session.latency_max_us)
                ),
            ]
        })
        .collect();
    let headings = [
        "SESSION",
        "TARGET",
        "INITIATOR",
        "ADDRESS",
        "WAY",
        "USER",
        "SINCE",
        "RECEIVED",
        "SENT",
        "QUEUE",
        "P50 / P99 / MAX",
    ];
    show::table(headings, &rows);
}

fn one(session: &SessionInfo) {
    say!("session {} at {}", session.tsih, session.target);
    say!("  initiator: {}, ISID {}", session.initiator, session.isid);
    say!(
        "  from: {}, {}, portal group {}",
        session.peer,
        way(session),
        session.portal_group
    );
    if let Some(user) = &session.chap_user {
        say!("  CHAP user: {user}");
    }
    say!("  since: {}", show::age(session.age_s));
    say!(
        "  received: {}, sent: {}, commands: {}",
        show::bytes(session.received_bytes),
        show::bytes(session.sent_bytes),
        session.commands
    );
    say!(
        "  queue: {} now, {} at most",
        session.queue_depth,
        session.queue_depth_max
    );
    say!(
        "  latency, at most: {} for half, {} for 99 %, {} for all",
        show::at_most(session.latency_p50_us),
        show::at_most(session.latency_p99_us),
        show::at_most(session.latency_max_us)
    );
    say!("  wrong digests: {}", session.digest_errors);
    for (key, value) in &session.negotiated {
        say!("  {key}={value}");
    }
}
