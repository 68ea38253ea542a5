//! Connections (`exec`, `attach`, `portforward`, `proxy`) as objects: their query parameters.

use serde_json::{Map, Value, json};

use crate::http::query::Query;

/// Parameters that are switches.
const SWITCHES: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

/// `PodExecOptions` and the like from a request's query. `path` is what follows `proxy`.
pub fn options(kind: &str, query: &str, path: &str) -> Value {
    let parsed = Query::parse(Some(query));
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), "v1".into());
    match kind {
        "PodPortForwardOptions" => {
            let ports = parsed.all("ports").flat_map(|list| list.split(','));
            let ports: Vec<Value> =
                ports.filter_map(|p| p.parse::<u16>().ok()).map(Value::from).collect();
            if !ports.is_empty() {
                object.insert("ports".into(), ports.into());
            }
        }
        "PodExecOptions" | "PodAttachOptions" => {
            for name in SWITCHES {
                if parsed.flag(name) {
                    object.insert(name.into(), true.into());
                }
            }
            if let Some(container) = parsed.get("container").filter(|c| !c.is_empty()) {
                object.insert("container".into(), container.into());
            }
            let command: Vec<Value> = parsed.all("command").map(Value::from).collect();
            if kind == "PodExecOptions" {
                object.insert("command".into(), command.into());
            }
        }
        _ => {
            object.insert("path".into(), json!(path));
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_connection() {
        let exec = options("PodExecOptions", "command=ls&command=-l&stdout=true&tty=false", "");
        assert_eq!(
            exec,
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["ls", "-l"],
                "stdout": true})
        );
        let forward = options("PodPortForwardOptions", "ports=80&ports=443", "");
        assert_eq!(forward["ports"], json!([80, 443]));
        assert_eq!(options("PodProxyOptions", "", "a/b")["path"], "a/b");
    }
}
