//! `/openapi/v2`: everything in one document, as JSON and as protobuf.
//!
//! The document is large and changes with every definition of a custom resource, so it is made of
//! parts: the built-in one is made once, and the parts are sent one behind the other.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas::{Notation, Schemas};
use super::{ResourceRow, gnostic, paths};
use crate::table::Schema;

/// In which form the document is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// The message `openapi.v2.Document`.
    Protobuf,
}

/// Some of the document's paths and definitions, encoded and ready to be put behind others.
#[derive(Clone, Debug, Default)]
pub struct Part<B = Vec<u8>> {
    /// Paths.
    pub paths: B,
    /// Definitions.
    pub definitions: B,
}

impl Schema {
    /// The part that describes built-in resources, with all types that they need.
    pub fn openapi_v2_built_in(&self, rows: &[ResourceRow], encoding: Encoding) -> Part {
        let rows: Vec<&ResourceRow> = rows.iter().filter(|r| r.custom.is_none()).collect();
        let mut schemas = Schemas::new(self, Notation::V2, &rows);
        let paths = collect_paths(&rows, &mut schemas);
        schemas.add_named("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
        schemas.add_kind("autoscaling", "v1", "Scale");
        encode(&paths, schemas.finish(), encoding)
    }

    /// The part that describes custom resources. It refers to types of the built-in part.
    pub fn openapi_v2_custom(&self, rows: &[ResourceRow], encoding: Encoding) -> Part {
        let rows: Vec<&ResourceRow> = rows.iter().filter(|r| r.custom.is_some()).collect();
        let mut schemas = Schemas::new(self, Notation::V2, &rows);
        let paths = collect_paths(&rows, &mut schemas);
        encode(&paths, schemas.finish_custom(), encoding)
    }

    /// The whole document: pieces that are sent one behind the other.
    pub fn openapi_v2<B>(&self, encoding: Encoding, built_in: Part<B>, custom: Part<B>) -> Vec<B>
    where
        B: AsRef<[u8]> + From<Vec<u8>>,
    {
        let info = json!({"title": "Kubernetes", "version": format!("v{}.0", self.version())});
        let piece = |text: String| B::from(text.into_bytes());
        let length = |a: &B, b: &B| a.as_ref().len() + b.as_ref().len();
        match encoding {
            Encoding::Json => {
                let comma = |a: &B, b: &B| match a.as_ref().is_empty() || b.as_ref().is_empty() {
                    true => "",
                    false => ",",
                };
                let between = comma(&built_in.paths, &custom.paths).to_owned();
                let last = comma(&built_in.definitions, &custom.definitions).to_owned();
                vec![
                    piece(format!(r#"{{"swagger":"2.0","info":{info},"paths":{{"#)),
                    built_in.paths,
                    piece(between),
                    custom.paths,
                    piece(r#"},"definitions":{"#.to_owned()),
                    built_in.definitions,
                    piece(last),
                    custom.definitions,
                    piece("}}".to_owned()),
                ]
            }
            Encoding::Protobuf => {
                let in_paths = length(&built_in.paths, &custom.paths);
                let in_definitions = length(&built_in.definitions, &custom.definitions);
                let mut head = gnostic::head(&info);
                head.extend(gnostic::length_prefix(gnostic::PATHS, in_paths));
                vec![
                    B::from(head),
                    built_in.paths,
                    custom.paths,
                    B::from(gnostic::length_prefix(gnostic::DEFINITIONS, in_definitions)),
                    built_in.definitions,
                    custom.definitions,
                ]
            }
        }
    }
}

fn collect_paths(rows: &[&ResourceRow], schemas: &mut Schemas<'_>) -> Map<String, Value> {
    let mut out = Map::new();
    for row in rows {
        paths::add(row, schemas, &mut out);
        schemas.add_kind(&row.group, &row.version, &row.list_kind);
    }
    out
}

fn encode(
    paths: &Map<String, Value>,
    definitions: BTreeMap<String, Value>,
    encoding: Encoding,
) -> Part {
    let definitions: Map<String, Value> = definitions.into_iter().collect();
    match encoding {
        Encoding::Json => Part { paths: members(paths), definitions: members(&definitions) },
        Encoding::Protobuf => {
            Part { paths: gnostic::paths(paths), definitions: gnostic::definitions(&definitions) }
        }
    }
}

/// The members of a JSON object without its braces.
fn members(map: &Map<String, Value>) -> Vec<u8> {
    let text = serde_json::to_vec(map).expect("a JSON value always serialises");
    text[1..text.len() - 1].to_vec()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::openapi::Custom;

    fn rows() -> [ResourceRow; 2] {
        let verbs = ["create", "get", "list", "patch"].map(String::from).to_vec();
        let pods = ResourceRow {
            version: "v1".into(),
            kind: "Pod".into(),
            list_kind: "PodList".into(),
            plural: "pods".into(),
            namespaced: true,
            verbs: verbs.clone(),
            ..ResourceRow::default()
        };
        let schema = json!({"type": "object", "description": "A foo.",
            "properties": {"spec": {"type": "object"}}});
        let custom = Custom { schema: Arc::new(schema), selectable: vec!["spec.a".into()] };
        let foos = ResourceRow {
            group: "example.com".into(),
            kind: "Foo".into(),
            list_kind: "FooList".into(),
            plural: "foos".into(),
            custom: Some(custom),
            ..pods.clone()
        };
        [pods, foos]
    }

    fn document(encoding: Encoding) -> Vec<u8> {
        let schema = Schema::get("1.35").expect("table");
        let built_in = schema.openapi_v2_built_in(&rows(), encoding);
        let custom = schema.openapi_v2_custom(&rows(), encoding);
        schema.openapi_v2(encoding, built_in, custom).concat()
    }

    #[test]
    fn the_parts_make_one_document_that_is_complete_in_itself() {
        let text = String::from_utf8(document(Encoding::Json)).expect("UTF-8");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let known = document["definitions"].as_object().expect("definitions");
        for part in text.split("#/definitions/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(known.contains_key(name), "{name} is referred to but missing");
        }
        let foo = &document["definitions"]["com.example.v1.Foo"];
        assert_eq!(foo["description"], "A foo.");
        assert_eq!(foo["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
        assert_eq!(foo["x-kubernetes-selectable-fields"][0]["fieldPath"], "spec.a");
        let paths = &document["paths"];
        let item = &paths["/apis/example.com/v1/namespaces/{namespace}/foos/{name}"];
        assert_eq!(
            item["get"]["responses"]["200"]["schema"]["$ref"],
            "#/definitions/com.example.v1.Foo"
        );
        assert!(!item["patch"]["consumes"].to_string().contains("strategic"));
        assert!(paths["/api/v1/pods"].is_object());
    }

    #[test]
    fn protobuf_has_the_same_names() {
        let bytes = document(Encoding::Protobuf);
        let has = |name: &str| bytes.windows(name.len()).any(|w| w == name.as_bytes());
        assert!(has("com.example.v1.FooList") && has("io.k8s.api.core.v1.PodSpec"));
        let mut reader = crate::protobuf::wire::Reader::new(&bytes);
        let mut tags = Vec::new();
        while let Some((tag, _)) = reader.next_field().expect("well-formed") {
            tags.push(tag);
        }
        assert_eq!(tags, [1, 2, gnostic::PATHS, gnostic::DEFINITIONS]);
    }
}
