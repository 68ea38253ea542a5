//! CertificateSigningRequests: approval of kubelets' client certificates, signing of what is
//! approved, and removal of old requests.

pub mod approve;
pub mod cleanup;
mod key;
mod recognize;
pub mod sign;
mod x509;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};

/// A condition of the request.
fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn has_certificate(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    status.and_then(|s| s.certificate.as_ref()).is_some_and(|bytes| !bytes.0.is_empty())
}
