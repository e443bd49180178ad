//! What a probe saw, for people and as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Size;
use crate::say::say;

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The portal that was asked.
    pub(super) portal: String,
    /// Its targets, in its order.
    pub(super) targets: Vec<TargetReport>,
}

/// A target.
#[derive(Debug, Serialize)]
pub(super) struct TargetReport {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alias: Option<String>,
    /// Where it says it is.
    pub(super) addresses: Vec<String>,
    pub(super) luns: Vec<LunReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) round_trip: Option<RoundTrip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A LUN.
#[derive(Debug, Serialize)]
pub(super) struct LunReport {
    pub(super) lun: String,
    pub(super) vendor: String,
    pub(super) product: String,
    pub(super) revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<String>,
    pub(super) blocks: u64,
    pub(super) block_bytes: u32,
    pub(super) physical_block_bytes: u64,
    /// Blocks can be given back.
    pub(super) thin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) write_cache: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// How far away, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundTrip {
    /// Pings measured.
    pub(crate) count: usize,
    /// The shortest.
    pub(crate) min_us: f64,
    /// As many were longer as shorter.
    pub(crate) median_us: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

impl RoundTrip {
    /// Of one time at least.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let us = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e6);
        Self {
            count: times.len(),
            min_us: us(times.first()),
            median_us: us(times.get(times.len() / 2)),
            max_us: us(times.last()),
        }
    }
}

impl std::fmt::Display for RoundTrip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [min, median, max] = [self.min_us, self.median_us, self.max_us].map(|us| us / 1e3);
        let count = self.count;
        write!(f, "{median:.3} ms median, {min:.3} ms min, {max:.3} ms max of {count}")
    }
}

impl TargetReport {
    /// A target nobody has looked at.
    pub(super) fn new(name: String, addresses: Vec<String>) -> Self {
        Self {
            name,
            alias: None,
            addresses,
            luns: Vec::new(),
            round_trip: None,
            error: None,
        }
    }
}

impl LunReport {
    /// A LUN nobody has looked at.
    pub(super) fn new(lun: String) -> Self {
        Self {
            lun,
            vendor: String::new(),
            product: String::new(),
            revision: String::new(),
            serial: None,
            blocks: 0,
            block_bytes: 0,
            physical_block_bytes: 0,
            thin: false,
            write_cache: None,
            read_only: None,
            error: None,
        }
    }

    fn print(&self) {
        let lun = &self.lun;
        if let Some(error) = &self.error {
            return say!("  LUN {lun}: {error}");
        }
        let size = Size(self.blocks.saturating_mul(u64::from(self.block_bytes)));
        say!(
            "  LUN {lun}: {size}, {} {} {}",
            self.vendor,
            self.product,
            self.revision
        );
        let mut facts = vec![format!(
            "{} blocks of {} bytes (physical {})",
            self.blocks, self.block_bytes, self.physical_block_bytes
        )];
        facts.push(if self.thin { "thin" } else { "not thin" }.to_owned());
        facts.extend(
            self.write_cache
                .map(|on| format!("write cache {}", if on { "on" } else { "off" })),
        );
        facts.extend(self.read_only.filter(|on| *on).map(|_| "read-only".to_owned()));
        facts.extend(self.serial.as_ref().map(|serial| format!("serial {serial}")));
        say!("    {}", facts.join(", "));
    }
}

impl Report {
    /// For people.
    pub(super) fn print(&self) {
        say!("portal {}", self.portal);
        if self.targets.is_empty() {
            say!("no targets for us");
        }
        for target in &self.targets {
            let alias = target
                .alias
                .as_ref()
                .map_or(String::new(), |alias| format!(" ({alias})"));
            say!("target {}{alias}", target.name);
            if !target.addresses.is_empty() {
                say!("  at {}", target.addresses.join(" "));
            }
            if let Some(error) = &target.error {
                say!("  {error}");
            }
            target.luns.iter().for_each(LunReport::print);
            if let Some(round_trip) = &target.round_trip {
                say!("  round trip: {round_trip}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_summed_up() {
        let times = [5, 1, 9, 3, 7].map(Duration::from_millis).to_vec();
        let trip = RoundTrip::of(times);
        assert_eq!((trip.min_us, trip.median_us, trip.max_us), (1000.0, 5000.0, 9000.0));
        assert_eq!(trip.to_string(), "5.000 ms median, 1.000 ms min, 9.000 ms max of 5");
    }
}
