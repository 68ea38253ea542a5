//! Admission webhooks: what their configurations select, and the document that they are sent and
//! answer with. Calling them is the API server's.
//!
//! Source: `admissionregistration.k8s.io/v1`, `admission.k8s.io/v1 AdmissionReview`.

mod review;

use std::sync::Arc;
use std::time::Duration;

use machinery::LabelSelector;
use serde_json::Value;

pub use review::{Answer, Asker, Review, denied, dry_run_unsupported};

use crate::object::{items, text};
use crate::rule::Rule;

/// Seconds that a webhook gets when its configuration does not say.
const TIMEOUT_S: u64 = 10;

/// One webhook of a configuration.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Name of the configuration and place in it: stays the same while the configuration does.
    pub id: String,
    /// Name, in messages.
    pub name: String,
    /// `clientConfig`.
    pub client: Arc<Value>,
    /// `rules`.
    pub rules: Vec<Rule>,
    /// `matchPolicy: Equivalent`: a rule also selects requests for other versions of its
    /// resources, and the webhook sees the object in the rule's version.
    pub equivalent: bool,
    /// `namespaceSelector`; the error is why it is not one.
    pub namespaces: Result<LabelSelector, String>,
    /// `objectSelector`.
    pub objects: Result<LabelSelector, String>,
    /// `failurePolicy: Ignore`: a call that fails is as good as none.
    pub ignores_failure: bool,
    /// `sideEffects` is `None` or `NoneOnDryRun`.
    pub allows_dry_run: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// `admissionReviewVersions`, the preferred one first.
    pub versions: Vec<String>,
    /// `reinvocationPolicy: IfNeeded`: called again when the object was changed after it had seen
    /// it.
    pub reinvoke: bool,
    /// `matchConditions`, not compiled.
    pub conditions: Value,
}

impl Webhook {
    /// The webhooks of a configuration, mutating or validating, in order.
    pub fn list(configuration: &Value) -> Vec<Self> {
        let owner = text(&configuration["metadata"]["name"]);
        items(&configuration["webhooks"])
            .enumerate()
            .map(|(index, webhook)| Self::from_json(format!("{owner}/{index}"), webhook))
            .collect()
    }

    fn from_json(id: String, webhook: &Value) -> Self {
        let selector = |key: &str| match &webhook[key] {
            Value::Null => Ok(LabelSelector::everything()),
            selector => LabelSelector::from_json(selector).map_err(|e| e.to_string()),
        };
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_S);
        Self {
            id,
            name: text(&webhook["name"]).to_owned(),
            client: Arc::new(webhook["clientConfig"].clone()),
            rules: Rule::list(&webhook["rules"]),
            equivalent: webhook["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            ignores_failure: webhook["failurePolicy"] == "Ignore",
            allows_dry_run: matches!(text(&webhook["sideEffects"]), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(seconds),
            versions: items(&webhook["admissionReviewVersions"])
                .map(|v| text(v).to_owned())
                .collect(),
            reinvoke: webhook["reinvocationPolicy"] == "IfNeeded",
            conditions: webhook["matchConditions"].clone(),
        }
    }
}
