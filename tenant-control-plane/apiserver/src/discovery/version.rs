//! `/version`.

use serde_json::{Value, json};

use crate::api::Api;

/// `version.Info`: the emulated Kubernetes version, as data.
pub fn info(api: &Api) -> Value {
    let version = &api.config.emulated_version;
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{version}.0+marina.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", arch()),
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": minor,
    })
}

/// The architecture under the name that Kubernetes uses.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
