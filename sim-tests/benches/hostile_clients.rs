//! What one who floods leaves to the others: `cargo bench -p polder-sim-tests --bench hostile_clients [-- FLOOD... --seconds N]`.
//!
//! Four nodes, an honest client with many callers, and one flood, all in one process on the machine's cores. Slices of
//! time with and without the flood alternate. What the flood's own thread burns is not the nodes' doing: the share of the
//! cores that it takes is taken off what could be had without it. Both ratios are printed; the second is the one that the
//! promise is about: at least 90 %.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use polder_kv::KvClient;
use polder_sim_tests::fuzz::counting::{self, Counting};
use polder_sim_tests::hostile::floods::{FLOODS, Flood};
use polder_sim_tests::hostile::{Net, client_key, puts};
use polder_types::Constants;
use tokio::sync::watch;

#[global_allocator]
static COUNTING: Counting = Counting;

const CALLERS: usize = 64;
const ROUNDS: u32 = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let seconds = arguments.iter().position(|argument| argument == "--seconds");
    let seconds = seconds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(3);
    let is_named = |flood: &&Flood| {
        let named: Vec<&String> =
            arguments.iter().filter(|name| FLOODS.iter().any(|flood| flood.name == **name)).collect();
        named.is_empty() || named.iter().any(|name| **name == flood.name)
    };
    println!("{ROUNDS} slices of {seconds} s each, with and without; {CALLERS} callers of one honest client");
    println!(
        "{:<15} {:>12} {:>12} {:>8} {:>12} {:>9} {:>10}",
        "flood", "puts/s alone", "puts/s with", "ratio", "its own CPU", "adjusted", "held MiB"
    );
    for flood in FLOODS.iter().filter(is_named) {
        measure(flood, Duration::from_secs(seconds));
    }
}

/// Seconds of CPU that this thread has used.
fn thread_cpu() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// The flood's thread: it floods while it is told to, and says what that cost it.
fn flooder(flood: Flood, net: &Net, is_on: watch::Receiver<bool>, spent_us: Arc<AtomicU64>, is_over: Arc<AtomicBool>) {
    let victim = Arc::new(net.cluster.clone());
    std::thread::spawn(move || {
        counting::count_this_thread_apart();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut is_on = is_on;
        runtime.block_on(async {
            while !is_over.load(Ordering::Relaxed) {
                if is_on.wait_for(|is_on| *is_on).await.is_err() {
                    return;
                }
                let before = thread_cpu();
                let mut off = is_on.clone();
                tokio::select! {
                    () = (flood.start)(victim.clone()) => {}
                    _ = off.wait_for(|is_on| !*is_on) => {}
                }
                spent_us.fetch_add(((thread_cpu() - before) * 1e6) as u64, Ordering::Relaxed);
            }
        });
    });
}

fn measure(flood: &Flood, slice: Duration) {
    let nodes = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let net = nodes.block_on(async {
        let net = Net::start(if flood.is_replica { 3 } else { 4 }, Constants::default()).unwrap();
        assert!(net.is_ready().await);
        net
    });
    let (switch, is_on) = watch::channel(false);
    let (spent_us, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    flooder(*flood, &net, is_on, spent_us.clone(), is_over.clone());
    let client = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mut alone, mut with, mut time) = (0, 0, Duration::ZERO);
    let grown = client.block_on(async {
        let honest = KvClient::connect(net.cluster.clone(), client_key(1)).await.unwrap();
        puts(&honest, CALLERS, Duration::from_secs(1)).await;
        counting::forget_peak();
        let before = counting::live();
        for _ in 0..ROUNDS {
            alone += puts(&honest, CALLERS, slice).await;
            switch.send_replace(true);
            // Until it has made its connections.
            puts(&honest, CALLERS, Duration::from_millis(300)).await;
            let started = Instant::now();
            with += puts(&honest, CALLERS, slice).await;
            time += started.elapsed();
            switch.send_replace(false);
            puts(&honest, CALLERS, Duration::from_millis(300)).await;
        }
        counting::peak().saturating_sub(before)
    });
    is_over.store(true, Ordering::Relaxed);
    drop(switch);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let share = spent_us.load(Ordering::Relaxed) as f64 / 1e6 / (time.as_secs_f64() * cores);
    let per_second = |puts: u64| puts as f64 / (slice.as_secs_f64() * f64::from(ROUNDS));
    let ratio = with as f64 / alone.max(1) as f64;
    println!(
        "{:<15} {:>12.0} {:>12.0} {:>7.0}% {:>11.0}% {:>8.0}% {:>10}",
        flood.name,
        per_second(alone),
        per_second(with),
        100.0 * ratio,
        100.0 * share,
        100.0 * ratio / (1.0 - share).max(0.01),
        grown >> 20
    );
    client.shutdown_background();
    nodes.shutdown_background();
}
