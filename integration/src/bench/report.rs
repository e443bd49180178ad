//! Measurements as a table of medians, spreads and ratios.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::fio::{Done, Workload};

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;

/// One measurement of one target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Commands per second.
    pub iops: f64,
    /// Throughput in MiB per second.
    pub mib_per_s: f64,
    /// The target's processor seconds for 100,000 commands.
    pub cpu_s_per_100k: f64,
    /// The target's processor seconds for a GiB.
    pub cpu_s_per_gib: f64,
}

impl Sample {
    pub(super) fn new(done: &Done, cpu: Duration) -> Self {
        let cpu = cpu.as_secs_f64();
        Self {
            iops: done.iops,
            mib_per_s: done.bytes_per_s / MIB,
            cpu_s_per_100k: cpu * 100_000.0 / done.commands as f64,
            cpu_s_per_gib: cpu * GIB / done.bytes as f64,
        }
    }

    /// The figures of interest for `workload`: rate, and processor time per work.
    fn figures(&self, workload: &Workload) -> [f64; 2] {
        if workload.is_small() {
            [self.iops, self.cpu_s_per_100k]
        } else {
            [self.mib_per_s, self.cpu_s_per_gib]
        }
    }

    pub(super) fn words(&self, workload: &Workload) -> String {
        let [rate, cpu] = self.figures(workload);
        let (rate_unit, cpu_unit) = units(workload);
        format!("{rate:.0} {rate_unit}, {cpu:.2} {cpu_unit}")
    }
}

fn units(workload: &Workload) -> (&'static str, &'static str) {
    if workload.is_small() {
        ("IOPS", "CPU-s/100k")
    } else {
        ("MiB/s", "CPU-s/GiB")
    }
}

/// All measurements of one load on one medium, the two targets' in the order taken.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// File system under the LUN.
    pub medium: String,
    /// The load.
    pub workload: Workload,
    /// The targets.
    pub names: [&'static str; 2],
    /// Their samples.
    pub samples: [Vec<Sample>; 2],
}

impl Row {
    /// Median over the rounds of the first target's rate in units of the second's in the same round: what disturbs the
    /// machine for longer than a round falls out.
    pub fn ratio(&self) -> f64 {
        let [first, second] = &self.samples;
        median(
            first
                .iter()
                .zip(second)
                .map(|(first, second)| first.iops / second.iops)
                .collect(),
        )
    }
}

/// The table for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let Some([first, second]) = rows.first().map(|row| row.names) else {
        return text;
    };
    let line = |text: &mut String, cells: [&str; 8]| {
        let [medium, load, unit, a, b, ratio, cpu_a, cpu_b] = cells;
        writeln!(
            text,
            "{medium:<7} {load:<16} {unit:<6} {a:>15} {b:>15} {ratio:>6}  {cpu_a:>11} {cpu_b:>11}"
        )
        .expect("a String takes all");
    };
    line(
        &mut text,
        ["", "median (spread)", "", first, second, "ratio", "CPU-s", "CPU-s"],
    );
    line(&mut text, ["LUN on", "load", "", "", "", "", first, second]);
    for row in rows {
        let (rate_unit, cpu_unit) = units(&row.workload);
        let [a, b] = row.samples.each_ref().map(|samples| {
            let [rates, cpus] =
                [0, 1].map(|of| samples.iter().map(|s| s.figures(&row.workload)[of]).collect::<Vec<_>>());
            let spread = spread_percent(&rates);
            (
                format!("{:.0} (±{spread:.0}%)", median(rates)),
                format!("{:.2}", median(cpus)),
            )
        });
        let ratio = format!("{:.2}", row.ratio());
        let per = cpu_unit.trim_start_matches("CPU-s");
        let cpu_b = format!("{}{per}", b.1);
        line(
            &mut text,
            [
                &row.medium,
                row.workload.name,
                rate_unit,
                &a.0,
                &b.0,
                &ratio,
                &a.1,
                &cpu_b,
            ],
        );
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Half the distance between the extremes, in percent of the median.
fn spread_percent(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (high - low) / 2.0 / median(values.to_vec()) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: [f64; 3], second: [f64; 3]) -> Row {
        let sample = |iops: f64| {
            let done = Done {
                commands: 100_000,
                bytes: 4096 * 100_000,
                iops,
                bytes_per_s: iops * 4096.0,
            };
            Sample::new(&done, Duration::from_millis(1500))
        };
        let samples = [first, second].map(|values| values.into_iter().map(sample).collect());
        Row {
            medium: "tmpfs".into(),
            workload: Workload::ALL[0].clone(),
            names: ["farlun", "tgt"],
            samples,
        }
    }

    #[test]
    fn medians_spreads_and_ratios() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread_percent(&[90.0, 100.0, 110.0]), 10.0);
        // A slow second round of both does not show in the ratio.
        assert_eq!(row([200.0, 20.0, 220.0], [100.0, 10.0, 100.0]).ratio(), 2.0);
    }

    #[test]
    fn the_table_shows_rate_ratio_and_processor_time() {
        let text = table(&[row([180.0, 200.0, 220.0], [100.0, 100.0, 100.0])]);
        let line = text.lines().last().unwrap();
        for cell in [
            "tmpfs",
            "4k random read",
            "IOPS",
            "200 (±10%)",
            "100 (±0%)",
            "2.00",
            "1.50/100k",
        ] {
            assert!(line.contains(cell), "{cell} is not in {line}");
        }
    }
}
