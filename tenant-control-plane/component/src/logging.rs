//! Log lines on standard error, with upstream's `-v` levels.

use clap::Args;
use tracing_subscriber::EnvFilter;

/// `-v`, as every Kubernetes component has it.
#[derive(Args, Clone, Debug)]
pub struct LogFlags {
    /// Log level: 0 to 2 is normal, 4 is debugging, 6 shows requests, 8 everything.
    #[arg(short = 'v', long = "v", default_value_t = 0, value_name = "LEVEL")]
    pub v: u8,
}

/// Starts logging to standard error. Call once, from `main`; later calls change nothing.
pub fn init(flags: &LogFlags) {
    // A directive covers every crate whose name starts with it: `kube` alone would be too much.
    let directives = match flags.v {
        0..=3 => "info,kube_client=warn,kube_runtime=error,hyper=warn,rustls=warn",
        4..=5 => {
            "debug,kube_client=info,kube_runtime=info,hyper=info,h2=info,rustls=info,tower=info"
        }
        6..=7 => "debug,h2=info,rustls=info",
        _ => "trace",
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
