//! `[[target.lun]]`

use std::path::Path;

use target_core::lun::WriteCache;
use toml::Spanned;

use super::access::rules;
use super::{Seen, default_serial, first_at, number, rate};
use crate::config::file::{LunTable, ProvisioningWord, UnmappedReadsWord, WriteCacheWord};
use crate::config::problem::Problems;
use crate::config::{LoginPlan, LunPlan, MediumPlan, Provisioning, Size};
use target_core::iscsi::policy::Rule;

/// Largest LUN of flat space addressing (SAM-6 4.7.7.3).
const LUN_MAX: i64 = 0x3fff;
/// Longest unit serial number that the target reports, in bytes.
const SERIAL_MAX_BYTES: usize = 36;

/// A LUN and the rules of its own.
pub(super) fn lun(
    table: LunTable,
    target: &str,
    login: &LoginPlan,
    directory: &Path,
    seen: &mut Seen,
    problems: &mut Problems,
) -> Option<(LunPlan, Vec<Rule>)> {
    let number_line = problems.line_of(&table.lun.span());
    let number = *table.lun.get_ref();
    if !(0..=LUN_MAX).contains(&number) {
        problems.add(number_line, format!("LUN {number}: it must be 0 to {LUN_MAX}"));
    }
    let lun = u16::try_from(number).ok()?;
    let block_size_bytes = block_size("block_size_bytes", table.block_size_bytes.as_ref(), problems).unwrap_or(512);
    let physical = table.physical_block_size_bytes.as_ref();
    let physical_block_size_bytes = block_size("physical_block_size_bytes", physical, problems);
    if let (Some(size), Some(written)) = (physical_block_size_bytes, physical)
        && size < block_size_bytes
    {
        problems.add(
            problems.line_of(&written.span()),
            format!("physical_block_size_bytes = {size}: a physical block holds at least one of {block_size_bytes}"),
        );
    }
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
    let write_cache = write_cache(&medium, table.write_cache.as_ref(), problems);
    let provisioning = provisioning(&medium, table.provisioning.as_ref(), problems);
    let thin_threshold_percent = threshold(table.thin_threshold_percent.as_ref(), provisioning, problems);
    let (serial, serial_line) =
        serial(table.serial, number_line, problems).unwrap_or_else(|| (default_serial(target, lun), number_line));
    if let Some(first) = first_at(&mut seen.serials, serial.clone(), serial_line) {
        problems.add(
            serial_line,
            format!("serial {serial:?} is another LUN's already{first}: initiators would take both for one disk"),
        );
    }
    let rate = rate(table.iops_max.as_ref(), table.bytes_per_second_max.as_ref(), problems);
    let rules = rules(table.allow, login, problems);
    let plan = LunPlan {
        lun,
        medium,
        line,
        block_size_bytes,
        physical_block_size_bytes: physical_block_size_bytes.map(|size| size.max(block_size_bytes)),
        provisioning,
        thin_threshold_percent,
        write_cache,
        read_only: table.read_only,
        removable: table.removable,
        shared: table.shared,
        offline: table.offline,
        copy_offload: table.copy_offload,
        unmap_command: table.unmap_command.unwrap_or(true),
        unmapped_reads_anything: table.unmapped_reads == Some(UnmappedReadsWord::Anything),
        serial,
        rate,
    };
    Some((plan, rules))
}

fn block_size(key: &str, written: Option<&Spanned<i64>>, problems: &mut Problems) -> Option<u32> {
    let written = written?;
    match written.get_ref() {
        512 => Some(512),
        4096 => Some(4096),
        other => {
            let line = problems.line_of(&written.span());
            problems.add(line, format!("{key} = {other}: it must be 512 or 4096"));
            None
        }
    }
}

fn write_cache(medium: &MediumPlan, written: Option<&Spanned<WriteCacheWord>>, problems: &mut Problems) -> WriteCache {
    match (medium, written.map(Spanned::get_ref)) {
        (MediumPlan::Memory { .. }, Some(WriteCacheWord::WriteBack)) => {
            let line = written.and_then(|word| problems.line_of(&word.span()));
            problems.add(line, "a LUN in memory has no write cache: leave write_cache out");
            WriteCache::WriteThrough
        }
        (MediumPlan::Memory { .. }, _) | (_, Some(WriteCacheWord::WriteThrough)) => WriteCache::WriteThrough,
        (_, Some(WriteCacheWord::WriteBack) | None) => WriteCache::WriteBack,
    }
}

fn provisioning(
    medium: &MediumPlan,
    written: Option<&Spanned<ProvisioningWord>>,
    problems: &mut Problems,
) -> Option<Provisioning> {
    let written = written?;
    let line = problems.line_of(&written.span());
    match (medium, written.get_ref()) {
        (_, ProvisioningWord::Thick) => Some(Provisioning::Thick),
        (MediumPlan::Device { .. }, ProvisioningWord::Thin) => {
            problems.add(
                line,
                "whether a device is thin is the device's own business: leave provisioning out, or say \"thick\" to \
                 keep initiators from discarding",
            );
            None
        }
        (_, ProvisioningWord::Thin) => Some(Provisioning::Thin),
    }
}

fn threshold(
    written: Option<&Spanned<i64>>,
    provisioning: Option<Provisioning>,
    problems: &mut Problems,
) -> Option<u8> {
    let written = written?;
    let line = problems.line_of(&written.span());
    if provisioning == Some(Provisioning::Thick) {
        problems.add(
            line,
            "a thick LUN has all its space already: leave thin_threshold_percent out",
        );
    }
    let percent = number("thin_threshold_percent", Some(written), 99, 1..=99, problems);
    u8::try_from(percent).ok()
}

fn serial(
    written: Option<Spanned<String>>,
    number_line: Option<usize>,
    problems: &mut Problems,
) -> Option<(String, Option<usize>)> {
    let serial = written?;
    let line = problems.line_of(&serial.span()).or(number_line);
    let serial = serial.into_inner();
    let printable = serial.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if serial.trim().is_empty() || serial.len() > SERIAL_MAX_BYTES || !printable {
        problems.add(
            line,
            format!("serial {serial:?}: 1 to {SERIAL_MAX_BYTES} printable ASCII characters"),
        );
    }
    Some((serial, line))
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
