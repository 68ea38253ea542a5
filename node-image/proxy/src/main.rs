//! The kube-proxy executable.

use clap::Parser;
use kube_proxy::config::Config;
use kube_proxy::flags::Flags;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    component::logging::init(&flags.log);
    let shutdown = component::shutdown::on_signals()?;
    kube_proxy::run::run(Config::try_from(flags)?, shutdown).await
}
