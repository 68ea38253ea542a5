//! The nouns, through the typed interface only.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use marina_db::{
    ClusterId, Db, DbError, OrgId,
    clusters::{Cluster, ClusterSpec, Driver},
    events::{NewEvent, Severity},
    hosts::{HostDriver, HostReport},
    idempotency::Replay,
    members::{MemberKind, MemberReport, MemberState, NewMember},
    node_groups::{NodeGroupObserved, NodeGroupSpec, Taint},
    nodes::{NewNode, NodePhase, NodeReport},
    observed::{ClusterObserved, ClusterPhase, Step, StepState, Waited},
    organizations::Role,
    seal::{Sealer, hash_token},
    sessions::NewSession,
    tokens::{NewApiToken, TokenScope},
    users::NewUser,
};

struct Fixture {
    db: Db,
    dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("marina.db")).await.unwrap();
    Fixture { db, dir }
}

async fn org(db: &Db, name: &str) -> OrgId {
    let mut tx = db.write().await.unwrap();
    let org = tx.create_organization(name).await.unwrap();
    tx.commit().await.unwrap();
    org.id
}

async fn cluster(db: &Db, org: &OrgId, name: &str) -> Cluster {
    let mut tx = db.write().await.unwrap();
    let cluster = tx.create_cluster(org, &ClusterSpec::named(name), "ada").await.unwrap();
    tx.commit().await.unwrap();
    cluster
}

fn group(name: &str) -> NodeGroupSpec {
    NodeGroupSpec {
        name: name.to_owned(),
        desired: 2,
        driver: Driver::Sandbox,
        vcpus: 1,
        memory_mib: 512,
        disk_gib: 4,
        labels: [("tier".to_owned(), "web".to_owned())].into(),
        taints: vec![Taint { key: "k".into(), value: String::new(), effect: "NoSchedule".into() }],
    }
}

#[tokio::test]
async fn people_sign_in_and_out() {
    let Fixture { db, dir: _dir } = fixture().await;
    let mut tx = db.write().await.unwrap();
    let new = NewUser {
        login: "ada".into(),
        display_name: "Ada".into(),
        password_hash: "$argon2id$x".into(),
        operator: true,
        must_change: true,
    };
    let ada = tx.create_user(&new).await.unwrap();
    assert!(ada.operator && ada.must_change && !ada.disabled);
    let again = tx.create_user(&new).await.unwrap_err();
    assert!(again.is_conflict(), "{again}");
    let session = NewSession {
        user_id: ada.id.clone(),
        token_hash: hash_token("cookie"),
        csrf_secret: "csrf".into(),
        remote: "127.0.0.1".into(),
        user_agent: "test".into(),
        expires_ms: tx.now_ms() + 60_000,
    };
    let id = tx.create_session(&session).await.unwrap();
    let seen = tx.session_by_token_hash(&hash_token("cookie")).await.unwrap();
    assert_eq!((seen.id, seen.user_id), (id.clone(), ada.id.clone()));
    tx.touch_session(&id, 1).await.unwrap();
    assert!(tx.session_by_token_hash(&hash_token("cookie")).await.unwrap_err().is_not_found());

    let org = tx.create_organization("acme").await.unwrap();
    tx.set_role(&org.id, &ada.id, Role::Viewer).await.unwrap();
    tx.set_role(&org.id, &ada.id, Role::Owner).await.unwrap();
    assert_eq!(tx.role(&org.id, &ada.id).await.unwrap(), Some(Role::Owner));
    let token = NewApiToken {
        org_id: org.id.clone(),
        user_id: ada.id.clone(),
        name: "ci".into(),
        token_hash: hash_token("t"),
        scope: TokenScope::Read,
        expires_ms: None,
    };
    tx.create_api_token(&token).await.unwrap();
    assert_eq!(tx.api_token_by_hash(&hash_token("t")).await.unwrap().scope, TokenScope::Read);
    tx.remove_membership(&org.id, &ada.id).await.unwrap();
    assert!(tx.api_token_by_hash(&hash_token("t")).await.is_err());
    tx.set_password(&ada.id, "$argon2id$y", false).await.unwrap();
    assert_eq!(tx.user(&ada.id).await.unwrap().password_hash, "$argon2id$y");
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn cluster_names_are_unique_in_an_organization_only() {
    let Fixture { db, dir: _dir } = fixture().await;
    let (one, two) = (org(&db, "one").await, org(&db, "two").await);
    let demo = cluster(&db, &one, "demo").await;
    let other = cluster(&db, &two, "demo").await;
    assert_ne!(demo.id, other.id);
    assert_eq!(demo.id.as_str().len(), 8);
    let mut tx = db.write().await.unwrap();
    let error = tx.create_cluster(&one, &ClusterSpec::named("demo"), "ada").await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    let unknown = ClusterSpec { version: "1.2".into(), ..ClusterSpec::named("x") };
    assert!(tx.create_cluster(&one, &unknown, "ada").await.unwrap_err().is_conflict());
    let of_id = ClusterSpec::named(demo.id.as_str());
    assert!(tx.create_cluster(&one, &of_id, "ada").await.unwrap_err().is_conflict());
    let named = tx.create_cluster(&two, &of_id, "ada").await.unwrap();
    assert_eq!(tx.cluster_of(&two, demo.id.as_str()).await.unwrap().id, named.id);
    drop(tx);
    let mut tx = db.read().await.unwrap();
    let foreign = tx.cluster_of(&one, other.id.as_str()).await.unwrap_err();
    assert!(foreign.is_not_found(), "another organization's cluster is not found");
    assert_eq!(tx.cluster_of(&one, "demo").await.unwrap().id, demo.id);
}

#[tokio::test]
async fn a_deleted_cluster_leaves_only_its_events() {
    let Fixture { db, dir } = fixture().await;
    let key = dir.path().join("key");
    Sealer::create_key_file(&key).unwrap();
    let sealer = Sealer::load(&key).unwrap();
    let acme = org(&db, "acme").await;
    let demo = cluster(&db, &acme, "demo").await;
    let mut tx = db.write().await.unwrap();
    let host = tx.register_host("h1", "https://127.0.0.1:1", "z1").await.unwrap();
    let pool = tx.create_node_group(&demo.id, &group("pool")).await.unwrap();
    let of_id = tx.create_node_group(&demo.id, &group(pool.id.as_str())).await.unwrap_err();
    assert!(of_id.is_conflict(), "{of_id}");
    assert_eq!(pool.spec, group("pool"));
    let node = NewNode {
        cluster_id: demo.id.clone(),
        group_id: pool.id.clone(),
        name: "pool-a".into(),
        host_id: host.id.clone(),
        address: "10.0.1.1".into(),
        mac: "52:54:00:00:01:01".into(),
        driver: Driver::Sandbox,
        vcpus: 1,
        memory_mib: 512,
        disk_gib: 4,
    };
    let node_id = tx.create_node(&node).await.unwrap();
    assert!(tx.create_node(&node).await.unwrap_err().is_conflict());
    let member = NewMember {
        cluster_id: demo.id.clone(),
        kind: MemberKind::Etcd,
        ordinal: 0,
        host_id: host.id.clone(),
        ports: vec![("client".into(), 20_000), ("peer".into(), 20_001)],
    };
    let member_id = tx.place_member(&member).await.unwrap();
    tx.set_secret(&sealer, demo.id.as_str(), "pki", b"ca").await.unwrap();
    tx.set_secret(&sealer, node_id.as_str(), "files", b"n").await.unwrap();
    assert!(tx.remove_cluster(&demo.id).await.unwrap_err().is_conflict());
    assert!(tx.remove_host(&host.id).await.unwrap_err().is_conflict());
    let event = NewEvent {
        org_id: acme.clone(),
        cluster_id: demo.id.clone(),
        kind: "ClusterCreated".into(),
        severity: Severity::Info,
        subject: "cluster/demo".into(),
        message: "Created.".into(),
    };
    tx.record_event(&event).await.unwrap();
    tx.record_event(&NewEvent { kind: "Second".into(), ..event }).await.unwrap();
    let report =
        MemberReport { state: MemberState::Ready, message: String::new(), pid: 7, restarts: 1 };
    tx.report_member(&member_id, &report).await.unwrap();
    let members = tx.members_of(&demo.id).await.unwrap();
    assert_eq!((members[0].port("peer"), members[0].pid), (Some(20_001), 7));
    tx.commit().await.unwrap();

    let mut tx = db.write().await.unwrap();
    let opened = tx.secret(&sealer, demo.id.as_str(), "pki").await.unwrap();
    assert_eq!(opened.as_deref(), Some(&b"ca"[..]));
    let deleting = tx.request_cluster_deletion(&demo.id).await.unwrap();
    assert_eq!(deleting.generation, 2);
    assert_eq!(tx.request_cluster_deletion(&demo.id).await.unwrap().generation, 2);
    tx.forget_node(&node_id).await.unwrap();
    tx.forget_member(&member_id).await.unwrap();
    tx.remove_cluster(&demo.id).await.unwrap();
    assert!(tx.cluster(&demo.id).await.unwrap_err().is_not_found());
    assert!(tx.node_groups().await.unwrap().is_empty());
    assert!(tx.secret(&sealer, node_id.as_str(), "files").await.unwrap().is_none());
    let kinds: Vec<_> =
        tx.events_after(&demo.id, 0, 10).await.unwrap().into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds, ["ClusterCreated", "Second"]);
    tx.remove_host(&host.id).await.unwrap();
    tx.commit().await.unwrap();
    cluster(&db, &acme, "demo").await;
}

#[tokio::test]
async fn nodes_and_hosts_report() {
    let Fixture { db, dir: _dir } = fixture().await;
    let acme = org(&db, "acme").await;
    let demo = cluster(&db, &acme, "demo").await;
    let mut tx = db.write_at(1_000).await.unwrap();
    let host = tx.register_host("h1", "https://127.0.0.1:1", "z1").await.unwrap();
    let report = HostReport {
        vcpus: 2,
        memory_mib: 4096,
        disk_gib: 10,
        port_min: 20_000,
        port_max: 20_999,
        gateway: "127.0.0.1:8443".into(),
        drivers: vec![HostDriver { name: "qemu".into(), usable: false, message: "absent".into() }],
        message: String::new(),
    };
    tx.report_host(&host.id, &report).await.unwrap();
    let seen = tx.host_by_name("h1").await.unwrap();
    assert_eq!((seen.report, seen.last_seen_ms), (report, 1_000));

    let pool = tx.create_node_group(&demo.id, &group("pool")).await.unwrap();
    let scaled = tx.scale_node_group(&demo.id, &pool.id, 3).await.unwrap();
    assert_eq!((scaled.generation, scaled.spec.desired), (2, 3));
    assert_eq!(tx.scale_node_group(&demo.id, &pool.id, 3).await.unwrap().generation, 2);
    let observed = NodeGroupObserved {
        group_id: pool.id.clone(),
        observed_generation: 2,
        total: 1,
        ready: 0,
        message: "Booting.".into(),
        updated_ms: 1_000,
    };
    tx.set_node_group_observed(&observed).await.unwrap();
    assert_eq!(tx.node_group_observed(&pool.id).await.unwrap(), Some(observed));
    let new = NewNode {
        cluster_id: demo.id.clone(),
        group_id: pool.id.clone(),
        name: "n".into(),
        host_id: host.id,
        address: "10.0.1.1".into(),
        mac: String::new(),
        driver: Driver::Sandbox,
        vcpus: 1,
        memory_mib: 1,
        disk_gib: 1,
    };
    let id = tx.create_node(&new).await.unwrap();
    tx.commit().await.unwrap();
    for (at, phase, ready) in [
        (2_000, NodePhase::Ready, true),
        (3_000, NodePhase::Ready, true),
        (4_000, NodePhase::NotReady, false),
    ] {
        let mut tx = db.write_at(at).await.unwrap();
        tx.report_node(&id, &NodeReport { phase, ready, message: String::new() }).await.unwrap();
        tx.commit().await.unwrap();
        if at == 3_000 {
            let node = &db.read().await.unwrap().nodes().await.unwrap()[0];
            assert_eq!((node.phase_since_ms, node.joined, node.ready), (2_000, true, true));
        }
    }
    let mut tx = db.write_at(5_000).await.unwrap();
    tx.request_node_deletion(&id, "Replaced.").await.unwrap();
    let node = &tx.nodes_of(&demo.id).await.unwrap()[0];
    assert_eq!((node.phase, node.joined, node.ready), (NodePhase::Deleting, true, false));
}

#[tokio::test]
async fn a_waiter_sees_its_change_land_and_a_deletion_end() {
    let Fixture { db, dir } = fixture().await;
    let acme = org(&db, "acme").await;
    let demo = cluster(&db, &acme, "demo").await;
    let timed_out = db.wait_for_generation(&demo.id, 1, Duration::ZERO).await.unwrap();
    assert!(matches!(timed_out, Waited::TimedOut(seen) if seen.phase == ClusterPhase::Pending));

    // Another handle, as in another process: the waiter learns of it by the doorbell.
    let writer = Db::open(&dir.path().join("marina.db")).await.unwrap();
    let id = demo.id.clone();
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.wait_for_generation(&id, 1, Duration::from_secs(10)).await.unwrap() }
    });
    let step = Step {
        name: "etcd".into(),
        title: "Start etcd".into(),
        state: StepState::Done,
        message: String::new(),
        started_ms: Some(1),
        finished_ms: Some(2),
    };
    let observed = ClusterObserved {
        phase: ClusterPhase::Ready,
        observed_generation: 1,
        steps: vec![step],
        ..ClusterObserved::unseen(&demo.id)
    };
    let mut tx = writer.write().await.unwrap();
    tx.set_cluster_observed(&observed).await.unwrap();
    tx.commit().await.unwrap();
    let Waited::Landed(seen) = waiting.await.unwrap() else { panic!("did not land") };
    assert_eq!(seen.steps, observed.steps);

    let gone = ClusterId::random();
    assert_eq!(db.wait_for_generation(&gone, 1, Duration::ZERO).await.unwrap(), Waited::Gone);
}

#[tokio::test]
async fn keys_replay_and_leases_exclude() {
    let Fixture { db, dir: _dir } = fixture().await;
    let acme = org(&db, "acme").await;
    let mut tx = db.write_at(1_000).await.unwrap();
    assert_eq!(tx.idempotency_key(&acme, "k", "h").await.unwrap(), Replay::New);
    tx.remember_key(&acme, "k", "h", "cluster/1").await.unwrap();
    assert_eq!(
        tx.idempotency_key(&acme, "k", "h").await.unwrap(),
        Replay::Done("cluster/1".into())
    );
    assert!(matches!(tx.idempotency_key(&acme, "k", "i").await, Err(DbError::Conflict { .. })));

    assert!(tx.acquire_lease("controller", "a", 500).await.unwrap());
    assert!(!tx.acquire_lease("controller", "b", 500).await.unwrap());
    assert!(tx.acquire_lease("controller", "a", 500).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = db.write_at(1_500).await.unwrap();
    assert!(tx.acquire_lease("controller", "b", 500).await.unwrap());
    tx.release_lease("controller", "a").await.unwrap();
    assert_eq!(tx.lease_holder("controller").await.unwrap().as_deref(), Some("b"));
}
