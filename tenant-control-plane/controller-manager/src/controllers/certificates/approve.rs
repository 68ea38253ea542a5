//! Approves kubelets' requests for client certificates, if the requester may ask for one: a bootstrap
//! token for a new node, or the node itself for a renewal.

use std::sync::Arc;

use component::workqueue::Requeue;
use component::{ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Client};

use super::recognize::{KUBELET_CLIENT, kubelet_client};
use super::x509::Request;
use super::{condition, has_certificate};
use crate::context::{Context, Running, enqueue_changes};

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let requests = context.informer::<CertificateSigningRequest>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&requests, &queue);
    let client = context.client.clone();
    Ok(Some(context.work("csr-approving", queue, 2, move |key: ObjectKey| {
        let (client, requests) = (client.clone(), requests.clone());
        async move {
            match requests.get(&key) {
                Some(request) => sync(&client, &request).await,
                None => Ok(None),
            }
        }
    })))
}

/// The subresource that the requester needs `create` for, and why the request was approved.
fn permission(username: &str, request: &Request) -> (&'static str, &'static str) {
    if username == request.common_name {
        let why = "Auto approving self kubelet client certificate after SubjectAccessReview.";
        ("selfnodeclient", why)
    } else {
        ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")
    }
}

async fn sync(client: &Client, csr: &CertificateSigningRequest) -> anyhow::Result<Requeue> {
    let settled = has_certificate(csr)
        || ["Approved", "Denied", "Failed"].iter().any(|kind| condition(csr, kind).is_some());
    if settled || csr.spec.signer_name != KUBELET_CLIENT {
        return Ok(None);
    }
    let Ok(request) = Request::from_pem(&csr.spec.request.0) else { return Ok(None) };
    let usages = csr.spec.usages.clone().unwrap_or_default();
    if kubelet_client(&request, &usages).is_err() {
        return Ok(None);
    }
    let username = csr.spec.username.as_deref().unwrap_or_default();
    let (subresource, message) = permission(username, &request);
    if !is_allowed(client, &csr.spec, subresource).await? {
        tracing::debug!(csr = ?csr.metadata.name, subresource, "the requester may not ask for this");
        return Ok(None);
    }
    let now = Time(Timestamp::now());
    let mut approved = csr.clone();
    let status = approved.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    });
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = csr.metadata.name.as_deref().unwrap_or_default();
    api.replace_subresource("approval", name, &PostParams::default(), &approved).await?;
    tracing::info!(csr = name, node = %request.common_name, "approved a kubelet's client certificate");
    Ok(None)
}

async fn is_allowed(
    client: &Client,
    spec: &CertificateSigningRequestSpec,
    subresource: &str,
) -> anyhow::Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(subresource.to_owned()),
                version: Some("*".to_owned()),
                ..Default::default()
            }),
            non_resource_attributes: None,
        },
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
