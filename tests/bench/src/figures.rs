//! What is measured: figures of one turn, and the figures of all turns side by side.

use std::fmt::Write;
use std::time::Duration;

use lab::mix::Origin;
use serde_json::json;

use crate::drive::Sample;

/// What a number means, and whether more of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Unit {
    OpsPerSecond,
    /// Per second of the server's processor time.
    OpsPerCpuSecond,
    EventsPerSecond,
    /// Per second of the server's processor time.
    EventsPerCpuSecond,
    Seconds,
    Milliseconds,
    CpuSeconds,
    CpuMilliseconds,
    Mebibytes,
    Bytes,
    /// Of something that the workload's name says.
    Count,
    /// Of another row of the same table, which the workload's name says.
    Times,
}

impl Unit {
    /// As in the table.
    pub fn text(self) -> &'static str {
        match self {
            Self::OpsPerSecond => "op/s",
            Self::OpsPerCpuSecond => "op/CPU-s",
            Self::EventsPerSecond => "events/s",
            Self::EventsPerCpuSecond => "events/CPU-s",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::CpuSeconds => "CPU-s",
            Self::CpuMilliseconds => "CPU-ms",
            Self::Mebibytes => "MiB",
            Self::Bytes => "B",
            Self::Count => "count",
            Self::Times => "times",
        }
    }

    /// False where a smaller number is the better one.
    pub fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::OpsPerSecond
                | Self::OpsPerCpuSecond
                | Self::EventsPerSecond
                | Self::EventsPerCpuSecond
                | Self::Count
        )
    }
}

/// What a row of the table is about.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    workload: String,
    /// Which of several figures of the same unit, such as `p99`; often empty.
    detail: &'static str,
    unit: Unit,
}

/// The figures of one turn, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Figures(Vec<(Row, f64)>);

impl Figures {
    /// Enters one number.
    pub fn add(&mut self, workload: &str, detail: &'static str, unit: Unit, value: f64) {
        self.0.push((Row { workload: workload.to_owned(), detail, unit }, value));
    }

    /// Enters the four rows of a workload: both rates, median and 99th percentile of the latency.
    pub fn sample(&mut self, workload: &str, sample: &Sample) {
        self.add(workload, "", Unit::OpsPerSecond, sample.per_second());
        self.add(workload, "", Unit::OpsPerCpuSecond, sample.per_cpu_second());
        self.latency(workload, &sample.latencies);
    }

    /// Enters median and 99th percentile of sorted durations.
    pub fn latency(&mut self, workload: &str, sorted: &[Duration]) {
        for (detail, percent) in [("p50", 50.0), ("p99", 99.0)] {
            let value = percentile(sorted, percent).as_secs_f64() * 1e3;
            self.add(workload, detail, Unit::Milliseconds, value);
        }
    }

    /// Enters a short stretch of the server's processor time.
    pub fn cpu(&mut self, workload: &str, detail: &'static str, used: Duration) {
        self.add(workload, detail, Unit::CpuMilliseconds, used.as_secs_f64() * 1e3);
    }

    /// Enters an amount of memory or disk, bytes.
    pub fn memory(&mut self, workload: &str, detail: &'static str, bytes: u64) {
        self.add(workload, detail, Unit::Mebibytes, bytes as f64 / f64::from(1 << 20));
    }
}

/// The smallest duration that `percent` per cent of all do not exceed (nearest rank); zero for none.
pub fn percentile(sorted: &[Duration], percent: f64) -> Duration {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or(sorted.last()).copied().unwrap_or_default()
}

/// The figures of all turns of a scene.
#[derive(Debug, Default)]
pub struct Comparison(Vec<Line>);

#[derive(Debug)]
struct Line {
    row: Row,
    ours: Vec<f64>,
    upstream: Vec<f64>,
}

impl Comparison {
    /// Adds the figures of a turn.
    pub fn add(&mut self, origin: Origin, figures: Figures) {
        for (row, value) in figures.0 {
            let index = self.0.iter().position(|line| line.row == row);
            let index = index.unwrap_or_else(|| {
                self.0.push(Line { row, ours: Vec::new(), upstream: Vec::new() });
                self.0.len() - 1
            });
            match origin {
                Origin::Ours => self.0[index].ours.push(value),
                Origin::Upstream => self.0[index].upstream.push(value),
            }
        }
    }

    /// A table in Markdown. A cell shows the median and, of several rounds, the smallest and the
    /// largest.
    pub fn markdown(&self) -> String {
        let mut text =
            String::from("| workload | unit | ours | upstream | ratio |\n|-|-|-:|-:|-:|\n");
        let mut above = "";
        for Line { row, ours, upstream } in &self.0 {
            let workload = if row.workload == above { "" } else { &row.workload };
            above = &row.workload;
            let unit = format!("{} {}", row.detail, row.unit.text());
            let (ours_cell, upstream_cell) = (cell(ours), cell(upstream));
            let ratio =
                ratio(ours, upstream).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let unit = unit.trim();
            let _ =
                writeln!(text, "| {workload} | {unit} | {ours_cell} | {upstream_cell} | {ratio} |");
        }
        text
    }

    /// Every single number.
    pub fn json(&self) -> serde_json::Value {
        let lines = self.0.iter().map(|Line { row, ours, upstream }| {
            json!({
                "workload": row.workload,
                "detail": row.detail,
                "unit": row.unit.text(),
                "moreIsBetter": row.unit.more_is_better(),
                "ours": ours,
                "upstream": upstream,
                "ratio": ratio(ours, upstream),
            })
        });
        lines.collect()
    }
}

/// Of the medians.
fn ratio(ours: &[f64], upstream: &[f64]) -> Option<f64> {
    let (ours, upstream) = (median(ours)?, median(upstream)?);
    (upstream != 0.0).then(|| ours / upstream)
}

fn cell(values: &[f64]) -> String {
    let Some(median) = median(values) else { return "–".to_owned() };
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match values.len() {
        1 => number(median),
        _ => format!("{} ({}–{})", number(median), number(low), number(high)),
    }
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Three significant digits or all before the point, with commas between thousands.
fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = whole.trim_start_matches('-').len();
    let mut grouped = String::new();
    for (index, character) in whole.chars().rev().enumerate() {
        if index > 0 && index % 3 == 0 && index < digits {
            grouped.insert(0, ',');
        }
        grouped.insert(0, character);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(values: &[u64]) -> Vec<Duration> {
        values.iter().map(|value| Duration::from_millis(*value)).collect()
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<u64> = (1..=100).collect();
        let hundred = milliseconds(&hundred);
        assert_eq!(percentile(&hundred, 50.0), Duration::from_millis(50));
        assert_eq!(percentile(&hundred, 99.0), Duration::from_millis(99));
        assert_eq!(percentile(&hundred, 100.0), Duration::from_millis(100));
        assert_eq!(percentile(&milliseconds(&[7]), 99.0), Duration::from_millis(7));
        assert_eq!(percentile(&[], 50.0), Duration::ZERO);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn numbers_have_three_digits_and_commas() {
        let shown =
            [0.0, 0.0123, 1.0, 9.999, 12.34, 99.96, 1234.5, 1_234_567.0, -1234.0].map(number);
        assert_eq!(
            shown,
            ["0.00", "0.012", "1.00", "10.0", "12.3", "100", "1,234", "1,234,567", "-1,234"]
        );
    }

    #[test]
    fn the_table_sets_medians_side_by_side() {
        let mut comparison = Comparison::default();
        for (origin, value) in [
            (Origin::Ours, 100.0),
            (Origin::Upstream, 50.0),
            (Origin::Upstream, 70.0),
            (Origin::Ours, 140.0),
        ] {
            let mut figures = Figures::default();
            figures.add("put", "", Unit::OpsPerSecond, value);
            if origin == Origin::Ours {
                figures.add("put", "p99", Unit::Milliseconds, 1.5);
            }
            comparison.add(origin, figures);
        }
        assert_eq!(
            comparison.markdown(),
            "| workload | unit | ours | upstream | ratio |\n|-|-|-:|-:|-:|\n\
             | put | op/s | 120 (100–140) | 60.0 (50.0–70.0) | 2.00 |\n\
             |  | p99 ms | 1.50 (1.50–1.50) | – | – |\n"
        );
        assert_eq!(comparison.json()[0]["ratio"], 2.0);
    }
}
