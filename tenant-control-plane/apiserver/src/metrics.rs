//! Counters under upstream's metric names, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets, seconds.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 10.0];

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// Verb in capitals.
    pub verb: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Resource, empty for other paths.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// HTTP code.
    pub code: u16,
}

#[derive(Default)]
struct Series {
    count: u64,
    sum_s: f64,
    buckets: [u64; BUCKETS.len()],
}

/// All counters.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, Series>>,
    watches: Arc<AtomicI64>,
    in_flight: Arc<AtomicI64>,
}

/// Counts down when dropped.
pub struct Gauge(Arc<AtomicI64>);

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn up(gauge: &Arc<AtomicI64>) -> Gauge {
    gauge.fetch_add(1, Ordering::Relaxed);
    Gauge(gauge.clone())
}

impl Metrics {
    /// Counts an open watch until the gauge is dropped.
    pub fn watch_opened(&self) -> Gauge {
        up(&self.watches)
    }

    /// Counts a request in flight until the gauge is dropped.
    pub fn request_started(&self) -> Gauge {
        up(&self.in_flight)
    }

    /// Counts an answered request.
    pub fn answered(&self, labels: Labels, took: Duration) {
        let mut requests = self.requests.lock().expect("no panic while locked");
        let series = requests.entry(labels).or_default();
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.sum_s += seconds;
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// The text that Prometheus reads.
    pub fn render(&self, objects: &[(String, usize)]) -> String {
        let mut out = String::new();
        self.render_requests(&mut out);
        let gauge = |out: &mut String, name: &str, value: i64| {
            let _ = writeln!(out, "# TYPE {name} gauge\n{name} {value}");
        };
        gauge(&mut out, "apiserver_longrunning_requests", self.watches.load(Ordering::Relaxed));
        gauge(
            &mut out,
            "apiserver_current_inflight_requests",
            self.in_flight.load(Ordering::Relaxed),
        );
        let _ = writeln!(out, "# TYPE apiserver_storage_objects gauge");
        for (resource, count) in objects {
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
        }
        out
    }

    fn render_requests(&self, out: &mut String) {
        let requests = self.requests.lock().expect("no panic while locked");
        let _ = writeln!(out, "# TYPE apiserver_request_total counter");
        for (l, series) in requests.iter() {
            let _ = writeln!(
                out,
                "apiserver_request_total{{code=\"{}\",group=\"{}\",resource=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"}} {}",
                l.code, l.group, l.resource, l.subresource, l.verb, l.version, series.count
            );
        }
        let name = "apiserver_request_duration_seconds";
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (l, series) in requests.iter() {
            let labels = format!(
                "group=\"{}\",resource=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
                l.group, l.resource, l.subresource, l.verb, l.version
            );
            for (bound, count) in BUCKETS.iter().zip(series.buckets) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.sum_s);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", series.count);
        }
    }
}
