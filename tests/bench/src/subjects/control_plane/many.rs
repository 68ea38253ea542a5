//! One tenant after the other, until the machine carries no more.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::join_all;
use lab::mix::Origin;

use super::rest;
use super::tenant::{ANSWER_WITHIN, Tenant};
use crate::bench::Bench;
use crate::figures::{Figures, Unit, percentile};

/// No tenant may make the 99th percentile of all tenants' `/readyz` longer than this.
const SLOW: Duration = Duration::from_secs(1);
/// So much of the machine's memory, per cent, is to stay available.
const SPARE: f64 = 15.0;

/// Why there is no further tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// `/readyz` is slow, twice in a row.
    Slow,
    /// Memory runs out.
    Memory,
    /// The last tenant did not become usable.
    Start,
    /// Nobody asked for more.
    Cap,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slow => "p99 of /readyz over 1 s",
            Self::Memory => "less than 15 % of memory available",
            Self::Start => "not usable within 120 s",
            Self::Cap => "no more were asked for",
        })
    }
}

/// What is seen of all tenants.
#[derive(Clone, Debug)]
struct Observed {
    tenants: usize,
    /// Of `/readyz` of all tenants, sorted.
    answers: Vec<Duration>,
    memory: Memory,
    /// Processor time of all servers, per second.
    cpu: Duration,
}

impl Observed {
    fn limit(&self) -> Option<Limit> {
        if percentile(&self.answers, 99.0) > SLOW {
            Some(Limit::Slow)
        } else if self.memory.spare() < SPARE {
            Some(Limit::Memory)
        } else {
            None
        }
    }
}

/// Starts tenants until there is a limit, and enters how many there were before.
///
/// # Errors
/// A server ends.
pub fn measure(bench: &Bench, origin: Origin, figures: &mut Figures) -> anyhow::Result<()> {
    let cap = bench.either(60, 3);
    let mut tenants = Vec::new();
    let mut well = None;
    let limit = loop {
        if tenants.len() == cap {
            break Limit::Cap;
        }
        let Some(tenant) = Tenant::start(bench, origin, tenants.len() + 1)? else {
            break Limit::Start;
        };
        tenants.push(tenant);
        rest(bench, &tenants[tenants.len() - 1], bench.either(10, 5))?;
        let mut observed = observe(bench, &mut tenants)?;
        if observed.limit() == Some(Limit::Slow) {
            // Something else may have been in the way.
            observed = observe(bench, &mut tenants)?;
        }
        if let Some(limit) = observed.limit() {
            break limit;
        }
        well = Some(observed);
    };
    let count = tenants.len();
    eprintln!("  {origin}: {count} tenants run: {limit}");
    if let Some(well) = well {
        enter(&well, figures);
    }
    if let Some(last) = tenants.last() {
        let took = last.ready_in.as_secs_f64();
        figures.add("create to ready, the last tenant", "", Unit::Seconds, took);
        let mut pss = 0;
        for tenant in &tenants {
            pss += tenant.pss()?.iter().sum::<u64>();
        }
        figures.memory("PSS per tenant, all of them running", "", pss / count as u64);
    }
    let tried = if limit == Limit::Start { count + 1 } else { count };
    figures.add(&format!("last tenant: {limit}"), "", Unit::Count, tried as f64);
    Ok(())
}

fn enter(well: &Observed, figures: &mut Figures) {
    let tenants = well.tenants;
    figures.add("tenants within the limits", "", Unit::Count, tenants as f64);
    figures.latency("/readyz of all of them", &well.answers);
    figures.memory("memory available then", "", well.memory.available);
    let each = well.cpu / u32::try_from(tenants).unwrap_or(u32::MAX).max(1);
    figures.cpu("idle for a second, each of them", "", each);
}

/// Asks tenants in turn, at fixed times, whether or not they have answered before.
fn observe(bench: &Bench, tenants: &mut [Tenant]) -> anyhow::Result<Observed> {
    tenants.iter_mut().try_for_each(Tenant::check)?;
    let requests = bench.either(100, 50);
    let every = Duration::from_millis(100);
    let (before, started) = (used(tenants)?, Instant::now());
    let asked = (0..requests).map(|index| {
        let tenant = &tenants[index as usize % tenants.len()];
        async move {
            tokio::time::sleep(every * index).await;
            let sent = Instant::now();
            // A refusal is no better than silence.
            tenant.ask("/readyz").await.map_or(ANSWER_WITHIN, |()| sent.elapsed())
        }
    });
    let mut answers = bench.block_on(join_all(asked));
    answers.sort_unstable();
    let cpu = (used(tenants)? - before).div_f64(started.elapsed().as_secs_f64());
    let memory = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let memory = Memory::parse(&memory).context("/proc/meminfo does not say what is available")?;
    Ok(Observed { tenants: tenants.len(), answers, memory, cpu })
}

fn used(tenants: &[Tenant]) -> anyhow::Result<Duration> {
    let each = tenants.iter().map(|tenant| Ok(tenant.used()?.iter().sum::<Duration>()));
    each.sum()
}

/// The machine's memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    available: u64,
    total: u64,
}

impl Memory {
    /// From the text of `/proc/meminfo`.
    fn parse(text: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { available: bytes("MemAvailable")?, total: bytes("MemTotal")? })
    }

    /// The available part, per cent.
    fn spare(self) -> f64 {
        100.0 * self.available as f64 / self.total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(slow: usize, available: u64) -> Observed {
        let memory = Memory { available, total: 1_000 };
        let mut answers = vec![Duration::from_millis(5); 100 - slow];
        answers.extend(vec![SLOW * 2; slow]);
        Observed { tenants: 1, answers, memory, cpu: Duration::ZERO }
    }

    #[test]
    fn one_slow_answer_of_a_hundred_is_no_limit_and_two_are() {
        assert_eq!(observed(1, 150).limit(), None);
        assert_eq!(observed(2, 150).limit(), Some(Limit::Slow));
        assert_eq!(observed(0, 149).limit(), Some(Limit::Memory));
        assert_eq!(observed(2, 149).limit(), Some(Limit::Slow));
    }

    #[test]
    fn memory_is_what_the_kernel_calls_available() {
        let text = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    250 kB\n";
        let memory = Memory::parse(text).unwrap();
        assert_eq!(memory, Memory { available: 256_000, total: 1_024_000 });
        assert_eq!(memory.spare(), 25.0);
        assert_eq!(Memory::parse("MemTotal: 1000 kB\n"), None);
    }
}
