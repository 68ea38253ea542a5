//! `exec` and `attach` over WebSocket, translated to SPDY streams towards the kubelet.
//!
//! One WebSocket message is one channel byte and then data; one SPDY stream is one channel.
//! Source: KEP-4006.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::SplitStream;
use http::{Request, Response};
use machinery::Status;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use crate::body::Body;
use crate::channels::{
    self, CLOSE, ERROR, Output, Protocol, RESIZE, STDERR, STDIN, STDOUT, decode,
};
use crate::kubelet::Streams;
use crate::node::{NodeClient, NodeTarget};
use crate::spdy::{Frame, Reader, SpdyError, Writer};
use crate::tunnel::spdy_upgrade;
use crate::websocket::{self, Socket};

/// Longest final status of a command, in bytes.
const LONGEST_STATUS: usize = 64 * 1024;
/// Frames that may wait for the kubelet to read them.
const QUEUED_FRAMES: usize = 4;
/// How often an idle connection is probed, on both sides: a peer that vanished without a word is
/// noticed when the probe is never acknowledged.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(30);
/// How long the client may take to answer our close.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts the WebSocket and starts the translation. What goes wrong with the kubelet afterwards
/// is told on the error channel.
pub(crate) async fn serve(
    client: Arc<NodeClient>,
    mut request: Request<Body>,
    target: NodeTarget,
    streams: Streams,
) -> Result<Response<Body>, Status> {
    let (name, protocol) = websocket::choose(request.headers(), &channels::SUBPROTOCOLS)?;
    let response = websocket::accept(request.headers(), name)?;
    let on_upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        run(websocket::socket(upgraded).await, protocol, &client, &target, streams).await;
    });
    Ok(response)
}

async fn run(
    socket: Socket,
    protocol: Protocol,
    client: &NodeClient,
    target: &NodeTarget,
    streams: Streams,
) {
    let (sink, mut source) = socket.split();
    let mut output = Output::new(sink, protocol);
    // An empty message tells the client that the connection stands.
    let first = match streams {
        Streams { stdout: true, .. } => STDOUT,
        Streams { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    if output.send(first, &[]).await.is_err() {
        return;
    }
    let protocols = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
    let status = match spdy_upgrade(client, target, &protocols).await {
        Ok((backend, _)) => {
            let (read, write) = tokio::io::split(backend);
            match translate(&mut source, &mut output, protocol, read, write, streams).await {
                Some(status) => status,
                None => return,
            }
        }
        Err(refusal) => refusal.to_status().to_json().to_string().into(),
    };
    if output.end(&status).await.is_ok() && output.close().await.is_ok() {
        let drained = async { while let Some(Ok(_)) = source.next().await {} };
        let _ = timeout(CLOSE_TIMEOUT, drained).await;
    }
}

/// Copies until the command ends (its final status) or the client is gone (`None`).
async fn translate<R, W>(
    source: &mut SplitStream<Socket>,
    output: &mut Output,
    protocol: Protocol,
    read: R,
    write: W,
    streams: Streams,
) -> Option<Bytes>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ids = Ids::new(streams);
    let (frames, frames_in) = mpsc::channel(QUEUED_FRAMES);
    let (pings, pings_in) = mpsc::channel(QUEUED_FRAMES);
    let sending = send_frames(Writer::new(write), &ids, frames_in, pings_in);
    let receiving = receive_frames(Reader::new(read), &ids, output, &pings);
    let from_client = read_client(source, protocol, &ids, frames);
    let sending_then_waiting = async {
        if sending.await.is_err() {
            // The kubelet's last words may still be on their way: let the reader find the end.
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        status = receiving => status,
        () = from_client => None,
        () = sending_then_waiting => None,
    }
}

/// The SPDY stream of each channel.
#[derive(Clone, Copy)]
struct Ids {
    error: u32,
    stdin: Option<u32>,
    stdout: Option<u32>,
    stderr: Option<u32>,
    resize: Option<u32>,
}

impl Ids {
    fn new(streams: Streams) -> Self {
        let mut next = 1;
        let mut id = |wanted: bool| {
            wanted.then(|| {
                next += 2;
                next
            })
        };
        Self {
            error: 1,
            stdin: id(streams.stdin),
            stdout: id(streams.stdout),
            stderr: id(streams.stderr),
            resize: id(streams.tty),
        }
    }

    /// Stream ids with the `streamtype` that the kubelet expects.
    fn named(&self) -> impl Iterator<Item = (u32, &'static str)> {
        [
            (Some(self.error), "error"),
            (self.stdin, "stdin"),
            (self.stdout, "stdout"),
            (self.stderr, "stderr"),
            (self.resize, "resize"),
        ]
        .into_iter()
        .filter_map(|(id, name)| Some((id?, name)))
    }
}

struct Outgoing {
    id: u32,
    bytes: Bytes,
    fin: bool,
}

async fn send_frames<W: AsyncWrite + Unpin>(
    mut writer: Writer<W>,
    ids: &Ids,
    mut frames: mpsc::Receiver<Outgoing>,
    mut pings: mpsc::Receiver<u32>,
) -> std::io::Result<()> {
    for (id, name) in ids.named() {
        writer.syn_stream(id, &vec![("streamtype".into(), name.into())], false).await?;
    }
    let mut probe = probes();
    // Answers keep the peer's (even) ids; our own are odd.
    let mut probe_id = 1;
    loop {
        tokio::select! {
            biased;
            Some(id) = pings.recv() => writer.ping(id).await?,
            _ = probe.tick() => {
                writer.ping(probe_id).await?;
                probe_id = (probe_id + 2) & 0x7fff_ffff;
            }
            frame = frames.recv() => match frame {
                Some(Outgoing { id, bytes, fin }) => writer.data(id, &bytes, fin).await?,
                None => return Ok(()),
            },
        }
    }
}

/// Copies the kubelet's streams to the client. Returns the command's final status, or `None` when
/// the client can no longer be written to.
async fn receive_frames<R: AsyncRead + Unpin>(
    mut reader: Reader<R>,
    ids: &Ids,
    output: &mut Output,
    pings: &mpsc::Sender<u32>,
) -> Option<Bytes> {
    let mut status = BytesMut::new();
    let mut open: Vec<u32> =
        [Some(ids.error), ids.stdout, ids.stderr].into_iter().flatten().collect();
    let mut broken: Option<SpdyError> = None;
    while !open.is_empty() {
        let read = match next_frame(&mut reader, output).await {
            Some(read) => read,
            None => return None,
        };
        let frame = match read {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                broken = Some(error);
                break;
            }
        };
        match frame {
            Frame::Data { id, fin, bytes } => {
                if id == ids.error {
                    let room = LONGEST_STATUS.saturating_sub(status.len());
                    status.extend_from_slice(&bytes[..bytes.len().min(room)]);
                } else if !bytes.is_empty() {
                    let channel = if Some(id) == ids.stdout { STDOUT } else { STDERR };
                    if Some(id) == ids.stdout || Some(id) == ids.stderr {
                        output.send(channel, &bytes).await.ok()?;
                    }
                }
                if fin {
                    open.retain(|o| *o != id);
                }
            }
            Frame::SynReply { id, fin: true, .. }
            | Frame::Headers { id, fin: true, .. }
            | Frame::Reset { id, .. } => open.retain(|o| *o != id),
            // Ours would be odd. A full queue means that many answers are on their way already.
            Frame::Ping { id } if id % 2 == 0 => {
                let _ = pings.try_send(id);
            }
            _ => {}
        }
    }
    Some(final_status(&status, open.contains(&ids.error), broken))
}

/// The next frame, probing the client while there is none; `None` when the client is gone.
async fn next_frame<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    output: &mut Output,
) -> Option<Result<Option<Frame>, SpdyError>> {
    let mut next = std::pin::pin!(reader.next());
    let mut probe = probes();
    loop {
        tokio::select! {
            biased;
            frame = &mut next => return Some(frame),
            _ = probe.tick() => output.probe().await.ok()?,
        }
    }
}

/// Ticks from one period on.
pub(crate) fn probes() -> tokio::time::Interval {
    tokio::time::interval_at(tokio::time::Instant::now() + PROBE_EVERY, PROBE_EVERY)
}

fn final_status(status: &[u8], cut_short: bool, broken: Option<SpdyError>) -> Bytes {
    if serde_json::from_slice::<Value>(status).is_ok_and(|s| s.is_object()) {
        return Bytes::copy_from_slice(status);
    }
    let text = match (cut_short, broken) {
        (_, Some(error)) => format!("error reading from error stream: {error}"),
        (true, None) => "error reading from error stream: the connection to the node ended".into(),
        (false, None) if status.is_empty() => {
            return json!({"metadata": {}, "status": "Success"}).to_string().into();
        }
        (false, None) => String::from_utf8_lossy(status).into_owned(),
    };
    Status::internal(text).to_json().to_string().into()
}

/// Reads the client's messages until it is gone or breaks the protocol.
async fn read_client(
    source: &mut SplitStream<Socket>,
    protocol: Protocol,
    ids: &Ids,
    frames: mpsc::Sender<Outgoing>,
) {
    let mut stdin = ids.stdin;
    while let Some(Ok(message)) = source.next().await {
        let Some(mut data) = decode(message, protocol) else { return };
        if data.is_empty() {
            continue;
        }
        let channel = data.split_to(1)[0];
        let (id, fin) = match channel {
            STDIN if !data.is_empty() => (stdin, false),
            RESIZE if !data.is_empty() => (ids.resize, false),
            CLOSE if protocol.close_signal && data.first() == Some(&STDIN) => {
                data.clear();
                (stdin.take(), true)
            }
            _ => (None, false),
        };
        if let Some(id) = id
            && frames.send(Outgoing { id, bytes: data, fin }).await.is_err()
        {
            // Nobody writes to the kubelet any more; its end is for the reader to find.
            std::future::pending::<()>().await;
        }
    }
}
