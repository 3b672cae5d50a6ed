//! The network between the processes: every replica, and the clients, reach each replica through a relay of their own,
//! which delays, loses, repeats, reorders and cuts. Needs no rights and no network namespace.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use polder_sim_tests::random::{Purpose, Random};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Cluster, REPLICAS};

/// The place of the clients, behind the replicas.
pub(crate) const CLIENTS: usize = REPLICAS;
const PLACES: usize = REPLICAS + 1;
/// Datagrams under way in one direction; what is more is lost.
const DATAGRAMS_MAX: usize = 1_024;

/// What happens to what one place sends to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    pub(crate) delay_ms: u64,
    /// In a thousand datagrams.
    pub(crate) lost_per_mille: u64,
    pub(crate) repeated_per_mille: u64,
    /// They overtake those before them.
    pub(crate) hurried_per_mille: u64,
    /// Larger ones are lost.
    pub(crate) bytes_max: usize,
}

impl Weather {
    pub(crate) const FAIR: Self =
        Self { delay_ms: 0, lost_per_mille: 0, repeated_per_mille: 0, hurried_per_mille: 0, bytes_max: usize::MAX };
    pub(crate) const CUT: Self = Self { lost_per_mille: 1_000, ..Self::FAIR };
}

type Map = [[Weather; PLACES]; PLACES];

/// The relays. They end when this is dropped.
pub(crate) struct Network {
    weather: Arc<Mutex<Map>>,
    /// The file by which clients know the cluster.
    pub(crate) client_file: PathBuf,
    _end: oneshot::Sender<()>,
}

impl Network {
    /// Puts relays between the replicas of a cluster of which none runs yet, and in front of them for clients.
    pub(crate) fn between(cluster: &mut Cluster, seed: u64) -> Self {
        let weather = Arc::new(Mutex::new([[Weather::FAIR; PLACES]; PLACES]));
        let (end, ended) = oneshot::channel();
        let (ports_sender, ports) = std::sync::mpsc::channel();
        let (base, map) = (cluster.base_port, Arc::clone(&weather));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                for from in 0..PLACES {
                    for to in (0..REPLICAS).filter(|to| *to != from) {
                        let front = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
                        let port = front.local_addr().expect("a bound socket").port();
                        ports_sender.send(((from, to), port)).expect("the test waits for it");
                        let target = SocketAddr::from(([127, 0, 0, 1], base + 2 * to as u16));
                        let random = Random::new(seed + (from * PLACES + to) as u64, Purpose::Network);
                        tokio::spawn(relay(front, target, Path { map: Arc::clone(&map), from, to, random }));
                    }
                }
                drop(ports_sender);
                let _dropped = ended.await;
            });
        });
        let ports: BTreeMap<(usize, usize), u16> = ports.iter().collect();
        let text = fs::read_to_string(cluster.file()).expect("a cluster file");
        let file_of = |from: usize, path: PathBuf| {
            let mut text = text.clone();
            for to in (0..REPLICAS).filter(|to| *to != from) {
                let direct = format!("\"127.0.0.1:{}\"", base + 2 * to as u16);
                text = text.replace(&direct, &format!("\"127.0.0.1:{}\"", ports[&(from, to)]));
            }
            fs::write(&path, text).expect("a cluster file");
            path
        };
        for replica in 0..REPLICAS {
            let path = file_of(replica, cluster.node_folder(replica).join("cluster.toml"));
            cluster.set(replica, "POLDER_CLUSTER_FILE", &path);
        }
        let client_file = file_of(CLIENTS, cluster.folder.join("clients.toml"));
        Self { weather, client_file, _end: end }
    }

    /// The weather for whatever these places send to those.
    pub(crate) fn set(&self, from: &[usize], to: &[usize], weather: Weather) {
        let mut map = self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))) {
            map[from][to] = weather;
        }
    }

    /// The same in both directions.
    pub(crate) fn between_them(&self, some: &[usize], others: &[usize], weather: Weather) {
        self.set(some, others, weather);
        self.set(others, some, weather);
    }

    pub(crate) fn everywhere(&self, weather: Weather) {
        let all: Vec<usize> = (0..PLACES).collect();
        self.set(&all, &all, weather);
    }
}

/// What one relay needs to know of the weather on its way.
#[derive(Clone)]
struct Path {
    map: Arc<Mutex<Map>>,
    from: usize,
    to: usize,
    random: Random,
}

impl Path {
    fn back(&self, source: SocketAddr) -> Self {
        let random = Random::new(u64::from(source.port()), Purpose::Network);
        Self { map: Arc::clone(&self.map), from: self.to, to: self.from, random }
    }

    /// When copies of a datagram of this size arrive, and whether each overtakes.
    fn draw(&mut self, bytes: usize) -> Vec<(Instant, bool)> {
        let weather = self.map.lock().unwrap_or_else(PoisonError::into_inner)[self.from][self.to];
        if bytes > weather.bytes_max || self.random.chance(weather.lost_per_mille) {
            return Vec::new();
        }
        let at = Instant::now() + Duration::from_millis(weather.delay_ms);
        let copies = if self.random.chance(weather.repeated_per_mille) { 2 } else { 1 };
        (0..copies).map(|_| (at, self.random.chance(weather.hurried_per_mille))).collect()
    }
}

type Delayed = (Instant, Vec<u8>);

/// Carries what arrives at `front` to the target, and answers back, by a socket for each source.
async fn relay(front: UdpSocket, target: SocketAddr, mut path: Path) {
    let front = Arc::new(front);
    let mut lanes: BTreeMap<SocketAddr, (mpsc::Sender<Delayed>, Arc<UdpSocket>)> = BTreeMap::new();
    let mut datagram = vec![0; 65_536];
    loop {
        // An error is a datagram that nobody received.
        let Ok((bytes, source)) = front.recv_from(&mut datagram).await else { continue };
        if let Entry::Vacant(place) = lanes.entry(source) {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a free port"));
            let (sender, delayed) = mpsc::channel(DATAGRAMS_MAX);
            tokio::spawn(carry(delayed, Arc::clone(&back), target));
            tokio::spawn(answer(Arc::clone(&back), Arc::clone(&front), source, path.back(source)));
            place.insert((sender, back));
        }
        if let Some((lane, back)) = lanes.get(&source) {
            send(&mut path, &datagram[..bytes], lane, back, target).await;
        }
    }
}

async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, source: SocketAddr, mut path: Path) {
    let (lane, delayed) = mpsc::channel(DATAGRAMS_MAX);
    tokio::spawn(carry(delayed, Arc::clone(&front), source));
    let mut datagram = vec![0; 65_536];
    loop {
        if let Ok((bytes, _)) = back.recv_from(&mut datagram).await {
            send(&mut path, &datagram[..bytes], &lane, &front, source).await;
        }
    }
}

async fn send(path: &mut Path, datagram: &[u8], lane: &mpsc::Sender<Delayed>, socket: &UdpSocket, to: SocketAddr) {
    for (at, overtakes) in path.draw(datagram.len()) {
        if overtakes {
            let _lost = socket.send_to(datagram, to).await;
        } else {
            let _full = lane.try_send((at, datagram.to_vec()));
        }
    }
}

/// Delivers in order, each when it is due.
async fn carry(mut delayed: mpsc::Receiver<Delayed>, socket: Arc<UdpSocket>, to: SocketAddr) {
    while let Some((at, datagram)) = delayed.recv().await {
        sleep_until(at).await;
        let _lost = socket.send_to(&datagram, to).await;
    }
}
