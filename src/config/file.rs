//! The file as it is written. What serde can say about it (unknown keys, wrong types) it says with line and column.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::limits::LimitsTable;
use super::size::Size;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) user: Vec<UserTable>,
    pub(super) chap: ChapTable,
    pub(super) discovery: Option<Spanned<DiscoveryTable>>,
    pub(super) target: Vec<TargetTable>,
    pub(super) portal: Vec<PortalTable>,
    pub(super) tunnel: Option<Spanned<TunnelTable>>,
    pub(super) control: Option<Spanned<ControlTable>>,
    pub(super) metrics: Option<Spanned<MetricsTable>>,
    pub(super) limits: LimitsTable,
}

/// `[[user]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserTable {
    pub(super) name: Spanned<String>,
    pub(super) secret_file: Option<Spanned<PathBuf>>,
    pub(super) secret_credential: Option<Spanned<String>>,
}

/// `[chap]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ChapTable {
    pub(super) min_digest: Option<Spanned<String>>,
}

/// `[discovery]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiscoveryTable {
    pub(super) auth: Option<Spanned<AuthWord>>,
    #[serde(default)]
    pub(super) users: Vec<Spanned<String>>,
    pub(super) mutual: Option<Spanned<String>>,
}

/// What a login needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AuthWord {
    None,
    Chap,
}

/// `[[target]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetTable {
    pub(super) name: Spanned<String>,
    pub(super) alias: Option<Spanned<String>>,
    pub(super) auth: Option<Spanned<AuthWord>>,
    #[serde(default)]
    pub(super) users: Vec<Spanned<String>>,
    pub(super) mutual: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) tunnel_only: bool,
    #[serde(default)]
    pub(super) portal_groups: Vec<Spanned<i64>>,
    pub(super) iops_max: Option<Spanned<i64>>,
    pub(super) bytes_per_second_max: Option<Spanned<Size>>,
    #[serde(default)]
    pub(super) allow: Vec<Spanned<AllowTable>>,
    #[serde(default)]
    pub(super) lun: Vec<LunTable>,
}

/// `[[target.allow]]` and `[[target.lun.allow]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AllowTable {
    #[serde(default)]
    pub(super) initiators: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) users: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) tunnel_users: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) access: AccessWord,
}

/// What a rule lets do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AccessWord {
    ReadOnly,
    #[default]
    ReadWrite,
}

/// `[[target.lun]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LunTable {
    pub(super) lun: Spanned<i64>,
    pub(super) file: Option<Spanned<PathBuf>>,
    pub(super) device: Option<Spanned<PathBuf>>,
    pub(super) memory: Option<Spanned<Size>>,
    pub(super) size: Option<Spanned<Size>>,
    pub(super) block_size_bytes: Option<Spanned<i64>>,
    pub(super) physical_block_size_bytes: Option<Spanned<i64>>,
    pub(super) provisioning: Option<Spanned<ProvisioningWord>>,
    pub(super) thin_threshold_percent: Option<Spanned<i64>>,
    pub(super) write_cache: Option<Spanned<WriteCacheWord>>,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) removable: bool,
    #[serde(default)]
    pub(super) shared: bool,
    #[serde(default)]
    pub(super) offline: bool,
    #[serde(default)]
    pub(super) copy_offload: bool,
    pub(super) unmap_command: Option<bool>,
    pub(super) unmapped_reads: Option<UnmappedReadsWord>,
    pub(super) serial: Option<Spanned<String>>,
    pub(super) iops_max: Option<Spanned<i64>>,
    pub(super) bytes_per_second_max: Option<Spanned<Size>>,
    #[serde(default)]
    pub(super) allow: Vec<Spanned<AllowTable>>,
}

/// The two words for how space is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ProvisioningWord {
    Thin,
    Thick,
}

/// What initiators are told of unmapped blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum UnmappedReadsWord {
    Zeroes,
    Anything,
}

/// The two words for a write cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WriteCacheWord {
    WriteBack,
    WriteThrough,
}

/// `[[portal]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortalTable {
    pub(super) listen: Spanned<Listen>,
    #[serde(default)]
    pub(super) allow_public: bool,
    pub(super) group: Option<Spanned<i64>>,
    pub(super) announce: Option<Spanned<String>>,
}

/// An address to listen on, with or without a port.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Listen(pub(super) SocketAddr);

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        match text.trim_matches(['[', ']']).parse() {
            Ok(ip) => Ok(Self(SocketAddr::new(ip, super::ISCSI_PORT))),
            Err(_) => Err(format!(
                "{text:?} is not an address to listen on: write a numeric one, \"127.0.0.1:3260\" or \"[::1]:3260\""
            )),
        }
    }
}

/// `[tunnel]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TunnelTable {
    #[serde(default = "yes")]
    pub(super) enable: bool,
    pub(super) socket: Option<Spanned<PathBuf>>,
    pub(super) group: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<i64>>,
    pub(super) portal_group: Option<Spanned<i64>>,
    pub(super) mtu_bytes: Option<Spanned<i64>>,
    pub(super) clients: Option<Spanned<i64>>,
}

/// `[control]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControlTable {
    #[serde(default = "yes")]
    pub(super) enable: bool,
    pub(super) socket: Option<Spanned<PathBuf>>,
    pub(super) group: Option<Spanned<String>>,
}

/// `[metrics]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsTable {
    pub(super) listen: Spanned<SocketAddr>,
    #[serde(default)]
    pub(super) allow_public: bool,
}

fn yes() -> bool {
    true
}
