//! What a PATCH request does to an object: RFC 6902, RFC 7396, Kubernetes' strategic merge, and
//! server-side apply.
//!
//! ```text
//!  current object ─┐
//!                  ├─► json_patch / merge_patch / strategic_merge / apply ─► new object ─► defaults, validate
//!  patch body ─────┘
//! ```
//!
//! Pure functions: nothing here knows of requests, versions or storage, and none of them defaults
//! or validates. Invariants: the input object is never changed in place, so a failed patch changes
//! nothing; the result is bounded in size and depth whatever the patch says, so a small patch cannot
//! make a large object. The caller goes on with the schema's checks on the result.

pub mod apply;
mod json;
mod merge;
pub mod strategic;

pub use json::json_patch;
pub use merge::merge_patch;
pub use strategic::strategic_merge;

use machinery::{Reason, Status};

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not one: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: 422.
    #[error("{0}")]
    DoesNotApply(String),
    /// The patch or its result would be too large: 413.
    #[error("{0}")]
    TooLarge(String),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(text) => Status::bad_request(text),
            PatchError::TooLarge(text) => Status::new(Reason::RequestEntityTooLarge, text),
            PatchError::DoesNotApply(text) => Status::new(
                Reason::Invalid,
                format!("the server rejected our request due to an error in our request ({text})"),
            ),
        }
    }
}
