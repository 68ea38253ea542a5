//! The portal executable.

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    portal::run::main(portal::flags::Flags::parse()).await
}
