//! Users and roles, through the real etcdctl.

use etcd_api::pb::etcdserverpb::auth_client::AuthClient;
use etcd_api::pb::etcdserverpb::{AuthenticateRequest, PutRequest};
use tonic::{Code, Request, Status};

use super::etcdctl::Etcdctl;
use super::server::{Cluster, eventually};

/// Root, and `ada` with the role `app`, which may use keys from `app/` and read `shared`.
fn guard(ctl: &Etcdctl<'_>) {
    ctl.run(&["user", "add", "root:secret"]);
    ctl.run(&["role", "add", "root"]);
    ctl.run(&["user", "grant-role", "root", "root"]);
    ctl.run(&["user", "add", "ada:pw"]);
    ctl.run(&["role", "add", "app"]);
    ctl.run(&["role", "grant-permission", "--prefix=true", "app", "readwrite", "app/"]);
    ctl.run(&["role", "grant-permission", "app", "read", "shared"]);
    ctl.run(&["user", "grant-role", "ada", "app"]);
    assert_eq!(ctl.run(&["auth", "enable"]), "Authentication Enabled\n");
}

async fn sign_in_as_ada(cluster: &Cluster) -> String {
    let request = AuthenticateRequest { name: "ada".into(), password: "pw".into() };
    let mut auth = AuthClient::new(cluster.client(0).channel());
    auth.authenticate(request).await.unwrap().into_inner().token
}

async fn put_with(
    cluster: &Cluster,
    member: usize,
    key: &str,
    token: Option<&str>,
) -> Result<(), Status> {
    let mut r = Request::new(PutRequest { key: key.to_owned().into(), ..Default::default() });
    if let Some(token) = token {
        r.metadata_mut().insert("token", token.parse().unwrap());
    }
    cluster.client(member).kv().put(r).await.map(|_| ())
}

const ROOT: &str = "--user=root:secret";
const ADA: &str = "--user=ada:pw";

#[tokio::test]
async fn etcdctl_manages_users_and_they_are_held_to_their_roles() {
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    let ctl = Etcdctl(&cluster);
    ctl.run(&["put", "shared", "s"]);
    ctl.run(&["put", "hidden", "h"]);
    let e = ctl.try_run(&["auth", "enable"]).unwrap_err();
    assert!(e.contains("root user does not exist"), "{e}");
    guard(&ctl);

    assert_eq!(ctl.run(&["put", "app/a", "1", ADA]), "OK\n");
    assert_eq!(ctl.run(&["get", "--prefix", "app/", ADA]), "app/a\n1\n");
    assert_eq!(ctl.run(&["get", "shared", "--print-value-only", ADA]), "s\n");
    assert_eq!(ctl.run(&["get", "hidden", "--print-value-only", ROOT]), "h\n");
    for refused in [
        &["get", "hidden", ADA][..],
        &["get", "--prefix", "", ADA],
        &["put", "shared", "x", ADA],
        &["del", "--prefix", "a", ADA],
        &["user", "list", ADA],
        &["user", "get", "root", ADA],
        &["role", "add", "mine", ADA],
        &["compact", "2", ADA],
        &["snapshot", "save", "/dev/null", ADA],
    ] {
        let e = ctl.try_run(refused).unwrap_err();
        assert!(e.contains("permission denied"), "{refused:?}: {e}");
    }
    let e = ctl.try_run(&["get", "shared", "--user=ada:wrong"]).unwrap_err();
    assert!(e.contains("authentication failed, invalid user ID or password"), "{e}");
    let e = ctl.try_run(&["get", "shared", "--user=eve:pw"]).unwrap_err();
    assert!(e.contains("authentication failed, invalid user ID or password"), "{e}");

    assert!(ctl.run(&["user", "get", "ada", ADA]).contains("Roles: app"));
    let role = ctl.run(&["role", "get", "app", ADA]);
    assert!(role.contains("[app/, app0) (prefix app/)") && role.contains("shared"), "{role}");
    assert_eq!(ctl.run(&["user", "list", ROOT]), "ada\nroot\n");
    ctl.run(&["role", "revoke-permission", "app", "shared", ROOT]);
    let e = ctl.try_run(&["get", "shared", ADA]).unwrap_err();
    assert!(e.contains("permission denied"), "{e}");
    ctl.run(&["user", "delete", "ada", ROOT]);
    let e = ctl.try_run(&["get", "app/a", ADA]).unwrap_err();
    assert!(e.contains("authentication failed"), "{e}");
    ctl.run(&["auth", "disable", ROOT]);
    assert_eq!(ctl.run(&["get", "hidden", "--print-value-only"]), "h\n");
}

#[tokio::test]
async fn users_survive_kill_9_and_a_token_is_good_at_every_member() {
    let mut cluster = Cluster::start(3, &["--snapshot-count=5", "--snapshot-catchup-entries=1"]);
    for i in 0..3 {
        cluster.ready(i).await;
    }
    guard(&Etcdctl(&cluster));
    let token = sign_in_as_ada(&cluster).await;
    let put = async |member: usize, key: String, token: Option<&str>| {
        put_with(&cluster, member, &key, token).await
    };
    for i in 0..12 {
        put(i % 3, format!("app/{i}"), Some(&token)).await.unwrap();
    }
    let code = |r: Result<(), Status>| r.unwrap_err().code();
    assert_eq!(code(put(1, "hidden".into(), Some(&token)).await), Code::PermissionDenied);
    // Without a token the certificate counts; its common name is no user here.
    assert_eq!(code(put(1, "app/x".into(), None).await), Code::PermissionDenied);
    for wrong in ["nonsense", "guessed.1", "guessed.2x"] {
        assert_eq!(code(put(2, "app/x".into(), Some(wrong)).await), Code::Unauthenticated);
    }

    for i in 0..3 {
        cluster.kill(i);
    }
    for i in 0..3 {
        cluster.start_member(i);
    }
    let ctl = Etcdctl(&cluster);
    eventually("the users are back", async || {
        ctl.try_run(&["get", "app/7", "--keys-only", ADA]).ok().filter(|out| out == "app/7\n\n")
    })
    .await;
    let e = ctl.try_run(&["get", "hidden", ADA]).unwrap_err();
    assert!(e.contains("permission denied"), "{e}");
}

#[tokio::test]
async fn the_common_name_of_a_certificate_is_a_user() {
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    let ctl = Etcdctl(&cluster);
    cluster.pki.issue("ada", "client");
    guard(&ctl);
    let as_ada = |args: &[&str]| {
        let mut command = std::process::Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &cluster.endpoint(0)]);
        for (flag, name, kind) in
            [("--cacert", "ca", "crt"), ("--cert", "ada", "crt"), ("--key", "ada", "key")]
        {
            command.arg(flag).arg(cluster.pki.path(name, kind));
        }
        let out = ctl.output(command.args(args));
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    };
    assert_eq!(as_ada(&["put", "app/x", "1"]), "OK\n");
    let out = as_ada(&["get", "hidden"]);
    assert!(out.contains("permission denied"), "{out}");
    let out = as_ada(&["get", "hidden", ROOT]);
    assert!(!out.contains("permission denied"), "a token counts more than the certificate: {out}");
}

#[tokio::test]
async fn a_watch_sees_only_what_its_user_may_read() {
    use std::io::BufRead;
    let cluster = Cluster::start(1, &[]);
    cluster.ready(0).await;
    let ctl = Etcdctl(&cluster);
    guard(&ctl);
    let watch = |key: &str, user: &str| {
        let mut command = ctl.command(&["watch", key, "--rev=1", user]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let refused = watch("hidden", ADA).wait_with_output().unwrap();
    let e = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(e.contains("permission denied"), "{e}");
    let mut allowed = watch("app/w", ADA);
    ctl.run(&["put", "app/w", "seen", ROOT]);
    let lines = std::io::BufReader::new(allowed.stdout.take().unwrap()).lines();
    let got: Vec<String> = lines.take(3).map_while(Result::ok).collect();
    allowed.kill().unwrap();
    allowed.wait().unwrap();
    assert_eq!(got, ["PUT", "app/w", "seen"]);
}

#[tokio::test]
async fn a_signed_token_outlives_its_members_but_no_change_of_roles() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let flag = format!("--auth-token=jwt,sign-method=ES256,priv-key={}", key.display());
    let mut cluster = Cluster::start(3, &[&flag]);
    for i in 0..3 {
        cluster.ready(i).await;
    }
    guard(&Etcdctl(&cluster));
    let token = sign_in_as_ada(&cluster).await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    let put = async |cluster: &Cluster, member: usize, key: &str, token: &str| {
        put_with(cluster, member, key, Some(token)).await
    };
    put(&cluster, 1, "app/1", &token).await.unwrap();
    let refused = put(&cluster, 2, "hidden", &token).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let forged = put(&cluster, 2, "app/2", &format!("{token}A")).await.unwrap_err();
    assert_eq!(forged.code(), Code::Unauthenticated);

    for i in 0..3 {
        cluster.kill(i);
    }
    for i in 0..3 {
        cluster.start_member(i);
    }
    eventually("the token is good after a restart", async || {
        put(&cluster, 1, "app/3", &token).await.ok()
    })
    .await;
    let ctl = Etcdctl(&cluster);
    ctl.run(&["role", "grant-permission", "app", "read", "more", ROOT]);
    let old = put(&cluster, 0, "app/4", &token).await.unwrap_err();
    assert_eq!(old.message(), "etcdserver: revision of auth store is old");
    assert_eq!(ctl.run(&["put", "app/5", "1", ADA]), "OK\n");
}
