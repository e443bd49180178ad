//! The configuration of `farlun serve`: a TOML file in, a [`Plan`] out, and everything that is wrong with it at once.
//!
//! [`file`] is how it is written, [`check`] turns that into the plan, and [`survey`] compares the plan with the machine.
//! None of them changes anything.

mod check;
mod file;
mod limits;
mod problem;
mod size;
mod survey;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use target_core::iscsi::Limits;
use target_core::lun::WriteCache;

pub(crate) use problem::Problems;
pub(crate) use size::Size;
pub(crate) use survey::survey;

/// The longest configuration that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// iSCSI's port (RFC 7143 §13, assigned by IANA).
pub(crate) const ISCSI_PORT: u16 = 3260;
/// Where iSCSI names of this program begin (RFC 3720 appendix, RFC 7143 §4.2.7.4: `iqn.`, a date, a domain reversed).
const OWN_AUTHORITY: &str = "iqn.2026-11.net.farlun";
/// Size of the LUN that is served without configuration, in bytes.
const DEFAULT_LUN_BYTES: u64 = 1 << 30;

/// What to serve and where: nothing in here contradicts itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// Targets with their LUNs.
    pub(crate) targets: Vec<TargetPlan>,
    /// Portals on addresses of this machine.
    pub(crate) portals: Vec<PortalPlan>,
    /// Tunnels, if they are to be served.
    pub(crate) tunnel: Option<TunnelPlan>,
    /// Bounds of the target.
    pub(crate) limits: Limits,
}

/// A target.
#[derive(Debug, Clone)]
pub(crate) struct TargetPlan {
    /// iSCSI name in lower case.
    pub(crate) name: String,
    /// TargetAlias.
    pub(crate) alias: Option<String>,
    /// Its LUNs.
    pub(crate) luns: Vec<LunPlan>,
}

/// A LUN.
#[derive(Debug, Clone)]
pub(crate) struct LunPlan {
    /// Its number.
    pub(crate) lun: u16,
    /// Where its blocks are.
    pub(crate) medium: MediumPlan,
    /// Line of the file that names the medium.
    pub(crate) line: Option<usize>,
    /// Logical block in bytes.
    pub(crate) block_size_bytes: u32,
    /// How writes are cached.
    pub(crate) write_cache: WriteCache,
    /// Whether writes are refused.
    pub(crate) read_only: bool,
    /// Whether several initiator names may use it at a time.
    pub(crate) shared: bool,
    /// Unit serial number.
    pub(crate) serial: String,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortalPlan {
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
    /// Largest packet in bytes.
    pub(crate) mtu_bytes: u16,
    /// Clients at a time.
    pub(crate) clients: usize,
    /// Line of the file.
    pub(crate) line: Option<usize>,
}

/// Reads a configuration file. The plan holds what is right; nothing may be done with it unless there are no problems.
///
/// # Errors
/// The file cannot be read, or is no TOML of the right shape.
pub(crate) fn read(path: &Path) -> Result<(Plan, Problems), String> {
    let shown = path.display().to_string();
    let cannot = |error: std::io::Error| format!("cannot read the configuration {shown}: {error}");
    let size_bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if size_bytes > FILE_MAX_BYTES {
        return Err(format!(
            "{shown} is {size_bytes} bytes long: that is no configuration of farlun"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    parse(&shown, &text, directory)
}

/// The same for a text; relative paths in it are below `directory`.
fn parse(name: &str, text: &str, directory: &Path) -> Result<(Plan, Problems), String> {
    let file: file::File = toml::from_str(text).map_err(|error| format!("{name}: {}", error.to_string().trim_end()))?;
    let mut problems = Problems::of_file(name, text);
    let plan = check::plan(file, directory, &mut problems);
    Ok((plan, problems))
}

/// What is served without a configuration: one LUN in `state_directory`, on `listen`.
pub(crate) fn without_file(state_directory: &Path, listen: SocketAddr) -> Plan {
    let name = format!("{OWN_AUTHORITY}:{}", host_label());
    let lun = LunPlan {
        lun: 0,
        medium: MediumPlan::File {
            path: state_directory.join("lun0.img"),
            size: Some(Size(DEFAULT_LUN_BYTES)),
        },
        line: None,
        block_size_bytes: 512,
        write_cache: WriteCache::WriteBack,
        read_only: false,
        shared: false,
        serial: check::default_serial(&name, 0),
    };
    Plan {
        targets: vec![TargetPlan {
            name,
            alias: None,
            luns: vec![lun],
        }],
        portals: vec![PortalPlan {
            address: listen,
            line: None,
        }],
        ..Plan::default()
    }
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
