//! The subcommands that talk to a running daemon: each asks, and shows what it is told.

pub(crate) mod lun;
pub(crate) mod reload;
pub(crate) mod session;
mod show;
pub(crate) mod status;
pub(crate) mod target;

use clap::Args;

use crate::config::Edit;
use crate::control::client::ControlArgs;
use crate::control::protocol::{Action, Applied};
use crate::exit::Failure;

/// What every one of them understands.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

/// How to make a change.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Even if sessions lose a LUN, or data is cut off
    #[arg(long)]
    force: bool,
    /// Leave the configuration file as it is: the next reload or start undoes the change
    #[arg(long)]
    temporary: bool,
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
}

/// Has a change made, and shows what became of it.
async fn change(common: &CommonArgs, how: &ChangeArgs, edit: Edit) -> Result<(), Failure> {
    let action = Action::Edit {
        edit,
        force: how.force,
        temporary: how.temporary,
        dry_run: how.dry_run,
    };
    let applied: Applied = common.control.ask(&action).await?;
    show::applied(&applied, common.json, how.dry_run)
}
