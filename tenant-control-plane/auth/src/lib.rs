//! Who sends a request, and may he do that?
//!
//! Two questions that the API server asks for every request, answered from memory:
//!
//! ```text
//! headers + TLS chain ─► Authenticator ─► UserInfo ─► impersonation ─► Authorizer ─► Decision
//!                          │ client certificate, front proxy,            │ system:masters
//!                          │ token of the file, ServiceAccount token,    │ Node graph
//!                          │ bootstrap token, anonymous                  │ RBAC
//!                          └────────────── ObjectSource (the API server's watch cache) ──┘
//! ```
//!
//! Beside them live what the API server needs to run these two: the default roles and bindings
//! ([`policy::bootstrap_policy`]), ClusterRole aggregation, the escalation check for writes to
//! roles and bindings, the issuer of ServiceAccount tokens, and the answers to the review kinds.
//!
//! This crate never does input or output, never writes an object and holds no task: everything it
//! knows comes from its configuration and from [`machinery::ObjectSource`]. Whatever it computes
//! from objects is kept per [`machinery::ObjectSource::generation`] and recomputed when that
//! changes.
//!
//! Invariants:
//! - credentials that are present but wrong are an error, never an anonymous user;
//! - a rule that cannot be understood grants nothing;
//! - secrets (tokens, keys) appear in no error text.
//!
//! The request goes on to the admission chain (crate `admission`).

pub mod aggregate;
pub mod authn;
pub mod authz;
pub mod escalation;
pub mod impersonation;
pub mod policy;
pub mod review;
pub mod token;

pub use aggregate::aggregate;
pub use authn::{AuthConfig, Authenticator, RequestHeaderConfig, ServiceAccountConfig};
pub use authz::{Authorizer, AuthorizerConfig, Decision};
pub use policy::bootstrap_policy;
