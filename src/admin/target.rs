//! `farlun target`: what is exported.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::lun::{MediumArgs, lun_table};
use super::{ChangeArgs, CommonArgs, change, show};
use crate::config::{Edit, Keys, Setting, check_name};
use crate::control::protocol::{Action, TargetInfo, Targets};
use crate::exit::{Exit, Failure};
use crate::say::say;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: TargetCommand,
}

#[derive(Debug, Subcommand)]
enum TargetCommand {
    /// All targets
    List,
    /// Everything about one target
    Show {
        /// Its iSCSI name
        target: String,
    },
    /// A new target, with LUN 0 if a medium is named
    Create {
        /// Its iSCSI name: iqn.YEAR-MONTH.REVERSED.DOMAIN:ANYTHING
        target: String,
        #[command(flatten)]
        settings: Box<TargetSettingsArgs>,
        #[command(flatten)]
        lun: Box<MediumArgs>,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Change a target; its sessions go on as far as they still may
    Set {
        /// Its iSCSI name
        target: String,
        #[command(flatten)]
        settings: Box<TargetSettingsArgs>,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Give a target another name; its disks keep their identity (serial numbers)
    Rename {
        /// Its iSCSI name
        target: String,
        /// The new name
        to: String,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Remove a target with its LUNs; files and devices stay
    Remove {
        /// Its iSCSI name
        target: String,
        #[command(flatten)]
        how: ChangeArgs,
    },
}

/// What a target is beside its LUNs.
#[derive(Debug, Args)]
pub(crate) struct TargetSettingsArgs {
    /// Alias, for people to read; "" for none
    #[arg(long)]
    alias: Option<String>,
    /// What a login needs
    #[arg(long, value_parser = ["none", "chap"])]
    auth: Option<String>,
    /// A [[user]] of the configuration that may log in by CHAP; several times for several
    #[arg(long = "user", value_name = "NAME")]
    users: Vec<String>,
    /// The [[user]] that stands for the target itself; "" for none
    #[arg(long, value_name = "NAME")]
    mutual: Option<String>,
    /// Whether only tunnels lead to it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    tunnel_only: Option<bool>,
    /// A portal group that leads to it; several times for several
    #[arg(long = "portal-group", value_name = "TAG")]
    portal_groups: Vec<u16>,
    /// Commands per second of each session; 0 for no limit
    #[arg(long, value_name = "N")]
    session_iops_max: Option<u32>,
    /// Bytes per second of each session, such as 10MiB; 0 for no limit
    #[arg(long, value_name = "SIZE")]
    session_bytes_per_second_max: Option<String>,
}

impl TargetSettingsArgs {
    fn keys(&self) -> Keys {
        let mut keys = Keys::new();
        let text = |text: &String| (!text.is_empty()).then(|| Setting::Text(text.clone()));
        let mut put = |key: &str, setting: Option<Option<Setting>>| {
            if let Some(setting) = setting {
                keys.insert(key.to_owned(), setting);
            }
        };
        put("alias", self.alias.as_ref().map(text));
        put("auth", self.auth.as_ref().map(text));
        put("mutual", self.mutual.as_ref().map(text));
        put(
            "users",
            (!self.users.is_empty()).then(|| Some(Setting::Texts(self.users.clone()))),
        );
        put("tunnel_only", self.tunnel_only.map(|flag| Some(Setting::Flag(flag))));
        let groups = self.portal_groups.iter().map(|tag| i64::from(*tag)).collect();
        put(
            "portal_groups",
            (!self.portal_groups.is_empty()).then_some(Some(Setting::Numbers(groups))),
        );
        put("iops_max", self.session_iops_max.map(super::lun::number_or_none));
        put(
            "bytes_per_second_max",
            self.session_bytes_per_second_max
                .as_ref()
                .map(|size| super::lun::size_or_none(size)),
        );
        keys
    }
}

/// Asks and shows.
pub(crate) async fn run(args: TargetArgs) -> Result<(), Failure> {
    let common = &args.common;
    match args.command {
        TargetCommand::List => {
            let all: Targets = common.control.ask(&Action::Targets {}).await?;
            if common.json {
                return show::json(&all);
            }
            list(&all.targets);
            Ok(())
        }
        TargetCommand::Show { target } => {
            let found = find(common, &target).await?;
            if common.json {
                return show::json(&found);
            }
            one(&found);
            Ok(())
        }
        TargetCommand::Create {
            target,
            settings,
            lun,
            how,
        } => {
            check_name(&target.to_ascii_lowercase())
                .map_err(|reason| Failure::new(Exit::Usage, anyhow!("target name {target:?}: {reason}")))?;
            let (keys, lun) = (settings.keys(), lun.keys()?);
            let lun = (!lun.is_empty()).then_some(lun);
            change(common, &how, Edit::CreateTarget { target, keys, lun }).await
        }
        TargetCommand::Set { target, settings, how } => {
            let keys = settings.keys();
            if keys.is_empty() {
                return Err(Failure::new(
                    Exit::Usage,
                    anyhow!("nothing to set: farlun target set --help"),
                ));
            }
            change(common, &how, Edit::SetTarget { target, keys }).await
        }
        TargetCommand::Rename { target, to, how } => change(common, &how, Edit::RenameTarget { target, to }).await,
        TargetCommand::Remove { target, how } => change(common, &how, Edit::RemoveTarget { target }).await,
    }
}

/// The target called `name`.
pub(super) async fn find(common: &CommonArgs, name: &str) -> Result<TargetInfo, Failure> {
    let all: Targets = common.control.ask(&Action::Targets {}).await?;
    let found = all
        .targets
        .into_iter()
        .find(|target| target.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let text = format!("there is no target {name}: farlun target list shows those there are");
        Failure::new(Exit::Usage, anyhow!(text))
    })
}

fn list(targets: &[TargetInfo]) {
    if targets.is_empty() {
        say!("no targets: farlun target create NAME --file /path --size 80GiB");
        return;
    }
    let rows: Vec<[String; 6]> = targets
        .iter()
        .map(|target| {
            [
                target.name.clone(),
                target.alias.clone().unwrap_or_default(),
                target.luns.len().to_string(),
                target.sessions.to_string(),
                target.auth.clone(),
                if target.tunnel_only { "tunnel" } else { "any" }.to_owned(),
            ]
        })
        .collect();
    show::table(["TARGET", "ALIAS", "LUNS", "SESSIONS", "AUTH", "WAY"], &rows);
}

fn one(target: &TargetInfo) {
    say!("target {}", target.name);
    if let Some(alias) = &target.alias {
        say!("  alias: {alias}");
    }
    let mutual = target.mutual.as_ref().map(|name| format!(", proves itself as {name}"));
    let users = target.users.join(", ");
    match target.auth.as_str() {
        "chap" => say!("  login: CHAP by {users}{}", mutual.unwrap_or_default()),
        _ => say!("  login: no authentication"),
    }
    if target.tunnel_only {
        say!("  through tunnels only");
    }
    if !target.portal_groups.is_empty() {
        let groups: Vec<String> = target.portal_groups.iter().map(ToString::to_string).collect();
        say!("  portal groups: {}", groups.join(", "));
    }
    if target.rules > 0 {
        say!(
            "  rules about who may do what: {}, see the configuration file",
            target.rules
        );
    }
    say!("  sessions: {}", target.sessions);
    lun_table(std::slice::from_ref(target));
}
