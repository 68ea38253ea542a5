//! Descriptions of types and fields, as `build.rs` found them. Kept compressed; one API package
//! (about 100 KiB) is unpacked while a document is built from it.

use std::collections::HashMap;
use std::io::Read as _;

/// API package (`io.k8s.api.core.v1`), and its texts deflated.
static PACKAGES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/docs.rs"));

/// Where the texts of `apiVersion` and `kind` are to be found.
const TYPE_META: (&str, &str) = ("io.k8s.apimachinery.pkg.apis.meta.v1", "DeleteOptions");

/// The texts of the packages that were asked for so far.
#[derive(Default)]
pub(crate) struct Docs {
    packages: HashMap<String, Package>,
}

/// Text of a type or field by `Type` or `Type.field`.
type Package = HashMap<String, String>;

impl Docs {
    /// The description of a type, by its full name.
    pub(crate) fn of_type(&mut self, name: &str) -> Option<&str> {
        let (package, short) = name.rsplit_once('.')?;
        self.package(package).get(short).map(String::as_str)
    }

    /// The description of a field.
    pub(crate) fn of_field(&mut self, type_name: &str, field: &str) -> Option<&str> {
        let (package, short) = match field {
            "apiVersion" | "kind" if !self.has(type_name, field) => TYPE_META,
            _ => type_name.rsplit_once('.')?,
        };
        self.package(package).get(&format!("{short}.{field}")).map(String::as_str)
    }

    fn has(&mut self, type_name: &str, field: &str) -> bool {
        type_name.rsplit_once('.').is_some_and(|(package, short)| {
            self.package(package).contains_key(&format!("{short}.{field}"))
        })
    }

    fn package(&mut self, name: &str) -> &Package {
        if !self.packages.contains_key(name) {
            let found = PACKAGES.iter().find(|(package, _)| *package == name);
            self.packages
                .insert(name.to_owned(), found.map(|(_, data)| unpack(data)).unwrap_or_default());
        }
        &self.packages[name]
    }
}

fn unpack(data: &[u8]) -> Package {
    let mut text = String::new();
    let mut reader = flate2::read::DeflateDecoder::new(data);
    reader.read_to_string(&mut text).expect("build.rs wrote valid UTF-8 into this stream");
    let mut package = Package::new();
    let mut ty = "";
    for line in text.lines() {
        let Some((name, text)) = line.split_once('\t') else { continue };
        let text = text.replace('\u{1}', "\n");
        match name.strip_prefix('@') {
            Some(name) => {
                ty = name;
                package.insert(name.to_owned(), text);
            }
            None => {
                package.insert(format!("{ty}.{name}"), text);
            }
        }
    }
    package
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_kinds_have_their_texts() {
        let mut docs = Docs::default();
        assert!(docs.of_type("io.k8s.api.core.v1.Pod").is_some_and(|t| t.contains("containers")));
        let spec = "io.k8s.api.core.v1.PodSpec";
        assert!(docs.of_field(spec, "hostIPC").is_some());
        assert!(docs.of_field(spec, "containers").is_some());
        assert!(docs.of_field("io.k8s.api.core.v1.Pod", "kind").is_some());
        assert!(docs.of_field(spec, "nonsense").is_none());
    }
}
