//! The command line of a local driver.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::Backend;
use crate::driver::LocalDriver;
use crate::keeper;
use crate::record::Worker;

#[derive(Parser)]
#[command(version, about = "Runs Marina's workers on this host.")]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Flags {
    /// The Unix socket to serve on.
    #[arg(long, required = true)]
    socket: Option<PathBuf>,
    /// Where the workers' files are kept.
    #[arg(long, required = true)]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// One step of a worker's life in a process of its own; used by the driver itself.
    #[command(hide = true)]
    Helper { name: String, worker_dir: PathBuf },
}

/// Parses the command line and runs the driver, or one of its helper processes, with the backend
/// that `backend` makes for a state directory.
pub fn run(backend: impl FnOnce(PathBuf) -> Box<dyn Backend>) -> ExitCode {
    let flags = Flags::parse();
    let result = match (flags.command, flags.socket, flags.state_dir) {
        (Some(Command::Helper { name, worker_dir }), ..) => helper(backend, &name, worker_dir),
        (None, Some(socket), Some(state_dir)) => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
            serve(backend, socket, state_dir)
        }
        _ => Err(anyhow::anyhow!("--socket and --state-dir are required")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs on a single thread: helpers enter namespaces.
fn helper(
    backend: impl FnOnce(PathBuf) -> Box<dyn Backend>,
    name: &str,
    worker_dir: PathBuf,
) -> anyhow::Result<()> {
    let backend = backend(worker_dir.parent().map(PathBuf::from).unwrap_or_default());
    if name == "keep" {
        return keeper::keep(&*backend, &worker_dir);
    }
    let worker = Worker::load(&worker_dir)?;
    backend
        .helper(name, &worker)
        .unwrap_or_else(|| Err(anyhow::anyhow!("there is no helper {name}")))
}

#[tokio::main(flavor = "current_thread")]
async fn serve(
    backend: impl FnOnce(PathBuf) -> Box<dyn Backend>,
    socket: PathBuf,
    state_dir: PathBuf,
) -> anyhow::Result<()> {
    // Helpers get paths below it and run elsewhere.
    std::fs::create_dir_all(&state_dir)?;
    let state_dir = state_dir.canonicalize()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tracing::info!(socket = %socket.display(), state_dir = %state_dir.display(), "driver ready");
    let driver = LocalDriver::new(backend(state_dir.clone()), state_dir);
    driver_api::serve(&socket, driver, shutdown).await
}
