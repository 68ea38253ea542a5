//! A body with gaps of fixed width.

use anyhow::{Context, ensure};
use bytes::Bytes;
use machinery::GroupVersionKind;
use serde_json::Value;

/// Which table of kinds encodes protobuf.
const VERSION: &str = "1.35";

/// Serialised once, copied for each request; what differs between requests is written over runs of a
/// character that occurs nowhere else. Works in JSON and in protobuf, because no length changes.
#[derive(Clone, Debug)]
pub struct Stencil {
    bytes: Vec<u8>,
    /// Offsets of each gap, and its width.
    gaps: Vec<(Vec<usize>, usize)>,
}

impl Stencil {
    /// An object as JSON. `gaps` are texts in it that will be written over.
    ///
    /// # Errors
    /// A gap does not occur.
    pub fn json(object: &Value, gaps: &[&str]) -> anyhow::Result<Self> {
        Self::new(serde_json::to_vec(object)?, gaps)
    }

    /// An object as protobuf.
    ///
    /// # Errors
    /// The kind is unknown, or a gap does not occur.
    pub fn protobuf(object: &Value, gaps: &[&str]) -> anyhow::Result<Self> {
        let text = |field: &str| object[field].as_str().context("an object without a kind");
        let api_version = text("apiVersion")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text("kind")?.to_owned(),
        };
        let table = schema::Schema::get(VERSION).context("no table of kinds")?;
        Self::new(table.to_protobuf(&kind, object).context("an unknown kind")?, gaps)
    }

    fn new(bytes: Vec<u8>, gaps: &[&str]) -> anyhow::Result<Self> {
        let find = |gap: &&str| {
            let width = gap.len();
            let offsets: Vec<usize> =
                (0..bytes.len()).filter(|at| bytes[*at..].starts_with(gap.as_bytes())).collect();
            ensure!(!offsets.is_empty(), "nothing like {gap} to write over");
            Ok((offsets, width))
        };
        let gaps = gaps.iter().map(find).collect::<anyhow::Result<_>>()?;
        Ok(Self { bytes, gaps })
    }

    /// A copy with every gap filled.
    ///
    /// # Errors
    /// A text is not as wide as its gap.
    pub fn fill(&self, texts: &[&str]) -> anyhow::Result<Bytes> {
        ensure!(texts.len() == self.gaps.len(), "as many texts as gaps");
        let mut bytes = self.bytes.clone();
        for ((offsets, width), text) in self.gaps.iter().zip(texts) {
            ensure!(text.len() == *width, "{text} is not {width} wide");
            for at in offsets {
                bytes[*at..*at + width].copy_from_slice(text.as_bytes());
            }
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config_map(name: &str, value: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"name": name, "a": value}})
    }

    #[test]
    fn every_gap_is_written_over_in_both_forms() {
        let empty = config_map("cm-####", "%%");
        let full = config_map("cm-0042", "ab");
        let gaps = ["####", "%%"];
        let json = Stencil::json(&empty, &gaps).unwrap().fill(&["0042", "ab"]).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), full);
        let protobuf = Stencil::protobuf(&empty, &gaps).unwrap().fill(&["0042", "ab"]).unwrap();
        assert_eq!(protobuf, Stencil::protobuf(&full, &[]).unwrap().fill(&[]).unwrap());
    }

    #[test]
    fn a_text_of_another_width_is_refused() {
        let stencil = Stencil::json(&config_map("cm-####", "x"), &["####"]).unwrap();
        assert!(stencil.fill(&["12345"]).is_err());
        assert!(stencil.fill(&[]).is_err());
        assert!(Stencil::json(&config_map("cm", "x"), &["####"]).is_err());
    }
}
