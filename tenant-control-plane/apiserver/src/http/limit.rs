//! How many requests are worked on at once. What is beyond waits a moment, then is told to come
//! back; requests that stay open by nature (watch, log, exec, proxies) are not counted.

use std::sync::Arc;
use std::time::Duration;

use machinery::{Reason, RequestInfo, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for requests.
pub struct Limits {
    reading: Arc<Semaphore>,
    writing: Arc<Semaphore>,
    /// An extension API server asks here before it answers: those questions must find a place
    /// beside the requests that wait for it.
    going_on: Arc<Semaphore>,
    patience: Duration,
}

/// True for requests that stay open.
pub fn is_long_running(info: &RequestInfo) -> bool {
    info.verb == "watch"
        || matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}

impl Limits {
    /// At most so many requests that read and so many that write; others wait for `patience`.
    pub fn new(reading: usize, writing: usize, patience: Duration) -> Self {
        let places = |n: usize| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)));
        let going_on = places(reading.saturating_add(writing));
        Self { reading: places(reading), writing: places(writing), going_on, patience }
    }

    /// A place for a request, which may go on to an extension API server; `None` if it needs none.
    /// 429 when all stay taken.
    pub async fn enter(
        &self,
        info: &RequestInfo,
        goes_on: bool,
    ) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if is_long_running(info) {
            return Ok(None);
        }
        let places = match info.is_read_only() {
            _ if goes_on => &self.going_on,
            true => &self.reading,
            false => &self.writing,
        };
        match tokio::time::timeout(self.patience, places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => {
                let text =
                    "The server has received too many requests and has asked us to try again later";
                let mut status = Status::new(Reason::TooManyRequests, text);
                status.details = serde_json::json!({"retryAfterSeconds": 1});
                Err(status)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_is_told_to_come_back() {
        let limits = Limits::new(1, 1, Duration::from_millis(10));
        let verb = |verb: &str| RequestInfo { verb: verb.into(), ..RequestInfo::default() };
        let place = limits.enter(&verb("get"), false).await.unwrap();
        assert!(place.is_some());
        assert_eq!(limits.enter(&verb("list"), false).await.unwrap_err().code, 429);
        assert!(limits.enter(&verb("watch"), false).await.unwrap().is_none());
        assert!(limits.enter(&verb("create"), false).await.unwrap().is_some());
        assert!(limits.enter(&verb("list"), true).await.unwrap().is_some());
        drop(place);
        assert!(limits.enter(&verb("list"), false).await.unwrap().is_some());
    }
}
