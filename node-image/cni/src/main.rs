//! The node-agent executable.

use clap::Parser;
use node_agent::flags::Flags;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    component::logging::init(&flags.log);
    let shutdown = component::shutdown::on_signals()?;
    node_agent::run::run(flags, shutdown).await
}
