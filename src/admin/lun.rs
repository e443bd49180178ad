//! `farlun lun`: the disks of targets.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::target::find;
use super::{ChangeArgs, CommonArgs, change, show};
use crate::config::{Edit, Keys, Setting, Size};
use crate::control::protocol::{Action, Applied, LunInfo, TargetInfo, Targets};
use crate::exit::{Exit, Failure};
use crate::say::say;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct LunArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: LunCommand,
}

#[derive(Debug, Subcommand)]
enum LunCommand {
    /// All LUNs, or those of one target
    List {
        /// iSCSI name of the target
        target: Option<String>,
    },
    /// Everything about one LUN
    Show {
        /// iSCSI name of the target
        target: String,
        /// Its number
        lun: u16,
    },
    /// A new LUN
    Create {
        /// iSCSI name of the target
        target: String,
        /// Its number; the lowest that is free, if not given
        lun: Option<u16>,
        #[command(flatten)]
        medium: Box<MediumArgs>,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Make a LUN larger, or smaller with --force, while it is used
    Resize {
        /// iSCSI name of the target
        target: String,
        /// Its number
        lun: u16,
        /// The new size, such as 80GiB; without, a device is looked at anew
        size: Option<String>,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Change a LUN
    Set {
        /// iSCSI name of the target
        target: String,
        /// Its number
        lun: u16,
        #[command(flatten)]
        settings: LunSettingsArgs,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Close a LUN's file or device, for use on the server itself; refused while a session has it
    Offline {
        /// iSCSI name of the target
        target: String,
        /// Its number
        lun: u16,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Take a LUN into service again
    Online {
        /// iSCSI name of the target
        target: String,
        /// Its number
        lun: u16,
        #[command(flatten)]
        how: ChangeArgs,
    },
    /// Remove a LUN; its file or device stays
    Remove {
        /// iSCSI name of the target
        target: String,
        /// Its number
        lun: u16,
        #[command(flatten)]
        how: ChangeArgs,
    },
}

/// Where the blocks are, and how they are served.
#[derive(Debug, Args)]
pub(crate) struct MediumArgs {
    /// A file on the server, created with --size when it is missing
    #[arg(long, value_name = "PATH", conflicts_with_all = ["device", "memory"])]
    file: Option<PathBuf>,
    /// A block device of the server
    #[arg(long, value_name = "PATH", conflicts_with = "memory")]
    device: Option<PathBuf>,
    /// Memory of the server, such as 256MiB: gone when farlun ends
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Size of a file, such as 80GiB
    #[arg(long, requires = "file")]
    size: Option<String>,
    /// Logical block in bytes: 512 or 4096
    #[arg(long, value_name = "BYTES")]
    block_size: Option<u32>,
    /// Physical block in bytes: 512 or 4096
    #[arg(long, value_name = "BYTES")]
    physical_block_size: Option<u32>,
    /// Take all its space at once
    #[arg(long)]
    thick: bool,
    /// Every write is on stable storage when it ends
    #[arg(long)]
    write_through: bool,
    /// The medium can be ejected
    #[arg(long)]
    removable: bool,
    /// Offer EXTENDED COPY
    #[arg(long)]
    copy_offload: bool,
    /// Unit serial number, by which initiators know the disk
    #[arg(long)]
    serial: Option<String>,
    #[command(flatten)]
    settings: LunSettingsArgs,
}

/// What can change while a LUN is used.
#[derive(Debug, Args)]
pub(crate) struct LunSettingsArgs {
    /// Refuse writes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    read_only: Option<bool>,
    /// Let several initiator names in at a time
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    shared: Option<bool>,
    /// Commands per second; 0 for no limit
    #[arg(long, value_name = "N")]
    iops_max: Option<u32>,
    /// Bytes per second, such as 10MiB; 0 for no limit
    #[arg(long, value_name = "SIZE")]
    bytes_per_second_max: Option<String>,
}

/// A number, or nothing for 0.
pub(super) fn number_or_none(number: u32) -> Option<Setting> {
    (number > 0).then(|| Setting::Number(number.into()))
}

/// A size, or nothing for 0.
pub(super) fn size_or_none(size: &str) -> Option<Setting> {
    (size != "0").then(|| Setting::Text(size.to_owned()))
}

impl LunSettingsArgs {
    fn keys(&self) -> Keys {
        let mut keys = Keys::new();
        let mut put = |key: &str, setting: Option<Option<Setting>>| {
            if let Some(setting) = setting {
                keys.insert(key.to_owned(), setting);
            }
        };
        put("read_only", self.read_only.map(|flag| Some(Setting::Flag(flag))));
        put("shared", self.shared.map(|flag| Some(Setting::Flag(flag))));
        put("iops_max", self.iops_max.map(number_or_none));
        put(
            "bytes_per_second_max",
            self.bytes_per_second_max.as_ref().map(|size| size_or_none(size)),
        );
        keys
    }
}

impl MediumArgs {
    /// The keys of a LUN. Paths are made absolute, for the daemon is somewhere else.
    pub(super) fn keys(&self) -> Result<Keys, Failure> {
        let mut keys = self.settings.keys();
        for (key, path) in [("file", &self.file), ("device", &self.device)] {
            if let Some(path) = path {
                let path = std::path::absolute(path).context("the path")?;
                let path = path
                    .to_str()
                    .ok_or_else(|| anyhow!("{}: a path has to be text", path.display()))?;
                keys.insert(key.to_owned(), Some(Setting::Text(path.to_owned())));
            }
        }
        let texts = [
            ("memory", self.memory.clone()),
            ("size", self.size.clone()),
            ("serial", self.serial.clone()),
            ("provisioning", self.thick.then(|| "thick".to_owned())),
            ("write_cache", self.write_through.then(|| "write-through".to_owned())),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                keys.insert(key.to_owned(), Some(Setting::Text(text)));
            }
        }
        let numbers = [
            ("block_size_bytes", self.block_size),
            ("physical_block_size_bytes", self.physical_block_size),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                keys.insert(key.to_owned(), Some(Setting::Number(number.into())));
            }
        }
        for (key, flag) in [("removable", self.removable), ("copy_offload", self.copy_offload)] {
            if flag {
                keys.insert(key.to_owned(), Some(Setting::Flag(true)));
            }
        }
        Ok(keys)
    }
}

fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, anyhow!("{text}"))
}

/// Asks and shows.
pub(crate) async fn run(args: LunArgs) -> Result<(), Failure> {
    let common = &args.common;
    match args.command {
        LunCommand::List { target } => list(common, target).await,
        LunCommand::Show { target, lun } => {
            let found = find_lun(common, &target, lun).await?;
            if common.json {
                return show::json(&found);
            }
            one(&target, &found);
            Ok(())
        }
        LunCommand::Create {
            target,
            lun,
            medium,
            how,
        } => {
            let keys = medium.keys()?;
            if medium.file.is_none() && medium.device.is_none() && medium.memory.is_none() {
                return Err(usage(
                    "a LUN needs a medium: --file PATH --size SIZE, --device PATH or --memory SIZE",
                ));
            }
            change(common, &how, Edit::CreateLun { target, lun, keys }).await
        }
        LunCommand::Resize { target, lun, size, how } => resize(common, target, lun, size, &how).await,
        LunCommand::Set {
            target,
            lun,
            settings,
            how,
        } => {
            let keys = settings.keys();
            if keys.is_empty() {
                return Err(usage("nothing to set: farlun lun set --help"));
            }
            change(common, &how, Edit::SetLun { target, lun, keys }).await
        }
        LunCommand::Offline { target, lun, how } => {
            let keys = Keys::from([("offline".to_owned(), Some(Setting::Flag(true)))]);
            change(common, &how, Edit::SetLun { target, lun, keys }).await
        }
        LunCommand::Online { target, lun, how } => {
            let keys = Keys::from([("offline".to_owned(), None)]);
            change(common, &how, Edit::SetLun { target, lun, keys }).await
        }
        LunCommand::Remove { target, lun, how } => change(common, &how, Edit::RemoveLun { target, lun }).await,
    }
}

async fn resize(
    common: &CommonArgs,
    target: String,
    lun: u16,
    size: Option<String>,
    how: &ChangeArgs,
) -> Result<(), Failure> {
    let found = find_lun(common, &target, lun).await?;
    match size {
        None if found.medium != "device" => Err(usage(format!(
            "LUN {lun} of {target} is no device: name the size it is to have"
        ))),
        None => {
            let action = Action::Rescan {
                target,
                lun,
                force: how.force,
                dry_run: how.dry_run,
            };
            let applied: Applied = common.control.ask(&action).await?;
            show::applied(&applied, common.json, how.dry_run)
        }
        Some(_) if found.medium == "device" => Err(usage(format!(
            "LUN {lun} of {target} is a device: change the device's size, then farlun lun resize without one"
        ))),
        Some(_) if !found.online => Err(usage(format!(
            "LUN {lun} of {target} is offline: farlun lun online {target} {lun} first"
        ))),
        Some(size) => {
            size.parse::<Size>().map_err(usage)?;
            let key = if found.medium == "memory" { "memory" } else { "size" };
            let keys = Keys::from([(key.to_owned(), Some(Setting::Text(size)))]);
            change(common, how, Edit::SetLun { target, lun, keys }).await
        }
    }
}

async fn find_lun(common: &CommonArgs, target: &str, lun: u16) -> Result<LunInfo, Failure> {
    let found = find(common, target).await?;
    let found = found.luns.into_iter().find(|found| found.lun == lun);
    found.ok_or_else(|| {
        usage(format!(
            "target {target} has no LUN {lun}: farlun lun list {target} shows those it has"
        ))
    })
}

async fn list(common: &CommonArgs, target: Option<String>) -> Result<(), Failure> {
    let targets = match target {
        Some(target) => vec![find(common, &target).await?],
        None => common.control.ask::<Targets>(&Action::Targets {}).await?.targets,
    };
    if common.json {
        return show::json(&Targets { targets });
    }
    lun_table(&targets);
    Ok(())
}

/// The LUNs of targets as a table.
pub(super) fn lun_table(targets: &[TargetInfo]) {
    let of = |target: &TargetInfo, lun: &LunInfo| {
        let mut what = Vec::new();
        let flags = [
            (!lun.online, "offline"),
            (lun.read_only, "read-only"),
            (lun.shared, "shared"),
            (lun.removable, "removable"),
        ];
        what.extend(flags.into_iter().filter(|(is, _)| *is).map(|(_, word)| word));
        [
            target.name.clone(),
            lun.lun.to_string(),
            lun.size_bytes.map_or_else(|| "-".to_owned(), show::bytes),
            lun.path.clone().unwrap_or_else(|| lun.medium.clone()),
            if what.is_empty() {
                "online".to_owned()
            } else {
                what.join(", ")
            },
            lun.holder.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<[String; 6]> = targets
        .iter()
        .flat_map(|target| target.luns.iter().map(move |lun| of(target, lun)))
        .collect();
    if rows.is_empty() {
        say!("no LUNs: farlun lun create TARGET --file /path --size 80GiB");
        return;
    }
    show::table(["TARGET", "LUN", "SIZE", "MEDIUM", "STATE", "HELD BY"], &rows);
}

fn one(target: &str, lun: &LunInfo) {
    let place = lun.path.as_deref().unwrap_or("gone when farlun ends");
    say!(
        "LUN {} of {target}: {}",
        lun.lun,
        if lun.online { "online" } else { "offline" }
    );
    say!("  {}: {place}", lun.medium);
    if let Some(size) = lun.size_bytes {
        say!(
            "  size: {} ({size} bytes), blocks of {} bytes",
            show::bytes(size),
            lun.block_size_bytes
        );
    }
    say!("  serial: {}", lun.serial);
    say!(
        "  write cache: {}",
        if lun.write_back { "write-back" } else { "write-through" }
    );
    if let Some(thin) = lun.thin {
        say!("  thin: {}", show::yes(thin));
    }
    say!(
        "  read-only: {}, shared: {}, removable: {}",
        show::yes(lun.read_only),
        show::yes(lun.shared),
        show::yes(lun.removable)
    );
    if let Some(holder) = &lun.holder {
        say!("  held by: {holder}");
    }
    if let Some(iops) = lun.iops_max {
        say!("  at most {iops} commands per second");
    }
    if let Some(bytes) = lun.bytes_per_second_max {
        say!("  at most {} per second", show::bytes(bytes));
    }
}
