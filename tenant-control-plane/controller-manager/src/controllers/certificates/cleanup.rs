//! Removes requests that nobody needs any more: issued, approved, denied or failed an hour ago,
//! never decided for a day, or with an expired certificate.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{condition, has_certificate};
use crate::context::{Context, Running};
use crate::writes::Writer;

const PERIOD: Duration = Duration::from_secs(600);
const SETTLED_AGE: i64 = 3600;
const PENDING_AGE: i64 = 24 * 3600;

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let requests = context.informer::<CertificateSigningRequest>();
    let writer = Writer::new(context.client.clone(), requests);
    Ok(Some(context.every(PERIOD, move || {
        let writer = writer.clone();
        async move {
            for request in writer.cache().list() {
                if is_stale(&request, Timestamp::now())
                    && let Err(error) = writer.delete(&request).await
                {
                    tracing::warn!(csr = ?request.metadata.name, "could not remove an old request: {error}");
                }
            }
        }
    })))
}

fn is_stale(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older = |since: Option<Timestamp>, age: i64| {
        since.is_some_and(|since| now.as_second() - since.as_second() > age)
    };
    let settled = ["Approved", "Denied", "Failed"].iter().find_map(|kind| condition(request, kind));
    match settled {
        // Approved but not signed: a signer may still come.
        Some(decided) if decided.type_ != "Approved" || has_certificate(request) => {
            older(decided.last_update_time.as_ref().map(|time| time.0), SETTLED_AGE)
        }
        _ => older(request.metadata.creation_timestamp.as_ref().map(|t| t.0), PENDING_AGE),
    }
}
