//! The etcd v3 protocol and a client for it.
