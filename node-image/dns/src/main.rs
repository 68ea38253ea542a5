//! The cluster-dns executable.

use clap::Parser;
use cluster_dns::flags::Flags;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    component::logging::init(&flags.log);
    let shutdown = component::shutdown::on_signals()?;
    cluster_dns::run::run(flags, shutdown).await
}
