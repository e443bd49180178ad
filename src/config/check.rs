//! From the file to the plan: what contradicts itself or the standards is found here, without a look at the machine.

mod access;
mod lun;
mod portals;
mod tunnel;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use target_core::iscsi::policy::Policy;
use toml::Spanned;

use super::file::{File, TargetTable};
use super::problem::Problems;
use super::size::Size;
use super::{ISCSI_PORT, Plan, RatePlan, TargetPlan, UserPlan};
use access::Wanted;

/// Longest iSCSI name in bytes (RFC 7143 §4.2.7.1).
const NAME_MAX_BYTES: usize = 223;
/// Longest TargetAlias in bytes (RFC 7143 §13.7 with §6.1: text values are at most 255 bytes).
const ALIAS_MAX_BYTES: usize = 255;
/// More commands or bytes per second than anything does: a slip of the unit.
const RATE_MAX: u64 = 1 << 50;

/// Fewer commands per second than this: Linux gives a command 30 s, and the 512 of our command window are then not over
/// in time.
const IOPS_LOW: u64 = 20;
/// Fewer bytes per second: 32 commands (open-iscsi's queue of a LUN) of 1 MiB are not over in 30 s.
const BYTES_PER_SECOND_LOW: u64 = 2 << 20;

/// Turns the file into a plan of what is right in it; what is not goes to `problems`.
pub(super) fn plan(file: File, directory: &Path, problems: &mut Problems) -> Plan {
    let mut seen = Seen::default();
    let users = access::users(file.user, directory, problems);
    let min_digest = access::min_digest(&file.chap, problems);
    let discovery = access::discovery(file.discovery, &users, problems);
    let targets = file.target.into_iter();
    let targets: Vec<TargetPlan> = targets
        .map(|table| target(table, directory, &users, &mut seen, problems))
        .collect();
    let limits = file.limits.limits(problems);
    let has_tunnel_table = file.tunnel.is_some();
    let portals = portals::portals(file.portal, &targets, problems);
    let tunnel = file
        .tunnel
        .and_then(|table| tunnel::tunnel(table, directory, &portals, problems));
    let control = tunnel::control(file.control, directory, tunnel.as_ref(), problems);
    let metrics = portals::metrics(file.metrics, &portals, problems);
    if portals.is_empty() && tunnel.is_none() && problems.is_empty() {
        let enable = if has_tunnel_table {
            "set enable = true in [tunnel]"
        } else {
            "add [tunnel]"
        };
        problems.add(
            None,
            format!("nobody could get in: add a [[portal]] with listen = \"127.0.0.1:{ISCSI_PORT}\", or {enable}"),
        );
    }
    Plan {
        users,
        min_digest,
        discovery,
        targets,
        portals,
        tunnel,
        control,
        metrics,
        limits,
    }
}

/// A number within its range; the usual one when it is missing or wrong.
fn number(
    key: &str,
    value: Option<&Spanned<i64>>,
    usual: i64,
    range: RangeInclusive<i64>,
    problems: &mut Problems,
) -> i64 {
    let Some(value) = value else { return usual };
    if range.contains(value.get_ref()) {
        return *value.get_ref();
    }
    let (line, number) = (problems.line_of(&value.span()), value.get_ref());
    problems.add(
        line,
        format!("{key} = {number}: it must be {} to {}", range.start(), range.end()),
    );
    usual
}

/// `iops_max` and `bytes_per_second_max`
fn rate(iops: Option<&Spanned<i64>>, bytes: Option<&Spanned<Size>>, problems: &mut Problems) -> RatePlan {
    let range = 1..=RATE_MAX.cast_signed();
    let iops_line = iops.and_then(|iops| problems.line_of(&iops.span()));
    let iops = iops.map(|iops| number("iops_max", Some(iops), 1, range.clone(), problems).cast_unsigned());
    if let Some(bytes) = bytes
        && bytes.get_ref().0 > RATE_MAX
    {
        let line = problems.line_of(&bytes.span());
        problems.add(line, format!("bytes_per_second_max: at most {}", Size(RATE_MAX)));
    }
    let low_iops = iops.filter(|iops| *iops < IOPS_LOW);
    let low_bytes = bytes.filter(|bytes| bytes.get_ref().0 < BYTES_PER_SECOND_LOW);
    let low = low_iops.map(|iops| (iops_line, format!("iops_max = {iops}")));
    let low = low.into_iter().chain(low_bytes.map(|bytes| {
        let line = problems.line_of(&bytes.span());
        (line, format!("bytes_per_second_max: {}", bytes.get_ref()))
    }));
    for (line, what) in low.collect::<Vec<_>>() {
        problems.warn(
            line,
            format!(
                "{what} is so little that commands of a full queue wait longer than the 30 s after which Linux aborts \
                 them: allow {IOPS_LOW} commands and {} per second at least, or raise \
                 /sys/block/sdX/device/timeout at the initiator",
                Size(BYTES_PER_SECOND_LOW)
            ),
        );
    }
    RatePlan {
        iops_max: iops,
        bytes_per_second_max: bytes.map(|bytes| bytes.get_ref().0),
    }
}

/// What must not stand in the file twice, and the line of the first.
#[derive(Default)]
struct Seen {
    names: HashMap<String, Option<usize>>,
    serials: HashMap<String, Option<usize>>,
    media: HashMap<PathBuf, Option<usize>>,
}

/// Notes a value; the line of an earlier one is shown if there is one.
fn first_at<K: std::hash::Hash + Eq>(
    seen: &mut HashMap<K, Option<usize>>,
    value: K,
    line: Option<usize>,
) -> Option<String> {
    use std::collections::hash_map::Entry::{Occupied, Vacant};
    match seen.entry(value) {
        Vacant(entry) => {
            entry.insert(line);
            None
        }
        Occupied(entry) => Some(entry.get().map_or(String::new(), |line| format!(" in line {line}"))),
    }
}

fn target(
    table: TargetTable,
    directory: &Path,
    users: &[UserPlan],
    seen: &mut Seen,
    problems: &mut Problems,
) -> TargetPlan {
    let line = problems.line_of(&table.name.span());
    let written = table.name.into_inner();
    let name = written.to_ascii_lowercase();
    if let Err(reason) = check_name(&name) {
        problems.add(line, format!("target name {written:?}: {reason}"));
    }
    if let Some(first) = first_at(&mut seen.names, name.clone(), line) {
        problems.add(
            line,
            format!("target {name} is there already{first}: give this one another name"),
        );
    }
    let alias = table.alias.map(|alias| {
        let line = problems.line_of(&alias.span());
        let alias = alias.into_inner();
        if alias.is_empty() || alias.len() > ALIAS_MAX_BYTES || alias.chars().any(char::is_control) {
            problems.add(
                line,
                format!("alias: 1 to {ALIAS_MAX_BYTES} bytes without control characters"),
            );
        }
        alias
    });
    let login = access::login(
        Wanted {
            auth: table.auth,
            users: table.users,
            mutual: table.mutual,
            line,
        },
        users,
        problems,
    );
    let groups = table.portal_groups.iter();
    let portal_groups = groups
        .map(|tag| portals::group("portal_groups", Some(tag), problems))
        .collect();
    let rate = rate(table.iops_max.as_ref(), table.bytes_per_second_max.as_ref(), problems);
    let rules = access::rules(table.allow, &login, problems);
    let mut numbers = HashMap::new();
    let (mut luns, mut lun_rules) = (Vec::new(), BTreeMap::new());
    for table in table.lun {
        let line = problems.line_of(&table.lun.span());
        let number = *table.lun.get_ref();
        if let Some(first) = first_at(&mut numbers, number, line) {
            problems.add(
                line,
                format!("LUN {number} of {name} is there already{first}: give this one another number"),
            );
        }
        if let Some((plan, own)) = lun::lun(table, &name, &login, directory, seen, problems) {
            if !own.is_empty() {
                lun_rules.insert(plan.lun, own);
            }
            luns.push(plan);
        }
    }
    let policy = Policy {
        auth: login.auth,
        tunnel_only: table.tunnel_only,
        rules,
        lun_rules,
    };
    TargetPlan {
        name,
        alias,
        login,
        policy,
        portal_groups,
        rate,
        luns,
    }
}

/// RFC 7143 §4.2.7: `iqn.`, `eui.` or `naa.` and what belongs behind it.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    const FORM: &str = "write iqn.YEAR-MONTH.REVERSED.DOMAIN:ANYTHING, such as iqn.2026-11.com.example:disk1";
    if name.len() > NAME_MAX_BYTES {
        return Err("a name has at most 223 bytes");
    }
    let is_hex = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if let Some(rest) = name.strip_prefix("eui.") {
        return is_hex(rest, &[16])
            .then_some(())
            .ok_or("eui. is followed by 16 hex digits");
    }
    if let Some(rest) = name.strip_prefix("naa.") {
        return is_hex(rest, &[16, 32])
            .then_some(())
            .ok_or("naa. is followed by 16 or 32 hex digits");
    }
    let rest = name.strip_prefix("iqn.").ok_or(FORM)?;
    if !rest
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | ':'))
    {
        return Err("letters, digits, '-', '.' and ':' are all that may stand in it (RFC 3722)");
    }
    let (date, domain) = rest.split_once('.').ok_or(FORM)?;
    let (year, month) = date.split_once('-').ok_or(FORM)?;
    let is_year = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let is_month = month.len() == 2 && month.parse::<u8>().is_ok_and(|month| (1..=12).contains(&month));
    let authority = domain.split(':').next().unwrap_or("");
    if !is_year || !is_month || authority.is_empty() || authority.split('.').any(str::is_empty) {
        return Err(FORM);
    }
    Ok(())
}

/// A serial number that stays the same as long as target name and LUN do: 64 bits of FNV-1a in hex. Initiators know
/// the disk by it, so this must never change.
pub(crate) fn default_serial(target: &str, lun: u16) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in target.bytes().chain([0]).chain(lun.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let wild = |address: SocketAddr| address.ip().is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || wild(one) || wild(other))
}
