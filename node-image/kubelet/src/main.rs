//! The `kubelet` binary: flags, logging, and [`kubelet::run::run`].

use clap::Parser as _;
use kubelet::config::Config;
use kubelet::flags::Flags;

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    component::logging::init(&flags.log);
    let config = Config::load(flags)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let stop = component::shutdown::on_signals()?;
        kubelet::run::run(config, stop).await
    });
    // Tasks that still wait for something are left behind: pods do not depend on them.
    runtime.shutdown_background();
    outcome
}
