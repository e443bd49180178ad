//! `farlun reload`: lets a daemon read its configuration anew.

use clap::Args;

use super::{CommonArgs, show};
use crate::control::protocol::{Action, Applied};
use crate::exit::Failure;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Even if sessions lose a LUN, or data is cut off
    #[arg(long)]
    force: bool,
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
}

/// Asks and shows.
pub(crate) async fn run(args: ReloadArgs) -> Result<(), Failure> {
    let action = Action::Reload {
        force: args.force,
        dry_run: args.dry_run,
    };
    let applied: Applied = args.common.control.ask(&action).await?;
    show::applied(&applied, args.common.json, args.dry_run)
}
