//! `provisioner host`: the region's hosts, for its operator.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::Subcommand;
use marina_db::{Db, now_ms};

/// Flags of `provisioner host`.
#[derive(Debug, clap::Args)]
pub struct HostFlags {
    /// The region's directory, as given to `provisioner init`.
    #[arg(long)]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Register a host and make its agent's certificate (copy agents/<name> to the host).
    Add {
        /// Name.
        name: String,
        /// Where its agent listens.
        #[arg(long)]
        agent: SocketAddr,
        /// Failure zone.
        #[arg(long, default_value = "z1")]
        zone: String,
    },
    /// Show hosts, what they can run and what is wrong with them.
    List,
    /// Place no new tenants on a host.
    Cordon {
        /// Name.
        name: String,
    },
    /// Place new tenants on a host again.
    Uncordon {
        /// Name.
        name: String,
    },
    /// Forget a host on which nothing is placed.
    Remove {
        /// Name.
        name: String,
    },
}

/// Carries one command out.
pub async fn run(flags: HostFlags) -> anyhow::Result<()> {
    let path = flags.data_dir.join("marina.db");
    anyhow::ensure!(path.exists(), "{} does not exist; see `provisioner init`", path.display());
    let db = Db::open(&path).await.context("database")?;
    match flags.command {
        HostCommand::Add { name, agent, zone } => {
            crate::init::add_host(&db, &flags.data_dir, &name, agent, &zone).await
        }
        HostCommand::List => list(&db).await,
        HostCommand::Cordon { name } => set_schedulable(&db, &name, false).await,
        HostCommand::Uncordon { name } => set_schedulable(&db, &name, true).await,
        HostCommand::Remove { name } => {
            let mut tx = db.write().await?;
            let host = tx.host_by_name(&name).await?;
            tx.remove_host(&host.id).await?;
            Ok(tx.commit().await?)
        }
    }
}

async fn set_schedulable(db: &Db, name: &str, schedulable: bool) -> anyhow::Result<()> {
    let mut tx = db.write().await?;
    let host = tx.host_by_name(name).await?;
    tx.set_host_schedulable(&host.id, schedulable).await?;
    Ok(tx.commit().await?)
}

async fn list(db: &Db) -> anyhow::Result<()> {
    for host in db.read().await?.hosts().await? {
        let seen = match host.last_seen_ms {
            0 => "never seen".to_owned(),
            at => format!("seen {} s ago", (now_ms() - at) / 1000),
        };
        let state = if host.schedulable { "" } else { ", cordoned" };
        println!(
            "{} ({}, zone {}, {seen}{state}): {} processors, {} MiB, {} GiB of disk free",
            host.name,
            host.agent_url,
            host.zone,
            host.report.vcpus,
            host.report.memory_mib,
            host.report.disk_gib
        );
        for driver in &host.report.drivers {
            let usable = if driver.usable { "usable" } else { "not usable" };
            println!("  driver {}: {usable}. {}", driver.name, driver.message);
        }
        if !host.report.message.is_empty() {
            println!("  {}", host.report.message);
        }
    }
    Ok(())
}
