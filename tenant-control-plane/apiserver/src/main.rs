//! kube-apiserver.

use clap::Parser;
use kube_apiserver::config::Config;
use kube_apiserver::flags::Flags;
use kube_apiserver::run;

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    run::init_logging(flags.v);
    let config = Config::from_flags(flags)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let shutdown = run::shutdown_on_signals()?;
        run::run(config, shutdown).await
    })
}
