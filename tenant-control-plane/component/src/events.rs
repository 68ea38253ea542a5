//! Events about objects, as `kubectl describe` shows them.
//!
//! The same event about the same object is counted on one Event object instead of making a new one.
//! Events are best effort: they are dropped when the API server does not take them in time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::informer::Object;

/// Events that wait to be sent; more than that are dropped.
const QUEUE: usize = 1000;
/// How long repetitions are counted on one Event.
const SERIES_AGE: Duration = Duration::from_secs(600);
/// How many different events are remembered.
const SERIES_LIMIT: usize = 4096;

/// `Event.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something went as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Sends events from one component.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

struct Occurrence {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// A reference to an object, for events.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Recorder {
    /// Starts the task that sends events. `component` and `host` become `Event.source`.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Occurrence>(QUEUE);
        let source =
            EventSource { component: Some(component.to_owned()), host: host.map(str::to_owned) };
        tokio::spawn(async move {
            let mut sink = Sink { client, source, series: HashMap::new() };
            while let Some(occurrence) = waiting.recv().await {
                sink.send(occurrence).await;
            }
        });
        Self { queue }
    }

    /// Records an event about an object.
    pub fn event<K: Object>(&self, object: &K, kind: EventType, reason: &str, message: String) {
        self.event_about(reference(object), kind, reason, message);
    }

    /// Records an event about whatever the reference names.
    pub fn event_about(
        &self,
        about: ObjectReference,
        kind: EventType,
        reason: &str,
        message: String,
    ) {
        tracing::debug!(reason, object = ?about.name, "event: {message}");
        let occurrence =
            Occurrence { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if self.queue.try_send(occurrence).is_err() {
            tracing::warn!(reason, "an event was dropped: too many are waiting");
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct SeriesKey {
    uid: Option<String>,
    object: (Option<String>, Option<String>, Option<String>, Option<String>),
    kind: EventType,
    reason: String,
    message: String,
}

struct Series {
    name: String,
    count: i32,
    last: Instant,
}

struct Sink {
    client: Client,
    source: EventSource,
    series: HashMap<SeriesKey, Series>,
}

impl Sink {
    async fn send(&mut self, occurrence: Occurrence) {
        let about = &occurrence.about;
        let key = SeriesKey {
            uid: about.uid.clone(),
            object: (
                about.kind.clone(),
                about.namespace.clone(),
                about.name.clone(),
                about.field_path.clone(),
            ),
            kind: occurrence.kind,
            reason: occurrence.reason.clone(),
            message: occurrence.message.clone(),
        };
        // Events about cluster-scoped objects live in the namespace `default`.
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if self.series.len() >= SERIES_LIMIT {
            self.series.retain(|_, series| series.last.elapsed() < SERIES_AGE);
        }
        if let Some(series) = self.series.get_mut(&key)
            && series.last.elapsed() < SERIES_AGE
        {
            series.count += 1;
            series.last = Instant::now();
            let patch = serde_json::json!({
                "count": series.count, "lastTimestamp": Time(occurrence.at),
            });
            let params = PatchParams::default();
            match api.patch(&series.name, &params, &Patch::Merge(patch)).await {
                Ok(_) => return,
                // It expired, or is being removed with its namespace: start a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::debug!("an event could not be updated: {error}");
                    return;
                }
            }
        }
        let event = new_event(occurrence, &namespace, &self.source);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if self.series.len() < SERIES_LIMIT {
                    self.series.insert(key, Series { name, count: 1, last: Instant::now() });
                }
            }
            Err(error) => tracing::debug!("an event could not be written: {error}"),
        }
    }
}

fn new_event(occurrence: Occurrence, namespace: &str, source: &EventSource) -> Event {
    let at = Time(occurrence.at);
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    let subject = occurrence.about.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{subject}.{}", &suffix[..16])),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        },
        involved_object: occurrence.about,
        type_: Some(occurrence.kind.as_str().to_owned()),
        reason: Some(occurrence.reason),
        message: Some(occurrence.message),
        count: Some(1),
        first_timestamp: Some(at.clone()),
        last_timestamp: Some(at),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        ..Default::default()
    }
}
