//! Connections (`exec`, `attach`, `portforward`, `proxy`) as objects: their query parameters. What
//! admission judges is this object, and what is connected is what it says then.

use machinery::Status;
use serde_json::{Map, Value};

use crate::http::query::Query;

/// Parameters that are switches.
const SWITCHES: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

/// `PodExecOptions` and the like from a request's query. `path` is what follows `proxy`.
///
/// # Errors
/// 400 for ports that are none.
pub fn options(kind: &str, query: &Query, path: &str) -> Result<Value, Status> {
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), "v1".into());
    match kind {
        "PodPortForwardOptions" => {
            let ports = ports(query)?;
            if !ports.is_empty() {
                object.insert("ports".into(), ports.into());
            }
        }
        "PodExecOptions" | "PodAttachOptions" => {
            for name in SWITCHES.into_iter().filter(|name| query.flag(name)) {
                object.insert(name.into(), true.into());
            }
            if let Some(container) = query.get("container").filter(|c| !c.is_empty()) {
                object.insert("container".into(), container.into());
            }
            if kind == "PodExecOptions" {
                let command: Vec<Value> = query.all("command").map(Value::from).collect();
                object.insert("command".into(), command.into());
            }
        }
        _ => {
            object.insert("path".into(), path.into());
        }
    }
    Ok(Value::Object(object))
}

fn ports(query: &Query) -> Result<Vec<Value>, Status> {
    let ports = query.all("ports").flat_map(|list| list.split(','));
    ports
        .map(|port| {
            port.parse::<u16>().map(Value::from).map_err(|e| {
                Status::bad_request(format!("cannot convert to []int32: parsing {port:?}: {e}"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(kind: &str, query: &str) -> Value {
        options(kind, &Query::parse(Some(query)), "/a/b").unwrap()
    }

    #[test]
    fn options_of_a_connection() {
        let exec = of("PodExecOptions", "command=ls&command=-l&stdout=yes&tty=false");
        assert_eq!(
            exec,
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["ls", "-l"],
                "stdout": true})
        );
        let forward = of("PodPortForwardOptions", "ports=80&ports=443,8080");
        assert_eq!(forward["ports"], json!([80, 443, 8080]));
        assert_eq!(of("PodProxyOptions", "")["path"], "/a/b");
        let bad = options("PodPortForwardOptions", &Query::parse(Some("ports=x")), "");
        assert_eq!(bad.unwrap_err().code, 400);
    }

    #[test]
    fn the_first_of_two_values_counts() {
        let query = "container=&container=b&stdin=false&stdin=true&tty=1&tty=0";
        assert_eq!(
            of("PodAttachOptions", query),
            json!({"kind": "PodAttachOptions", "apiVersion": "v1", "tty": true})
        );
    }
}
