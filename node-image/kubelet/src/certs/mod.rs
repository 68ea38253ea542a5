//! The node's identity: a client certificate that the cluster signs, and a serving certificate.
//!
//! ```text
//! bootstrap kubeconfig ─► CSR (system:node:<name>) ─► approved, signed ─► <cert-dir>/kubelet-client-<time>.pem
//!                                                                       ▲ kubelet-client-current.pem (link)
//! at 70–90 % of its life: the same again, as the node itself ────────────┘
//! ```

pub mod client;
pub mod request;
pub mod serving;
