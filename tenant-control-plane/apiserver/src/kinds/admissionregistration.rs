//! `admissionregistration.k8s.io`.

use super::row::{Rows, cluster};
use crate::strategy::generic;

pub(super) fn rows() -> Rows {
    let kind = |kind, plural| {
        cluster(kind, plural).category("api-extensions").strategy(generic::counted())
    };
    Rows::of(
        "admissionregistration.k8s.io",
        "v1",
        vec![
            kind("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
            kind("ValidatingAdmissionPolicy", "validatingadmissionpolicies").status(),
            kind("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
            kind("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
        ],
    )
}
