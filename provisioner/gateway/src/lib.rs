//! Routes TLS connections by server name.
