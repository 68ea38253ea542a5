//! The collector against an API server that is a map.

use std::collections::BTreeMap;
use std::convert::Infallible;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use serde_json::{Value, json};

use super::graph::{FOREGROUND, ORPHAN};
use super::*;

type Store = Arc<Mutex<BTreeMap<String, Value>>>;

/// Objects of kind Thing in one namespace, by path.
struct World {
    store: Store,
    collector: Collector,
    /// What the collector was told last.
    told: BTreeMap<String, Value>,
}

fn path(name: &str) -> String {
    format!("/apis/example.com/v1/namespaces/ns/things/{name}")
}

/// Removes the object at `path` if nothing holds it any more.
fn settle(store: &mut BTreeMap<String, Value>, path: &str) {
    let meta = &store[path]["metadata"];
    let held = meta["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if !meta["deletionTimestamp"].is_null() && !held {
        store.remove(path);
    }
}

fn mark(object: &mut Value, policy: Option<&str>) {
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    match policy {
        Some("Foreground") => object["metadata"]["finalizers"] = json!([FOREGROUND]),
        Some("Orphan") => object["metadata"]["finalizers"] = json!([ORPHAN]),
        _ => {}
    }
}

fn answer(store: &Store, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut store = store.lock().unwrap();
    let Some(object) = store.get_mut(path) else {
        let status = json!({"kind": "Status", "status": "Failure", "code": 404,
            "reason": "NotFound", "message": "not found"});
        return (404, status);
    };
    match method {
        "PATCH" => {
            let (meta, patch) = (&mut object["metadata"], &body["metadata"]);
            assert_eq!(meta["uid"], patch["uid"]);
            for key in ["ownerReferences", "finalizers"] {
                if !patch[key].is_null() {
                    meta[key] = patch[key].clone();
                }
            }
        }
        "DELETE" => {
            assert_eq!(object["metadata"]["uid"], body["preconditions"]["uid"]);
            mark(object, body["propagationPolicy"].as_str());
        }
        _ => {}
    }
    let answer = object.clone();
    settle(&mut store, path);
    (200, answer)
}

impl World {
    /// Objects with the names of their owners. All references hold their owner back.
    fn new(things: &[(&str, &[&str])]) -> Self {
        let store = Store::default();
        for (name, owners) in things {
            let owners: Vec<_> = owners
                .iter()
                .map(|owner| {
                    json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": owner,
                        "uid": owner, "blockOwnerDeletion": true})
                })
                .collect();
            let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {
                "name": name, "namespace": "ns", "uid": name, "ownerReferences": owners}});
            store.lock().unwrap().insert(path(name), thing);
        }
        let served = store.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let store = served.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, value) = answer(&store, head.method.as_str(), head.uri.path(), &body);
                let response = http::Response::builder().status(code);
                let bytes = value.to_string().into_bytes();
                Ok::<_, Infallible>(response.body(Body::from(bytes)).unwrap())
            }
        });
        let client = Client::new(service, "ns");
        let collector = Collector::new(client.clone(), client, CancellationToken::new());
        let mut world = Self { store, collector, told: BTreeMap::new() };
        world.serve(true);
        world
    }

    /// What discovery says of the kind from now on.
    fn serve(&mut self, served: bool) {
        let thing = Resource {
            api_version: "example.com/v1".into(),
            kind: "Thing".into(),
            plural: "things".into(),
            namespaced: true,
            verbs: Vec::new(),
        };
        let resources = served.then_some(thing).into_iter().collect();
        self.collector.enqueue(self.collector.served.replace(resources));
    }

    /// The kind's watch ends, as when it vanishes from discovery.
    fn stop_watching(&mut self) {
        let uids = self.told.values().map(|o| o["metadata"]["uid"].as_str().unwrap().to_owned());
        self.collector.doubt(uids.collect());
    }

    /// Tells the collector what changed, as its watches would.
    fn tell(&mut self) {
        let now = self.store.lock().unwrap().clone();
        for (path, object) in &now {
            if self.told.get(path) != Some(object) {
                let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
                let identity = Identity {
                    api_version: "example.com/v1".into(),
                    kind: "Thing".into(),
                    namespace: "ns".into(),
                    name: meta.name.clone().unwrap(),
                };
                let work = self.collector.graph().observe(identity, &meta);
                self.collector.enqueue(work);
            }
        }
        for (path, object) in &self.told {
            if !now.contains_key(path) {
                let uid = object["metadata"]["uid"].as_str().unwrap();
                let work = self.collector.graph().remove(uid);
                self.collector.enqueue(work);
            }
        }
        self.told = now;
    }

    /// Lets the collector work until it has nothing left to do; the names of what is left then.
    async fn run(&mut self) -> Vec<String> {
        self.tell();
        for _ in 0..200 {
            if self.collector.queue.is_empty() {
                let store = self.store.lock().unwrap();
                let names = store.values().map(|o| o["metadata"]["name"].as_str().unwrap());
                return names.map(str::to_owned).collect();
            }
            let work = self.collector.queue.take().await;
            self.collector.handle(work.clone()).await.unwrap();
            self.collector.queue.done(&work);
            self.tell();
        }
        panic!("the collector does not come to rest");
    }

    /// A user's deletion.
    fn delete(&self, name: &str, policy: &str) {
        let mut store = self.store.lock().unwrap();
        mark(store.get_mut(&path(name)).unwrap(), Some(policy));
        settle(&mut store, &path(name));
    }

    fn owners(&self, name: &str) -> usize {
        let store = self.store.lock().unwrap();
        store[&path(name)]["metadata"]["ownerReferences"].as_array().unwrap().len()
    }
}

#[tokio::test]
async fn a_circle_of_owners_does_not_hold_itself() {
    let circle: [(&str, &[&str]); 3] = [("1", &["3"]), ("2", &["1"]), ("3", &["2"])];
    let mut world = World::new(&circle);
    assert_eq!(world.run().await, ["1", "2", "3"]);
    world.delete("1", "Foreground");
    assert!(world.run().await.is_empty());

    // All at once, and an object that owns itself.
    let mut world = World::new(&[circle[0], circle[1], circle[2], ("own", &["own"])]);
    world.run().await;
    for name in ["1", "2", "3", "own"] {
        world.delete(name, "Foreground");
    }
    assert!(world.run().await.is_empty());
}

#[tokio::test]
async fn dependents_go_first_in_the_foreground_and_after_in_the_background() {
    let family: [(&str, &[&str]); 3] =
        [("child", &["parent"]), ("grandchild", &["child"]), ("parent", &[])];
    for policy in ["Foreground", "Background"] {
        let mut world = World::new(&family);
        assert_eq!(world.run().await.len(), 3);
        world.delete("parent", policy);
        assert!(world.run().await.is_empty(), "{policy}");
    }
    let mut world = World::new(&family);
    world.run().await;
    world.delete("parent", "Orphan");
    assert_eq!(world.run().await, ["child", "grandchild"]);
    assert_eq!(world.owners("child"), 0);
}

#[tokio::test]
async fn a_dependent_with_another_owner_stays() {
    let mut world =
        World::new(&[("a", &["one", "two"]), ("b", &["one"]), ("one", &[]), ("two", &[])]);
    world.run().await;
    world.delete("one", "Foreground");
    assert_eq!(world.run().await, ["a", "two"]);
    assert_eq!(world.owners("a"), 1);
}

#[tokio::test]
async fn a_kind_that_vanishes_for_a_moment_takes_nothing_with_it() {
    let mut world = World::new(&[("child", &["parent"]), ("parent", &[]), ("late", &["gone"])]);
    assert_eq!(world.run().await, ["child", "parent"]);
    world.stop_watching();
    world.serve(false);
    assert_eq!(world.run().await, ["child", "parent"]);
    world.serve(true);
    assert_eq!(world.run().await, ["child", "parent"]);
    // The dependents are listed in another version, and the owner is not yet.
    world.stop_watching();
    world.told.retain(|path, _| path.ends_with("parent"));
    assert_eq!(world.run().await, ["child", "parent"]);
    // What happened meanwhile is made up for.
    world.stop_watching();
    world.serve(false);
    world.run().await;
    world.delete("parent", "Background");
    world.told = world.store.lock().unwrap().clone();
    assert_eq!(world.run().await, ["child"]);
    world.serve(true);
    assert!(world.run().await.is_empty());
}

#[tokio::test]
async fn an_owner_keeps_its_finalizer_until_its_dependents_can_be_let_go() {
    let mut world = World::new(&[("child", &["parent"]), ("parent", &[])]);
    world.run().await;
    let identity = Identity {
        api_version: "other.example.com/v1".into(),
        kind: "Other".into(),
        namespace: "ns".into(),
        name: "other".into(),
    };
    let owners = world.collector.graph().get("child").unwrap().owners.clone();
    let meta = ObjectMeta {
        uid: Some("other".into()),
        owner_references: Some(owners),
        ..Default::default()
    };
    let work = world.collector.graph().observe(identity, &meta);
    world.collector.enqueue(work);
    world.delete("parent", "Orphan");
    assert_eq!(world.run().await, ["child", "parent"]);
    let gone = world.collector.graph().remove("other");
    world.collector.enqueue(gone);
    world.serve(false);
    world.serve(true);
    assert_eq!(world.run().await, ["child"]);
    assert_eq!(world.owners("child"), 0);
}
