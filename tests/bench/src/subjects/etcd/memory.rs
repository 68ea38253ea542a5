//! What a large key space takes: memory, disk, and time to start with it.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::{Member, client, requests};
use crate::bench::Bench;
use crate::drive::Load;
use crate::figures::{Figures, Unit};

/// Bytes of a block in the file system's count.
const BLOCK: u64 = 512;

/// Fills the member, and starts it again.
pub fn measure(bench: &Bench, member: &mut Member, figures: &mut Figures) -> anyhow::Result<()> {
    bench.settle(&member.process)?;
    let empty = member.process.pss()?;
    let within = Duration::from_secs(bench.either(900, 15));
    let load = Load { clients: 512, operations: bench.either(1_000_000, 100_000), within };
    let (client, values) = (client(16)?, requests::Values::new());
    let stored = Cell::new(0_usize);
    let put = async |_, index: usize| {
        let key = format!("/registry/pods/default/bench-{index:08}");
        client.kv().put(requests::put(&key, values.of(index))).await?;
        stored.set(stored.get() + 1);
        Ok(())
    };
    let sample = bench.measure(&member.process, load, put)?;
    figures.sample("put of a new key, 512 clients", &sample);
    let keys = stored.get() as f64;
    figures.add("keys stored", "", Unit::Count, keys);

    bench.settle(&member.process)?;
    let full = member.process.pss()?;
    figures.memory("PSS, all keys stored", "", full);
    figures.memory("PSS, all keys stored", "not of files", not_of_files(member.process.pid())?);
    let per_key = full.saturating_sub(empty) as f64 / keys;
    figures.add("PSS per key", "", Unit::Bytes, per_key);
    figures.memory("disk, all keys stored", "", disk(&member.data)?);

    member.process.stop();
    let before = member.process.used()?;
    member.process.start_again()?;
    let took = member.wait_until_ready(bench)?;
    figures.add("start with all keys to first answer", "", Unit::Seconds, took.as_secs_f64());
    let used = member.process.used()? - before;
    figures.add("start with all keys to first answer", "", Unit::CpuSeconds, used.as_secs_f64());
    bench.settle(&member.process)?;
    figures.memory("PSS, started with all keys", "", member.process.pss()?);
    Ok(())
}

/// The part of the proportional set size that the kernel cannot read again from a file.
fn not_of_files(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kib.context("smaps_rollup has no Pss_Anon")?.trim().parse::<u64>()? * 1024)
}

/// Bytes that a directory takes on disk, allocated ahead or not.
fn disk(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk(&entry.path())?,
            Ok(metadata) => metadata.blocks() * BLOCK,
            // Removed since the directory was read.
            Err(_) => 0,
        };
    }
    Ok(bytes)
}
