//! HTTP probes and hooks: one GET on a fresh connection. The certificate of an HTTPS endpoint
//! is not checked (as documented for probes: the pod is known by its address).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Accepts any certificate.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn tls() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("ring supports the default versions")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth();
            Arc::new(config)
        })
        .clone()
}

fn request(action: &HTTPGetAction, host: &str, port: u16) -> Result<Request<Empty<Bytes>>, String> {
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = Request::get(&path)
        .body(Empty::new())
        .map_err(|e| format!("invalid path {path:?}: {e}"))?;
    let headers = request.headers_mut();
    for own in action.http_headers.iter().flatten() {
        let name = HeaderName::from_bytes(own.name.as_bytes())
            .map_err(|e| format!("header {:?}: {e}", own.name))?;
        let value =
            HeaderValue::from_str(&own.value).map_err(|e| format!("header {:?}: {e}", own.name))?;
        headers.append(name, value);
    }
    let default = |headers: &mut http::HeaderMap, name: HeaderName, value: String| {
        if let (false, Ok(value)) = (headers.contains_key(&name), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    };
    default(headers, header::HOST, format!("{bracketed}:{port}"));
    default(headers, header::USER_AGENT, "kube-probe/1.35".into());
    default(headers, header::ACCEPT, "*/*".into());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        // The body is read to its end so that the server sees an orderly close.
        let _ = http_body_util::Limited::new(response.into_body(), 10 * 1024).collect().await;
        Ok(status)
    };
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}

/// Sends the request; 200 to 399 is success.
///
/// # Errors
/// Why not, as a sentence.
pub async fn get(action: &HTTPGetAction, host: &str, port: u16) -> Result<(), String> {
    let request = request(action, host, port)?;
    let https = action.scheme.as_deref() == Some("HTTPS");
    let url = format!("{}://{host}:{port}{}", if https { "https" } else { "http" }, request.uri());
    let fail = |e: String| format!("Get \"{url}\": {e}");
    let tcp = TcpStream::connect((host, port)).await.map_err(|e| fail(e.to_string()))?;
    let status = if https {
        let name = ServerName::try_from(host.to_owned()).map_err(|e| fail(e.to_string()))?;
        let stream = tokio_rustls::TlsConnector::from(tls())
            .connect(name, tcp)
            .await
            .map_err(|e| fail(e.to_string()))?;
        send(stream, request).await
    } else {
        send(tcp, request).await
    };
    match status.map_err(fail)? {
        200..=399 => Ok(()),
        code => Err(format!("HTTP probe failed with statuscode: {code}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn answer(status: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let n = stream.read(&mut buffer).await.unwrap();
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nhi");
            stream.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        });
        (port, task)
    }

    #[tokio::test]
    async fn status_codes_decide() {
        let action: HTTPGetAction =
            serde_json::from_value(serde_json::json!({"port": 1, "path": "healthz?x=1",
            "httpHeaders": [{"name": "X-A", "value": "b"}]}))
            .unwrap();
        for (status, good) in [("200 OK", true), ("302 Found", true), ("500 Oops", false)] {
            let (port, request) = answer(status).await;
            assert_eq!(get(&action, "127.0.0.1", port).await.is_ok(), good, "{status}");
            let request = request.await.unwrap();
            assert!(
                request.starts_with("GET /healthz?x=1 HTTP/1.1") && request.contains("x-a: b"),
                "{request}"
            );
        }
    }
}
