//! Clients over a socket with a path, with flags as Kubernetes' own tests give them.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::server::eventually;

fn start(dir: &Path) -> Child {
    let url = format!("unix://{}", dir.join("etcd.sock").display());
    Command::new(env!("CARGO_BIN_EXE_etcd"))
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &url])
        .args(["--advertise-client-urls", "http://127.0.0.111:0"])
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .args(["-log-level", "warn"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

async fn health(dir: &Path) -> String {
    eventually("an answer over the socket", async || {
        let out = Command::new("curl")
            .arg("--unix-socket")
            .arg(dir.join("etcd.sock"))
            .args(["--silent", "--fail", "http://etcd/health"])
            .output()
            .expect("curl cannot be run: install Debian's package curl");
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
    })
    .await
}

#[tokio::test]
async fn a_socket_with_a_path_serves_also_where_an_old_one_was_left() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut member = start(dir.path());
        let health = health(dir.path()).await;
        member.kill().unwrap();
        member.wait().unwrap();
        assert!(health.contains(r#""health":"true""#), "{health}");
        assert!(dir.path().join("etcd.sock").exists(), "a killed process leaves it");
    }
}
