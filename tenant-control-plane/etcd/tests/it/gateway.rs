//! The API as JSON, with curl.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::etcdctl::Etcdctl;
use super::server::Cluster;

fn curl(cluster: &Cluster, path: &str, body: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--no-buffer", "--max-time", "20", "--data", body]);
    command.args(["--write-out", "\n%{http_code}"]);
    for (flag, name, kind) in
        [("--cacert", "ca", "crt"), ("--cert", "client", "crt"), ("--key", "client", "key")]
    {
        command.arg(flag).arg(cluster.pki.path(name, kind));
    }
    command.arg(format!("{}{path}", cluster.endpoint(0)));
    command
}

fn post(cluster: &Cluster, path: &str, body: &Value) -> (u16, Value) {
    let out = curl(cluster, path, &body.to_string()).output().unwrap();
    assert!(out.status.success(), "{path} {body}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}")))
}

#[tokio::test]
async fn keys_leases_watches_and_users_as_json() {
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    // "foo" and "bar".
    let (code, put) = post(&cluster, "/v3/kv/put", &json!({"key": "Zm9v", "value": "YmFy"}));
    assert_eq!(code, 200);
    assert_eq!(put["header"]["revision"], "2", "{put}");
    let (_, range) = post(&cluster, "/v3/kv/range", &json!({"key": "Zm9v"}));
    let kv = json!({"key": "Zm9v", "value": "YmFy", "create_revision": "2", "mod_revision": "2", "version": "1"});
    assert_eq!((&range["kvs"][0], &range["count"]), (&kv, &json!("1")), "{range}");
    let txn = json!({
        "compare": [{"target": "CREATE", "key": "Zm9v", "createRevision": "2"}],
        "success": [{"requestDeleteRange": {"key": "Zm9v"}}],
    });
    let (_, txn) = post(&cluster, "/v3/kv/txn", &txn);
    assert_eq!(txn["succeeded"], true, "{txn}");
    assert_eq!(txn["responses"][0]["response_delete_range"]["deleted"], "1", "{txn}");
    let (_, lease) = post(&cluster, "/v3/lease/grant", &json!({"TTL": 60}));
    let id = &lease["ID"];
    let (_, kept) = post(&cluster, "/v3/lease/keepalive", &json!({"ID": id}));
    assert_eq!((&kept["result"]["ID"], &kept["result"]["TTL"]), (id, &json!("60")), "{kept}");

    let create = json!({"create_request": {"key": "Zm9v", "start_revision": "2"}}).to_string();
    let mut watch = curl(&cluster, "/v3/watch", &create);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["result"]["created"], true);
    let past = next();
    assert_eq!(past["result"]["events"][0]["kv"], kv, "{past}");
    assert_eq!(past["result"]["events"][1]["type"], "DELETE", "{past}");
    post(&cluster, "/v3/kv/put", &json!({"key": "Zm9v", "value": "YmF6"}));
    assert_eq!(next()["result"]["events"][0]["kv"]["value"], "YmF6");
    watch.kill().unwrap();
    watch.wait().unwrap();

    for (path, body, expected, message) in [
        ("/v3/kv/put", json!({}), 400, "etcdserver: key is not provided"),
        (
            "/v3/kv/range",
            json!({"key": "Zm9v", "revision": "99"}),
            400,
            "required revision is a future",
        ),
        ("/v3/lease/revoke", json!({"ID": "1"}), 404, "etcdserver: requested lease not found"),
        ("/v3/kv/put", json!({"key": 7}), 400, "base64"),
        ("/v3/nothing", json!({}), 404, "Not Found"),
    ] {
        let (code, error) = post(&cluster, path, &body);
        assert_eq!(code, expected, "{path} {body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
    }

    let ctl = Etcdctl(&cluster);
    for args in [
        &["user", "add", "root:secret"][..],
        &["role", "add", "root"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        ctl.run(args);
    }
    // The name in the certificate would not count.
    let out = curl(&cluster, "/v3/kv/range", "{}").output().unwrap();
    let refused = String::from_utf8(out.stdout).unwrap();
    assert!(
        refused.starts_with("CommonName of client sending a request against gateway"),
        "{refused}"
    );
    assert!(refused.ends_with("400"), "{refused}");
}
