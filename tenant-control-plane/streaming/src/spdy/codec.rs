//! Frames on a socket: [`Reader`] and [`Writer`].

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::headers::{Deflater, Headers, Inflater};
use super::{LARGEST_FRAME, SpdyError};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const FLAG_FIN: u8 = 0x01;
/// Stream ids and counters have 31 bits.
const MASK: u32 = 0x7fff_ffff;
/// Largest payload of a DATA frame that is sent, in bytes.
const DATA_CHUNK: usize = 32 * 1024;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the draft's")]
pub enum Frame {
    /// Opens a stream.
    SynStream { id: u32, fin: bool, headers: Headers },
    /// Accepts a stream.
    SynReply { id: u32, fin: bool, headers: Headers },
    /// Ends a stream abnormally.
    Reset { id: u32, status: u32 },
    /// Connection parameters; nothing here depends on any.
    Settings,
    /// To be sent back when its id has the other side's parity.
    Ping { id: u32 },
    /// No new streams.
    GoAway { last_id: u32, status: u32 },
    /// Further headers of a stream.
    Headers { id: u32, fin: bool, headers: Headers },
    /// Flow control credit, which nobody uses.
    WindowUpdate { id: u32, delta: u32 },
    /// Bytes of a stream.
    Data { id: u32, fin: bool, bytes: Bytes },
    /// A control frame of a type that the draft tells to ignore.
    Unknown { kind: u16 },
}

/// Reads frames.
pub struct Reader<R> {
    io: R,
    inflater: Inflater,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader at the start of a connection.
    pub fn new(io: R) -> Self {
        Self { io, inflater: Inflater::new() }
    }

    /// The next frame, or `None` when the peer closed between frames.
    ///
    /// Not to be cancelled and called again: a half-read frame would be lost.
    ///
    /// # Errors
    /// When the socket fails, or the peer breaks the protocol or a limit.
    pub async fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let mut head = [0u8; 8];
        if self.io.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.io.read_exact(&mut head[1..]).await?;
        let [a, b, c, d, flags, x, y, z] = head;
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if length > LARGEST_FRAME {
            return Err(SpdyError::Protocol("the frame is too large"));
        }
        let mut payload = BytesMut::zeroed(length);
        self.io.read_exact(&mut payload).await?;
        let word = u32::from_be_bytes([a, b, c, d]);
        let fin = flags & FLAG_FIN != 0;
        if word & !MASK == 0 {
            return Ok(Some(Frame::Data { id: word, fin, bytes: payload.freeze() }));
        }
        if (word >> 16) as u16 & 0x7fff != VERSION {
            return Err(SpdyError::Protocol("unknown version"));
        }
        self.control(word as u16, fin, &payload).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, payload: &[u8]) -> Result<Frame, SpdyError> {
        let word = |at: usize| -> Result<u32, SpdyError> {
            let bytes = payload.get(at..at + 4).and_then(|b| b.first_chunk::<4>());
            bytes
                .map(|b| u32::from_be_bytes(*b))
                .ok_or(SpdyError::Protocol("the frame is cut short"))
        };
        let id = |at: usize| word(at).map(|w| w & MASK);
        Ok(match kind {
            SYN_STREAM => {
                let block = payload.get(10..).ok_or(SpdyError::Protocol("short SYN_STREAM"))?;
                Frame::SynStream { id: id(0)?, fin, headers: self.inflater.block(block)? }
            }
            SYN_REPLY | HEADERS => {
                let (id, block) = (id(0)?, &payload[4..]);
                let headers = self.inflater.block(block)?;
                if kind == SYN_REPLY {
                    Frame::SynReply { id, fin, headers }
                } else {
                    Frame::Headers { id, fin, headers }
                }
            }
            RST_STREAM => Frame::Reset { id: id(0)?, status: word(4)? },
            SETTINGS => Frame::Settings,
            PING => Frame::Ping { id: word(0)? },
            GOAWAY => Frame::GoAway { last_id: id(0)?, status: word(4)? },
            WINDOW_UPDATE => Frame::WindowUpdate { id: id(0)?, delta: id(4)? },
            kind => Frame::Unknown { kind },
        })
    }
}

/// Writes frames; each is flushed.
pub struct Writer<W> {
    io: W,
    deflater: Deflater,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// A writer at the start of a connection.
    pub fn new(io: W) -> Self {
        Self { io, deflater: Deflater::new() }
    }

    /// Opens a stream. Clients use odd ids, each larger than the one before.
    ///
    /// # Errors
    /// When the socket fails; so for all the others.
    pub async fn syn_stream(
        &mut self,
        id: u32,
        headers: &Headers,
        fin: bool,
    ) -> std::io::Result<()> {
        let block = self.deflater.block(headers);
        let mut payload = Vec::with_capacity(10 + block.len());
        payload.extend((id & MASK).to_be_bytes());
        payload.extend([0; 6]);
        payload.extend(block);
        self.control(SYN_STREAM, fin, &payload).await
    }

    /// Accepts a stream.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn syn_reply(
        &mut self,
        id: u32,
        headers: &Headers,
        fin: bool,
    ) -> std::io::Result<()> {
        let block = self.deflater.block(headers);
        let payload = [&(id & MASK).to_be_bytes()[..], &block].concat();
        self.control(SYN_REPLY, fin, &payload).await
    }

    /// Ends a stream abnormally.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn reset(&mut self, id: u32, status: u32) -> std::io::Result<()> {
        let payload = [(id & MASK).to_be_bytes(), status.to_be_bytes()].concat();
        self.control(RST_STREAM, false, &payload).await
    }

    /// Sends a ping, or one back.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn ping(&mut self, id: u32) -> std::io::Result<()> {
        self.control(PING, false, &id.to_be_bytes()).await
    }

    /// Says that no further streams are accepted.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn go_away(&mut self, last_id: u32) -> std::io::Result<()> {
        let payload = [(last_id & MASK).to_be_bytes(), [0; 4]].concat();
        self.control(GOAWAY, false, &payload).await
    }

    /// Sends bytes of a stream; with `fin` they are its last.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn data(&mut self, id: u32, bytes: &[u8], fin: bool) -> std::io::Result<()> {
        let mut chunks = bytes.chunks(DATA_CHUNK).peekable();
        if chunks.peek().is_none() {
            self.write((id & MASK).to_be_bytes(), fin, &[]).await?;
        }
        while let Some(chunk) = chunks.next() {
            let last = fin && chunks.peek().is_none();
            self.write((id & MASK).to_be_bytes(), last, chunk).await?;
        }
        self.io.flush().await
    }

    /// Closes the sending half of the socket.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn shutdown(&mut self) -> std::io::Result<()> {
        self.io.shutdown().await
    }

    async fn control(&mut self, kind: u16, fin: bool, payload: &[u8]) -> std::io::Result<()> {
        let word = (!MASK) | u32::from(VERSION) << 16 | u32::from(kind);
        self.write(word.to_be_bytes(), fin, payload).await?;
        self.io.flush().await
    }

    async fn write(&mut self, word: [u8; 4], fin: bool, payload: &[u8]) -> std::io::Result<()> {
        let flags = if fin { FLAG_FIN } else { 0 };
        let [_, x, y, z] = (payload.len() as u32).to_be_bytes();
        let mut frame = Vec::with_capacity(8 + payload.len());
        frame.extend(word);
        frame.extend([flags, x, y, z]);
        frame.extend(payload);
        self.io.write_all(&frame).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_frame_comes_out_as_it_went_in() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut writer, mut reader) = (Writer::new(near), Reader::new(far));
        let headers: Headers = vec![("streamtype".into(), "stdin".into())];
        for id in [1, 3, 5] {
            writer.syn_stream(id, &headers, false).await.unwrap();
            writer.syn_reply(id, &headers, true).await.unwrap();
        }
        writer.data(1, b"hello", true).await.unwrap();
        writer.ping(2).await.unwrap();
        writer.reset(3, 5).await.unwrap();
        writer.go_away(5).await.unwrap();
        drop(writer);
        for id in [1, 3, 5] {
            let open = Frame::SynStream { id, fin: false, headers: headers.clone() };
            assert_eq!(reader.next().await.unwrap().unwrap(), open);
            let reply = Frame::SynReply { id, fin: true, headers: headers.clone() };
            assert_eq!(reader.next().await.unwrap().unwrap(), reply);
        }
        let data = Frame::Data { id: 1, fin: true, bytes: Bytes::from_static(b"hello") };
        assert_eq!(reader.next().await.unwrap().unwrap(), data);
        assert_eq!(reader.next().await.unwrap().unwrap(), Frame::Ping { id: 2 });
        assert_eq!(reader.next().await.unwrap().unwrap(), Frame::Reset { id: 3, status: 5 });
        assert_eq!(reader.next().await.unwrap().unwrap(), Frame::GoAway { last_id: 5, status: 0 });
        assert_eq!(reader.next().await.unwrap(), None);
    }

    /// A valid conversation with a few bytes changed, ten thousand times: whatever comes out, it
    /// ends, and it ends without a panic.
    #[tokio::test]
    async fn mangled_frames_never_panic() {
        let mut good = Vec::new();
        let mut writer = Writer::new(&mut good);
        let headers: Headers = vec![("streamtype".into(), "error".into())];
        for id in [1, 3, 5] {
            writer.syn_stream(id, &headers, false).await.unwrap();
            writer.syn_reply(id, &headers, false).await.unwrap();
        }
        writer.data(1, &[7; 200], true).await.unwrap();
        writer.ping(1).await.unwrap();
        writer.go_away(5).await.unwrap();
        // A fixed seed: xorshift64.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..10_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(1 + random(bytes.len()));
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next().await {}
        }
    }

    #[tokio::test]
    async fn oversized_and_foreign_frames_end_the_connection() {
        let oversized = [0, 0, 0, 1, 0, 0xff, 0xff, 0xff];
        assert!(Reader::new(&oversized[..]).next().await.is_err());
        let version_two = [0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        assert!(Reader::new(&version_two[..]).next().await.is_err());
        let short = [0x80, 3, 0, 3, 0, 0, 0, 2, 0, 0];
        assert!(Reader::new(&short[..]).next().await.is_err());
        let truncated = [0x80, 3, 0];
        assert!(Reader::new(&truncated[..]).next().await.is_err());
    }
}
