//! `[limits]`: the bounds of the target, by the names they have there.

use serde::Deserialize;
use target_core::iscsi::Limits;
use target_core::scsi::MAX_TRANSFER_BYTES;
use toml::Spanned;

use super::problem::Problems;

/// Largest segment and burst (RFC 7143 §13.12 to §13.14): 2**24 - 1 bytes; the smallest is 512.
const BURST_BYTES: std::ops::RangeInclusive<i64> = 512..=0xff_ffff;
/// What may come unasked, or in one PDU: more only costs memory.
const SEGMENT_BYTES: std::ops::RangeInclusive<i64> = 512..=1024 * 1024;
/// Commands of one session.
const COMMANDS_MAX: i64 = 4096;
/// A day: longer is a slip of the unit.
const TIME_MAX_MS: i64 = 24 * 3600 * 1000;
/// More memory than any machine gives to one program.
const MEMORY_MAX_BYTES: i64 = 1 << 46;

macro_rules! limits {
    ($($key:ident: $type:ty, $range:expr;)*) => {
        /// The table; every key is optional.
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct LimitsTable {
            $($key: Option<Spanned<i64>>,)*
        }

        impl LimitsTable {
            fn apply(&self, limits: &mut Limits, problems: &mut Problems) {
                $(if let Some(value) = &self.$key {
                    let range = $range;
                    let number = *value.get_ref();
                    match <$type>::try_from(number) {
                        Ok(number_fits) if range.contains(&number) => limits.$key = number_fits,
                        _ => problems.add(problems.line_of(&value.span()), format!(
                            "{} = {number}: it must be {} to {}", stringify!($key), range.start(), range.end()
                        )),
                    }
                })*
            }

            /// The line of a key, if it is there.
            fn line_of(&self, key: &str, problems: &Problems) -> Option<usize> {
                $(if key == stringify!($key) {
                    return problems.line_of(&self.$key.as_ref()?.span());
                })*
                None
            }
        }
    };
}

limits! {
    login_timeout_ms: u64, 100..=TIME_MAX_MS;
    idle_ping_ms: u64, 100..=TIME_MAX_MS;
    upload_ping_ms: u64, 100..=TIME_MAX_MS;
    abort_wait_ms: u64, 1..=TIME_MAX_MS;
    command_window: u32, 1..=COMMANDS_MAX;
    immediate_commands: u32, 1..=COMMANDS_MAX;
    max_recv_data_segment_bytes: u32, SEGMENT_BYTES;
    first_burst_bytes: u32, SEGMENT_BYTES;
    max_burst_bytes: u32, BURST_BYTES;
    max_outstanding_r2t: u16, 1..=16;
    window_memory_bytes: usize, 65_536..=MEMORY_MAX_BYTES;
    transfer_memory_bytes: usize, 65_536..=MEMORY_MAX_BYTES;
    sessions_per_initiator: usize, 1..=65_535;
    sessions_per_target: usize, 1..=65_535;
}

impl LimitsTable {
    /// The defaults with what the table changes.
    pub(super) fn limits(&self, problems: &mut Problems) -> Limits {
        let mut limits = Limits::default();
        self.apply(&mut limits, problems);
        let line = |key| self.line_of(key, problems);
        let mut found = Vec::new();
        if limits.first_burst_bytes > limits.max_burst_bytes {
            // RFC 7143 §13.14: FirstBurstLength must not exceed MaxBurstLength.
            found.push((
                line("first_burst_bytes").or_else(|| line("max_burst_bytes")),
                format!(
                    "first_burst_bytes ({}) is more than max_burst_bytes ({}): make it at most as large",
                    limits.first_burst_bytes, limits.max_burst_bytes
                ),
            ));
        }
        let unasked_bytes = limits.first_burst_bytes.max(limits.max_recv_data_segment_bytes) as usize;
        if limits.window_memory_bytes < unasked_bytes {
            found.push((
                line("window_memory_bytes"),
                format!(
                    "window_memory_bytes ({}) does not hold what one command may send unasked ({unasked_bytes} bytes, \
                     by first_burst_bytes and max_recv_data_segment_bytes)",
                    limits.window_memory_bytes
                ),
            ));
        }
        if (limits.transfer_memory_bytes as u64) < MAX_TRANSFER_BYTES {
            found.push((
                line("transfer_memory_bytes"),
                format!(
                    "transfer_memory_bytes ({}) does not hold one command of the largest size ({MAX_TRANSFER_BYTES} bytes)",
                    limits.transfer_memory_bytes
                ),
            ));
        }
        found.into_iter().for_each(|(line, text)| problems.add(line, text));
        limits
    }
}
