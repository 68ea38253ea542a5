//! `certificates.k8s.io`.

use super::row::{Action, Rows, Verbs, cluster};
use crate::strategy;

pub(super) fn rows() -> Rows {
    let kind = "CertificateSigningRequest";
    Rows::of(
        "certificates.k8s.io",
        "v1",
        vec![
            cluster(kind, "certificatesigningrequests")
                .short(&["csr"])
                .sub("approval", Action::Approval, None, kind.into(), Verbs::STATUS)
                .status()
                .field("spec.signerName", "/spec/signerName")
                .strategy(strategy::certificates::signing_request()),
        ],
    )
}
