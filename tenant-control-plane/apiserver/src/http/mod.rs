//! HTTP as this server speaks it: connections, the stack of stages a request passes, query
//! strings, bodies, content negotiation and responses. Knows nothing of kinds or storage.

pub mod body;
pub mod connection;
pub mod limit;
pub mod media;
pub mod query;
pub mod repeated;
pub mod request_info;
pub mod respond;
pub mod stack;

/// A request on its way through the stack.
pub type Request = ::http::Request<streaming::body::Body>;
/// A response; its body may be a stream without end.
pub type Response = ::http::Response<streaming::body::Body>;
