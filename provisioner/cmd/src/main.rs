//! `provisioner`: the controller, the host agent, and what sets them up.

mod host;
mod init;
mod kubeconfig;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use provisioner_agent::{AgentConfig, AgentFlags};
use provisioner_controller::{ControllerConfig, ControllerFlags};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Makes clusters so: plans what customers ask for, and runs it on hosts.
///
/// A region needs one `provisioner init`, one `provisioner controller` beside the database, and
/// one `provisioner agent` on each host. All of them may be stopped and started at any time;
/// tenants go on running.
#[derive(Debug, Parser)]
#[command(name = "provisioner", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log, such as `info` or `provisioner_agent=debug`.
    #[arg(long, global = true, default_value = "info")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new region: its CA, its secret key, its database, and the first host.
    Init(init::InitFlags),
    /// Plan and carry out what customers ask for.
    Controller(Box<ControllerFlags>),
    /// Run tenants on this host.
    Agent(Box<AgentFlags>),
    /// Add, list, cordon or remove hosts.
    Host(host::HostFlags),
    /// Print a kubeconfig for a tenant, for the region's operator.
    Kubeconfig(kubeconfig::KubeconfigFlags),
    /// Become a tenant's process (used by the agent).
    #[command(hide = true)]
    Launch {
        /// What to become.
        #[arg(long)]
        spec: PathBuf,
    },
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    // Before any thread exists: the launcher changes namespaces and users of its whole process.
    if let Command::Launch { spec } = &cli.command {
        let Err(error) = provisioner_agent::launch(spec);
        eprintln!("provisioner launch: {error:#}");
        return std::process::ExitCode::FAILURE;
    }
    let filter = match EnvFilter::try_new(&cli.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("provisioner: --log: {error}");
            return std::process::ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // The only one that is linked; fails only if it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("provisioner: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("provisioner: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    match command {
        Command::Init(flags) => init::init(flags).await,
        Command::Host(flags) => host::run(flags).await,
        Command::Kubeconfig(flags) => kubeconfig::print(flags).await,
        Command::Controller(flags) => {
            let config = ControllerConfig::from_flags(*flags)?;
            cancel_on_signal(&shutdown)?;
            provisioner_controller::run(config, shutdown).await
        }
        Command::Agent(flags) => {
            let config = AgentConfig::from_flags(*flags)?;
            cancel_on_signal(&shutdown)?;
            provisioner_agent::run(config, shutdown).await
        }
        Command::Launch { .. } => unreachable!("handled before the runtime was made"),
    }
}

fn cancel_on_signal(shutdown: &CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
