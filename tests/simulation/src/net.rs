//! A network of byte streams between hosts, with latency, and links that are cut.
//!
//! Streams behave as TCP's do: bytes arrive in order or not at all. On a link that is cut they wait, as
//! if they were sent again and again, until it is mended or somebody gives up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

/// A host's number.
pub type HostId = usize;
/// A host and a port.
pub type Address = (HostId, u16);

/// Bytes on their way in one direction, at most.
const WINDOW: usize = 1 << 20;

/// The network.
#[derive(Clone)]
pub struct Net {
    state: Arc<Mutex<State>>,
}

struct State {
    random: StdRng,
    now: Duration,
    next: u64,
    streams: BTreeMap<u64, Pipe>,
    dialing: Vec<Dialing>,
    listeners: BTreeMap<Address, mpsc::UnboundedSender<Stream>>,
    /// From, to.
    cut: BTreeSet<(HostId, HostId)>,
    latency: (Duration, Duration),
    slow: BTreeMap<HostId, Duration>,
    /// Nothing that these send leaves.
    dead: BTreeSet<HostId>,
    delivered: u64,
}

/// One direction of a connection. Both have ids that differ in the last bit.
struct Pipe {
    from: HostId,
    to: HostId,
    on_the_way: VecDeque<(Duration, Bytes)>,
    /// When the end arrives.
    end: Option<Duration>,
    arrived: VecDeque<Bytes>,
    ended: bool,
    reset: bool,
    bytes: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Dialing {
    at: Duration,
    from: HostId,
    to: Address,
    answer: oneshot::Sender<io::Result<Stream>>,
}

impl State {
    fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cut.contains(&(from, to))
    }

    fn arrival(&mut self, from: HostId, to: HostId) -> Duration {
        let (least, most) = self.latency;
        let slow = [from, to].iter().filter_map(|host| self.slow.get(host)).sum::<Duration>();
        let most = most + slow;
        self.now + self.random.random_range(least..=most)
    }

    fn pipe(&mut self, id: u64, from: HostId, to: HostId) {
        let pipe = Pipe {
            from,
            to,
            on_the_way: VecDeque::new(),
            end: None,
            arrived: VecDeque::new(),
            ended: false,
            reset: false,
            bytes: 0,
            reader: None,
            writer: None,
        };
        self.streams.insert(id, pipe);
    }

    fn reset(&mut self, id: u64) {
        for id in [id, id ^ 1] {
            if let Some(pipe) = self.streams.get_mut(&id) {
                pipe.reset = true;
                wake(&mut pipe.reader);
                wake(&mut pipe.writer);
            }
        }
    }
}

/// Both ends, and who is to get the second.
type Accepted = (Stream, Stream, mpsc::UnboundedSender<Stream>);

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Net {
    /// Without any host.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                random: StdRng::seed_from_u64(seed),
                now: Duration::ZERO,
                next: 0,
                streams: BTreeMap::new(),
                dialing: Vec::new(),
                listeners: BTreeMap::new(),
                cut: BTreeSet::new(),
                latency: (Duration::from_micros(100), Duration::from_millis(2)),
                slow: BTreeMap::new(),
                dead: BTreeSet::new(),
                delivered: 0,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// Delivers what arrives until `now`. Returns whether anything is on its way.
    pub fn advance(&self, now: Duration) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.now = now;
        let mut busy = false;
        let cut = &state.cut;
        for pipe in state.streams.values_mut() {
            if cut.contains(&(pipe.from, pipe.to)) {
                continue;
            }
            let mut news = false;
            while pipe.on_the_way.front().is_some_and(|(at, _)| *at <= now) {
                let (_, bytes) = pipe.on_the_way.pop_front().expect("just seen");
                pipe.arrived.push_back(bytes);
                state.delivered += 1;
                news = true;
            }
            if pipe.on_the_way.is_empty() && pipe.end.is_some_and(|at| at <= now) {
                pipe.end = None;
                pipe.ended = true;
                news = true;
            }
            busy |= !pipe.on_the_way.is_empty() || pipe.end.is_some();
            if news {
                wake(&mut pipe.reader);
            }
        }
        state.dialing.retain(|dial| !dial.answer.is_closed());
        let is_due = |dial: &Dialing| {
            let (from, to) = (dial.from, dial.to.0);
            dial.at <= now && !state.is_cut(from, to) && !state.is_cut(to, from)
        };
        if let Some(due) = state.dialing.iter().position(is_due) {
            let dial = state.dialing.remove(due);
            let accepted = self.accept(state, dial.from, dial.to);
            // Streams that nobody wants are dropped, which needs the lock.
            drop(guard);
            let answer = accepted.and_then(|(ours, theirs, listener)| {
                listener.send(theirs).map_err(|_| refused())?;
                Ok(ours)
            });
            drop(dial.answer.send(answer));
            return self.advance(now);
        }
        busy | state.dialing.iter().any(|dial| dial.at > now)
    }

    fn accept(&self, state: &mut State, from: HostId, to: Address) -> io::Result<Accepted> {
        let listener = state.listeners.get(&to).ok_or_else(refused)?.clone();
        let id = state.next;
        state.next += 2;
        state.pipe(id, from, to.0);
        state.pipe(id + 1, to.0, from);
        let theirs = Stream { net: self.clone(), reads: id, writes: id + 1 };
        let ours = Stream { net: self.clone(), reads: id + 1, writes: id };
        Ok((ours, theirs, listener))
    }

    /// Opens a port.
    pub fn listen(&self, at: Address) -> mpsc::UnboundedReceiver<Stream> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.lock().listeners.insert(at, tx);
        rx
    }

    /// Connects.
    pub async fn dial(&self, from: HostId, to: Address) -> io::Result<Stream> {
        let (tx, rx) = oneshot::channel();
        {
            let mut state = self.lock();
            let at = state.arrival(from, to.0);
            if !state.dead.contains(&from) {
                state.dialing.push(Dialing { at, from, to, answer: tx });
            }
        }
        rx.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?
    }

    /// From now on nothing that a host sends leaves it, and nobody reaches it.
    pub fn silence(&self, host: HostId) {
        let mut state = self.lock();
        state.dead.insert(host);
        state.listeners.retain(|(owner, _), _| *owner != host);
        state.dialing.retain(|dialing| dialing.from != host);
    }

    /// Forgets a host's connections. With `tell` the others learn of it, as when a process ends;
    /// without, they wait, as when the power fails, until [`Self::revive`].
    pub fn forget(&self, host: HostId, tell: bool) {
        let mut state = self.lock();
        let theirs = state.streams.iter().filter(|(_, pipe)| pipe.from == host || pipe.to == host);
        let ids: Vec<u64> = theirs.map(|(id, _)| *id).collect();
        for id in ids {
            if tell {
                state.reset(id);
            } else if let Some(pipe) = state.streams.get_mut(&id) {
                pipe.on_the_way.clear();
                pipe.end = None;
            }
        }
    }

    /// A host is there again, and knows nothing of its old connections.
    pub fn revive(&self, host: HostId) {
        self.forget(host, true);
        self.lock().dead.remove(&host);
    }

    /// Cuts what goes from one host to another.
    pub fn cut(&self, from: HostId, to: HostId) {
        self.lock().cut.insert((from, to));
    }

    /// Mends all links.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.cut.clear();
        state.slow.clear();
    }

    /// Adds up to so much to everything that goes to or from a host.
    pub fn slow_down(&self, host: HostId, most: Duration) {
        self.lock().slow.insert(host, most);
    }

    /// Pieces that arrived so far.
    pub fn delivered(&self) -> u64 {
        self.lock().delivered
    }
}

/// One end of a connection.
pub struct Stream {
    net: Net,
    reads: u64,
    writes: u64,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.net.lock();
        let Some(pipe) = state.streams.get_mut(&self.reads) else {
            return Poll::Ready(Ok(()));
        };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(first) = pipe.arrived.front_mut() else {
            if pipe.ended {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let n = first.len().min(buf.remaining());
        buf.put_slice(&first[..n]);
        first.advance(n);
        if first.is_empty() {
            pipe.arrived.pop_front();
        }
        pipe.bytes -= n;
        wake(&mut pipe.writer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.net.lock();
        let Some(pipe) = state.streams.get_mut(&self.writes) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let (from, to) = (pipe.from, pipe.to);
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.bytes >= WINDOW {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = buf.len().min(WINDOW - pipe.bytes);
        if state.dead.contains(&from) || state.dead.contains(&to) {
            return Poll::Ready(Ok(n));
        }
        let at = state.arrival(from, to);
        let pipe = state.streams.get_mut(&self.writes).expect("just seen");
        let at = pipe.on_the_way.back().map_or(at, |(last, _)| at.max(*last));
        pipe.on_the_way.push_back((at, Bytes::copy_from_slice(&buf[..n])));
        pipe.bytes += n;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.net.lock();
        if let Some(pipe) = state.streams.get(&self.writes) {
            let (from, to, last) = (pipe.from, pipe.to, pipe.on_the_way.back().map(|(at, _)| *at));
            let at = state.arrival(from, to).max(last.unwrap_or_default());
            if !state.dead.contains(&from)
                && let Some(pipe) = state.streams.get_mut(&self.writes)
            {
                pipe.end.get_or_insert(at);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.net.lock();
        let Some(ours) = state.streams.remove(&self.reads) else { return };
        if state.dead.contains(&ours.to) {
            // The other side learns nothing.
            return;
        }
        let now = state.now;
        if let Some(pipe) = state.streams.get_mut(&self.writes) {
            let last = pipe.on_the_way.back().map_or(now, |(at, _)| *at);
            pipe.end.get_or_insert(last);
            wake(&mut pipe.writer);
        }
    }
}
