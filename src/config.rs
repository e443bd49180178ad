//! The configuration of `farlun serve`: a TOML file in, a [`Plan`] out, and everything that is wrong with it at once.
//!
//! [`file`] is how it is written, [`check`] turns that into the plan, and [`survey`] compares the plan with the machine.
//! None of them changes anything.

mod check;
mod edit;
mod file;
mod limits;
mod problem;
mod secrets;
mod size;
mod store;
mod survey;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use target_core::iscsi::chap::Digest;
use target_core::iscsi::policy::{Auth, Policy};
use target_core::iscsi::{Announced, Limits};
use target_core::lun::WriteCache;

pub(crate) use check::check_name;
#[cfg(test)]
pub(crate) use check::default_serial;
pub(crate) use edit::{Edit, Keys, Setting};
pub(crate) use problem::{Problems, Warning};
pub(crate) use secrets::{Secrets, load as load_secrets, read_secret};
pub(crate) use size::Size;
pub(crate) use store::replace;
pub(crate) use survey::{survey, survey_tunnel};

/// The longest configuration that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// iSCSI's port (RFC 7143 §13, assigned by IANA).
pub(crate) const ISCSI_PORT: u16 = 3260;
/// Where iSCSI names of this program begin (RFC 3720 appendix, RFC 7143 §4.2.7.4: `iqn.`, a date, a domain reversed).
const OWN_AUTHORITY: &str = "iqn.2026-11.net.farlun";
/// Size of the LUN that is served without configuration, in bytes.
const DEFAULT_LUN_BYTES: u64 = 1 << 30;

/// What to serve and where: nothing in here contradicts itself.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Users that prove themselves by CHAP.
    pub(crate) users: Vec<UserPlan>,
    /// The weakest digest that is agreed to.
    pub(crate) min_digest: Digest,
    /// What discovery needs.
    pub(crate) discovery: LoginPlan,
    /// Targets with their LUNs.
    pub(crate) targets: Vec<TargetPlan>,
    /// Portals on addresses of this machine.
    pub(crate) portals: Vec<PortalPlan>,
    /// Tunnels, if they are to be served.
    pub(crate) tunnel: Option<TunnelPlan>,
    /// The control socket.
    pub(crate) control: ControlPlan,
    /// Metrics, if they are to be served.
    pub(crate) metrics: Option<MetricsPlan>,
    /// Bounds of the target.
    pub(crate) limits: Limits,
}

/// A user with a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserPlan {
    /// CHAP_N.
    pub(crate) name: String,
    /// Where the secret is.
    pub(crate) source: SecretSource,
    /// Line of the file that names it.
    pub(crate) line: Option<usize>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a credential of systemd (systemd.exec(5), `LoadCredential=`).
    Credential(String),
}

/// What a login needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LoginPlan {
    /// Nothing, or CHAP.
    pub(crate) auth: Auth,
    /// Who may log in by CHAP.
    pub(crate) users: Vec<String>,
    /// The user whose name and secret prove who we are.
    pub(crate) mutual: Option<String>,
    /// Line of the file.
    pub(crate) line: Option<usize>,
}

/// A target.
#[derive(Debug, Clone)]
pub(crate) struct TargetPlan {
    /// iSCSI name in lower case.
    pub(crate) name: String,
    /// TargetAlias.
    pub(crate) alias: Option<String>,
    /// What a login needs.
    pub(crate) login: LoginPlan,
    /// Who may do what.
    pub(crate) policy: Policy,
    /// Tags of the portal groups that offer it; empty for all.
    pub(crate) portal_groups: Vec<u16>,
    /// What each of its sessions may use.
    pub(crate) rate: RatePlan,
    /// Its LUNs.
    pub(crate) luns: Vec<LunPlan>,
}

/// How much may be done in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RatePlan {
    /// Commands.
    pub(crate) iops_max: Option<u64>,
    /// Bytes.
    pub(crate) bytes_per_second_max: Option<u64>,
}

/// A LUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LunPlan {
    /// Its number.
    pub(crate) lun: u16,
    /// Where its blocks are.
    pub(crate) medium: MediumPlan,
    /// Line of the file that names the medium.
    pub(crate) line: Option<usize>,
    /// Logical block in bytes.
    pub(crate) block_size_bytes: u32,
    /// Physical block in bytes, if it is to be another one than the medium's own.
    pub(crate) physical_block_size_bytes: Option<u32>,
    /// How space is taken, if that is not up to the medium.
    pub(crate) provisioning: Option<Provisioning>,
    /// Share of the space underneath at which initiators are told, in percent.
    pub(crate) thin_threshold_percent: Option<u8>,
    /// How writes are cached.
    pub(crate) write_cache: WriteCache,
    /// Whether writes are refused.
    pub(crate) read_only: bool,
    /// Whether the medium can be ejected.
    pub(crate) removable: bool,
    /// Whether several initiator names may use it at a time.
    pub(crate) shared: bool,
    /// Whether the medium is left alone, for use on the server itself.
    pub(crate) offline: bool,
    /// Whether EXTENDED COPY is offered.
    pub(crate) copy_offload: bool,
    /// Whether UNMAP is offered where the medium can.
    pub(crate) unmap_command: bool,
    /// Whether initiators are not told that unmapped blocks read as zeroes.
    pub(crate) unmapped_reads_anything: bool,
    /// Unit serial number.
    pub(crate) serial: String,
    /// What all initiators together may use.
    pub(crate) rate: RatePlan,
}

/// How space is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provisioning {
    /// When it is written to; given back when it is discarded.
    Thin,
    /// All of it at once.
    Thick,
}

/// Where the blocks of a LUN are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MediumPlan {
    /// In a sparse file, created with this size when it is missing.
    File {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: Option<Size>,
    },
    /// On a block device.
    Device {
        /// The device.
        path: PathBuf,
    },
    /// In memory.
    Memory {
        /// Its size.
        size: Size,
    },
}

/// A portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortalPlan {
    /// Where to listen.
    pub(crate) address: SocketAddr,
    /// Portal group tag.
    pub(crate) group: u16,
    /// What initiators are told in place of the address.
    pub(crate) announce: Option<Announced>,
    /// Line of the file.
    pub(crate) line: Option<usize>,
}

/// The control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlPlan {
    /// Whether there is one.
    pub(crate) enable: bool,
    /// Where, if not in the usual place.
    pub(crate) socket: Option<PathBuf>,
    /// Id of the group that may open it.
    pub(crate) group: Option<u32>,
    /// Line of the file.
    pub(crate) line: Option<usize>,
}

impl Default for ControlPlan {
    fn default() -> Self {
        Self {
            enable: true,
            socket: None,
            group: None,
            line: None,
        }
    }
}

/// Metrics for Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetricsPlan {
    /// Where to listen.
    pub(crate) address: SocketAddr,
    /// Line of the file.
    pub(crate) line: Option<usize>,
}

/// Tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TunnelPlan {
    /// The Unix socket that sshd connects to.
    pub(crate) socket: PathBuf,
    /// Id of the group that may open it.
    pub(crate) group: Option<u32>,
    /// Port of the portal on each tunnel.
    pub(crate) port: u16,
    /// Portal group tag of those portals.
    pub(crate) portal_group: u16,
    /// Largest packet in bytes.
    pub(crate) mtu_bytes: u16,
    /// Clients at a time.
    pub(crate) clients: usize,
    /// Line of the file.
    pub(crate) line: Option<usize>,
}

/// A configuration as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The file, if it stands in one.
    pub(crate) file: Option<PathBuf>,
    /// What stands in it.
    pub(crate) text: String,
}

impl Source {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let cannot = |error: std::io::Error| format!("cannot read the configuration {shown}: {error}");
        let size_bytes = std::fs::metadata(path).map_err(cannot)?.len();
        if size_bytes > FILE_MAX_BYTES {
            return Err(format!(
                "{shown} is {size_bytes} bytes long: that is no configuration of farlun"
            ));
        }
        Ok(Self {
            file: Some(path.to_owned()),
            text: std::fs::read_to_string(path).map_err(cannot)?,
        })
    }

    /// The plan in it. It holds what is right; nothing may be done with it unless there are no problems.
    ///
    /// # Errors
    /// It is no TOML of the right shape.
    pub(crate) fn parse(&self) -> Result<(Plan, Problems), String> {
        let name = self.file.as_ref().map(|file| file.display().to_string());
        let directory = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        parse(name.as_deref(), &self.text, directory)
    }
}

/// What is wrong with the form of a text. The line is shown, unless it may have a secret in it that somebody has written
/// where it does not belong.
fn explain(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or(text);
        before.matches('\n').count()
    });
    match line {
        Some(number) if text.lines().nth(number).is_some_and(|line| line.contains("secret")) => {
            format!("line {}: {}", number + 1, error.message())
        }
        _ => error.to_string().trim_end().to_owned(),
    }
}

/// The same for a text; relative paths in it are below `directory`.
fn parse(name: Option<&str>, text: &str, directory: &Path) -> Result<(Plan, Problems), String> {
    let file: file::File = toml::from_str(text).map_err(|error| {
        let shown = explain(&error, text);
        name.map_or(shown.clone(), |name| format!("{name}: {shown}"))
    })?;
    let mut problems = name.map_or_else(Problems::without_file, |name| Problems::of_file(name, text));
    let plan = check::plan(file, directory, &mut problems);
    Ok((plan, problems))
}

/// What is served without a configuration, as one: a LUN in `state_directory`, on `listen`.
pub(crate) fn without_file(state_directory: &Path, listen: SocketAddr) -> String {
    let mut lun = toml_edit::Table::new();
    lun["lun"] = toml_edit::value(0);
    let file = state_directory.join("lun0.img");
    lun["file"] = toml_edit::value(file.to_string_lossy().into_owned());
    lun["size"] = toml_edit::value(DEFAULT_LUN_BYTES.cast_signed());
    let mut target = toml_edit::Table::new();
    target["name"] = toml_edit::value(format!("{OWN_AUTHORITY}:{}", host_label()));
    target["lun"] = toml_edit::Item::ArrayOfTables(std::iter::once(lun).collect());
    let mut portal = toml_edit::Table::new();
    portal["listen"] = toml_edit::value(listen.to_string());
    let mut file = toml_edit::DocumentMut::new();
    file["target"] = toml_edit::Item::ArrayOfTables(std::iter::once(target).collect());
    file["portal"] = toml_edit::Item::ArrayOfTables(std::iter::once(portal).collect());
    file.to_string()
}

/// This host's name as far as it may stand in an iSCSI name (RFC 3722).
fn host_label() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_ascii_lowercase();
    let label: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .take(64)
        .collect();
    if label.is_empty() { "disk".to_owned() } else { label }
}

#[cfg(test)]
mod tests;
