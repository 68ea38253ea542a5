//! An API server with its store, as a helper of subjects that need one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use lab::control::{self, Files};
use lab::mix::{Mix, Part};
use lab::process::Process;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::machine;

const START_WITHIN: Duration = Duration::from_secs(120);

/// etcd and kube-apiserver on the client's processor, an administrator's client, and no controllers.
pub struct Cluster {
    /// The administrator's client.
    pub client: Client,
    kubeconfig: PathBuf,
    api_server: Process,
    // Last, so that the API server ends first.
    _etcd: Process,
}

impl Cluster {
    /// Starts both, from the origins in `mix`, and waits until the API server is ready.
    ///
    /// # Errors
    /// One does not start.
    pub fn start(bench: &Bench, mix: &Mix) -> anyhow::Result<Self> {
        // It stands in the certificate and must not be a loopback address.
        machine::ip(&["address", "add", &format!("{}/16", control::ADDRESS), "dev", "lo"])?;
        let dir = bench.scratch("cluster")?;
        let files = Files::write(&dir)?;
        let kubeconfig = dir.join("admin.kubeconfig");
        files.admin_kubeconfig(&format!("https://127.0.0.1:{}", control::PORT), &kubeconfig)?;
        let etcd = bench.helper(control::spec(Part::Etcd, mix, &bench.places, &files)?)?;
        let server = control::spec(Part::ApiServer, mix, &bench.places, &files)?;
        let mut api_server = bench.helper(server)?;
        let client = component::client::from_kubeconfig(&kubeconfig, "marina-bench");
        let client = bench.block_on(client)?;
        let pace = (Duration::from_millis(200), START_WITHIN);
        bench.wait("a ready API server", &mut api_server, pace, async || {
            let ready = http::Request::get("/readyz").body(Vec::new())?;
            if client.request_text(ready).await.is_err() {
                return Ok(None);
            }
            let namespaces: Api<Namespace> = Api::all(client.clone());
            Ok(namespaces.get_opt("default").await.ok().flatten())
        })?;
        Ok(Self { client, kubeconfig, api_server, _etcd: etcd })
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// An error when the API server has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.api_server.check()
    }

    /// Creates an object from its JSON.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create<K>(&self, api: &Api<K>, object: Value) -> anyhow::Result<K>
    where
        K: Resource + serde::Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let object = serde_json::from_value(object).context("a wrong object")?;
        Ok(api.create(&PostParams::default(), &object).await?)
    }

    /// Creates a Node that is ready, without a kubelet.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create_node(&self, name: &str, address: &str) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.create(&nodes, node).await.with_context(|| format!("creating node {name}"))?;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Bench", "message": ""}],
        }});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }
}
