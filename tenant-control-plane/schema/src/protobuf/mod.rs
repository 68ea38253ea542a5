//! Objects in Kubernetes' protobuf form, transcoded by the table.
//!
//! `application/vnd.kubernetes.protobuf` is four magic bytes and a `runtime.Unknown` message, which
//! names the kind and holds the object's own message. Some objects that are inline in JSON are
//! messages of their own in protobuf: the table's tag paths say which.
//!
//! Source: KEP-less design "Protobuf serialization" of SIG API Machinery, and the tags in the API's
//! Go types.

mod decode;
mod encode;
pub(crate) mod wire;

use machinery::GroupVersionKind;
use serde_json::Value;

use crate::table::{Schema, Type};
pub use wire::Malformed;
use wire::{Reader, Writer};

/// What every encoded object starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Deepest nesting of messages, as deep as our JSON reader goes.
const MAX_DEPTH: usize = 120;

impl Schema {
    /// Decodes an object with its envelope. `apiVersion` and `kind` come from the envelope.
    ///
    /// Zero values appear as they were sent: [`Schema::normalize`] drops what JSON would omit.
    pub fn from_protobuf(&self, bytes: &[u8]) -> Result<Value, Malformed> {
        let body = bytes.strip_prefix(&MAGIC).ok_or(Malformed("the magic bytes are missing"))?;
        let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
        let mut unknown = Reader::new(body);
        while let Some((tag, value)) = unknown.next_field()? {
            match tag {
                1 => {
                    let mut meta = Reader::new(value.bytes()?);
                    while let Some((tag, value)) = meta.next_field()? {
                        match tag {
                            1 => api_version = value.text()?,
                            2 => kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                2 => raw = value.bytes()?,
                _ => {}
            }
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let ty = self.type_of(group, version, &kind).ok_or(Malformed("no such kind"))?;
        let mut object = self.decode_message(ty, raw)?;
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        Ok(object)
    }

    /// Decodes the message of a type, without an envelope.
    pub fn decode_message(&self, ty: &Type, bytes: &[u8]) -> Result<Value, Malformed> {
        decode::message(self, ty, bytes, 0).map(Value::Object)
    }

    /// Encodes an object with its envelope, or `None` when the table does not have its kind.
    pub fn to_protobuf(&self, gvk: &GroupVersionKind, object: &Value) -> Option<Vec<u8>> {
        let ty = self.type_of(&gvk.group, &gvk.version, &gvk.kind)?;
        let mut meta = Writer::default();
        meta.text(1, &gvk.api_version());
        meta.text(2, &gvk.kind);
        let mut unknown = Writer::default();
        unknown.bytes(1, &meta.finish());
        unknown.bytes(2, &self.encode_message(ty, object));
        unknown.text(3, "");
        unknown.text(4, "");
        let mut out = MAGIC.to_vec();
        out.extend(unknown.finish());
        Some(out)
    }

    /// Encodes the message of a type, without an envelope. Fields that the type does not have are
    /// left out.
    pub fn encode_message(&self, ty: &Type, object: &Value) -> Vec<u8> {
        let mut out = Writer::default();
        encode::message(self, ty, object, &mut out);
        out.finish()
    }
}

/// One event of a watch in protobuf: the frame's content, without its length. `object` is the
/// object with its envelope.
pub fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Writer::default();
    raw.bytes(1, object);
    let mut event = Writer::default();
    event.text(1, kind);
    event.bytes(2, &raw.finish());
    event.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gvk(group: &str, kind: &str) -> GroupVersionKind {
        GroupVersionKind { group: group.into(), version: "v1".into(), kind: kind.into() }
    }

    #[test]
    fn a_small_object_has_the_bytes_that_the_format_prescribes() {
        let schema = Schema::get("1.35").expect("table");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let bytes = schema.to_protobuf(&gvk("", "ConfigMap"), &object).expect("known");
        let wanted = [
            b"k8s\0".as_slice(),
            // TypeMeta: "v1", "ConfigMap"
            b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap",
            // The object: metadata.name, then the map's one entry
            b"\x12\x0d\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v",
            b"\x1a\0\x22\0",
        ]
        .concat();
        assert_eq!(bytes, wanted);
        assert_eq!(schema.from_protobuf(&bytes).expect("decodes"), object);
    }

    #[test]
    fn every_shape_survives_the_way_there_and_back() {
        let schema = Schema::get("1.35").expect("table");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"a": "b", "c": "d"},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
            "spec": {
                "priority": -5, "hostNetwork": true, "terminationGracePeriodSeconds": 30,
                "volumes": [{"name": "v", "configMap": {"name": "c", "optional": false}}, {"name": "w", "emptyDir": {}}],
                "containers": [{"name": "a", "image": "x", "command": ["sh", ""],
                    "resources": {"limits": {"cpu": "500m"}},
                    "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                    "readinessProbe": {"tcpSocket": {"port": 80}}}]},
            "status": {"phase": "Running"},
        });
        let bytes = schema.to_protobuf(&gvk("", "Pod"), &pod).expect("known");
        assert_eq!(schema.from_protobuf(&bytes).expect("decodes"), pod);
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "AAECAw=="}});
        let bytes = schema.to_protobuf(&gvk("", "Secret"), &secret).expect("known");
        assert_eq!(schema.from_protobuf(&bytes).expect("decodes"), secret);
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": "u", "extra": {"k": ["a", "b"]}}});
        let bytes = schema
            .to_protobuf(&gvk("authorization.k8s.io", "SubjectAccessReview"), &review)
            .expect("known");
        assert_eq!(schema.from_protobuf(&bytes).expect("decodes"), review);
    }

    #[test]
    fn schemas_of_custom_resources_survive_too() {
        let schema = Schema::get("1.35").expect("table");
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
                "type": "object", "default": {"a": 1}, "maximum": 1.5,
                "additionalProperties": false,
                "properties": {"x": {"type": "array", "items": {"type": "string"}, "additionalProperties": {"type": "integer"}}},
                "enum": ["a", 2, null]}}}]}});
        let kind = gvk("apiextensions.k8s.io", "CustomResourceDefinition");
        let bytes = schema.to_protobuf(&kind, &definition).expect("known");
        assert_eq!(schema.from_protobuf(&bytes).expect("decodes"), definition);
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let schema = Schema::get("1.35").expect("table");
        assert!(schema.from_protobuf(b"{}").is_err());
        assert!(schema.from_protobuf(b"k8s\0\x0a\xff").is_err());
        let good =
            schema.to_protobuf(&gvk("", "ConfigMap"), &json!({"data": {"k": "v"}})).expect("known");
        for length in 5..good.len() {
            // Cut anywhere, it may decode to less but must not panic.
            let _outcome = schema.from_protobuf(&good[..length]);
        }
    }
}
