//! What handlers get out of a request, with errors that a caller can act on.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use marina_db::seal::hash_token;
use marina_db::{DbError, now_ms};
use serde::de::DeserializeOwned;

use crate::identity::Caller;
use crate::problem::{FieldError, Problem};
use crate::state::AppState;

/// How old the recorded last use of a token may become, in milliseconds.
const TOUCH_MS: i64 = 60_000;
/// How long the body of a request may take.
const BODY: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 30_000 });

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    /// The caller behind `Authorization: Bearer <token>`.
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        let unknown = || Problem::unauthorized("The API token is not valid, expired or revoked.");
        let mut tx = state.db.read().await?;
        let stored = match tx.api_token_by_hash(&hash_token(token)).await {
            Ok(stored) => stored,
            Err(DbError::NotFound { .. }) => return Err(unknown()),
            Err(error) => return Err(error.into()),
        };
        let user = tx.user(&stored.user_id).await?;
        let org = tx.organization(&stored.org_id).await?;
        let role = tx.role(&org.id, &user.id).await?;
        drop(tx);
        let role = role.filter(|_| !user.disabled).ok_or_else(unknown)?;
        if stored.last_used_ms.is_none_or(|last| now_ms() - last > TOUCH_MS) {
            let mut tx = state.db.write().await?;
            tx.touch_api_token(&stored.id).await?;
            tx.commit().await?;
        }
        let actor = format!("{} ({})", user.login, stored.name);
        Ok(Self {
            actor,
            user,
            org,
            role,
            scope: stored.scope,
            expires_ms: stored.expires_ms,
            remote: remote(parts),
        })
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = "Send an API token: `Authorization: Bearer <token>`.";
    let value = headers.get(header::AUTHORIZATION);
    let value = value.ok_or_else(|| Problem::unauthorized(missing))?;
    let value = value.to_str().map_err(|_| Problem::unauthorized(missing))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Problem::unauthorized(missing)),
    }
}

/// Address of origin, without its port.
pub(crate) fn remote(parts: &Parts) -> String {
    let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    info.map(|info| info.0.ip().to_string()).unwrap_or_default()
}

/// Address of origin as an extractor.
pub struct Remote(pub String);

impl<S: Sync> FromRequestParts<S> for Remote {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(remote(parts)))
    }
}

/// A JSON body. Unknown fields, wrong types and broken syntax name the place.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if !kind.starts_with("application/json") {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::from_status(
                status,
                "Send JSON: `Content-Type: application/json`.",
            ));
        }
        parse(&read(request).await?).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // A list would be taken for the fields in their order, whatever that is at the time.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Problem::invalid(vec![FieldError::new("body", "Send a JSON object.")]));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => {
                let message = error.to_string();
                Problem::invalid(vec![FieldError::new(field(&path, &message), message)])
            }
            _ => Problem::bad_request(format!("The body is not JSON: {error}.")),
        }
    })?;
    json.end().map_err(|error| Problem::bad_request(format!("After the JSON body: {error}.")))?;
    Ok(value)
}

/// The field that an error is about: the path leads to where the reader stood, and a field that is
/// missing or given twice is named in the message only.
fn field(path: &str, message: &str) -> String {
    let named = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    match (path, named) {
        ("." | "", None) => "body".to_owned(),
        ("." | "", Some(name)) => name.to_owned(),
        (path, Some(name)) if path.rsplit('.').next() != Some(name) => format!("{path}.{name}"),
        (path, _) => path.to_owned(),
    }
}

/// The whole body of a request.
///
/// # Errors
/// 408 when it does not come in time, 413 when it is too large.
pub(crate) async fn read(request: Request) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY, Bytes::from_request(request, &()));
    let bytes = read.await.map_err(|_| {
        let detail = format!("The body of the request did not come within {} s.", BODY.as_secs());
        Problem::from_status(StatusCode::REQUEST_TIMEOUT, detail)
    })?;
    bytes.map_err(|rejection| {
        Problem::from_status(rejection.status(), format!("{}.", rejection.body_text()))
    })
}

/// Parts of the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|rejection| Problem::bad_request(format!("{}.", rejection.body_text())))
    }
}

/// Query parameters; unknown ones are refused where the type says so.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or("");
        let query = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(query).map(Self).map_err(|error| {
            let name = error.path().to_string();
            Problem::invalid(vec![FieldError::new(name, error.into_inner().to_string())])
        })
    }
}

/// The `Idempotency-Key` header.
pub struct IdempotencyKey(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(key) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        match key.to_str() {
            Ok(key) if (1..=128).contains(&key.len()) => Ok(Self(Some(key.to_owned()))),
            _ => Err(Problem::bad_request("Idempotency-Key must have 1 to 128 ASCII characters.")),
        }
    }
}

/// The generation in the `If-Match` header: `"7"`, or `*` for any.
pub struct IfMatch(pub Option<i64>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let value = value.to_str().unwrap_or("").trim();
        if value == "*" {
            return Ok(Self(None));
        }
        match value.trim_matches('"').parse() {
            Ok(generation) => Ok(Self(Some(generation))),
            Err(_) => Err(Problem::precondition_failed(
                "If-Match must be the ETag of the resource, such as \"7\".",
            )),
        }
    }
}

/// The `ETag` of a generation.
pub(crate) fn etag(generation: i64) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{generation}\""))]
}

#[cfg(test)]
mod tests {
    use axum::body::Body as Incoming;

    use super::*;

    #[test]
    fn errors_name_the_field() {
        #[derive(Debug, serde::Deserialize)]
        struct Inner {
            #[allow(dead_code)]
            key: String,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Outer {
            #[allow(dead_code)]
            name: String,
            #[allow(dead_code)]
            #[serde(default)]
            list: Vec<Inner>,
        }
        let told = |body: &str| {
            let problem = parse::<Outer>(body.as_bytes()).expect_err(body);
            let field = problem.errors.first().map(|error| error.field.clone());
            (problem.status, field.unwrap_or_default())
        };
        for (body, status, field) in [
            ("{}", 422, "name"),
            (r#"{"name": "a", "name": "b"}"#, 422, "name"),
            (r#"{"name": 5}"#, 422, "name"),
            (r#"{"name": "a", "more": 1}"#, 422, "more"),
            (r#"{"name": "a", "list": [{"key": "k"}, {}]}"#, 422, "list[1].key"),
            (r#"["a", []]"#, 422, "body"),
            ("{bad", 400, ""),
            ("", 400, ""),
            (r#"{"name": "a"} {"#, 400, ""),
        ] {
            assert_eq!(told(body), (status, field.to_owned()), "{body}");
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_waited_for_no_longer_than_that() {
        let body =
            Incoming::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let problem = read(Request::new(body)).await.expect_err("too late");
        assert_eq!(problem.status, 408, "{}", problem.detail);
    }
}
