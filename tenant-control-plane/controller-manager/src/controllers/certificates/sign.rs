//! Signs approved requests of the built-in signers with the cluster's CA.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use component::workqueue::Requeue;
use component::{ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::x509::{Authority, Request};
use super::{condition, has_certificate, recognize};
use crate::config::SignerFiles;
use crate::context::{Context, Running, enqueue_changes};
use crate::writes::{Writer, ignore_missing};

/// Shortest life that a request may ask for.
const SHORTEST: Duration = Duration::from_secs(600);

/// Registers the controller, if there is a CA.
///
/// # Errors
/// When the CA's files cannot be used.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let Some(files) = context.config.signer.clone() else { return Ok(None) };
    read_authority(&files).context("--cluster-signing-cert-file, --cluster-signing-key-file")?;
    let requests = context.informer::<CertificateSigningRequest>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&requests, &queue);
    let writer = Writer::new(context.client.clone(), requests);
    Ok(Some(context.work("csr-signing", queue, 2, move |key: ObjectKey| {
        let (writer, files) = (writer.clone(), files.clone());
        async move {
            match writer.cache().get(&key) {
                Some(request) => sync(&writer, &files, &request).await,
                None => Ok(None),
            }
        }
    })))
}

/// The files are read for each certificate, so that a rotated CA is used at once.
fn read_authority(files: &SignerFiles) -> anyhow::Result<Authority> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
    };
    Authority::from_pem(&read(&files.cert)?, &read(&files.key)?)
}

/// How long a certificate lives: what is asked for, within the CA's limits.
fn life(asked: Option<i32>, longest: Duration) -> Duration {
    let asked = asked.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    asked.unwrap_or(longest).max(SHORTEST).min(longest)
}

async fn sync(
    writer: &Writer<CertificateSigningRequest>,
    files: &SignerFiles,
    csr: &CertificateSigningRequest,
) -> anyhow::Result<Requeue> {
    let approved = condition(csr, "Approved").is_some() && condition(csr, "Denied").is_none();
    if !approved || has_certificate(csr) || condition(csr, "Failed").is_some() {
        return Ok(None);
    }
    let usages = csr.spec.usages.clone().unwrap_or_default();
    let username = csr.spec.username.as_deref().unwrap_or_default();
    let mut signed = csr.clone();
    let status = signed.status.get_or_insert_default();
    let parsed = Request::from_pem(&csr.spec.request.0);
    let checked = match &parsed {
        Ok(request) => recognize::check(&csr.spec.signer_name, request, &usages, username),
        Err(error) => Some(Err(format!("{error:#}"))),
    };
    match (checked, parsed) {
        (None, _) => return Ok(None),
        (Some(Ok(())), Ok(request)) => {
            let life = life(csr.spec.expiration_seconds, files.duration);
            let pem = read_authority(files)?.sign(&request, &usages, life, Timestamp::now())?;
            status.certificate = Some(ByteString(pem.into_bytes()));
        }
        (Some(Err(why)), _) => fail(status.conditions.get_or_insert_default(), why),
        (Some(Ok(())), Err(error)) => {
            fail(status.conditions.get_or_insert_default(), format!("{error:#}"));
        }
    }
    ignore_missing(writer.replace_status(&signed).await)?;
    tracing::info!(csr = ?csr.metadata.name, signer = %csr.spec.signer_name, "handled a certificate request");
    Ok(None)
}

fn fail(conditions: &mut Vec<CertificateSigningRequestCondition>, why: String) {
    let now = Time(Timestamp::now());
    conditions.push(CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(why),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_stay_within_limits() {
        let year = Duration::from_secs(365 * 86400);
        assert_eq!(life(None, year), year);
        assert_eq!(life(Some(3600), year), Duration::from_secs(3600));
        assert_eq!(life(Some(1), year), SHORTEST);
        assert_eq!(life(Some(i32::MAX), year), year);
    }
}
