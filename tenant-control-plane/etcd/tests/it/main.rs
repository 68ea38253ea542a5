//! The `etcd` binary as a process, over mTLS: through our client, through the real etcdctl, and
//! under `kill -9`.

#![allow(clippy::unwrap_used)]

mod api;
mod auth;
mod backup;
mod chaos;
mod cluster;
mod corrupt;
mod crash;
mod etcdctl;
mod gateway;
mod load;
mod pki;
mod server;
mod turns;
mod unix;
mod watch;
