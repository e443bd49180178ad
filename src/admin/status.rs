//! `farlun status`: how a daemon is.

use clap::Args;

use super::{CommonArgs, show};
use crate::control::protocol::{Action, Status};
use crate::exit::Failure;
use crate::say::say;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    common: CommonArgs,
}

/// Asks and shows.
pub(crate) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let status: Status = args.common.control.ask(&Action::Status {}).await?;
    if args.common.json {
        return show::json(&status);
    }
    let offline = match status.luns_offline {
        0 => String::new(),
        offline => format!(" ({offline} offline)"),
    };
    say!(
        "farlun {}, process {}, up {}",
        status.version,
        status.pid,
        show::age(status.uptime_s)
    );
    say!(
        "configuration: {}{}",
        status.configuration.as_deref().unwrap_or("none"),
        if status.temporary_changes {
            ", with temporary changes on top"
        } else {
            ""
        }
    );
    say!(
        "targets: {}, LUNs: {}{offline}, sessions: {}",
        status.targets,
        status.luns,
        status.sessions
    );
    for portal in &status.portals {
        let way = if portal.way == "tunnel" { ", in a tunnel" } else { "" };
        say!("portal {}, group {}{way}", portal.address, portal.group);
    }
    if let Some(socket) = &status.tunnel_socket {
        say!("tunnels at {socket}");
    }
    if let Some(metrics) = &status.metrics {
        say!("metrics at http://{metrics}/metrics");
    }
    Ok(())
}
