//! kubeconfig files with an embedded client certificate.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    authority::{Issued, PkiError},
    cluster::{ADMIN_GROUP, ClusterPki},
};

/// A kubeconfig with one cluster, one user and one context.
#[derive(Clone, Debug)]
pub struct Kubeconfig<'a> {
    /// Name of the cluster entry and of the context.
    pub cluster: &'a str,
    /// Name of the user entry.
    pub user: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// Name to send as SNI and to verify instead of the server's host.
    pub tls_server_name: Option<&'a str>,
    /// CA of the API server, PEM.
    pub ca_pem: &'a str,
    /// Who the user is.
    pub client: &'a Issued,
}

impl Kubeconfig<'_> {
    /// The file's text (YAML; strings are quoted as JSON, which YAML includes).
    pub fn to_yaml(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).expect("a string serialises");
        let data = |pem: &str| STANDARD.encode(pem);
        let server_name = match self.tls_server_name {
            Some(name) => format!("    tls-server-name: {}\n", quoted(name)),
            None => String::new(),
        };
        let (cluster, user) = (quoted(self.cluster), quoted(self.user));
        format!(
            "apiVersion: v1\nkind: Config\n\
             clusters:\n- name: {cluster}\n  cluster:\n    server: {server}\n{server_name}    \
             certificate-authority-data: {ca}\n\
             users:\n- name: {user}\n  user:\n    client-certificate-data: {cert}\n    \
             client-key-data: {key}\n\
             contexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {user}\n\
             current-context: {cluster}\npreferences: {{}}\n",
            server = quoted(self.server),
            ca = data(self.ca_pem),
            cert = data(&self.client.cert_pem),
            key = data(&self.client.key_pem),
        )
    }
}

/// What a customer's kubeconfig is made from.
#[derive(Clone, Debug)]
pub struct AdminKubeconfig<'a> {
    /// Name of the context, such as the cluster's name.
    pub name: &'a str,
    /// User name inside the cluster, such as `marina:ada`.
    pub user: &'a str,
    /// The gateway, `https://host:port` (`cluster_observed.endpoint`).
    pub endpoint: &'a str,
    /// `cluster_observed.server_name`.
    pub server_name: &'a str,
    /// Lifetime of the certificate, seconds.
    pub valid_secs: i64,
}

/// Mints a kubeconfig whose user is in `system:masters` until it expires. A certificate cannot be
/// revoked: keep the lifetime short.
pub fn admin(
    pki: &ClusterPki,
    spec: &AdminKubeconfig<'_>,
    now_unix: i64,
) -> Result<String, PkiError> {
    let client = pki.client(spec.user, Some(ADMIN_GROUP), spec.valid_secs, now_unix)?;
    let config = Kubeconfig {
        cluster: spec.name,
        user: spec.user,
        server: spec.endpoint,
        tls_server_name: Some(spec.server_name),
        ca_pem: &pki.cluster.cert_pem,
        client: &client,
    };
    Ok(config.to_yaml())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_kubeconfig_names_gateway_and_server_name() {
        let now = 1_800_000_000;
        let pki = ClusterPki::new("3fa9c01d", now).unwrap();
        let spec = AdminKubeconfig {
            name: "demo",
            user: "marina:ada",
            endpoint: "https://127.0.0.1:8443",
            server_name: "3fa9c01d.marina.local",
            valid_secs: 3600,
        };
        let yaml = admin(&pki, &spec, now).unwrap();
        assert!(yaml.contains("\n    server: \"https://127.0.0.1:8443\"\n    tls-server-name: \"3fa9c01d.marina.local\"\n    certificate-authority-data: "), "{yaml}");
        assert!(yaml.contains("current-context: \"demo\"\n"));
        let stored = ClusterPki::from_json(&pki.to_json()).unwrap();
        assert_eq!(stored, pki);
    }
}
