//! Answers to the review kinds: pure functions from a posted body (and the caller) to the object
//! to answer with.
//!
//! Source: `authentication.k8s.io/v1` and `authorization.k8s.io/v1` API reference.

use machinery::{Cause, RequestInfo, Status, UserInfo};
use serde_json::{Map, Value, json};

use crate::authn::Authenticator;
use crate::authz::{Authorizer, Decision};

const GROUP: &str = "authorization.k8s.io";

/// Answers a TokenReview.
///
/// # Errors
/// 400 when the body holds no token.
pub fn token_review(authenticator: &Authenticator, body: &Value) -> Result<Value, Status> {
    let token = body["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = strings(&body["spec"]["audiences"]);
    let status = match authenticator.authenticate_token(token, &audiences) {
        Ok((user, good_for)) if !good_for.is_empty() || audiences.is_empty() => {
            let mut status = json!({"authenticated": true, "user": user_value(&user)});
            if !good_for.is_empty() {
                status["audiences"] = json!(good_for);
            }
            status
        }
        Ok(_) => json!({"user": {}, "error": "token audiences do not match"}),
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    };
    Ok(answer(body, status))
}

/// Answers a SelfSubjectReview: who am I?
pub fn self_subject_review(user: &UserInfo, body: &Value) -> Value {
    answer(body, json!({"userInfo": user_value(user)}))
}

/// Answers a SubjectAccessReview.
///
/// # Errors
/// 422 when attributes or subject are missing.
pub fn subject_access_review(authorizer: &Authorizer, body: &Value) -> Result<Value, Status> {
    let spec = &body["spec"];
    let subject = subject(spec, "SubjectAccessReview")?;
    review(authorizer, &subject, body, "SubjectAccessReview")
}

/// Answers a LocalSubjectAccessReview posted to a namespace.
///
/// # Errors
/// 422 when attributes or subject are missing or name another namespace.
pub fn local_subject_access_review(
    authorizer: &Authorizer,
    namespace: &str,
    body: &Value,
) -> Result<Value, Status> {
    let kind = "LocalSubjectAccessReview";
    let attributes = &body["spec"]["resourceAttributes"];
    if !body["spec"]["nonResourceAttributes"].is_null() {
        let field = "spec.nonResourceAttributes";
        return Err(invalid(
            kind,
            field,
            "FieldValueForbidden",
            "Forbidden: disallowed on this kind of request",
        ));
    }
    if attributes["namespace"].as_str().unwrap_or_default() != namespace {
        let message =
            format!("Invalid value: {}: must match metadata.namespace", attributes["namespace"]);
        return Err(invalid(
            kind,
            "spec.resourceAttributes.namespace",
            "FieldValueInvalid",
            &message,
        ));
    }
    let subject = subject(&body["spec"], kind)?;
    review(authorizer, &subject, body, kind)
}

/// Answers a SelfSubjectAccessReview: may I?
///
/// # Errors
/// 422 when the attributes are missing.
pub fn self_subject_access_review(
    authorizer: &Authorizer,
    user: &UserInfo,
    body: &Value,
) -> Result<Value, Status> {
    review(authorizer, user, body, "SelfSubjectAccessReview")
}

/// Answers a SelfSubjectRulesReview: what may I do in this namespace?
///
/// # Errors
/// 400 when no namespace is given.
pub fn self_subject_rules_review(
    authorizer: &Authorizer,
    user: &UserInfo,
    body: &Value,
) -> Result<Value, Status> {
    let namespace = body["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in authorizer.rules_for(user, namespace) {
        let to = if rule.non_resource_urls.is_empty() { &mut resources } else { &mut paths };
        to.push(rule.to_value());
    }
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    if user.node_name().is_some() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    Ok(answer(body, status))
}

fn review(
    authorizer: &Authorizer,
    subject: &UserInfo,
    body: &Value,
    kind: &str,
) -> Result<Value, Status> {
    let request = request(&body["spec"], kind)?;
    let decision = authorizer.authorize(subject, &request);
    let mut status = json!({"allowed": decision.is_allowed()});
    if matches!(decision, Decision::Deny { .. }) {
        status["denied"] = true.into();
    }
    if !decision.reason().is_empty() {
        status["reason"] = decision.reason().into();
    }
    Ok(answer(body, status))
}

fn subject(spec: &Value, kind: &str) -> Result<UserInfo, Status> {
    let user = UserInfo {
        name: text(&spec["user"]),
        uid: text(&spec["uid"]),
        groups: strings(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.to_ascii_lowercase(), strings(values)))
            .collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let message = "Invalid value: \"\": at least one of user or group must be specified";
        return Err(invalid(kind, "spec.user", "FieldValueInvalid", message));
    }
    Ok(user)
}

/// The request that the attributes describe.
fn request(spec: &Value, kind: &str) -> Result<RequestInfo, Status> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_null(), path.is_null()) {
        (false, true) => Ok(RequestInfo {
            is_resource_request: true,
            verb: text(&resource["verb"]),
            group: text(&resource["group"]),
            version: text(&resource["version"]),
            namespace: text(&resource["namespace"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            name: text(&resource["name"]),
            label_selector: selector(&resource["labelSelector"]),
            field_selector: selector(&resource["fieldSelector"]),
            ..RequestInfo::default()
        }),
        (true, false) => Ok(RequestInfo {
            verb: text(&path["verb"]),
            path: text(&path["path"]),
            ..RequestInfo::default()
        }),
        (true, true) => {
            let message = "Invalid value: null: exactly one of nonResourceAttributes or \
                           resourceAttributes must be specified";
            Err(invalid(kind, "spec.resourceAttributes", "FieldValueInvalid", message))
        }
        (false, false) => {
            let message = "Invalid value: {}: cannot be specified in combination with \
                           resourceAttributes";
            Err(invalid(kind, "spec.nonResourceAttributes", "FieldValueInvalid", message))
        }
    }
}

/// A selector of the attributes as query text. Only equality on one value is kept: the
/// authorizers look at nothing else.
fn selector(attributes: &Value) -> String {
    if let Some(raw) = attributes["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let terms = attributes["requirements"].as_array().into_iter().flatten();
    terms
        .filter_map(|term| match (strings(&term["values"]).as_slice(), text(&term["operator"])) {
            ([value], operator) if operator == "In" => {
                Some(format!("{}={value}", text(&term["key"])))
            }
            _ => None,
        })
        .collect::<Vec<_>>()
        .join(",")
}

fn invalid(kind: &str, field: &str, reason: &str, message: &str) -> Status {
    let cause = Cause { reason: reason.into(), message: message.into(), field: field.to_owned() };
    Status::invalid(GROUP, kind, "", vec![cause])
}

/// `UserInfo` of `authentication.k8s.io/v1`.
pub fn user_value(user: &UserInfo) -> Value {
    let mut value = Map::new();
    if !user.name.is_empty() {
        value.insert("username".into(), user.name.as_str().into());
    }
    if !user.uid.is_empty() {
        value.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        value.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        value.insert("extra".into(), json!(user.extra));
    }
    Value::Object(value)
}

fn answer(body: &Value, status: Value) -> Value {
    let mut answer = body.clone();
    if let Some(object) = answer.as_object_mut() {
        object.entry("metadata").or_insert_with(|| json!({}));
        object.insert("status".into(), status);
        return answer;
    }
    json!({"metadata": {}, "status": status})
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}
