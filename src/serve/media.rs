//! Opening the media of a plan in two steps: first what exists, which locks it and changes nothing; then, when all else
//! is known to work, what has to be created.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use target_core::iscsi::Target;
use target_core::lun::{BlockMedium, FileMedium, FileOptions, Medium, MemoryMedium, OpenError};
use target_core::scsi::{Device, Identity, LogicalUnit, LogicalUnitOptions};

use crate::config::{LunPlan, MediumPlan, Plan, Problems};
use crate::culprit;

/// T10 vendor identification.
const VENDOR: &str = "farlun";
/// Product identification.
const PRODUCT: &str = "disk";
/// Product revision: as much of the version as fits four bytes.
const REVISION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// The media of a plan in its order: open and locked, or still to be created.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    media: Vec<Option<Arc<dyn Medium>>>,
}

/// Opens what exists. What does not open goes to `problems`.
pub(crate) fn open_existing(plan: &Plan, problems: &mut Problems) -> Opened {
    let luns = plan.targets.iter().flat_map(|target| &target.luns);
    let mut opened = Opened::default();
    let mut locked = Vec::new();
    for lun in luns {
        let file = identity(lun);
        let medium = open(lun).unwrap_or_else(|error| {
            add_problem(lun, error, file.is_some() && locked.contains(&file), problems);
            None
        });
        if medium.is_some() {
            locked.push(file);
        }
        opened.media.push(medium);
    }
    opened
}

/// Device and inode of what a LUN is kept in.
fn identity(lun: &LunPlan) -> Option<(u64, u64)> {
    let (MediumPlan::File { path, .. } | MediumPlan::Device { path }) = &lun.medium else {
        return None;
    };
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn open(lun: &LunPlan) -> Result<Option<Arc<dyn Medium>>, OpenError> {
    Ok(match &lun.medium {
        MediumPlan::File { path, .. } => match FileMedium::open(path, options(lun)) {
            Ok(medium) => Some(Arc::new(medium)),
            Err(OpenError::Missing { .. }) => None,
            Err(error) => return Err(error),
        },
        MediumPlan::Device { path } => Some(Arc::new(BlockMedium::open(path, options(lun))?)),
        MediumPlan::Memory { size } => Some(Arc::new(MemoryMedium::new(size.0, lun.block_size_bytes)?)),
    })
}

/// An error of opening, unless the survey has said the same already.
fn add_problem(lun: &LunPlan, error: OpenError, named_twice: bool, problems: &mut Problems) {
    match &error {
        // The lock is our own, from the LUN that named the file first: the survey has said so.
        OpenError::InUse { .. } if named_twice => {}
        OpenError::InUse { path } => {
            let holder = culprit::lock_holder(path).map_or(String::new(), |holder| format!(", held by {holder}"));
            problems.add_passing(
                lun.line,
                format!(
                    "{} is already open as a LUN elsewhere{holder}: stop that program, or name another file",
                    path.display()
                ),
            );
        }
        _ if problems
            .list()
            .iter()
            .any(|known| known.line == lun.line && lun.line.is_some()) => {}
        OpenError::Busy { .. } | OpenError::Io { .. } => problems.add_passing(lun.line, error.to_string()),
        _ => problems.add(lun.line, error.to_string()),
    }
}

fn options(lun: &LunPlan) -> FileOptions {
    FileOptions {
        block_bytes: lun.block_size_bytes,
        write_cache: lun.write_cache,
        ..FileOptions::default()
    }
}

impl Opened {
    /// Creates what is missing and puts everything together. If that fails, what was created goes again.
    pub(crate) fn into_targets(self, plan: &Plan) -> anyhow::Result<Vec<Arc<Target>>> {
        let mut created = Created::default();
        let mut media = self.media.into_iter();
        let mut targets = Vec::new();
        for target in &plan.targets {
            let mut units = BTreeMap::new();
            for lun in &target.luns {
                let medium = match media.next().flatten() {
                    Some(medium) => medium,
                    None => created.create(lun)?,
                };
                units.insert(lun.lun, unit(lun, medium));
            }
            targets.push(Target::new(&target.name, target.alias.clone(), Device::new(units)));
        }
        created.keep();
        Ok(targets)
    }
}

fn unit(lun: &LunPlan, medium: Arc<dyn Medium>) -> Arc<LogicalUnit> {
    let identity = Identity {
        vendor: VENDOR.to_owned(),
        product: PRODUCT.to_owned(),
        revision: REVISION.to_owned(),
        serial: lun.serial.clone(),
    };
    let options = LogicalUnitOptions {
        shared: lun.shared,
        read_only: lun.read_only,
    };
    LogicalUnit::with_options(medium, identity, options)
}

/// Files made by this start; removed again unless everything worked.
#[derive(Debug, Default)]
struct Created {
    paths: Vec<PathBuf>,
}

impl Created {
    fn create(&mut self, lun: &LunPlan) -> anyhow::Result<Arc<dyn Medium>> {
        let MediumPlan::File { path, size: Some(size) } = &lun.medium else {
            anyhow::bail!("LUN {} has vanished since it was looked at", lun.lun);
        };
        let medium =
            FileMedium::create(path, size.0, options(lun)).with_context(|| format!("cannot create LUN {}", lun.lun))?;
        tracing::info!(path = %path.display(), size = %size, "created");
        self.paths.push(path.clone());
        Ok(Arc::new(medium))
    }

    fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "an empty new file stays behind");
            }
        }
    }
}
