//! `AdmissionReview`: the question, and what counts as an answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::{GroupVersionKind, GroupVersionResource, Reason, Status, UserInfo};
use serde_json::{Value, json};

use crate::attributes::Operation;
use crate::object::{items, text};

/// Versions of the document that are spoken.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// The request as it came, before anything was converted for a webhook.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// What for.
    pub operation: Operation,
    /// The kind of the body.
    pub gvk: &'a GroupVersionKind,
    /// The resource asked for.
    pub gvr: &'a GroupVersionResource,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The namespace, or empty.
    pub namespace: &'a str,
    /// The object's name, or empty.
    pub name: &'a str,
    /// `CreateOptions` and the like, or null.
    pub options: &'a Value,
    /// Nothing will be stored.
    pub dry_run: bool,
}

impl Asker<'_> {
    /// `AdmissionRequest` without objects, about a resource in some version.
    pub fn request(&self, gvk: &GroupVersionKind, gvr: &GroupVersionResource) -> Value {
        let mut request = json!({
            "uid": "",
            "kind": kind(gvk),
            "resource": resource(gvr),
            "requestKind": kind(self.gvk),
            "requestResource": resource(self.gvr),
            "operation": self.operation.as_str(),
            "userInfo": user(self.user),
            "dryRun": self.dry_run,
            "options": self.options,
        });
        let optional = [
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
            ("name", self.name),
            ("namespace", self.namespace),
        ];
        for (key, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
            request[key] = value.into();
        }
        request
    }
}

/// One question to one webhook.
#[derive(Clone, Debug)]
pub struct Review {
    uid: String,
    version: &'static str,
    body: Value,
}

/// A valid answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The request may proceed.
    pub allowed: bool,
    /// JSON patch of the object, or null.
    pub patch: Value,
    /// Why not: a `Status`, or null.
    pub result: Value,
    /// What to tell the client.
    pub warnings: Vec<String>,
}

impl Review {
    /// The question in the first version that the webhook lists and this crate speaks. `gvk` and
    /// `gvr` are what the webhook is asked about, `object` and `old` in that version.
    ///
    /// # Errors
    /// When there is no such version.
    pub fn new(
        versions: &[String],
        asker: &Asker<'_>,
        gvk: &GroupVersionKind,
        gvr: &GroupVersionResource,
        object: &Value,
        old: &Value,
    ) -> Result<Self, String> {
        let spoken = |v: &String| VERSIONS.into_iter().find(|known| known == v);
        let version = versions.iter().find_map(spoken).ok_or(
            "could not create admission objects: webhook does not accept known AdmissionReview \
             versions (v1, v1beta1)",
        )?;
        let uid = uuid::Uuid::new_v4().to_string();
        let mut request = asker.request(gvk, gvr);
        request["uid"] = uid.clone().into();
        request["object"] = object.clone();
        request["oldObject"] = old.clone();
        let body = json!({
            "kind": "AdmissionReview",
            "apiVersion": format!("admission.k8s.io/{version}"),
            "request": request,
        });
        Ok(Self { uid, version, body })
    }

    /// The document to send.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Reads what the webhook answered.
    ///
    /// # Errors
    /// When it is not an answer to this question.
    pub fn answer(&self, review: &Value, mutating: bool) -> Result<Answer, String> {
        self.verify(review, mutating)
            .map_err(|e| format!("received invalid webhook response: {e}"))?;
        let response = &review["response"];
        let patch = match text(&response["patch"]) {
            patch if mutating && !patch.is_empty() => {
                decode_patch(patch, response["patchType"].as_str())?
            }
            _ => Value::Null,
        };
        Ok(Answer {
            allowed: response["allowed"] == true,
            patch,
            result: response["status"].clone(),
            warnings: items(&response["warnings"]).map(|w| text(w).to_owned()).collect(),
        })
    }

    fn verify(&self, review: &Value, mutating: bool) -> Result<(), String> {
        let response = &review["response"];
        if !response.is_object() {
            return Err("webhook response was absent".to_owned());
        }
        // Of the older version nothing more was ever checked.
        if self.version != "v1" {
            return Ok(());
        }
        self.check_identity(review)?;
        let has_patch = !text(&response["patch"]).is_empty();
        let fault = match (mutating, has_patch, response["patchType"].as_str()) {
            (true, true, None) => "webhook returned response.patch but not response.patchType",
            (true, false, Some(_)) => "webhook returned response.patchType but not response.patch",
            (true, _, Some("")) => "webhook returned invalid response.patchType of \"\"",
            (false, true, _) => "validating webhook may not return response.patch",
            (false, _, Some(_)) => "validating webhook may not return response.patchType",
            _ => return Ok(()),
        };
        Err(fault.to_owned())
    }

    fn check_identity(&self, review: &Value) -> Result<(), String> {
        let uid = text(&review["response"]["uid"]);
        if uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        let (version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
        if version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got \
                 {version}, Kind={kind}"
            ));
        }
        Ok(())
    }
}

fn decode_patch(patch: &str, patch_type: Option<&str>) -> Result<Value, String> {
    if let Some(other) = patch_type.filter(|t| *t != "JSONPatch") {
        return Err(format!("unsupported patch type {other:?}"));
    }
    let undecodable =
        |e: &dyn std::fmt::Display| format!("received undecodable patch in webhook response: {e}");
    let bytes = STANDARD.decode(patch).map_err(|e| undecodable(&e))?;
    serde_json::from_slice(&bytes).map_err(|e| undecodable(&e))
}

fn kind(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn resource(gvr: &GroupVersionResource) -> Value {
    json!({"group": gvr.group, "version": gvr.version, "resource": gvr.resource})
}

/// `authentication.k8s.io/v1 UserInfo`.
fn user(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = user.groups.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The refusal that a webhook's `status` asks for.
pub fn denied(webhook: &str, result: &Value) -> Status {
    let by = format!("admission webhook {webhook:?} denied the request");
    let (message, reason) = (text(&result["message"]), text(&result["reason"]));
    let message = match (message, reason) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let known = Reason::from_name(reason);
    let mut status = Status::new(known.unwrap_or(Reason::Unknown), message);
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    status.code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    status.details = result["details"].clone();
    status
}

/// 400: the webhook might change something elsewhere although nothing is to be stored here.
pub fn dry_run_unsupported(webhook: &str) -> Status {
    Status::bad_request(format!("admission webhook {webhook:?} does not support dry run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(versions: &[&str]) -> Review {
        let gvk =
            GroupVersionKind { group: String::new(), version: "v1".into(), kind: "Pod".into() };
        let gvr = GroupVersionResource {
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
        };
        let asker = Asker {
            user: &UserInfo::default(),
            operation: Operation::Create,
            gvk: &gvk,
            gvr: &gvr,
            subresource: "",
            namespace: "ns",
            name: "a",
            options: &Value::Null,
            dry_run: false,
        };
        let versions: Vec<String> = versions.iter().map(|v| (*v).to_owned()).collect();
        Review::new(&versions, &asker, &gvk, &gvr, &json!({}), &Value::Null).unwrap()
    }

    fn reply(review: &Review, response: Value) -> Value {
        let mut response = response;
        response["uid"] = review.body["request"]["uid"].clone();
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn an_answer_must_be_to_the_question() {
        let review = review(&["v2", "v1"]);
        let patch = STANDARD.encode(r#"[{"op":"remove","path":"/a"}]"#);
        let good =
            reply(&review, json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"}));
        assert_eq!(review.answer(&good, true).unwrap().patch[0]["op"], "remove");
        assert_eq!(
            review.answer(&good, false).unwrap_err(),
            "received invalid webhook response: validating webhook may not return response.patch"
        );
        let mut other = good.clone();
        other["response"]["uid"] = "x".into();
        assert!(review.answer(&other, true).unwrap_err().contains("expected response.uid="));
        let bare = reply(&review, json!({"allowed": true, "patch": patch}));
        assert!(review.answer(&bare, true).is_err());
        assert!(review.answer(&json!({}), true).unwrap_err().ends_with("response was absent"));
    }

    #[test]
    fn a_refusal_says_who_refused_and_why() {
        let status = denied("a.b.c", &json!({"message": "no", "code": 418, "reason": "NotFound"}));
        assert_eq!(status.message, "admission webhook \"a.b.c\" denied the request: no");
        assert_eq!((status.code, status.reason), (418, Reason::NotFound));
        let status = denied("a.b.c", &json!({"code": 200}));
        let text = "admission webhook \"a.b.c\" denied the request without explanation";
        assert_eq!((status.code, status.message.as_str()), (400, text));
    }
}
