//! quinn over turmoil: the one file that knows both.
//!
//! A host of turmoil is a cable and nothing else ([`Port::carry`]): turmoil delays, holds, splits and delivers datagrams.
//! What computes is a [`crate::machine::Machine`] beside it, with a runtime and a clock of its own, so that it can be
//! paused, run too fast, and lose its power. Between the two are the queues of a [`Port`]; [`Socket`] is what quinn sees
//! of it. turmoil cannot lose, copy or damage a single datagram, nor does it know how large one may be: that is done
//! here, when one leaves, from the seed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use polder_sim_tests::random::Random;
use polder_sim_tests::trace::Trace;
use polder_transport::Wiring;
use polder_transport::seam::{
    ActiveKeyExchange, AsyncUdpSocket, NamedGroup, RecvMeta, SharedSecret, SupportedKxGroup, TlsError, TokioRuntime,
    Transmit, UdpPoller,
};
use tokio::sync::Notify;

/// The UDP port on which everybody listens.
pub(crate) const PORT: u16 = 7_000;

/// Datagrams that wait for a machine that does not read; more are dropped, as by a kernel.
const INBOX_DATAGRAMS_MAX: usize = 1_024;

/// When the simulation begins, after 1970: any fixed moment does.
const EPOCH: Duration = Duration::from_secs(1_750_000_000);

/// What happens to each datagram that leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Lost, per mille.
    pub(crate) lost: u64,
    /// Sent twice, per mille; the copy has a delay of its own.
    pub(crate) copied: u64,
    /// Damaged, per mille: a bit is turned, or the end is missing.
    pub(crate) damaged: u64,
    /// The most bytes of a datagram that gets through; larger ones vanish without a word.
    pub(crate) bytes_max: usize,
}

impl Faults {
    /// A network without faults, as wide as Ethernet.
    pub(crate) const NONE: Self = Self { lost: 0, copied: 0, damaged: 0, bytes_max: 1_500 - 28 };
}

/// What all ports share: the time, the faults, chance, and the trace.
pub(crate) struct Network(Mutex<Shared>);

struct Shared {
    now_ms: u64,
    faults: Faults,
    random: Random,
    trace: Trace,
    datagrams: u64,
}

impl Network {
    pub(crate) fn new(random: Random, trace: Trace) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Shared { now_ms: 0, faults: Faults::NONE, random, trace, datagrams: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the simulation began, on a clock that nobody's faults touch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.lock().now_ms
    }

    pub(crate) fn set_now_ms(&self, now_ms: u64) {
        self.lock().now_ms = now_ms;
    }

    /// The wall clock of a machine that is so many milliseconds ahead.
    pub(crate) fn wall_clock(&self, ahead_ms: i64) -> Duration {
        // It may be far behind: from the epoch of all clocks on, not from the start of the run.
        let ms = (EPOCH + Duration::from_millis(self.now_ms())).as_millis() as u64;
        Duration::from_millis(ms.saturating_add_signed(ahead_ms))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.note(format_args!("{faults:?}"));
        self.lock().faults = faults;
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let mut shared = self.lock();
        let now_ms = shared.now_ms;
        shared.trace.line(format_args!("{now_ms:>6} {what}"));
    }

    /// The hash over all packets and events so far, and how many datagrams were sent.
    pub(crate) fn hash(&self) -> (Option<polder_types::Digest>, u64) {
        let shared = self.lock();
        (shared.trace.hash(), shared.datagrams)
    }
}

impl Shared {
    /// What becomes of a datagram: nothing, itself, or something else, once or twice.
    fn leave(&mut self, from: &str, to: SocketAddr, contents: &[u8]) -> Vec<Vec<u8>> {
        let Faults { lost, copied, damaged, bytes_max } = self.faults;
        let mut copies = if self.random.chance(copied) { 2 } else { 1 };
        if contents.len() > bytes_max || self.random.chance(lost) {
            copies = 0;
        }
        let sent: Vec<Vec<u8>> = (0..copies).map(|_| self.damage(contents, damaged)).collect();
        let (now_ms, digest, len) = (self.now_ms, blake3::hash(contents), contents.len());
        self.datagrams += 1;
        let digest = &digest.to_hex()[..8];
        self.trace.line(format_args!("{now_ms:>6} {from} > {} {len} {digest} x{copies}", to.ip()));
        sent
    }

    fn damage(&mut self, contents: &[u8], damaged: u64) -> Vec<u8> {
        let mut bytes = contents.to_vec();
        if self.random.chance(damaged) {
            let at = self.random.below(bytes.len());
            if self.random.chance(100) {
                bytes.truncate(at);
            } else if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.random.below(8);
            }
        }
        bytes
    }
}

/// A datagram, and from or to whom.
type Datagram = (SocketAddr, Vec<u8>);

/// Where a machine is plugged in.
pub(crate) struct Port {
    pub(crate) network: Arc<Network>,
    pub(crate) name: String,
    ip: IpAddr,
    queues: Mutex<Queues>,
    /// Something leaves.
    leaving: Notify,
}

#[derive(Default)]
struct Queues {
    /// Which socket is the present one; none is while the machine is off.
    socket: Option<u64>,
    sockets: u64,
    inbox: VecDeque<Datagram>,
    outbox: Vec<Datagram>,
    reader: Option<Waker>,
}

impl Port {
    pub(crate) fn new(network: &Arc<Network>, name: &str, ip: IpAddr) -> Arc<Self> {
        let (network, name) = (Arc::clone(network), name.to_owned());
        Arc::new(Self { network, name, ip, queues: Mutex::default(), leaving: Notify::new() })
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new socket, and everything else that the transport takes from the world. The socket before it is dead.
    pub(crate) fn plug(self: &Arc<Self>, names: &Arc<Names>, ahead_ms: &Arc<AtomicI64>, seed: [u8; 32]) -> Wiring {
        let mut queues = self.queues();
        queues.sockets += 1;
        queues.socket = Some(queues.sockets);
        queues.inbox.clear();
        let socket = Socket { port: Arc::clone(self), id: queues.sockets };
        let (names, network, ahead_ms) = (Arc::clone(names), Arc::clone(&self.network), Arc::clone(ahead_ms));
        // TLS asks for a reference that lives for ever.
        let key_exchange: &'static X25519 = Box::leak(Box::new(X25519::new(seed)));
        Wiring {
            socket: Arc::new(socket),
            runtime: Arc::new(TokioRuntime),
            seed: Some(seed),
            key_exchange: Some(key_exchange),
            wall_clock: Arc::new(move || SystemTime::UNIX_EPOCH + network.wall_clock(ahead_ms.load(Ordering::Relaxed))),
            resolve: Arc::new(move |address| {
                let found = names.resolve(address);
                Box::pin(async move { found })
            }),
        }
    }

    /// The machine loses its power: nothing more leaves, and nothing that waited is ever read.
    pub(crate) fn unplug(&self) {
        let mut queues = self.queues();
        queues.socket = None;
        queues.inbox.clear();
        queues.outbox.clear();
        queues.reader = None;
    }

    fn arrived(&self, from: SocketAddr, bytes: &[u8]) {
        let mut queues = self.queues();
        if queues.socket.is_some() && queues.inbox.len() < INBOX_DATAGRAMS_MAX {
            queues.inbox.push_back((from, bytes.to_vec()));
            let reader = queues.reader.take();
            drop(queues);
            reader.into_iter().for_each(Waker::wake);
        }
    }

    /// The software of turmoil's host: carries datagrams between the machine and turmoil.
    pub(crate) async fn carry(self: Arc<Self>) -> turmoil::Result {
        let socket = turmoil::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        let mut bytes = vec![0; 2_048];
        loop {
            let leaving = std::mem::take(&mut self.queues().outbox);
            for (to, datagram) in leaving {
                match socket.try_send_to(&datagram, to) {
                    // Nobody is there; a real socket says nothing either.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    sent => drop(sent?),
                }
            }
            tokio::select! {
                biased;
                received = socket.recv_from(&mut bytes) => {
                    let (len, from) = received?;
                    self.arrived(from, &bytes[..len]);
                }
                () = self.leaving.notified() => {}
            }
            while let Ok((len, from)) = socket.try_recv_from(&mut bytes) {
                self.arrived(from, &bytes[..len]);
            }
        }
    }
}

/// What quinn sees of a port.
struct Socket {
    port: Arc<Port>,
    id: u64,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socket {} of {}", self.id, self.port.name)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut queues = self.port.queues();
        if queues.socket != Some(self.id) {
            return Ok(());
        }
        let (to, contents) = (transmit.destination, transmit.contents);
        for segment in contents.chunks(transmit.segment_size.unwrap_or(contents.len()).max(1)) {
            let copies = self.port.network.lock().leave(&self.port.name, to, segment);
            queues.outbox.extend(copies.into_iter().map(|copy| (to, copy)));
        }
        self.port.leaving.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut queues = self.port.queues();
        if queues.socket != Some(self.id) {
            return Poll::Pending;
        }
        let mut received = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((addr, bytes)) = queues.inbox.pop_front() else { break };
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
            received += 1;
            self.port.network.note(format_args!("{} < {} {len}", self.port.name, addr.ip()));
        }
        if received == 0 {
            queues.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(self.port.ip, PORT))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Who has which address.
#[derive(Debug, Default)]
pub(crate) struct Names(pub(crate) BTreeMap<String, IpAddr>);

impl Names {
    fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let (name, port) = address.split_once(':').ok_or_else(|| io::Error::other("no port"))?;
        let ip = self.0.get(name).ok_or_else(|| io::Error::other("no such host"))?;
        Ok(vec![SocketAddr::new(*ip, port.parse().map_err(io::Error::other)?)])
    }
}

/// X25519 with keys from a seed: otherwise the bytes of a handshake would differ from run to run.
struct X25519(Mutex<blake3::OutputReader>);

impl X25519 {
    fn new(seed: [u8; 32]) -> Self {
        Self(Mutex::new(blake3::Hasher::new_keyed(&seed).update(b"key exchange").finalize_xof()))
    }
}

impl fmt::Debug for X25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X25519 from a seed")
    }
}

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, TlsError> {
        let mut secret = [0; 32];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut secret);
        let secret = x25519_dalek::StaticSecret::from(secret);
        let public = x25519_dalek::PublicKey::from(&secret);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: x25519_dalek::StaticSecret,
    public: x25519_dalek::PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, TlsError> {
        let share: [u8; 32] = share.try_into().map_err(|_| TlsError::General("a share of 32 bytes".to_owned()))?;
        let secret = self.secret.diffie_hellman(&share.into());
        if !secret.was_contributory() {
            return Err(TlsError::General("a share of small order".to_owned()));
        }
        Ok(SharedSecret::from(&secret.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
