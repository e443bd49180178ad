//! From the file to the plan: what contradicts itself or the standards is found here, without a look at the machine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use target_core::lun::WriteCache;
use toml::Spanned;
use tunnel::peer::{MTU_DEFAULT, MTU_MIN};
use tunnel::server::{ServerOptions, group_id};

use super::file::{File, LunTable, PortalTable, TargetTable, TunnelTable, WriteCacheWord};
use super::problem::Problems;
use super::size::Size;
use super::{ISCSI_PORT, LunPlan, MediumPlan, Plan, PortalPlan, TargetPlan, TunnelPlan};

/// Longest iSCSI name in bytes (RFC 7143 §4.2.7.1).
const NAME_MAX_BYTES: usize = 223;
/// Longest TargetAlias in bytes (RFC 7143 §13.7 with §6.1: text values are at most 255 bytes).
const ALIAS_MAX_BYTES: usize = 255;
/// Largest LUN of flat space addressing (SAM-6 4.7.7.3).
const LUN_MAX: i64 = 0x3fff;
/// Longest unit serial number that the target reports, in bytes.
const SERIAL_MAX_BYTES: usize = 36;
/// Clients of the tunnel that may be asked for.
const CLIENTS_MAX: i64 = 1024;

/// Turns the file into a plan of what is right in it; what is not goes to `problems`.
pub(super) fn plan(file: File, directory: &Path, problems: &mut Problems) -> Plan {
    let mut seen = Seen::default();
    let targets = file.target.into_iter();
    let targets: Vec<TargetPlan> = targets
        .map(|table| target(table, directory, &mut seen, problems))
        .collect();
    if targets.is_empty() {
        problems.add(None, "no [[target]]: name at least one, with a [[target.lun]] below it");
    }
    let limits = file.limits.limits(problems);
    let has_tunnel_table = file.tunnel.is_some();
    let portals = portals(file.portal, problems);
    let tunnel = file
        .tunnel
        .and_then(|table| tunnel(table, directory, &portals, problems));
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
        targets,
        portals,
        tunnel,
        limits,
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

fn target(table: TargetTable, directory: &Path, seen: &mut Seen, problems: &mut Problems) -> TargetPlan {
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
    if table.lun.is_empty() {
        problems.add(line, format!("target {name} has no LUN: add a [[target.lun]] below it"));
    }
    let mut numbers = HashMap::new();
    let mut luns = Vec::new();
    for table in table.lun {
        let line = problems.line_of(&table.lun.span());
        let number = *table.lun.get_ref();
        if let Some(first) = first_at(&mut numbers, number, line) {
            problems.add(
                line,
                format!("LUN {number} of {name} is there already{first}: give this one another number"),
            );
        }
        luns.extend(lun(table, &name, directory, seen, problems));
    }
    TargetPlan { name, alias, luns }
}

/// RFC 7143 §4.2.7: `iqn.`, `eui.` or `naa.` and what belongs behind it.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
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

fn lun(table: LunTable, target: &str, directory: &Path, seen: &mut Seen, problems: &mut Problems) -> Option<LunPlan> {
    let number_line = problems.line_of(&table.lun.span());
    let number = *table.lun.get_ref();
    if !(0..=LUN_MAX).contains(&number) {
        problems.add(number_line, format!("LUN {number}: it must be 0 to {LUN_MAX}"));
    }
    let lun = u16::try_from(number).ok()?;
    let block_size_bytes = match &table.block_size_bytes {
        None => 512,
        Some(size) => match size.get_ref() {
            512 => 512,
            4096 => 4096,
            other => {
                let line = problems.line_of(&size.span());
                problems.add(line, format!("block_size_bytes = {other}: it must be 512 or 4096"));
                512
            }
        },
    };
    let (medium, line) = medium(&table, block_size_bytes, number_line, directory, problems)?;
    if let MediumPlan::File { path, .. } | MediumPlan::Device { path } = &medium
        && let Some(first) = first_at(&mut seen.media, path.clone(), line)
    {
        problems.add(
            line,
            format!(
                "{} is another LUN's already{first}: name another file or device",
                path.display()
            ),
        );
    }
    let write_cache = match (&medium, table.write_cache.as_ref().map(Spanned::get_ref)) {
        (MediumPlan::Memory { .. }, Some(WriteCacheWord::WriteBack)) => {
            let line = table
                .write_cache
                .as_ref()
                .and_then(|word| problems.line_of(&word.span()));
            problems.add(line, "a LUN in memory has no write cache: leave write_cache out");
            WriteCache::WriteThrough
        }
        (MediumPlan::Memory { .. }, _) | (_, Some(WriteCacheWord::WriteThrough)) => WriteCache::WriteThrough,
        (_, Some(WriteCacheWord::WriteBack) | None) => WriteCache::WriteBack,
    };
    let (serial, serial_line) = match table.serial {
        None => (default_serial(target, lun), number_line),
        Some(serial) => {
            let line = problems.line_of(&serial.span());
            let serial = serial.into_inner();
            let printable = serial.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            if serial.trim().is_empty() || serial.len() > SERIAL_MAX_BYTES || !printable {
                problems.add(
                    line,
                    format!("serial {serial:?}: 1 to {SERIAL_MAX_BYTES} printable ASCII characters"),
                );
            }
            (serial, line)
        }
    };
    if let Some(first) = first_at(&mut seen.serials, serial.clone(), serial_line) {
        problems.add(
            serial_line,
            format!("serial {serial:?} is another LUN's already{first}: initiators would take both for one disk"),
        );
    }
    Some(LunPlan {
        lun,
        medium,
        line,
        block_size_bytes,
        write_cache,
        read_only: table.read_only,
        shared: table.shared,
        serial,
    })
}

/// The one medium a LUN has, and its line.
fn medium(
    table: &LunTable,
    block_size_bytes: u32,
    number_line: Option<usize>,
    directory: &Path,
    problems: &mut Problems,
) -> Option<(MediumPlan, Option<usize>)> {
    let size = table.size.as_ref().map(|size| *size.get_ref());
    let size_line = table.size.as_ref().and_then(|size| problems.line_of(&size.span()));
    let whole_blocks = |size: Size, line, problems: &mut Problems| {
        if !size.0.is_multiple_of(u64::from(block_size_bytes)) {
            problems.add(
                line,
                format!("{size} is no whole number of {block_size_bytes}-byte blocks"),
            );
        }
    };
    match (&table.file, &table.device, &table.memory) {
        (Some(file), None, None) => {
            let line = problems.line_of(&file.span());
            if let Some(size) = size {
                whole_blocks(size, size_line, problems);
            }
            let path = directory.join(file.get_ref());
            Some((MediumPlan::File { path, size }, line))
        }
        (None, Some(device), None) => {
            let line = problems.line_of(&device.span());
            if size.is_some() {
                problems.add(size_line, "a device has the size it has: leave size out");
            }
            let path = directory.join(device.get_ref());
            Some((MediumPlan::Device { path }, line))
        }
        (None, None, Some(memory)) => {
            let line = problems.line_of(&memory.span());
            let size_of_memory = *memory.get_ref();
            if size.is_some() {
                problems.add(size_line, "memory = \"…\" is the size already: leave size out");
            }
            whole_blocks(size_of_memory, line, problems);
            Some((MediumPlan::Memory { size: size_of_memory }, line))
        }
        (None, None, None) => {
            problems.add(
                number_line,
                "a LUN needs a medium: file = \"/path\" (with a size if it is to be created), device = \"/dev/…\" or memory = \"256MiB\"",
            );
            None
        }
        _ => {
            problems.add(number_line, "a LUN has one medium: keep one of file, device and memory");
            None
        }
    }
}

/// A serial number that stays the same as long as target name and LUN do: 64 bits of FNV-1a in hex. Initiators know
/// the disk by it, so this must never change.
pub(super) fn default_serial(target: &str, lun: u16) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in target.bytes().chain([0]).chain(lun.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn portals(tables: Vec<PortalTable>, problems: &mut Problems) -> Vec<PortalPlan> {
    let mut portals: Vec<PortalPlan> = Vec::new();
    for PortalTable { listen, allow_public } in tables {
        let line = problems.line_of(&listen.span());
        let address = listen.into_inner().0;
        if !address.ip().is_loopback() && !allow_public {
            problems.add(line, not_public(address));
        }
        if address.port() == 0 {
            problems.add(line, format!("{address}: name a port, {ISCSI_PORT} for instance"));
        }
        if let Some(other) = portals.iter().find(|other| overlap(other.address, address)) {
            let place = other.line.map_or(String::new(), |line| format!(" in line {line}"));
            problems.add(
                line,
                format!("{address} is part of the portal {}{place}: keep one", other.address),
            );
        }
        portals.push(PortalPlan { address, line });
    }
    portals
}

/// Why an address that others reach needs to be allowed in so many words.
pub(super) fn not_public(address: SocketAddr) -> String {
    format!(
        "{address} can be reached by others, and whoever reaches it reads and writes every LUN, unencrypted and without \
         a password: listen on 127.0.0.1 and use farlun connect, or write allow_public = true below this line"
    )
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let wild = |address: SocketAddr| address.ip().is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || wild(one) || wild(other))
}

fn tunnel(
    table: Spanned<TunnelTable>,
    directory: &Path,
    portals: &[PortalPlan],
    problems: &mut Problems,
) -> Option<TunnelPlan> {
    let line = problems.line_of(&table.span());
    let table = table.into_inner();
    let usual = ServerOptions::default();
    let mut number = |key: &str, value: &Option<Spanned<i64>>, usual: i64, range: std::ops::RangeInclusive<i64>| {
        let Some(value) = value else { return usual };
        if !range.contains(value.get_ref()) {
            problems.add(
                problems.line_of(&value.span()),
                format!(
                    "{key} = {}: it must be {} to {}",
                    value.get_ref(),
                    range.start(),
                    range.end()
                ),
            );
            return usual;
        }
        *value.get_ref()
    };
    let port = number("port", &table.port, i64::from(ISCSI_PORT), 1..=65_535);
    let mtu = number(
        "mtu_bytes",
        &table.mtu_bytes,
        i64::from(MTU_DEFAULT),
        i64::from(MTU_MIN)..=i64::from(MTU_DEFAULT),
    );
    let clients = number("clients", &table.clients, usual.clients_max as i64, 1..=CLIENTS_MAX);
    let group = table.group.and_then(|group| {
        let id = group_id(group.get_ref());
        if id.is_none() {
            problems.add(
                problems.line_of(&group.span()),
                format!(
                    "there is no group {0:?} here: sudo groupadd --system {0}",
                    group.get_ref()
                ),
            );
        }
        id
    });
    let socket = table
        .socket
        .map_or(usual.socket, |socket| directory.join(socket.get_ref()));
    let port = u16::try_from(port).unwrap_or(ISCSI_PORT);
    if !table.enable {
        return None;
    }
    if let Some(portal) = portals
        .iter()
        .find(|portal| portal.address.ip().is_unspecified() && portal.address.port() == port)
    {
        problems.add(
            portal.line,
            format!(
                "{} takes port {port} on every address, the tunnels' too: name the addresses to listen on, or give \
                 [tunnel] another port",
                portal.address
            ),
        );
    }
    Some(TunnelPlan {
        socket,
        group,
        port,
        mtu_bytes: u16::try_from(mtu).unwrap_or(MTU_DEFAULT),
        clients: usize::try_from(clients).unwrap_or(usual.clients_max),
        line,
    })
}
