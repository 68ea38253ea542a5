//! `admissionregistration.k8s.io`.

use super::row::{Rows, cluster};
use crate::strategy::{policies, webhooks};

pub(super) fn rows() -> Rows {
    let kind = |kind, plural| cluster(kind, plural).category("api-extensions");
    Rows::of(
        "admissionregistration.k8s.io",
        "v1",
        vec![
            kind("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
                .strategy(webhooks::configuration()),
            kind("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
                .status()
                .strategy(policies::policy()),
            kind("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
                .strategy(policies::binding()),
            kind("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
                .strategy(webhooks::configuration()),
        ],
    )
}
