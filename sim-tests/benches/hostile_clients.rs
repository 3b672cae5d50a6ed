//! What one who floods leaves to the others: `cargo bench -p polder-sim-tests --bench hostile_clients [-- FLOOD... --seconds N --rounds N]`.
//!
//! Four nodes, nine honest clients, and one flood, all in one process on the machine's cores. Slices of
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

/// Honest clients, and callers of each.
const CLIENTS: u32 = 9;
const CALLERS: usize = 16;
/// Before and after each slice, that nothing of the one before is measured in the next.
const BETWEEN: Duration = Duration::from_millis(300);

/// The control: what alternation alone does to the figures on this machine.
const NOTHING: Flood = Flood {
    name: "nothing",
    what: "the control: it does nothing",
    is_replica: false,
    start: |_| Box::pin(std::future::pending()),
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |name: &str, otherwise: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    let (seconds, rounds) = (number("--seconds", 2), number("--rounds", 6));
    let all: Vec<Flood> = std::iter::once(NOTHING).chain(FLOODS.iter().copied()).collect();
    let named: Vec<Flood> =
        all.iter().filter(|flood| arguments.iter().any(|name| name == flood.name)).copied().collect();
    let chosen = if named.is_empty() { all } else { named };
    println!(
        "{rounds} slices of {seconds} s each, with and without; {CLIENTS} honest clients with {CALLERS} callers each"
    );
    println!(
        "{:<15} {:>12} {:>12} {:>8} {:>12} {:>9} {:>10}",
        "flood", "puts/s alone", "puts/s with", "ratio", "its own CPU", "adjusted", "held MiB"
    );
    for flood in chosen {
        measure(&flood, Duration::from_secs(seconds), rounds as u32);
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

/// The puts of all honest clients.
async fn puts_of_all(clients: &[KvClient], time: Duration) -> u64 {
    let all = clients.iter().cloned().map(|client| tokio::spawn(async move { puts(&client, CALLERS, time).await }));
    let mut answered = 0;
    for puts in all.collect::<Vec<_>>() {
        answered += puts.await.unwrap_or_default();
    }
    answered
}

fn measure(flood: &Flood, slice: Duration, rounds: u32) {
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
        let mut honest = Vec::new();
        for number in 1..=CLIENTS {
            honest.push(KvClient::connect(net.cluster.clone(), client_key(number)).await.unwrap());
        }
        puts_of_all(&honest, Duration::from_secs(1)).await;
        counting::forget_peak();
        let before = counting::live();
        for _ in 0..rounds {
            puts_of_all(&honest, BETWEEN).await;
            alone += puts_of_all(&honest, slice).await;
            switch.send_replace(true);
            puts_of_all(&honest, BETWEEN).await;
            let started = Instant::now();
            with += puts_of_all(&honest, slice).await;
            time += started.elapsed();
            switch.send_replace(false);
        }
        counting::peak().saturating_sub(before)
    });
    is_over.store(true, Ordering::Relaxed);
    drop(switch);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let share = spent_us.load(Ordering::Relaxed) as f64 / 1e6 / (time.as_secs_f64() * cores);
    let per_second = |puts: u64| puts as f64 / (slice.as_secs_f64() * f64::from(rounds));
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
