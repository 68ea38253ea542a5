//! Content negotiation: what a client wants to read, and what it sent.

use http::{HeaderMap, header};
use machinery::{Reason, Status};

/// In which form to send objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Plain,
    /// `meta.k8s.io Table`.
    Table,
    /// `meta.k8s.io PartialObjectMetadata`, alone or in a list.
    Partial,
}

/// What the client accepts best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Form of objects.
    pub form: Form,
    /// YAML instead of JSON.
    pub yaml: bool,
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: u16,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let mut quality = 1000;
        let mut parameters = Vec::new();
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim_matches('"');
            match key {
                "q" => quality = value.parse::<f32>().map_or(0, |q| (q * 1000.0) as u16),
                _ => parameters.push((key, value)),
            }
        }
        Self { media_type, parameters, quality }
    }

    fn parameter(&self, key: &str) -> &str {
        self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }

    fn accepted(&self, transforms: bool) -> Option<Accepted> {
        let yaml = match self.media_type {
            "application/json" | "*/*" | "application/*" | "" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let form = match self.parameter("as") {
            "" => Form::Plain,
            kind if transforms && self.parameter("g") == "meta.k8s.io" => match kind {
                "Table" => Form::Table,
                "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Partial,
                _ => return None,
            },
            _ => return None,
        };
        Some(Accepted { form, yaml })
    }
}

fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let texts = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut clauses: Vec<_> =
        texts.flat_map(|t| t.split(',')).map(|c| Clause::parse(c.trim())).collect();
    clauses.retain(|c| !c.media_type.is_empty() && c.quality > 0);
    clauses.sort_by_key(|c| std::cmp::Reverse(c.quality));
    clauses
}

/// The best form that both sides know; 406 when there is none.
pub fn negotiate(headers: &HeaderMap, transforms: bool) -> Result<Accepted, Status> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Accepted { form: Form::Plain, yaml: false });
    }
    clauses.iter().find_map(|c| c.accepted(transforms)).ok_or_else(|| {
        Status::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json, application/yaml",
        )
    })
}

/// The first clause that asks for a given `as=` kind of a group, if it comes before plain JSON:
/// its version. Used by aggregated discovery.
pub fn wants_kind(headers: &HeaderMap, group: &str, kind: &str) -> Option<String> {
    for clause in clauses(headers) {
        if clause.media_type == "application/json" && clause.parameter("as").is_empty() {
            return None;
        }
        if clause.media_type == "application/json"
            && clause.parameter("g") == group
            && clause.parameter("as") == kind
        {
            return Some(clause.parameter("v").to_owned());
        }
    }
    None
}

/// The best of the offered media types, or `None` when the client wants none of them.
pub fn best_of<'o>(headers: &HeaderMap, offered: &[&'o str]) -> Option<&'o str> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return offered.first().copied();
    }
    clauses.iter().find_map(|clause| match clause.media_type {
        "*/*" | "application/*" => offered.first().copied(),
        wanted => offered.iter().find(|o| **o == wanted).copied(),
    })
}

/// The media type of the request's body, without parameters, lower case.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        headers
    }

    #[test]
    fn kubectl_and_protobuf_clients_get_what_they_want() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(&accept(table), true).unwrap().form, Form::Table);
        assert_eq!(negotiate(&accept(table), false).unwrap().form, Form::Plain);
        let proto = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(negotiate(&accept(proto), true).unwrap().form, Form::Plain);
        assert_eq!(
            negotiate(&accept("application/vnd.kubernetes.protobuf"), true).unwrap_err().code,
            406
        );
        assert!(negotiate(&accept("application/yaml"), true).unwrap().yaml);
        assert!(!negotiate(&accept("*/*"), true).unwrap().yaml);
        assert!(!negotiate(&HeaderMap::new(), true).unwrap().yaml);
        let discovery =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let kind = wants_kind(&accept(discovery), "apidiscovery.k8s.io", "APIGroupDiscoveryList");
        assert_eq!(kind.as_deref(), Some("v2"));
    }
}
