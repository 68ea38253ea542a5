//! What pages get out of a request; what is wrong with it is shown as a page.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::page::Failure;
use crate::api::extract::{self, read};
use crate::problem::{FieldError, Problem};

/// Parts of the path.
pub(super) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        Ok(Self(extract::Path::from_request_parts(parts, state).await?.0))
    }
}

/// A form that was filled in.
pub(super) struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Form<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if !kind.starts_with("application/x-www-form-urlencoded") {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::from_status(status, "This is not a form of the console.").into());
        }
        let bytes = read(request).await?;
        let form = serde_urlencoded::Deserializer::new(form_urlencoded::parse(&bytes));
        serde_path_to_error::deserialize(form).map(Self).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "form".to_owned() } else { path };
            Problem::invalid(vec![FieldError::new(field, format!("{}.", error.inner()))]).into()
        })
    }
}
