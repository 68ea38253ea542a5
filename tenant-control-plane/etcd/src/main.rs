//! The `etcd` binary.

use clap::Parser;
use etcd::config::Config;
use etcd::flags::Flags;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let level = flags.log_level.clone();
    let filter = EnvFilter::new(format!("{level},openraft=error,h2=warn,hyper=warn,rustls=warn"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if flags.log_format == "json" {
        logs.json().init();
    } else {
        logs.init();
    }
    let config = Config::from_flags(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            stop.cancel();
        });
        etcd::run::run(config, shutdown).await
    })
}
