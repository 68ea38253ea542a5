//! Asks the cluster for a client certificate of the node.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

/// Who signs client certificates of nodes.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// How long a request waits for its approval before another one is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A certificate chain and its key, both PEM.
pub struct Identity {
    /// Certificate first.
    pub chain: String,
    /// PKCS#8.
    pub key: String,
}

fn request(node_name: &str) -> anyhow::Result<(String, KeyPair)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, format!("system:node:{node_name}"));
    params.distinguished_name = name;
    let csr = params.serialize_request(&key).context("making a certificate request")?;
    Ok((csr.pem().context("encoding the certificate request")?, key))
}

fn is_decided(object: Option<&CertificateSigningRequest>) -> bool {
    let Some(status) = object.and_then(|o| o.status.as_ref()) else { return false };
    let refused =
        status.conditions.iter().flatten().any(|c| c.type_ == "Denied" || c.type_ == "Failed");
    refused || status.certificate.as_ref().is_some_and(|c| !c.0.is_empty())
}

/// Makes a key, asks for a certificate and waits until it is signed.
///
/// # Errors
/// When the API server cannot be asked, or the request is denied or not decided in time.
pub async fn obtain(client: Client, node_name: &str) -> anyhow::Result<Identity> {
    let (pem, key) = request(node_name)?;
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..Default::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: SIGNER.into(),
            usages: Some(vec!["digital signature".into(), "client auth".into()]),
            ..Default::default()
        },
        status: None,
    };
    let made = api
        .create(&PostParams::default(), &object)
        .await
        .context("creating a CertificateSigningRequest")?;
    let name = made.metadata.name.context("the CertificateSigningRequest has no name")?;
    tracing::info!(
        csr.name = name,
        "waiting for the certificate request to be approved and signed"
    );
    let decided = tokio::time::timeout(PATIENCE, await_condition(api, &name, is_decided)).await;
    let object = decided
        .with_context(|| format!("certificate request {name} was not decided in time"))??;
    let status = object
        .and_then(|o| o.status)
        .with_context(|| format!("certificate request {name} is gone"))?;
    let refused =
        status.conditions.iter().flatten().find(|c| c.type_ == "Denied" || c.type_ == "Failed");
    if let Some(refused) = refused {
        bail!(
            "certificate request {name} was refused: {}",
            refused.message.as_deref().unwrap_or("no reason given")
        );
    }
    let chain = status.certificate.context("the certificate is missing")?.0;
    let chain = String::from_utf8(chain).context("the certificate is not PEM")?;
    Ok(Identity { chain, key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;

    #[test]
    fn the_request_names_the_node() {
        let (pem, _) = request("w1").unwrap();
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, csr) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        let subject = csr.certification_request_info.subject.to_string();
        assert!(
            subject.contains("CN=system:node:w1") && subject.contains("O=system:nodes"),
            "{subject}"
        );
    }
}
