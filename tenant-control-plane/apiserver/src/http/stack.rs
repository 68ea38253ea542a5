//! Stages of the request path as tower layers.

use std::convert::Infallible;
use std::future::Future;

use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use super::{Request, Response};

/// The rest of the stack, as a stage sees it.
pub type Next = BoxCloneSyncService<Request, Response, Infallible>;

/// A layer made from an async function of the request and what comes next.
#[derive(Clone)]
pub struct Stage<F>(pub F);

impl<F, Fut> Layer<Next> for Stage<F>
where
    F: Fn(Request, Next) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    type Service = Next;

    fn layer(&self, next: Next) -> Next {
        let stage = self.0.clone();
        let service = tower::service_fn(move |request: Request| {
            let answer = stage(request, next.clone());
            async move { Ok(answer.await) }
        });
        BoxCloneSyncService::new(service)
    }
}

/// Hands a request to the next stage.
pub async fn pass(mut next: Next, request: Request) -> Response {
    match ServiceExt::<Request>::ready(&mut next).await {
        Ok(ready) => match ready.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(never) => match never {},
    }
}

/// The innermost service, from an async function.
pub fn innermost<F, Fut>(handler: F) -> Next
where
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    let service = tower::service_fn(move |request: Request| {
        let answer = handler(request);
        async move { Ok(answer.await) }
    });
    BoxCloneSyncService::new(service)
}
