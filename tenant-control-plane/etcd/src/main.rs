//! The `etcd` binary.

use etcd::config::Config;
use etcd::flags::Flags;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let (flags, notes) = Flags::read(std::env::args_os()).unwrap_or_else(|error| stop(&error));
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
    for note in notes {
        tracing::warn!("{note}");
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

/// Says what is wrong with the flags, or what was asked for with --help.
fn stop(error: &anyhow::Error) -> ! {
    match error.downcast_ref::<clap::Error>() {
        Some(error) => error.exit(),
        None => {
            eprintln!("etcd: {error:#}");
            std::process::exit(2)
        }
    }
}
