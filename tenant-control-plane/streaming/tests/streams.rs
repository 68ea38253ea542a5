//! Clients → [`streaming::forward`] → a kubelet of the test's own, over real sockets.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use streaming::body::{self, Body};
use streaming::kubelet::Streams;
use streaming::node::Scheme;
use streaming::spdy::{Frame, Reader, Writer};
use streaming::tls::KubeletTls;
use streaming::{Dialer, Mode, NodeClient, NodeTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const DEADLINE: Duration = Duration::from_secs(20);

/// Serves HTTP/1.1 with upgrades on a port of its own.
async fn serve<F, Fut>(handler: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let handler = handler.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    address
}

/// The API server's part: forwards everything to one path of the kubelet.
async fn front(kubelet: SocketAddr, mode: Mode) -> SocketAddr {
    let client = NodeClient::new(Dialer::Direct, &KubeletTls::default()).unwrap();
    let client = client.with_local_proxies();
    serve(move |request| {
        let client = client.clone();
        async move {
            let target = NodeTarget {
                scheme: Scheme::Plain,
                host: kubelet.ip().to_string(),
                port: kubelet.port(),
                path_and_query: "/there?x=1".into(),
            };
            streaming::forward(&client, request, target, mode).await
        }
    })
    .await
}

fn switching(protocol: &str) -> Response<Body> {
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", protocol)
        .body(body::empty())
        .unwrap()
}

type Io = TokioIo<hyper::upgrade::Upgraded>;
type SpdyIn = Reader<tokio::io::ReadHalf<Io>>;
type SpdyOut = Writer<tokio::io::WriteHalf<Io>>;

/// A kubelet whose command is the given function, once `streams` streams are open.
async fn kubelet<F, Fut>(streams: usize, command: F) -> SocketAddr
where
    F: Fn(SpdyIn, SpdyOut, Vec<(u32, String)>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    serve(move |mut request| {
        let command = command.clone();
        async move {
            assert_eq!(request.method(), "POST");
            assert_eq!(request.headers()[header::UPGRADE], "SPDY/3.1");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                let (read, write) = tokio::io::split(io);
                let (mut reader, mut writer) = (Reader::new(read), Writer::new(write));
                let mut open = Vec::new();
                while open.len() < streams {
                    match reader.next().await.unwrap().unwrap() {
                        Frame::SynStream { id, headers, .. } => {
                            assert_eq!(headers[0].0, "streamtype");
                            writer.syn_reply(id, &Vec::new(), false).await.unwrap();
                            open.push((id, headers[0].1.clone()));
                        }
                        other => panic!("unexpected {other:?}"),
                    }
                }
                command(reader, writer, open).await;
            });
            switching("v4.channel.k8s.io")
        }
    })
    .await
}

fn id_of(open: &[(u32, String)], name: &str) -> u32 {
    open.iter().find(|(_, n)| n == name).unwrap_or_else(|| panic!("no stream {name}")).0
}

async fn websocket(address: SocketAddr, protocol: &str) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{address}/").into_client_request().unwrap();
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let chosen = response.headers()[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap().to_owned();
    assert!(protocol.split(", ").any(|p| p == chosen), "{chosen}");
    socket
}

fn message(channel: u8, data: &[u8]) -> Message {
    Message::binary([&[channel], data].concat())
}

/// Everything per channel until the server closes.
async fn collect(socket: &mut WebSocketStream<TcpStream>) -> [Vec<u8>; 5] {
    let mut channels: [Vec<u8>; 5] = Default::default();
    loop {
        match timeout(DEADLINE, socket.next()).await.expect("no end") {
            Some(Ok(Message::Binary(bytes))) => {
                channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
            }
            Some(Ok(Message::Close(_))) | None => return channels,
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
        }
    }
}

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };

/// Echoes stdin in upper case until its end, then says so on stderr and exits with 3.
async fn shout(mut reader: SpdyIn, mut writer: SpdyOut, open: Vec<(u32, String)>) {
    let id = |name: &str| id_of(&open, name);
    writer.ping(2).await.unwrap();
    // Answers to pings and stdin have no order between them: both must come.
    let (mut ponged, mut ended) = (false, false);
    while !(ponged && ended) {
        match reader.next().await.unwrap().unwrap() {
            Frame::Data { id: from, fin, bytes } if from == id("stdin") => {
                writer.data(id("stdout"), &bytes.to_ascii_uppercase(), false).await.unwrap();
                ended |= fin;
            }
            Frame::Ping { id: 2 } => ponged = true,
            other => panic!("unexpected {other:?}"),
        }
    }
    // The status may overtake the last output: the client must see all output first.
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode","code":3}"#;
    writer.data(id("error"), status, true).await.unwrap();
    writer.data(id("stdout"), b"", true).await.unwrap();
    writer.data(id("stderr"), b"the end", true).await.unwrap();
    let _ = reader.next().await;
}

#[tokio::test]
async fn a_commands_streams_and_status_cross_both_protocols() {
    let address = front(kubelet(4, shout).await, Mode::Command(ALL)).await;
    let mut socket = websocket(address, "v5.channel.k8s.io").await;
    let large = vec![b'x'; 300_000];
    socket.send(message(0, b"hello ")).await.unwrap();
    socket.send(message(0, &large)).await.unwrap();
    socket.send(Message::Ping(Bytes::new())).await.unwrap();
    socket.send(message(255, &[0])).await.unwrap();
    let [_, stdout, stderr, status, _] = collect(&mut socket).await;
    assert!(stdout == [b"HELLO ".to_vec(), large.to_ascii_uppercase()].concat());
    assert_eq!(stderr, b"the end");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["code"], 3);
}

#[tokio::test]
async fn a_terminal_is_resized_and_an_empty_status_is_success() {
    let command = |mut reader: SpdyIn, mut writer: SpdyOut, open: Vec<(u32, String)>| async move {
        let resize = id_of(&open, "resize");
        let size = match reader.next().await.unwrap().unwrap() {
            Frame::Data { id, bytes, .. } if id == resize => bytes,
            other => panic!("unexpected {other:?}"),
        };
        writer.data(id_of(&open, "stdout"), &size, true).await.unwrap();
        writer.data(id_of(&open, "error"), b"", true).await.unwrap();
        let _ = reader.next().await;
    };
    let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    let address = front(kubelet(4, command).await, Mode::Command(streams)).await;
    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io, v4.channel.k8s.io"] {
        let mut socket = websocket(address, protocol).await;
        socket.send(message(4, br#"{"Width":80,"Height":24}"#)).await.unwrap();
        let [_, stdout, _, status, _] = collect(&mut socket).await;
        assert_eq!(stdout, br#"{"Width":80,"Height":24}"#);
        let status: Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(status["status"], "Success");
    }
}

#[tokio::test]
async fn a_kubelets_refusal_reaches_the_error_channel() {
    let kubelet = serve(|_| async {
        let mut refusal = Response::new(body::full("container not found (\"x\")"));
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        refusal
    })
    .await;
    let redirecting = serve(|_| async {
        Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, "http://169.254.169.254/")
            .body(body::empty())
            .unwrap()
    })
    .await;
    let hostile = serve(|mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let _ = io.write_all(&[0, 0, 0, 5, 0, 0xff, 0xff, 0xff]).await;
            let _ = io.read_to_end(&mut Vec::new()).await;
        });
        switching("v4.channel.k8s.io")
    })
    .await;
    for (kubelet, expected) in [
        (kubelet, "unable to upgrade connection: container not found (\"x\")"),
        (redirecting, "redirect"),
        (hostile, "frame is too large"),
        (SocketAddr::from(([127, 0, 0, 1], 1)), "error trying to reach service"),
    ] {
        let address = front(kubelet, Mode::Command(ALL)).await;
        let mut socket = websocket(address, "v5.channel.k8s.io").await;
        let [_, _, _, status, _] = collect(&mut socket).await;
        let status: Value = serde_json::from_slice(&status).unwrap();
        let text = status["message"].as_str().unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_command_from_writing() {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let command = |reader: SpdyIn, mut writer: SpdyOut, open: Vec<(u32, String)>| async move {
        let _reader = reader;
        let chunk = vec![b'y'; 32 * 1024];
        while writer.data(id_of(&open, "stdout"), &chunk, false).await.is_ok() {
            WRITTEN.fetch_add(chunk.len(), Ordering::SeqCst);
        }
    };
    let streams = Streams { stdout: true, ..Streams::default() };
    let address = front(kubelet(2, command).await, Mode::Command(streams)).await;
    let socket = websocket(address, "v5.channel.k8s.io").await;
    // Socket buffers fill up, and then nothing moves any more.
    let level = timeout(DEADLINE, async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = WRITTEN.load(Ordering::SeqCst);
            if now > 0 && now == last {
                return now;
            }
            last = now;
        }
    });
    assert!(level.await.expect("the writer never stops") < 64 << 20);
    drop(socket);
}

#[tokio::test]
async fn a_port_forward_tunnel_carries_bytes_as_they_are() {
    let kubelet = serve(|mut request: Request<Incoming>| async move {
        let asked = request.headers()["x-stream-protocol-version"].to_str().unwrap().to_owned();
        assert_eq!(asked, "portforward.k8s.io");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 5];
            while io.read_exact(&mut bytes).await.is_ok() {
                bytes.reverse();
                io.write_all(&bytes).await.unwrap();
                if &bytes == b"!dnE " {
                    return;
                }
            }
        });
        switching("portforward.k8s.io")
    })
    .await;
    let address = front(kubelet, Mode::PortForward).await;
    let mut socket = websocket(address, "SPDY/3.1+portforward.k8s.io").await;
    socket.send(Message::binary(&b"abcde EndX"[..5])).await.unwrap();
    let first = timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, Message::binary(&b"edcba"[..]));
    socket.send(Message::binary(&b" End!"[..])).await.unwrap();
    let rest: Vec<_> = timeout(DEADLINE, socket.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(*rest[0].as_ref().unwrap(), Message::binary(&b"!dnE "[..]));
}

#[tokio::test]
async fn an_older_clients_spdy_upgrade_passes_untouched() {
    let kubelet = kubelet(2, |_, mut writer, open| async move {
        writer.data(id_of(&open, "stdout"), b"raw", true).await.unwrap();
    });
    let address = front(kubelet.await, Mode::Command(ALL)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                   X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
    let (read, write) = stream.split();
    let (mut reader, mut writer) = (Reader::new(read), Writer::new(write));
    for (id, name) in [(1, "error"), (3, "stdout")] {
        writer.syn_stream(id, &vec![("streamtype".into(), name.into())], false).await.unwrap();
    }
    loop {
        if let Frame::Data { id, fin, bytes } = reader.next().await.unwrap().unwrap() {
            assert_eq!((id, fin, &bytes[..]), (3, true, &b"raw"[..]));
            return;
        }
    }
}

#[tokio::test]
async fn a_followed_log_arrives_line_by_line() {
    let (send, receive) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let receive = Arc::new(std::sync::Mutex::new(Some(receive)));
    let kubelet = serve(move |request| {
        let receive = receive.lock().unwrap().take();
        async move {
            assert_eq!(request.uri(), "/there?x=1");
            let stream = futures::stream::unfold(receive.unwrap(), |mut lines| async {
                lines.recv().await.map(|line| (line, lines))
            });
            Response::new(body::stream(stream))
        }
    })
    .await;
    let address = front(kubelet, Mode::Log).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").body(body::empty()).unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain");
    for line in ["one\n", "two\n"] {
        send.send(Ok(Bytes::from_static(line.as_bytes()))).await.unwrap();
        let frame = timeout(DEADLINE, response.frame()).await.expect("the line is held back");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), line);
    }
    drop(send);
    assert!(timeout(DEADLINE, response.frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_that_cannot_be_shown_is_a_status() {
    let kubelet = serve(|_| async {
        let mut refusal = Response::new(body::full("container is waiting to start\n"));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        refusal
    })
    .await;
    let address = front(kubelet, Mode::Log).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").header(header::HOST, "x").body(body::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(status["reason"], "BadRequest");
    assert_eq!(status["message"], "container is waiting to start");
}

#[tokio::test]
async fn a_proxied_backend_learns_no_credentials_and_redirects_are_handed_back() {
    let seen = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
    let kept = seen.clone();
    let backend = serve(move |request| {
        *kept.lock().unwrap() = request.headers().clone();
        async {
            Response::builder()
                .status(StatusCode::FOUND)
                .header(header::LOCATION, "http://127.0.0.1:1/elsewhere")
                .body(body::full("moved"))
                .unwrap()
        }
    })
    .await;
    let address = front(backend, Mode::Proxy).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/api/v1/namespaces/n/services/s/proxy/x")
        .header(header::HOST, "api.example")
        .header(header::AUTHORIZATION, "Bearer secret")
        .header("Impersonate-User", "root")
        .header("X-Remote-User", "root")
        .header(header::SEC_WEBSOCKET_PROTOCOL, "base64url.bearer.authorization.k8s.io.eA, chat")
        .header(header::CONNECTION, "X-Private")
        .header("X-Private", "1")
        .header("X-Kept", "1")
        .body(body::full("hello"))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    let headers = seen.lock().unwrap().clone();
    for gone in ["authorization", "impersonate-user", "x-remote-user", "x-private"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["x-kept"], "1");
    assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "chat");
    assert_eq!(headers["x-forwarded-host"], "api.example");
    assert_eq!(headers[header::HOST], backend.to_string());
}

#[tokio::test]
async fn a_proxy_never_leads_to_this_machine_or_its_link() {
    let client = NodeClient::new(Dialer::Direct, &KubeletTls::default()).unwrap();
    for host in [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "224.0.0.1",
        "localhost",
    ] {
        let target = NodeTarget {
            scheme: Scheme::Plain,
            host: host.into(),
            port: 1,
            path_and_query: "/".into(),
        };
        let request = Request::get("/").body(body::empty()).unwrap();
        let response = streaming::forward(&client, request, target, Mode::Proxy).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{host}");
    }
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_told_so() {
    let address = front(SocketAddr::from(([127, 0, 0, 1], 1)), Mode::Command(ALL)).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let plain = Request::post("/").header(header::HOST, "x").body(body::empty()).unwrap();
    let response = sender.send_request(plain).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let foreign = Request::get("/")
        .header(header::HOST, "x")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(header::SEC_WEBSOCKET_PROTOCOL, "chat")
        .body(body::empty())
        .unwrap();
    let response = sender.send_request(foreign).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    assert!(status["message"].as_str().unwrap().contains("v5.channel.k8s.io"), "{status}");
}
