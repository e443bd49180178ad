//! From the numbers of the target to the text that Prometheus reads (OpenMetrics).
//!
//! Counters end in `_total` in the text: the encoder puts that there.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use target_core::iscsi::node::{Target, Totals};
use target_core::iscsi::stats::{LunSnapshot, Times};

use crate::serve::engine::Engine;

/// Labels and what they are.
type Labels = Vec<(&'static str, String)>;

/// All metrics as they are now.
pub(crate) fn text(engine: &Arc<Engine>) -> String {
    let mut registry = Registry::with_prefix("farlun");
    registry.register_collector(Box::new(Numbers::of(engine)));
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
        tracing::error!("metrics cannot be written");
    }
    text
}

/// Everything that is told, taken at one moment.
#[derive(Debug)]
struct Numbers {
    uptime_s: u64,
    refused_logins: u64,
    targets: Vec<TargetNumbers>,
}

#[derive(Debug)]
struct TargetNumbers {
    name: String,
    sessions: u64,
    totals: Totals,
    luns: Vec<(u16, LunNow)>,
}

/// What a LUN is, beside what was done with it.
#[derive(Debug)]
struct LunNow {
    online: bool,
    size_bytes: u64,
}

impl Numbers {
    fn of(engine: &Engine) -> Self {
        let node = engine.node();
        Self {
            uptime_s: engine.started().elapsed().as_secs(),
            refused_logins: node.refused_logins(),
            targets: node.targets().iter().map(|target| TargetNumbers::of(target)).collect(),
        }
    }
}

impl TargetNumbers {
    fn of(target: &Target) -> Self {
        let slots = target.device.slots();
        let lun = |number: &u16| {
            let unit = target.device.unit(*number);
            let size_bytes = unit.as_ref().map_or(0, |unit| unit.medium().size_bytes());
            let online = unit.is_some();
            (*number, LunNow { online, size_bytes })
        };
        Self {
            name: target.name().to_string(),
            sessions: target.session_count() as u64,
            totals: target.totals(),
            luns: slots.keys().map(lun).collect(),
        }
    }

    fn label(&self) -> Labels {
        vec![("target", self.name.clone())]
    }

    fn lun_label(&self, lun: u16) -> Labels {
        vec![("target", self.name.clone()), ("lun", lun.to_string())]
    }
}

/// What task management functions are called (RFC 7143 §11.5.1, RFC 7144 §4.1).
fn function_name(code: usize) -> &'static str {
    match code {
        1 => "abort_task",
        2 => "abort_task_set",
        3 => "clear_aca",
        4 => "clear_task_set",
        5 => "logical_unit_reset",
        6 => "target_warm_reset",
        7 => "target_cold_reset",
        8 => "task_reassign",
        9 => "query_task",
        10 => "query_task_set",
        11 => "i_t_nexus_reset",
        12 => "query_async_event",
        _ => "other",
    }
}

/// What a status is called (SAM-5 5.3.1).
fn status_name(status: u8) -> &'static str {
    match status {
        0x00 => "good",
        0x02 => "check_condition",
        0x04 => "condition_met",
        0x08 => "busy",
        0x18 => "reservation_conflict",
        0x28 => "task_set_full",
        0x40 => "task_aborted",
        _ => "other",
    }
}

/// Writes one metric after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn metric(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric_type: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit, metric_type)?;
        write(&mut encoder)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.metric(name, help, unit, MetricType::Counter, |encoder| {
            values
                .into_iter()
                .try_for_each(|(labels, value)| one_counter(encoder, &labels, value))
        })
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.metric(name, help, unit, MetricType::Gauge, |encoder| {
            let mut values = values.into_iter();
            values.try_for_each(|(labels, value)| {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                if labels.is_empty() {
                    return encoder.encode_gauge(&value);
                }
                encoder.encode_family(&labels)?.encode_gauge(&value)
            })
        })
    }

    fn histograms<'t>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, &'t Times)>,
    ) -> fmt::Result {
        self.metric(name, help, Some(&Unit::Seconds), MetricType::Histogram, |encoder| {
            let mut values = values.into_iter();
            values.try_for_each(|(labels, times)| one_histogram(encoder, &labels, times))
        })
    }
}

fn one_counter(encoder: &mut MetricEncoder<'_>, labels: &Labels, value: u64) -> fmt::Result {
    if labels.is_empty() {
        return encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None);
    }
    encoder
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

fn one_histogram(encoder: &mut MetricEncoder<'_>, labels: &Labels, times: &Times) -> fmt::Result {
    let seconds = |us: u64| us as f64 / 1e6;
    // The encoder adds them up itself.
    let buckets: Vec<(f64, u64)> = times
        .buckets
        .iter()
        .enumerate()
        .map(|(bucket, count)| (Times::upper_bound_us(bucket).map_or(f64::INFINITY, seconds), *count))
        .collect();
    encoder
        .encode_family(labels)?
        .encode_histogram::<NoLabelSet>(seconds(times.sum_us), times.count(), &buckets, None)
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.of_the_node(&mut writer)?;
        self.of_targets(&mut writer)?;
        self.of_luns(&mut writer)
    }
}

impl Numbers {
    fn of_the_node(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let uptime = [(Labels::new(), self.uptime_s)];
        writer.gauges(
            "uptime",
            "Time since the daemon was started",
            Some(&Unit::Seconds),
            uptime,
        )?;
        let refused = [(Labels::new(), self.refused_logins)];
        writer.counters("logins_refused", "Logins that were refused", None, refused)
    }

    fn of_targets(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let each = |of: fn(&TargetNumbers) -> u64| self.targets.iter().map(move |target| (target.label(), of(target)));
        let bytes = Some(&Unit::Bytes);
        writer.gauges("sessions", "Sessions now", None, each(|target| target.sessions))?;
        writer.gauges(
            "queue_depth",
            "SCSI commands at work now",
            None,
            each(|target| target.totals.done.queue_depth),
        )?;
        writer.counters(
            "logins",
            "Sessions that have begun",
            None,
            each(|target| target.totals.logins),
        )?;
        writer.counters(
            "reconnects",
            "Sessions that took the place of an earlier one of the same initiator",
            None,
            each(|target| target.totals.reinstated),
        )?;
        writer.counters(
            "received",
            "Bytes received",
            bytes,
            each(|target| target.totals.done.bytes_in),
        )?;
        writer.counters("sent", "Bytes sent", bytes, each(|target| target.totals.done.bytes_out))?;
        writer.counters(
            "rejects",
            "PDUs answered with a Reject",
            None,
            each(|target| target.totals.done.rejects),
        )?;
        writer.counters(
            "pings",
            "NOP-Ins that asked whether an initiator is still there",
            None,
            each(|target| target.totals.done.pings),
        )?;
        let digests = self.targets.iter().flat_map(|target| {
            let part = |part: &'static str, count| {
                let mut labels = target.label();
                labels.push(("part", part.to_owned()));
                (labels, count)
            };
            let done = &target.totals.done;
            [
                part("header", done.header_digest_errors),
                part("data", done.data_digest_errors),
            ]
        });
        writer.counters("digest_errors", "Headers and data with a wrong digest", None, digests)?;
        let functions = self.targets.iter().flat_map(|target| {
            let counts = target.totals.done.task_management.iter().enumerate();
            counts.map(|(code, count)| {
                let mut labels = target.label();
                labels.push(("function", function_name(code).to_owned()));
                (labels, *count)
            })
        });
        writer.counters("task_management", "Task management requests", None, functions)
    }

    fn of_luns(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = |of: fn(&LunNow) -> u64| {
            self.targets.iter().flat_map(move |target| {
                let luns = target.luns.iter();
                luns.map(move |(lun, now)| (target.lun_label(*lun), of(now)))
            })
        };
        writer.gauges(
            "lun_online",
            "Whether the LUN is in service",
            None,
            now(|lun| lun.online.into()),
        )?;
        writer.gauges(
            "lun_size",
            "Size of the LUN",
            Some(&Unit::Bytes),
            now(|lun| lun.size_bytes),
        )?;
        let done = || {
            self.targets.iter().flat_map(|target| {
                let luns = target.totals.done.luns.iter();
                luns.map(move |(lun, done)| (target, *lun, done))
            })
        };
        let each =
            |of: fn(&LunSnapshot) -> u64| done().map(move |(target, lun, done)| (target.lun_label(lun), of(done)));
        let bytes = Some(&Unit::Bytes);
        writer.counters("lun_read", "Bytes read", bytes, each(|done| done.read_bytes))?;
        writer.counters("lun_written", "Bytes written", bytes, each(|done| done.written_bytes))?;
        let commands = done().flat_map(|(target, lun, done)| {
            done.commands.iter().map(move |((opcode, status), count)| {
                let mut labels = target.lun_label(lun);
                labels.push(("opcode", format!("{opcode:02x}")));
                labels.push(("status", status_name(*status).to_owned()));
                (labels, *count)
            })
        });
        writer.counters(
            "commands",
            "SCSI commands answered, by operation code and status",
            None,
            commands,
        )?;
        let latency = done().map(|(target, lun, done)| (target.lun_label(lun), &done.latency));
        writer.histograms(
            "command_duration",
            "From the arrival of a command to its status",
            latency,
        )?;
        let flush = done().map(|(target, lun, done)| (target.lun_label(lun), &done.flush));
        writer.histograms("flush_duration", "The same, of SYNCHRONIZE CACHE alone", flush)
    }
}
