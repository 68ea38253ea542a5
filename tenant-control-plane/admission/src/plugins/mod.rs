//! The table of plugins.
//!
//! A new plugin is one file here and one line in [`TABLE`], at the place that upstream's order
//! gives it.

use machinery::{GroupResource, Status};
use serde_json::Value;

use crate::attributes::Attributes;
use crate::chain::{Charge, Context};

mod certificates;
mod claim_resize;
mod default_class;
mod extended_resources;
mod external_ips;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod object_in_use;
mod pod_security;
mod pod_standards;
mod priority;
mod pull_images;
mod resource_quota;
mod runtime_class;
mod service_account;
mod taint_nodes;
mod tolerations;

/// One admission plugin.
pub(crate) trait Plugin: Send + Sync {
    /// Something absent that is worth waiting for: resource, namespace, name.
    fn awaits(
        &self,
        _context: &Context,
        _attributes: &Attributes<'_>,
        _object: &Value,
    ) -> Option<(GroupResource, String, String)> {
        None
    }

    /// Changes the object, or refuses it.
    fn mutate(
        &self,
        _context: &Context,
        _attributes: &Attributes<'_>,
        _object: &mut Value,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// What a new object adds to quotas.
    fn charges(
        &self,
        _context: &Context,
        _attributes: &Attributes<'_>,
        _object: &Value,
    ) -> Vec<Charge> {
        Vec::new()
    }

    /// True for a plugin that judges after policies and webhooks.
    fn comes_last(&self) -> bool {
        false
    }

    /// Judges the object (`None` for deletes).
    fn validate(
        &self,
        _context: &Context,
        _attributes: &Attributes<'_>,
        _object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        Ok(())
    }
}

type Make = fn() -> Box<dyn Plugin>;

/// Name, on by default, constructor; in the order in which they run.
const TABLE: &[(&str, bool, Make)] = &[
    ("NamespaceLifecycle", true, || Box::new(namespace_lifecycle::NamespaceLifecycle)),
    ("LimitRanger", true, || Box::new(limit_ranger::LimitRanger)),
    ("ServiceAccount", true, || Box::new(service_account::ServiceAccount)),
    ("NodeRestriction", false, || Box::new(node_restriction::NodeRestriction)),
    ("TaintNodesByCondition", true, || Box::new(taint_nodes::TaintNodesByCondition)),
    ("AlwaysPullImages", false, || Box::new(pull_images::AlwaysPullImages)),
    ("PodSecurity", true, || Box::new(pod_security::PodSecurity)),
    ("Priority", true, || Box::new(priority::Priority)),
    ("DefaultTolerationSeconds", true, || Box::new(tolerations::DefaultTolerationSeconds)),
    ("ExtendedResourceToleration", false, || {
        Box::new(extended_resources::ExtendedResourceToleration)
    }),
    ("DefaultStorageClass", true, || Box::new(default_class::DefaultStorageClass)),
    ("StorageObjectInUseProtection", true, || Box::new(object_in_use::InUseProtection)),
    ("PersistentVolumeClaimResize", true, || Box::new(claim_resize::ClaimResize)),
    ("RuntimeClass", true, || Box::new(runtime_class::RuntimeClass)),
    ("CertificateApproval", true, || Box::new(certificates::CertificateApproval)),
    ("CertificateSigning", true, || Box::new(certificates::CertificateSigning)),
    ("CertificateSubjectRestriction", true, || {
        Box::new(certificates::CertificateSubjectRestriction)
    }),
    ("DefaultIngressClass", true, || Box::new(default_class::DefaultIngressClass)),
    ("DenyServiceExternalIPs", false, || Box::new(external_ips::DenyServiceExternalIPs)),
    ("ResourceQuota", true, || Box::new(resource_quota::ResourceQuota::default())),
];

/// Upstream's plugins that may be named in flags but are not here.
const ABSENT: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "ClusterTrustBundleAttest",
    "EventRateLimit",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "OwnerReferencesPermissionEnforcement",
    "PodNodeSelector",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

pub(crate) fn all() -> impl Iterator<Item = (&'static str, bool, Make)> {
    TABLE.iter().copied()
}

/// Every name that the admission flags accept.
pub fn known_plugins() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, ..)| *name).chain(ABSENT.iter().copied())
}

/// The names of the plugins that run unless disabled.
pub fn default_plugins() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|(_, default, _)| *default).map(|(name, ..)| *name)
}
