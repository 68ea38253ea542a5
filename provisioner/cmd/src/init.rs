//! `provisioner init`: everything that a region needs before its first start.

use std::{
    fs,
    io::Write,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use marina_db::{Db, now_ms, seal::Sealer};
use provisioner_pki::{Authority, Issued, RegionPki};

/// Flags of `provisioner init`. Running it again changes nothing that exists.
#[derive(Debug, clap::Args)]
pub struct InitFlags {
    /// Directory to make: marina.db, secret.key, pki/ for the controller, agents/<host>/pki/ for
    /// each host's agent.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Name of the first host.
    #[arg(long, default_value = "h1")]
    pub host: String,
    /// Where the first host's agent will listen.
    #[arg(long, default_value = "127.0.0.1:7443")]
    pub agent: SocketAddr,
    /// Failure zone of the first host.
    #[arg(long, default_value = "z1")]
    pub zone: String,
}

/// Makes what is missing.
pub async fn init(flags: InitFlags) -> anyhow::Result<()> {
    let dir = &flags.data_dir;
    private_dir(dir)?;
    Sealer::create_key_file(&dir.join("secret.key")).context("secret key")?;
    let pki = dir.join("pki");
    private_dir(&pki)?;
    let now = now_ms() / 1000;
    if !pki.join("region-ca.crt").exists() {
        let region = RegionPki::new(now)?;
        // The certificate last: as long as it is missing, the next run starts over.
        write(&pki.join("region-ca.key"), &region.ca.key_pem)?;
        write_pair(&pki, "controller", &region.controller(now)?)?;
        write(&pki.join("region-ca.crt"), &region.ca.cert_pem)?;
    }
    let db = Db::open(&dir.join("marina.db")).await.context("database")?;
    add_host(&db, dir, &flags.host, flags.agent, &flags.zone).await?;
    let at = dir.display();
    let (host, agent) = (&flags.host, flags.agent);
    println!("Region made in {at}. Start it with:");
    println!(
        "  provisioner controller --database {at}/marina.db --secret-key-file {at}/secret.key \
         --pki-dir {at}/pki"
    );
    println!(
        "  provisioner agent --host {host} --listen {agent} --data-dir {at}/agents/{host} \
         --release-dir <binaries> --image-dir <node image> --driver sandbox=<marina-driver-sandbox>"
    );
    Ok(())
}

/// Registers a host and makes its agent's certificate, in `agents/<host>/pki`.
pub async fn add_host(
    db: &Db,
    dir: &Path,
    name: &str,
    agent: SocketAddr,
    zone: &str,
) -> anyhow::Result<()> {
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    anyhow::ensure!(
        !name.is_empty() && name.len() <= 63 && name.bytes().all(label),
        "host name {name:?}: 1 to 63 of a-z, 0-9 and '-'"
    );
    let region = read_region(&dir.join("pki"))?;
    let pki = dir.join("agents").join(name).join("pki");
    private_dir(&pki)?;
    if !pki.join("agent.crt").exists() {
        let ips: Vec<IpAddr> = vec![agent.ip()];
        write(&pki.join("region-ca.crt"), &region.ca.cert_pem)?;
        write_pair(&pki, "agent", &region.agent(name, &ips, now_ms() / 1000)?)?;
    }
    let mut tx = db.write().await?;
    tx.register_host(name, &format!("https://{agent}"), zone).await?;
    Ok(tx.commit().await?)
}

fn read_region(pki: &Path) -> anyhow::Result<RegionPki> {
    let read = |name: &str| {
        let path = pki.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    Ok(RegionPki {
        ca: Authority { cert_pem: read("region-ca.crt")?, key_pem: read("region-ca.key")? },
    })
}

fn private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making {}", dir.display()))
}

/// The key first: a certificate without its key would count as finished.
fn write_pair(dir: &Path, name: &str, issued: &Issued) -> anyhow::Result<()> {
    write(&dir.join(format!("{name}.key")), &issued.key_pem)?;
    write(&dir.join(format!("{name}.crt")), &issued.cert_pem)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}
