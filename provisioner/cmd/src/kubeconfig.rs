//! `provisioner kubeconfig`: an operator's way into a tenant when the portal cannot be used.

use std::path::PathBuf;

use anyhow::Context;
use marina_db::{Db, now_ms, seal::Sealer};
use provisioner_pki::{AdminKubeconfig, ClusterPki, kubeconfig};

/// Flags of `provisioner kubeconfig`.
#[derive(Debug, clap::Args)]
pub struct KubeconfigFlags {
    /// The region's directory, as given to `provisioner init`.
    #[arg(long)]
    data_dir: PathBuf,
    /// Id of the cluster.
    #[arg(long)]
    cluster: String,
    /// How long it works, minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i64).range(1..=1440))]
    minutes: i64,
}

/// Prints a kubeconfig of a short-lived administrator.
pub async fn print(flags: KubeconfigFlags) -> anyhow::Result<()> {
    let sealer = Sealer::load(&flags.data_dir.join("secret.key"))?;
    let path = flags.data_dir.join("marina.db");
    anyhow::ensure!(path.exists(), "{} does not exist; see `provisioner init`", path.display());
    let db = Db::open(&path).await.context("database")?;
    let mut tx = db.read().await?;
    let cluster = tx.cluster(&flags.cluster.as_str().into()).await?;
    let observed = tx.cluster_observed(&cluster.id).await?;
    let pki = tx.secret(&sealer, cluster.id.as_str(), "pki").await?;
    let pki = ClusterPki::from_json(&pki.context("the cluster has no keys yet")?)?;
    let spec = AdminKubeconfig {
        name: &cluster.spec.name,
        user: "marina:operator",
        endpoint: &observed.endpoint,
        server_name: &observed.server_name,
        valid_secs: flags.minutes * 60,
    };
    print!("{}", kubeconfig::admin(&pki, &spec, now_ms() / 1000)?);
    Ok(())
}
