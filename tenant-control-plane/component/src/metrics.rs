//! Counters and gauges of a process, in the Prometheus text format.
//!
//! Names and labels are upstream's where upstream has the metric, so that existing dashboards work.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Summary,
}

#[derive(Default, Clone, Copy)]
struct Value {
    sum: f64,
    count: u64,
}

struct Family {
    kind: Kind,
    series: BTreeMap<String, Value>,
}

static FAMILIES: LazyLock<Mutex<BTreeMap<&'static str, Family>>> = LazyLock::new(Mutex::default);

fn update(name: &'static str, kind: Kind, labels: &[(&str, &str)], f: impl FnOnce(&mut Value)) {
    let mut key = String::new();
    for (label, value) in labels {
        let separator = if key.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(key, "{separator}{label}=\"{value}\"");
    }
    let mut families = FAMILIES.lock().expect("no code panics while it holds this lock");
    let family = families.entry(name).or_insert_with(|| Family { kind, series: BTreeMap::new() });
    f(family.series.entry(key).or_default());
}

/// Adds one to a counter.
pub fn count(name: &'static str, labels: &[(&str, &str)]) {
    update(name, Kind::Counter, labels, |value| value.sum += 1.0);
}

/// Sets a gauge.
pub fn gauge(name: &'static str, labels: &[(&str, &str)], to: f64) {
    update(name, Kind::Gauge, labels, |value| value.sum = to);
}

/// Adds an observation, in seconds, to a sum and count.
pub fn observe(name: &'static str, labels: &[(&str, &str)], took: Duration) {
    update(name, Kind::Summary, labels, |value| {
        value.sum += took.as_secs_f64();
        value.count += 1;
    });
}

/// Everything recorded so far, with the process's own memory and CPU time.
pub fn render() -> String {
    let mut out = String::new();
    let families = FAMILIES.lock().expect("no code panics while it holds this lock");
    for (name, family) in families.iter() {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        };
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for (labels, value) in &family.series {
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            if family.kind == Kind::Summary {
                let _ = writeln!(out, "{name}_sum{braces} {}", value.sum);
                let _ = writeln!(out, "{name}_count{braces} {}", value.count);
            } else {
                let _ = writeln!(out, "{name}{braces} {}", value.sum);
            }
        }
    }
    drop(families);
    if let Some(bytes) = resident_bytes() {
        let _ = writeln!(out, "# TYPE process_resident_memory_bytes gauge");
        let _ = writeln!(out, "process_resident_memory_bytes {bytes}");
    }
    out
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_with_escaped_labels() {
        count("test_total", &[("path", "a\"b")]);
        count("test_total", &[("path", "a\"b")]);
        observe("test_seconds", &[], Duration::from_millis(500));
        let text = render();
        assert!(
            text.contains("# TYPE test_total counter\ntest_total{path=\"a\\\"b\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("test_seconds_sum 0.5\ntest_seconds_count 1\n"), "{text}");
    }
}
