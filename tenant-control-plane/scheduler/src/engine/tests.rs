//! The engine with real state, and an API server that says yes to everything.

use std::time::{Duration, Instant};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::testing::{node, pod_with};

fn engine() -> Engine {
    let service = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Body::from(b"{}".to_vec())))
    });
    let client = kube::Client::new(service, "default");
    let recorder = component::Recorder::new(client.clone(), SCHEDULER_NAME, None);
    let (sender, messages) = mpsc::unbounded_channel();
    Engine::new(messages, Writer::new(client, recorder, sender))
}

fn asking(name: &str, cpu: &str, extra: Value) -> Arc<Pod> {
    let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    pod_with(name, json!({"spec": spec})).pod.clone()
}

fn on(pod: &Arc<Pod>, node: &str) -> Arc<Pod> {
    let mut bound = Pod::clone(pod);
    bound.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    Arc::new(bound)
}

impl Engine {
    fn learn_node(&mut self, name: &str, now: Instant) {
        let new = Arc::new(node(name, json!({})));
        self.apply(Message::Node { old: None, new }, now);
    }

    fn learn(&mut self, pod: &Arc<Pod>, now: Instant) {
        self.apply(Message::Pod(pod.clone()), now);
    }

    /// Decides about all that are to be tried now. Returns the names of those that got a node.
    fn decide(&mut self, now: Instant) -> Vec<String> {
        let mut placed = Vec::new();
        while let Some(taken) = self.queue.take(now) {
            self.schedule(&taken, now);
            if self.cluster.has_pod(&taken.pod.uid) {
                placed.push(taken.pod.name.clone());
            }
        }
        placed
    }
}

#[tokio::test]
async fn a_pod_follows_its_friend_that_this_scheduler_placed() {
    let (mut engine, now) = (engine(), Instant::now());
    engine.learn_node("w1", now);
    let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}]}}});
    engine.learn(&asking("follower", "1", near), now);
    assert!(engine.decide(now).is_empty());
    let mut db = Pod::clone(&asking("db", "1", json!({})));
    db.metadata.labels = Some([("app".to_owned(), "db".to_owned())].into());
    engine.learn(&Arc::new(db), now);
    assert_eq!(engine.decide(now), ["db"]);
    assert_eq!(engine.decide(now + Duration::from_secs(1)), ["follower"]);
}

#[tokio::test]
async fn room_helps_although_something_else_was_in_the_way_behind_it() {
    let (mut engine, now) = (engine(), Instant::now());
    for name in ["w1", "w2"] {
        engine.learn_node(name, now);
    }
    let away = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]}}});
    let (full, small) =
        (on(&asking("full", "4", json!({})), "w1"), asking("small", "1", json!({})));
    engine.learn(&full, now);
    engine.learn(&on(&small, "w1"), now);
    engine.learn(&on(&asking("other", "4", json!({})), "w2"), now);
    engine.learn(&asking("shy", "1", away), now);
    assert!(engine.decide(now).is_empty());
    engine.apply(Message::PodGone(full), now);
    assert!(engine.decide(now).is_empty(), "the small one is still there");
    engine.apply(Message::PodGone(on(&small, "w1")), now);
    assert_eq!(engine.decide(now), ["shy"]);
}

#[tokio::test]
async fn preemptors_get_the_room_and_a_hopeless_nomination_is_given_up() {
    let (mut engine, now) = (engine(), Instant::now());
    engine.learn_node("w1", now);
    let lesser = on(&asking("lesser", "4", json!({})), "w1");
    engine.learn(&lesser, now);
    for name in ["first", "second"] {
        engine.learn(&asking(name, "2", json!({"priority": 5})), now);
    }
    assert!(engine.decide(now).is_empty());
    assert_eq!(engine.cluster.nominees("w1").count(), 2);
    // A greater one comes before the victim is gone, and takes half of the room.
    engine.learn(&on(&asking("greater", "2", json!({"priority": 9})), "w1"), now);
    engine.apply(Message::PodGone(lesser), now);
    let later = now + Duration::from_secs(20);
    let mut placed = engine.decide(now);
    placed.extend(engine.decide(later));
    assert_eq!(placed.len(), 1, "neither keeps it from the other: {placed:?}");
    assert_eq!(engine.cluster.nominees("w1").count(), 0);
}

#[tokio::test]
async fn a_node_that_goes_takes_its_nominations_along() {
    let (mut engine, now) = (engine(), Instant::now());
    engine.learn_node("w1", now);
    engine.learn(&on(&asking("lesser", "4", json!({})), "w1"), now);
    engine.learn(&asking("urgent", "4", json!({"priority": 5})), now);
    engine.decide(now);
    assert_eq!(engine.cluster.nominated_node("urgent"), Some("w1"));
    engine.apply(Message::NodeGone("w1".into()), now);
    assert_eq!(engine.cluster.nominated_node("urgent"), None);
    engine.learn_node("w2", now);
    assert_eq!(engine.decide(now), ["urgent"], "at once");
}

#[tokio::test]
async fn a_late_refusal_does_not_take_a_bound_pod_off_its_node() {
    let (mut engine, now) = (engine(), Instant::now());
    engine.learn_node("w1", now);
    let pod = asking("p", "4", json!({}));
    engine.learn(&pod, now);
    assert_eq!(engine.decide(now), ["p"]);
    engine.learn(&on(&pod, "w1"), now);
    engine.apply(Message::BindFailed("p".into()), now);
    assert!(engine.cluster.has_pod("p"));
}
