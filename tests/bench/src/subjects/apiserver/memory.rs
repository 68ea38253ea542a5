//! Memory of the server, and what each of many things takes of it.

use anyhow::Context;
use lab::process::Process;

use super::{Call, Client};
use crate::bench::Bench;
use crate::figures::{Figures, Unit};

/// What the Go runtime's heap and stacks have in use, among a server's metrics.
const GO_METRICS: [&str; 2] = ["go_memstats_heap_alloc_bytes", "go_memstats_stack_inuse_bytes"];

/// The memory of a server at rest.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Proportional set size, bytes.
    pub pss: u64,
    /// What a program in Go has in use right after a collection, bytes. It keeps a free heap of about the
    /// same size, in which new objects may find room without any change of its PSS.
    live: Option<u64>,
}

impl Memory {
    /// Waits until the server rests, and looks.
    ///
    /// # Errors
    /// The server ended.
    pub fn of(bench: &Bench, server: &Process, client: &Client) -> anyhow::Result<Self> {
        bench.settle(server)?;
        let pss = server.pss()?;
        Ok(Self { pss, live: bench.block_on(live(client))? })
    }

    /// Enters what each of `count` things takes, which were not there `before`.
    pub fn enter_each(&self, figures: &mut Figures, name: &str, count: usize, before: &Self) {
        let each = |now: u64, then: u64| now.saturating_sub(then) as f64 / count as f64;
        figures.add(&format!("PSS per {name}"), "", Unit::Bytes, each(self.pss, before.pss));
        if let (Some(now), Some(then)) = (self.live, before.live) {
            figures.add(&format!("live Go memory per {name}"), "", Unit::Bytes, each(now, then));
        }
    }
}

/// Nothing when the server is not written in Go.
async fn live(client: &Client) -> anyhow::Result<Option<u64>> {
    // The profile is of no interest; asking for it collects garbage.
    if client.read(0, &Call::get("/debug/pprof/heap?gc=1")).await.is_err() {
        return Ok(None);
    }
    let metrics = client.read(0, &Call::get("/metrics")).await?;
    let metrics = std::str::from_utf8(&metrics).context("metrics that are no text")?;
    Ok(GO_METRICS.into_iter().map(|name| metric(metrics, name)).sum())
}

/// The value of a metric without labels.
fn metric(metrics: &str, name: &str) -> Option<u64> {
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.trim().parse::<f64>().ok()? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# HELP a text\na_total 7\na{b=\"c\"} 8\na 1.5e+03\n";
        assert_eq!(metric(text, "a"), Some(1_500));
        assert_eq!(metric(text, "a_total"), Some(7));
        assert_eq!(metric(text, "b"), None);
    }
}
