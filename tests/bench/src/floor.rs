//! What no server can undercut on this machine: a synced write, and a round trip over loopback.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::bench::Bench;
use crate::drive::Sample;
use crate::figures::{Figures, Unit};
use crate::machine;

/// No append begins later than this: a busy disk may take a hundred times longer.
const WITHIN: Duration = Duration::from_secs(10);
/// Size of an answer that carries no value.
const ANSWER: usize = 64;

/// Enters the floor: appends of `entry` bytes with fdatasync, by the server's processor, and round
/// trips with a request of that size between the two processors.
///
/// Measured next to each turn and thus in both columns, the ratio shows how steady the machine is.
///
/// # Errors
/// The file or the socket cannot be used.
pub fn measure(bench: &Bench, entry: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = bench.scratch("floor")?;
    let (count, server) = (bench.either(2_000, 300), bench.processors.server);
    let syncs = on_processor(server, || synced_appends(&dir.join("log"), entry, count))?;
    floor(figures, &format!("floor: append {entry} B, fdatasync"), syncs);
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    // Succeeds before it is accepted, so that nobody waits for a client that does not come.
    let stream = TcpStream::connect(listener.local_addr()?).context("connecting")?;
    let trips = std::thread::scope(|scope| {
        let echo = scope.spawn(move || -> anyhow::Result<()> {
            machine::stay_on(server)?;
            answer(listener, entry)
        });
        let trips = round_trips(stream, entry, bench.either(20_000, 2_000));
        echo.join().expect("the thread returns its errors")?;
        trips
    })?;
    floor(figures, &format!("floor: loopback round trip, {entry} B"), trips);
    Ok(())
}

fn floor(figures: &mut Figures, name: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let elapsed = latencies.iter().sum();
    let sample = Sample { latencies, elapsed, server: Duration::ZERO };
    figures.add(name, "", Unit::OpsPerSecond, sample.per_second());
    figures.latency(name, &sample.latencies);
}

/// Runs something on another processor.
fn on_processor<T: Send>(
    processor: usize,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            machine::stay_on(processor)?;
            work()
        });
        thread.join().expect("the thread returns its errors")
    })
}

/// Into a file that is allocated before, as a log's is.
fn synced_appends(path: &Path, entry: usize, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let length = i64::try_from(entry * count).context("too long")?;
    nix::fcntl::posix_fallocate(&file, 0, length).context("allocating")?;
    file.sync_all()?;
    let bytes = vec![7; entry];
    let started = Instant::now();
    let append = |_| {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        Ok(began.elapsed())
    };
    (0..count).take_while(|_| started.elapsed() < WITHIN).map(append).collect()
}

/// Until the client closes.
fn answer(listener: TcpListener, entry: usize) -> anyhow::Result<()> {
    let (mut stream, _) = listener.accept().context("accepting")?;
    stream.set_nodelay(true)?;
    let mut request = vec![0; entry];
    while stream.read_exact(&mut request).is_ok() {
        stream.write_all(&[1; ANSWER])?;
    }
    Ok(())
}

fn round_trips(mut stream: TcpStream, entry: usize, count: usize) -> anyhow::Result<Vec<Duration>> {
    stream.set_nodelay(true)?;
    let (request, mut reply) = (vec![7; entry], [0; ANSWER]);
    let trip = |_| {
        let began = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut reply)?;
        Ok(began.elapsed())
    };
    (0..count).map(trip).collect()
}
