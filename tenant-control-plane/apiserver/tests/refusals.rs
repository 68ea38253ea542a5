//! What a client is told that is refused before anything is done.

mod common;

use common::{Authority, Client, Cluster};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, date_time_ymd};

fn admin() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_unauthorized() {
    let cluster = Cluster::start().await;
    let ask = async |authority: &Authority, params: CertificateParams| {
        let leaf = authority.sign(params);
        let ca = cluster.authority.cert.der();
        Client::new(cluster.servers[0].port, ca, Some(&leaf)).get("/api/v1/namespaces").await
    };
    let mut expired = admin();
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let mut serving = admin();
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    ask(&cluster.authority, admin()).await.expect(200);
    for answer in [
        ask(&Authority::new(), admin()).await,
        ask(&cluster.authority, expired).await,
        ask(&cluster.authority, serving).await,
    ] {
        let status = answer.expect(401);
        assert_eq!(
            (&status["kind"], &status["reason"]),
            (&"Status".into(), &"Unauthorized".into())
        );
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_not_allowed() {
    let (_cluster, c) = Cluster::with_default_namespace().await;
    for (method, path) in [
        ("DELETE", "/api"),
        ("POST", "/version"),
        ("PUT", "/apis/apps/v1"),
        ("POST", "/healthz"),
        ("FOO", "/api/v1/pods"),
        ("PUT", "/api/v1/pods"),
        ("FOO", "/api/v1/namespaces/default/pods"),
    ] {
        let status = c.request(method, path, &[], "").await.expect(405);
        assert_eq!(status["reason"], "MethodNotAllowed", "{method} {path}");
    }
    for (method, path) in [
        ("DELETE", "/nothing"),
        ("PATCH", "/api/v1/pods/x"),
        ("GET", "/api/v9"),
        // A proxy knows every method, and not this pod.
        ("OPTIONS", "/api/v1/namespaces/default/pods/x/proxy"),
    ] {
        c.request(method, path, &[], "").await.expect(404);
    }
    c.get("/api/v1/namespaces/%ff/pods").await.expect(400);
}

#[tokio::test]
async fn component_statuses_are_printed_with_their_state() {
    let (_cluster, c) = Cluster::with_default_namespace().await;
    let accept = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let path = "/api/v1/componentstatuses";
    let table = c.request("GET", path, &accept, "").await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<_> = columns.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Status", "Message", "Error"]);
    assert_eq!(table["rows"][0]["cells"], serde_json::json!(["etcd-0", "Healthy", "ok", ""]));
    assert_eq!(c.get(path).await.expect(200)["kind"], "ComponentStatusList");
}
