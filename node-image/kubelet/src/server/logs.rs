//! `/containerLogs`: a container's output, from the file that the runtime writes.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::pb;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::log_file::{Options, Printer, tail_offset};
use super::router::{Query, find_pod};
use super::{Body, text};
use crate::node::Node;
use crate::runtime::observe::{self, State};
use crate::spec::containers;

/// How often a log that is followed is looked at.
const PERIOD: Duration = Duration::from_millis(200);
/// How often the runtime is asked whether the container still runs.
const CHECK: u32 = 5;

fn options(query: &Query) -> Result<Options, String> {
    let number = |name: &str| match query.get(name) {
        None | Some("") => Ok(None),
        Some(text) => {
            text.parse::<i64>().map(Some).map_err(|_| format!("{name}: {text:?} is not a number"))
        }
    };
    let positive = |name: &str, least: i64| match number(name)? {
        Some(n) if n < least => Err(format!("{name}: must be at least {least}")),
        other => Ok(other.and_then(|n| usize::try_from(n).ok())),
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime").filter(|t| !t.is_empty())) {
        (Some(_), Some(_)) => {
            return Err("at most one of sinceTime or sinceSeconds may be specified".into());
        }
        (Some(n), None) if n < 1 => return Err("sinceSeconds: must be at least 1".into()),
        (Some(n), None) => Some(Timestamp::now() - SignedDuration::from_secs(n)),
        (None, Some(time)) => {
            Some(time.parse().map_err(|_| format!("sinceTime: {time:?} is not a time"))?)
        }
        (None, None) => None,
    };
    Ok(Options {
        follow: query.flag(&["follow"]),
        tail_lines: positive("tailLines", 0)?,
        since,
        timestamps: query.flag(&["timestamps"]),
        limit_bytes: positive("limitBytes", 1)?,
        stream: match query.get("stream") {
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            _ => None,
        },
    })
}

/// Why a container has no log to show.
fn no_log(pod: &Pod, name: &str, previous: bool) -> String {
    let pod_name = containers::name(pod);
    if previous {
        return format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found");
    }
    let status = pod.status.as_ref();
    let lists = status.map(|s| {
        [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]
    });
    let found = lists.into_iter().flatten().flatten().flatten().find(|s| s.name == name);
    let waiting = found.and_then(|s| s.state.as_ref()?.waiting.as_ref());
    match waiting {
        Some(waiting) => {
            let mut reason = waiting.reason.clone().unwrap_or_default();
            if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName") {
                reason = "trying and failing to pull image".into();
            }
            format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {reason}")
        }
        None => format!("container \"{name}\" in pod \"{pod_name}\" is not available"),
    }
}

/// The id of the container that `lastState` tells of.
fn last_id(pod: &Pod, name: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|s| s.name == name)?;
    let id = found.last_state.as_ref()?.terminated.as_ref()?.container_id.as_deref()?;
    Some(id.split_once("://").map_or(id, |(_, id)| id).to_owned())
}

/// The log file, and the container's id while it runs.
fn choose(
    pod: &Pod,
    runtime: &observe::Pod,
    name: &str,
    previous: bool,
) -> Result<(PathBuf, Option<String>), String> {
    let found = if previous {
        let id = last_id(pod, name).unwrap_or_default();
        runtime.named(name).find(|c| c.id == id)
    } else {
        runtime.latest(name)
    };
    let found = found.filter(|c| !c.log_path.is_empty() && c.state != State::Created);
    let found = found.ok_or_else(|| no_log(pod, name, previous))?;
    Ok((PathBuf::from(&found.log_path), (found.state == State::Running).then(|| found.id.clone())))
}

/// Serves the request.
pub async fn serve(
    node: &Arc<Node>,
    namespace: &str,
    name: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let options = match options(query) {
        Ok(options) => options,
        Err(why) => return text(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let pod = match find_pod(node, namespace, name, None) {
        Ok(pod) => pod,
        Err(refusal) => return refusal,
    };
    if containers::find(&pod, container).is_none() {
        return text(
            StatusCode::NOT_FOUND,
            format!("container \"{container}\" not found in pod \"{name}\""),
        );
    }
    let runtime = match observe::observe(&node.runtime, containers::uid(&pod)).await {
        Ok(runtime) => runtime,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let (path, running) = match choose(&pod, &runtime, container, query.flag(&["previous"])) {
        Ok(found) => found,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let (sender, mut receiver) = mpsc::channel::<std::io::Result<Bytes>>(8);
    let reader = Reader { node: node.clone(), path, running, options, sender };
    tokio::spawn(reader.run());
    let frames = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames = futures::StreamExt::map(frames, |chunk| {
        chunk.map(Frame::data).map_err(Box::<dyn std::error::Error + Send + Sync>::from)
    });
    let mut response = Response::new(StreamBody::new(frames).boxed());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

struct Reader {
    node: Arc<Node>,
    path: PathBuf,
    /// The container's id while it runs.
    running: Option<String>,
    options: Options,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
}

/// Opens the log where reading is to begin.
async fn open(path: &Path, tail: Option<usize>) -> std::io::Result<tokio::fs::File> {
    let path = path.to_path_buf();
    let file = tokio::task::spawn_blocking(move || -> std::io::Result<std::fs::File> {
        use std::io::Seek as _;
        let mut file = std::fs::File::open(path)?;
        if let Some(lines) = tail {
            let size = file.metadata()?.len();
            let at = tail_offset(size, lines, |at, length| {
                let mut block = vec![0; length];
                file.read_exact_at(&mut block, at)?;
                Ok(block)
            })?;
            file.seek(std::io::SeekFrom::Start(at))?;
        }
        Ok(file)
    });
    file.await.map_err(std::io::Error::other)?.map(tokio::fs::File::from_std)
}

impl Reader {
    async fn run(mut self) {
        if let Err(error) = self.copy().await {
            // The client gone is the usual end of a followed log.
            let _ = self.sender.send(Err(error)).await;
        }
    }

    async fn copy(&mut self) -> std::io::Result<()> {
        let mut file = match open(&self.path, self.options.tail_lines).await {
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && self.running.is_some() =>
            {
                self.wait_for_file().await?
            }
            other => other?,
        };
        let mut printer = Printer::new(self.options.clone());
        let mut buffer = vec![0; 64 * 1024];
        let mut rounds = 0;
        loop {
            let n = file.read(&mut buffer).await?;
            if n > 0 {
                let out = printer.feed(&buffer[..n]);
                if !out.is_empty() && self.sender.send(Ok(out.into())).await.is_err() {
                    return Ok(());
                }
                if printer.is_full() {
                    return Ok(());
                }
                continue;
            }
            if !self.options.follow || self.running.is_none() {
                return Ok(());
            }
            tokio::select! {
                () = self.sender.closed() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
            rounds += 1;
            if rounds % CHECK == 0 && !self.still_runs().await {
                // One more look: what was written until then is read above.
                self.running = None;
            }
            if let Some(next) = self.rotated(&file).await {
                file = next;
            }
        }
    }

    async fn wait_for_file(&mut self) -> std::io::Result<tokio::fs::File> {
        loop {
            match open(&self.path, None).await {
                Err(error)
                    if error.kind() == std::io::ErrorKind::NotFound && self.still_runs().await =>
                {
                    tokio::time::sleep(PERIOD).await;
                }
                other => return other,
            }
        }
    }

    /// The new file when the log was rotated and the old one is read to its end.
    async fn rotated(&self, file: &tokio::fs::File) -> Option<tokio::fs::File> {
        let now = tokio::fs::metadata(&self.path).await.ok()?;
        let have = file.metadata().await.ok()?;
        if (now.dev(), now.ino()) == (have.dev(), have.ino()) {
            return None;
        }
        tokio::fs::File::open(&self.path).await.ok()
    }

    async fn still_runs(&self) -> bool {
        let Some(id) = &self.running else { return false };
        let request = pb::ContainerStatusRequest { container_id: id.clone(), verbose: false };
        match self.node.runtime.container_status(request).await {
            Ok(answer) => {
                answer.status.is_some_and(|s| s.state() == pb::ContainerState::ContainerRunning)
            }
            Err(error) => !error.is_not_found(),
        }
    }
}
