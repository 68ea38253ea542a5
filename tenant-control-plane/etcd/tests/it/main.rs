//! The `etcd` binary as a process, over mTLS: through our client, through the real etcdctl, and
//! under `kill -9`.

mod api;
mod cluster;
mod crash;
mod etcdctl;
mod pki;
mod server;
mod watch;
