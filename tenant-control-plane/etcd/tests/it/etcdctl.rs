//! The real etcdctl, as Debian ships it (3.4).

use std::process::{Command, Output, Stdio};

use super::server::Cluster;

pub struct Etcdctl<'a>(pub &'a Cluster);

impl Etcdctl<'_> {
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.0.endpoint(0), "--command-timeout=10s"])
            .arg("--cacert")
            .arg(self.0.pki.path("ca", "crt"))
            .arg("--cert")
            .arg(self.0.pki.path("client", "crt"))
            .arg("--key")
            .arg(self.0.pki.path("client", "key"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub fn output(&self, command: &mut Command) -> Output {
        command.output().unwrap_or_else(|e| {
            panic!("etcdctl cannot be run ({e}): install Debian's package etcd-client")
        })
    }

    pub fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let out = self.output(&mut self.command(args));
        if out.status.success() {
            Ok(String::from_utf8(out.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into_owned())
        }
    }

    pub fn run(&self, args: &[&str]) -> String {
        self.try_run(args).unwrap_or_else(|e| panic!("etcdctl {args:?}: {e}"))
    }
}

#[tokio::test]
async fn keys_transactions_and_compaction() {
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    let ctl = Etcdctl(&cluster);
    assert_eq!(ctl.run(&["put", "foo", "bar"]), "OK\n");
    assert_eq!(ctl.run(&["get", "foo"]), "foo\nbar\n");
    assert_eq!(ctl.run(&["put", "foo", "baz", "--prev-kv"]), "OK\nfoo\nbar\n");
    assert_eq!(ctl.run(&["get", "foo", "--rev=2", "--print-value-only"]), "bar\n");
    ctl.run(&["put", "foo2", "x"]);
    assert_eq!(ctl.run(&["get", "--prefix", "foo", "--keys-only"]), "foo\n\nfoo2\n\n");
    let sorted = ["get", "--prefix", "foo", "--order=DESCEND", "--limit=1", "--print-value-only"];
    assert_eq!(ctl.run(&sorted), "x\n");
    assert_eq!(ctl.run(&["del", "foo2", "--prev-kv"]), "1\nfoo2\nx\n");

    let mut txn = ctl.command(&["txn", "-i=false"]);
    txn.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = txn.spawn().expect("install Debian's package etcd-client");
    let script = "value(\"foo\") = \"baz\"\n\nput foo swapped\nget foo\n\nget nothing\n\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let out = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out, "SUCCESS\n\nOK\n\nfoo\nswapped\n");

    assert_eq!(ctl.run(&["compact", "4"]), "compacted revision 4\n");
    let e = ctl.try_run(&["get", "foo", "--rev=2"]).unwrap_err();
    assert!(e.contains("required revision has been compacted"), "{e}");
}

#[tokio::test]
async fn watch_and_leases() {
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    let ctl = Etcdctl(&cluster);
    ctl.run(&["put", "w", "1"]);
    ctl.run(&["put", "w", "2"]);
    let mut watch = ctl.command(&["watch", "w", "--rev=2", "--prev-kv"]);
    let mut child = watch.stdout(Stdio::piped()).spawn().expect("etcdctl runs");
    let out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        use std::io::BufRead;
        let lines = std::io::BufReader::new(out).lines().map_while(Result::ok);
        lines.take(12).collect::<Vec<_>>()
    });
    ctl.run(&["del", "w"]);
    let got = reader.join().unwrap().join(" ");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(got, "PUT w 1 PUT w 1 w 2 DELETE w 2 w");

    let granted = ctl.run(&["lease", "grant", "300"]);
    let id = granted.split_whitespace().nth(1).unwrap();
    ctl.run(&["put", "leased", "v", &format!("--lease={id}")]);
    let time = ctl.run(&["lease", "timetolive", id, "--keys"]);
    assert!(time.contains("granted with TTL(300s)") && time.contains("attached keys([leased])"));
    assert!(ctl.run(&["lease", "list"]).contains(id));
    assert!(ctl.run(&["lease", "keep-alive", "--once", id]).contains("TTL(300)"));
    ctl.run(&["lease", "revoke", id]);
    assert_eq!(ctl.run(&["get", "leased"]), "");
}

#[tokio::test]
async fn maintenance() {
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    let ctl = Etcdctl(&cluster);
    for i in 0..20 {
        ctl.run(&["put", &format!("k{i}"), "value"]);
    }
    let status = ctl.run(&["endpoint", "status", "-w", "json"]);
    assert!(status.contains(r#""version":"3.6.0""#), "{status}");
    let health = ctl.output(&mut ctl.command(&["endpoint", "health"]));
    assert!(health.status.success());
    assert!(ctl.run(&["member", "list"]).contains("started, m0, https://"));
    assert!(ctl.run(&["endpoint", "hashkv"]).contains(", "));
    assert!(ctl.run(&["defrag"]).contains("Finished defragmenting"));
    assert_eq!(ctl.run(&["alarm", "list"]), "");
    let path = cluster.dir.path().join("snapshot.db");
    let path = path.to_str().unwrap();
    assert!(ctl.run(&["snapshot", "save", path]).contains("Snapshot saved at"));
    assert_eq!(std::fs::metadata(path).unwrap().len() % 512, 32);
    assert_eq!(ctl.run(&["get", "k7", "--print-value-only"]), "value\n");
}
