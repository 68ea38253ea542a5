//! Options that come with requests: DeleteOptions, list options, field validation.

use machinery::{FieldSelector, LabelSelector, Status};
use serde_json::{Value, json};

use super::Call;
use crate::cache::{Filter, ResourceCache};

/// What to do about fields that a kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse the request.
    Strict,
}

/// Reads `fieldValidation`.
pub fn field_validation(call: &Call) -> Result<FieldValidation, Status> {
    match call.query.get("fieldValidation") {
        None | Some("" | "Warn") => Ok(FieldValidation::Warn),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some(other) => Err(Status::bad_request(format!(
            "invalid fieldValidation {other:?}: supported values: \"Ignore\", \"Warn\", \"Strict\""
        ))),
    }
}

/// Compiles the request's selectors for a cache.
pub fn filter(call: &Call, cache: &ResourceCache) -> Result<Filter, Status> {
    let labels = LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default())
        .map_err(|e| Status::bad_request(format!("unable to parse requirement: {e}")))?;
    let fields = FieldSelector::parse(call.query.get("fieldSelector").unwrap_or_default())
        .map_err(|e| Status::bad_request(e.to_string()))?;
    let namespace = &call.info.namespace;
    let namespace = (call.row.namespaced && !namespace.is_empty()).then(|| namespace.clone());
    let mut filter = Filter::new(namespace, labels, &fields, &cache.fields, &call.row.fields)
        .map_err(|field| Status::bad_request(format!("field label not supported: {field}")))?;
    // `/watch/` paths and lists by name ask for one object.
    if filter.name.is_none() && !call.info.name.is_empty() {
        filter.name = Some(call.info.name.clone());
    }
    Ok(filter)
}

/// What becomes of the objects that a deleted object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are collected afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// `meta/v1 DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds to end in.
    pub grace_s: Option<i64>,
    /// What happens to owned objects; `None`: the kind's default.
    pub propagation: Option<Propagation>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must have this resourceVersion.
    pub resource_version: Option<String>,
    /// Only try.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// The options as an object.
    pub fn to_json(&self) -> Value {
        let mut object = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace_s {
            object["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            object["propagationPolicy"] = match propagation {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            }
            .into();
        }
        for (key, value) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(value) = value {
                object["preconditions"][key] = value.clone().into();
            }
        }
        if self.dry_run {
            object["dryRun"] = json!(["All"]);
        }
        object
    }

    /// From body (may be `null`) and query; the query is for clients that send no body.
    pub fn read(body: &Value, call: &Call) -> Result<Self, Status> {
        let query_grace = call.query.number("gracePeriodSeconds")?;
        let grace_s = body["gracePeriodSeconds"].as_i64().or(query_grace);
        if grace_s.is_some_and(|s| s < 0) {
            return Err(Status::bad_request("gracePeriodSeconds must not be negative"));
        }
        let policy = body["propagationPolicy"].as_str().or(call.query.get("propagationPolicy"));
        let orphan = body["orphanDependents"]
            .as_bool()
            .or(call.query.get("orphanDependents").map(|_| call.query.flag("orphanDependents")));
        let propagation = match (policy, orphan) {
            (Some(_), Some(_)) => {
                return Err(Status::bad_request(
                    "orphanDependents and propagationPolicy cannot be both set",
                ));
            }
            (None | Some(""), None) => None,
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), None) => {
                return Err(Status::bad_request(format!(
                    "invalid propagationPolicy {other:?}: supported values: \"Foreground\", \
                     \"Background\", \"Orphan\""
                )));
            }
        };
        let dry = body["dryRun"].as_array().is_some_and(|d| !d.is_empty());
        let text = |v: &Value| v.as_str().map(str::to_owned);
        Ok(Self {
            grace_s,
            propagation,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: dry || call.query.dry_run()?,
        })
    }
}
