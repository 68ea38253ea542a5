//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve and
//! sign which CertificateSigningRequests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::{RequestInfo, Status};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::Plugin;
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::text;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let updates = attributes.operation() == Operation::Update;
        if !updates || !attributes.is_sub(GROUP, RESOURCE, "approval") {
            return Ok(());
        }
        require(context, attributes, object, "approve")
    }
}

pub(super) struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let updates = attributes.operation() == Operation::Update;
        if !updates || !attributes.is_sub(GROUP, RESOURCE, "status") {
            return Ok(());
        }
        let (Some(old), Some(new)) = (attributes.old, object) else { return Ok(()) };
        let same_conditions = failed(old) == failed(new);
        if old["status"]["certificate"] == new["status"]["certificate"] && same_conditions {
            return Ok(());
        }
        require(context, attributes, object, "sign")
    }
}

/// The `Failed` conditions: to set one is the signer's right, too.
fn failed(request: &Value) -> Vec<&Value> {
    let conditions = request["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == "Failed").collect()
}

/// The user needs the verb on the signer, or on all signers of its domain.
fn require(
    context: &Context,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    verb: &str,
) -> Result<(), Status> {
    // The signer is immutable: what is stored counts.
    let signer = text(&attributes.old.unwrap_or(&Value::Null)["spec"]["signerName"]);
    let domain = signer.split_once('/').map_or("", |(domain, _)| domain);
    let allowed = [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
        let request = RequestInfo {
            is_resource_request: true,
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name,
            ..RequestInfo::default()
        };
        context.access.allowed(attributes.user, &request)
    });
    if allowed {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName \"{signer}\"");
    Err(attributes.forbidden(object, &why))
}

pub(super) struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn validate(
        &self,
        _context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(csr) = object.filter(|_| attributes.is(GROUP, RESOURCE)) else { return Ok(()) };
        let creates = attributes.operation() == Operation::Create;
        if !creates || text(&csr["spec"]["signerName"]) != CLIENT_SIGNER {
            return Ok(());
        }
        let Some(subject) = subject(csr) else {
            return Err(attributes.forbidden(object, "could not parse CSR: not a PKCS#10 request"));
        };
        if subject.organizations.iter().any(|o| o == "system:masters") {
            let why =
                format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
            return Err(attributes.forbidden(object, &why));
        }
        Ok(())
    }
}

/// The subject of a PKCS#10 request.
pub(super) struct Subject {
    /// Common name, empty when there is none.
    pub(super) common_name: String,
    /// Organizations.
    pub(super) organizations: Vec<String>,
}

/// The subject that `spec.request` asks a certificate for.
pub(super) fn subject(csr: &Value) -> Option<Subject> {
    let pem = STANDARD.decode(text(&csr["spec"]["request"])).ok()?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
    let name = &request.certification_request_info.subject;
    Some(Subject {
        common_name: name
            .iter_common_name()
            .last()
            .and_then(|cn| cn.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        organizations: name
            .iter_organization()
            .filter_map(|o| o.as_str().ok())
            .map(str::to_owned)
            .collect(),
    })
}
