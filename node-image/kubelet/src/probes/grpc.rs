//! The gRPC health protocol (grpc.health.v1.Health/Check).

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks the server whether `service` (empty: all of it) serves.
///
/// # Errors
/// Why not, as a sentence.
pub async fn check(host: &str, port: u16, service: &str) -> Result<(), String> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let endpoint =
        Endpoint::from_shared(format!("http://{host}:{port}")).map_err(|e| e.to_string())?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(10));
    let channel =
        endpoint.connect().await.map_err(|e| format!("failed to connect to {host}:{port}: {e}"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    let answer = client
        .unary(request, path, codec)
        .await
        .map_err(|s| format!("rpc error: {}", s.message()))?;
    match answer.into_inner().status {
        1 => Ok(()),
        other => Err(format!("service unhealthy (responded with {other})")),
    }
}
