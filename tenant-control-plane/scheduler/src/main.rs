//! kube-scheduler.

use clap::Parser;
use kube_scheduler::{config::Config, flags::Flags, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    component::logging::init(&flags.log);
    run::run(Config::from_flags(flags), component::shutdown::on_signals()?).await
}
