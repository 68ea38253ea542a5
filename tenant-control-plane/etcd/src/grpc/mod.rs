//! The etcd v3 services.

pub mod auth;
pub mod caller;
pub mod checks;
pub mod cluster;
pub mod election;
pub mod kv;
pub mod lease;
pub mod line;
pub mod lock;
pub mod maintenance;
pub mod watch;

use tonic::{Response, Status};

type Answer<T> = Result<Response<T>, Status>;
