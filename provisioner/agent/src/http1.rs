//! One HTTP/1.1 request to a loopback port, over TCP or TLS.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How to make TLS connections.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl Tls {
    /// Verifies the server against a CA and a name; presents a client certificate.
    pub fn verified(
        ca_pem: &str,
        server_name: &str,
        cert_pem: &str,
        key_pem: &str,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(cert.context("reading the CA")?)?;
        }
        let config = builder()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certs(cert_pem)?, key(key_pem)?)?;
        Self::new(config, server_name)
    }

    /// Accepts any server: for health checks on the loopback, where only the status counts.
    pub fn unverified(client: Option<(&str, &str)>) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            builder()?.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let config = match client {
            Some((cert, key_pem)) => builder.with_client_auth_cert(certs(cert)?, key(key_pem)?)?,
            None => builder.with_no_client_auth(),
        };
        Self::new(config, "localhost")
    }

    fn new(config: ClientConfig, server_name: &str) -> anyhow::Result<Self> {
        let server_name = ServerName::try_from(server_name.to_owned()).context("server name")?;
        Ok(Self { config: Arc::new(config), server_name })
    }
}

fn builder() -> anyhow::Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn certs(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .context("reading a certificate")
}

fn key(pem: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("reading a private key")
}

/// Sends a request to a loopback port and returns the response; its body may go on for long.
pub async fn send(
    port: u16,
    tls: Option<&Tls>,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let tcp =
        tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
            .await
            .context("connecting took too long")??;
    tcp.set_nodelay(true)?;
    match tls {
        None => exchange(TokioIo::new(tcp), request).await,
        Some(tls) => {
            let connector = TlsConnector::from(Arc::clone(&tls.config));
            let handshake = connector.connect(tls.server_name.clone(), tcp);
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, handshake)
                .await
                .context("the TLS handshake took too long")??;
            exchange(TokioIo::new(stream), request).await
        }
    }
}

async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    // Ends with the response's body: nothing else holds the connection.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
