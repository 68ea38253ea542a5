//! Talks to a running driver by hand: `cargo run -p driver-api --example worker -- --help`.
//!
//! With `ensure --make-network` it makes the network namespace and the bridge first, so that a
//! single worker can be tried without anything else of Marina:
//!
//! ```text
//! marina-driver-sandbox --socket /tmp/d.sock --state-dir /var/tmp/workers &
//! worker --socket /tmp/d.sock ensure w1 --image-dir <image> --user-data user.json --make-network
//! nsenter -a -t <pid> bash                       # a shell on a sandbox worker
//! cp kubelet /proc/<pid>/root/usr/local/bin/k && mv /proc/<pid>/root/usr/local/bin/{k,kubelet}
//! kill <pid of the worker's kubelet>             # node-init starts the new one
//! worker --socket /tmp/d.sock delete w1 && ip netns delete marina-try
//! ```

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use driver_api::pb::{DeleteRequest, EnsureRequest, ListRequest, ProbeRequest};
use driver_api::{WorkerSpec, WorkerStatus, connect};

#[derive(Parser)]
struct Flags {
    #[arg(long)]
    socket: PathBuf,
    #[command(subcommand)]
    call: Call,
}

#[derive(Subcommand)]
enum Call {
    Probe,
    List,
    Delete {
        worker_id: String,
    },
    Ensure {
        worker_id: String,
        #[arg(long)]
        image_dir: PathBuf,
        /// JSON as described in node-image/init/src/user_data.rs.
        #[arg(long)]
        user_data: PathBuf,
        #[arg(long, default_value = "marina-try")]
        netns: String,
        #[arg(long, default_value = "br0")]
        bridge: String,
        #[arg(long, default_value = "52:54:00:00:00:05")]
        mac: String,
        #[arg(long, default_value_t = 2)]
        vcpus: u32,
        #[arg(long, default_value_t = 2048)]
        memory_mib: u64,
        #[arg(long, default_value_t = 10)]
        disk_gib: u64,
        /// Make the namespace and a bridge with 10.0.0.1/16 unless they exist.
        #[arg(long)]
        make_network: bool,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let mut driver = connect(&flags.socket);
    match flags.call {
        Call::Probe => println!("{:#?}", driver.probe(ProbeRequest {}).await?.into_inner()),
        Call::List => {
            driver.list(ListRequest {}).await?.into_inner().workers.iter().for_each(print);
        }
        Call::Delete { worker_id } => {
            driver.delete(DeleteRequest { worker_id }).await?;
        }
        Call::Ensure {
            worker_id,
            image_dir,
            user_data,
            netns,
            bridge,
            mac,
            vcpus,
            memory_mib,
            disk_gib,
            make_network,
        } => {
            if make_network {
                network(&netns, &bridge)?;
            }
            let spec = WorkerSpec {
                worker_id,
                cluster_id: "try".into(),
                netns,
                bridge,
                mac,
                vcpus,
                memory_mib,
                disk_gib,
                image_dir: std::path::absolute(image_dir)?.to_string_lossy().into_owned(),
                user_data: std::fs::read(&user_data).context("reading the user-data")?,
            };
            let answer = driver.ensure(EnsureRequest { spec: Some(spec) }).await?.into_inner();
            print(&answer.status.context("the driver answered without a status")?);
        }
    }
    Ok(())
}

fn print(worker: &WorkerStatus) {
    let phase = worker.phase();
    println!("{} {phase:?} pid {} : {}", worker.worker_id, worker.pid, worker.message);
}

fn network(netns: &str, bridge: &str) -> anyhow::Result<()> {
    if std::path::Path::new("/run/netns").join(netns).exists() {
        return Ok(());
    }
    for command in [
        format!("ip netns add {netns}"),
        format!("ip -n {netns} link set lo up"),
        format!("ip -n {netns} link add {bridge} type bridge"),
        format!("ip -n {netns} addr add 10.0.0.1/16 dev {bridge}"),
        format!("ip -n {netns} link set {bridge} up"),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        if !Command::new(words[0]).args(&words[1..]).status()?.success() {
            bail!("{command} failed");
        }
    }
    Ok(())
}
