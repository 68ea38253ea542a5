//! In place of the crate of this name, for openraft alone (`[patch.crates-io]`): the same names, as far
//! as openraft uses them, and nothing else.
//!
//! The original fills tables for all its precisions when the first histogram is made, 24 MiB in every
//! process: half of what an etcd with an empty store needs. Here a bucket is computed.
//!
//! Four buckets per power of two: a percentile is the lower bound of its bucket, at most a fifth below
//! the value.

use std::fmt;

const BUCKETS: usize = 252;

/// How often which values were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    buckets: Vec<u64>,
    total: u64,
    period: T,
}

impl<T: Default> Histogram<T> {
    /// Without values.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], total: 0, period: T::default() }
    }
}

impl<T: Default> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Records a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Records a value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        self.buckets[bucket(value)] += times;
        self.total += times;
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that so large a share (0 to 1) of all does not exceed.
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        reached.map_or(0, lower_bound)
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

fn bucket(value: u64) -> usize {
    if value < 4 {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros() as usize;
    (exponent - 1) * 4 + (value >> (exponent - 2) & 3) as usize
}

fn lower_bound(bucket: usize) -> u64 {
    match bucket {
        0..4 => bucket as u64,
        _ => (4 + bucket as u64 % 4) << (bucket / 4 - 1),
    }
}

/// Percentiles of one histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values there were.
    pub samples: u64,
    /// 0.1 % of the values are no larger.
    pub p0_1: u64,
    /// 1 %.
    pub p1: u64,
    /// 5 %.
    pub p5: u64,
    /// 10 %.
    pub p10: u64,
    /// Half of them.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p10, p50, p90, p99, .. } = self;
        write!(f, "{samples} values: P10 {p10}, P50 {p50}, P90 {p90}, P99 {p99}")
    }
}

/// Several histograms, shown one below the other.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// Without histograms.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.lines.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_begins_at_or_below_it() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, (1 << shift) + (1 << shift) / 3] {
                let found = bucket(value);
                assert!(lower_bound(found) <= value, "{value}");
                assert!(found + 1 == BUCKETS || value < lower_bound(found + 1), "{value}");
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        for value in 0..1000 {
            histogram.record(value);
        }
        assert_eq!(histogram.total(), 1000);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.p1, stats.p50, stats.p99_9), (8, 448, 896));
    }
}
