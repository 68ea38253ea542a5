//! Conversion webhooks: programs of the tenant that know how the versions of a custom resource
//! relate. An object is asked about when a version is wanted that it is not in: for reading, for
//! watching, and before it is stored.
//!
//! Source: Kubernetes documentation, "Versions in CustomResourceDefinitions: Webhook conversion".

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use machinery::{Reason, Status};
use serde_json::{Value, json};

use crate::api::Api;
use crate::cache::{Event, Object};
use crate::hooks::target;
use crate::kinds::{Field, Row};
use crate::strategy::keep;

/// How long a conversion may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects in one question.
const BATCH: usize = 500;
/// Bytes of the objects in one question: the answer, which is about as long, may have eight times
/// as many.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Converted objects that are remembered per version.
const REMEMBERED: usize = 4096;
/// Bytes of the converted objects that are remembered per version.
const REMEMBERED_BYTES: usize = 32 * 1024 * 1024;
/// Versions of the review that are spoken.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// `spec.conversion.webhook` of a definition.
pub struct Conversion {
    client: Value,
    versions: Vec<String>,
    converted: Mutex<Converted>,
}

/// Objects of the cache in a row's version, by key and revision.
#[derive(Default)]
struct Converted {
    objects: HashMap<(String, i64), Arc<Object>>,
    bytes: usize,
}

impl Converted {
    fn insert(&mut self, object: &Arc<Object>) {
        let bytes = object.json.len();
        if self.objects.len() >= REMEMBERED || self.bytes + bytes > REMEMBERED_BYTES {
            *self = Self::default();
        }
        if bytes > REMEMBERED_BYTES {
            return;
        }
        let before =
            self.objects.insert((object.key().to_owned(), object.revision), object.clone());
        self.bytes += bytes;
        self.bytes -= before.map_or(0, |before| before.json.len());
    }
}

impl std::fmt::Debug for Conversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversion").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Conversion {
    /// The webhook of a definition's spec, if it has one.
    pub fn of(spec: &Value) -> Option<Arc<Self>> {
        let conversion = &spec["conversion"];
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        (conversion["strategy"] == "Webhook").then(|| {
            Arc::new(Self {
                client: webhook["clientConfig"].clone(),
                versions: versions.filter_map(|v| Some(v.as_str()?.to_owned())).collect(),
                converted: Mutex::default(),
            })
        })
    }

    fn known(&self, object: &Object) -> Option<Arc<Object>> {
        let converted = self.converted.lock().expect("no panic while locked");
        converted.objects.get(&(object.key().to_owned(), object.revision)).cloned()
    }

    fn remember(&self, object: &Arc<Object>) {
        self.converted.lock().expect("no panic while locked").insert(object);
    }
}

/// An object in a row's version.
///
/// # Errors
/// When the webhook does not convert it.
pub async fn value(api: &Api, row: &Row, object: Value) -> Result<Value, Status> {
    let mut converted = values(api, row, &row.api_version(), vec![object]).await?;
    Ok(converted.pop().unwrap_or_default())
}

/// An object of a row's version in the stored one.
///
/// # Errors
/// As [`value`].
pub async fn stored(api: &Api, row: &Row, object: Value) -> Result<Value, Status> {
    let Some(version) = row.storage_version.clone() else { return Ok(object) };
    let mut converted = values(api, row, &version, vec![object]).await?;
    Ok(converted.pop().unwrap_or_default())
}

/// Cached objects in a row's version. Those of rows without a webhook stay as they are.
///
/// # Errors
/// As [`value`].
pub async fn objects(api: &Api, row: &Row, objects: &mut [Arc<Object>]) -> Result<(), Status> {
    let Some(conversion) = &row.conversion else { return Ok(()) };
    let wanted = row.api_version();
    let mut open = Vec::new();
    for (at, object) in objects.iter_mut().enumerate() {
        if object.value()["apiVersion"] == wanted.as_str() {
            continue;
        }
        match conversion.known(object) {
            Some(known) => *object = known,
            None => open.push(at),
        }
    }
    let fields = api.caches.of(row).map(|cache| cache.fields.clone()).unwrap_or_default();
    for batch in batches(&open, |at| objects[at].json.len()) {
        let given = batch.iter().map(|at| objects[*at].parse()).collect();
        let converted = values(api, row, &wanted, given).await?;
        for (at, value) in batch.into_iter().zip(converted) {
            let object = Arc::new(rebuilt(&objects[at], value, &fields));
            conversion.remember(&object);
            objects[at] = object;
        }
    }
    Ok(())
}

/// Cuts a list into questions that are not too long; a longer object is asked about alone.
fn batches(open: &[usize], bytes: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let (mut batches, mut last, mut length) = (Vec::new(), Vec::new(), 0);
    for at in open {
        let own = bytes(*at);
        if !last.is_empty() && (last.len() == BATCH || length + own > BATCH_BYTES) {
            batches.push(std::mem::take(&mut last));
            length = 0;
        }
        last.push(*at);
        length += own;
    }
    batches.extend((!last.is_empty()).then_some(last));
    batches
}

/// Events of a watch with their objects in a row's version.
///
/// # Errors
/// As [`value`].
pub async fn events(api: &Api, row: &Row, events: &mut [Event]) -> Result<(), Status> {
    if row.conversion.is_none() {
        return Ok(());
    }
    let mut all: Vec<Arc<Object>> = events.iter().map(|event| event.object.clone()).collect();
    let previous = events.iter().filter_map(|event| event.previous.clone());
    all.extend(previous);
    objects(api, row, &mut all).await?;
    let mut all = all.into_iter();
    events.iter_mut().zip(all.by_ref()).for_each(|(event, object)| event.object = object);
    for event in events.iter_mut().filter(|event| event.previous.is_some()) {
        event.previous = all.next();
    }
    Ok(())
}

fn rebuilt(object: &Object, value: Value, fields: &[Field]) -> Object {
    Object::from_value(object.key(), value, object.revision, fields)
}

/// Trees in a version; those that are in it already are not sent.
async fn values(
    api: &Api,
    row: &Row,
    wanted: &str,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let Some(conversion) = &row.conversion else { return Ok(objects) };
    let open: Vec<usize> =
        (0..objects.len()).filter(|at| objects[*at]["apiVersion"] != wanted).collect();
    let Some(first) = open.first() else { return Ok(objects) };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let about = format!("{}, Kind={}", text(&objects[*first]["apiVersion"]), row.kind);
    let given: Vec<&Value> = open.iter().map(|at| &objects[*at]).collect();
    let converted = ask(api, conversion, wanted, &given).await.map_err(|why| {
        Status::new(Reason::Unknown, format!("conversion webhook for {about} failed: {why}"))
    })?;
    if converted.len() != open.len() {
        let text = format!(
            "conversion webhook for {about} returned {} objects, expected {}",
            converted.len(),
            open.len()
        );
        return Err(Status::new(Reason::Unknown, text));
    }
    for (index, (at, value)) in open.into_iter().zip(converted).enumerate() {
        let checked = checked(&objects[at], value, wanted).map_err(|why| {
            let text = format!(
                "conversion webhook for {about} returned invalid converted object at index \
                 {index}: {why}"
            );
            Status::new(Reason::Unknown, text)
        })?;
        objects[at] = checked;
    }
    Ok(objects)
}

/// One question to the webhook.
async fn ask(
    api: &Api,
    conversion: &Conversion,
    wanted: &str,
    objects: &[&Value],
) -> Result<Vec<Value>, String> {
    let spoken = |v: &String| VERSIONS.into_iter().find(|known| known == v);
    let version = conversion
        .versions
        .iter()
        .find_map(spoken)
        .ok_or("no supported conversion review versions")?;
    let uid = uuid::Uuid::new_v4().to_string();
    let api_version = format!("apiextensions.k8s.io/{version}");
    let review = json!({
        "kind": "ConversionReview", "apiVersion": api_version,
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
    });
    let target = target::of(&api.caches, &conversion.client)?;
    let body = serde_json::to_vec(&review).map_err(|e| e.to_string())?;
    let reply = target::post(&api.hooks.client, &target, Bytes::from(body), TIMEOUT).await?;
    answered(reply, version, &uid)
}

/// The converted objects of a webhook's answer, which may be any JSON.
fn answered(mut reply: Value, version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let response = reply
        .get_mut("response")
        .filter(|response| response.is_object())
        .ok_or("no response provided")?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    if version == "v1" && response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"])));
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        return Err(match text(&result["message"]) {
            message if !message.is_empty() => message,
            _ => {
                let status = text(&result["status"]);
                format!("response.result.status was '{status}', not 'Success'")
            }
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// A converted object, with the metadata that a conversion may not change put back.
fn checked(original: &Value, mut converted: Value, wanted: &str) -> Result<Value, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let got = text(&converted["apiVersion"]);
    if got != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {got})"));
    }
    let (expected, got) = (text(&original["kind"]), text(&converted["kind"]));
    if expected != got {
        return Err(format!("invalid kind (expected {expected}, received {got})"));
    }
    if !converted["metadata"].is_object() {
        return Err("missing metadata in converted object".to_owned());
    }
    for (key, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (a, b) = (text(&original["metadata"][key]), text(&converted["metadata"][key]));
        if a != b {
            return Err(format!("must have the same {name}: {a} != {b}"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for key in ["labels", "annotations"] {
        keep(&mut metadata, &converted["metadata"], key);
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_changes_labels_and_no_other_metadata() {
        let original = json!({"apiVersion": "a/v1", "kind": "K", "old": 1,
            "metadata": {"name": "n", "uid": "u", "generation": 3, "labels": {"a": "b"}}});
        let good = json!({"apiVersion": "a/v2", "kind": "K", "new": 1,
            "metadata": {"name": "n", "uid": "u", "generation": 9, "annotations": {"c": "d"}}});
        let result = checked(&original, good.clone(), "a/v2").unwrap();
        assert_eq!(result["new"], 1);
        assert_eq!(
            result["metadata"],
            json!({"name": "n", "uid": "u", "generation": 3, "annotations": {"c": "d"}})
        );
        let fault = |key: &str, value: Value| {
            let mut bad = good.clone();
            *bad.pointer_mut(key).unwrap() = value;
            checked(&original, bad, "a/v2").unwrap_err()
        };
        assert!(fault("/apiVersion", "a/v3".into()).starts_with("invalid groupVersion"));
        assert_eq!(fault("/metadata/name", "m".into()), "must have the same name: n != m");
        assert!(fault("/metadata", Value::Null).starts_with("missing metadata"));
    }
    #[test]
    fn an_answer_without_a_response_is_an_error_whatever_json_it_is() {
        for reply in [json!([]), json!("x"), json!(1), json!(true), json!(null), json!({})] {
            assert_eq!(answered(reply, "v1", "u").unwrap_err(), "no response provided");
        }
        for response in [json!([]), json!("x"), json!(1), json!(null)] {
            let reply = json!({"response": response});
            assert_eq!(answered(reply, "v1", "u").unwrap_err(), "no response provided");
        }
        let mut reply = json!({"response": {"uid": "u", "result": {"status": "Success"}}});
        assert_eq!(answered(reply.clone(), "v1", "u").unwrap(), [] as [Value; 0]);
        reply["response"]["convertedObjects"] = json!([{"a": 1}]);
        assert_eq!(answered(reply, "v1", "u").unwrap(), [json!({"a": 1})]);
    }

    #[test]
    fn questions_are_cut_by_count_and_length() {
        let lengths = |bytes: usize, count: usize| -> Vec<usize> {
            let open: Vec<_> = (0..count).collect();
            batches(&open, |_| bytes).iter().map(Vec::len).collect()
        };
        assert_eq!(lengths(10, 1001), [500, 500, 1]);
        assert_eq!(lengths(BATCH_BYTES / 2, 3), [2, 1]);
        assert_eq!(lengths(BATCH_BYTES + 1, 2), [1, 1]);
        assert_eq!(lengths(1, 0), [] as [usize; 0]);
    }

    #[test]
    fn what_is_remembered_is_bounded_in_bytes() {
        let object = |name: &str, bytes: usize| {
            let value = json!({"metadata": {"name": name}, "text": "x".repeat(bytes)});
            Arc::new(Object::from_value(name, value, 1, &[]))
        };
        let mut converted = Converted::default();
        for _ in 0..2 {
            converted.insert(&object("a", REMEMBERED_BYTES / 2));
        }
        assert_eq!(converted.objects.len(), 1);
        converted.insert(&object("b", REMEMBERED_BYTES / 2));
        assert!(converted.objects.len() == 1 && converted.bytes < REMEMBERED_BYTES);
        converted.insert(&object("c", REMEMBERED_BYTES + 1));
        assert_eq!((converted.objects.len(), converted.bytes), (0, 0));
    }
}
