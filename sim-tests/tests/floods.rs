//! Every flood against a real node: what the process holds stays within a bound, and others are served.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use polder_kv::KvClient;
use polder_sim_tests::fuzz::counting::{self, Counting};
use polder_sim_tests::hostile::floods::{FLOODS, Flood};
use polder_sim_tests::hostile::{Net, client_key, puts};
use polder_types::Constants;

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a flood may make the process hold beyond what it held before: four nodes and the honest client. docs/limits.md says
/// what it is made of.
const GROWTH_BYTES_MAX: usize = 256 << 20;

/// How long each lasts.
const TIME: Duration = Duration::from_millis(1_500);

async fn survives(flood: &Flood) -> usize {
    let net = Net::start(if flood.is_replica { 3 } else { 4 }, Constants::default()).unwrap();
    assert!(net.is_ready().await, "{}: the nodes are not ready", flood.name);
    let honest = KvClient::connect(net.cluster.clone(), client_key(1)).await.unwrap();
    assert!(puts(&honest, 8, Duration::from_millis(200)).await > 0);
    counting::forget_peak();
    let before = counting::live();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (start, victim) = (flood.start, Arc::new(net.cluster.clone()));
    // Who floods would be another process: what it holds itself does not count.
    let flooder = std::thread::spawn(move || {
        counting::count_this_thread_apart();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = start(victim) => {}
                _ = stopped => {}
            }
        });
    });
    let answered = puts(&honest, 8, TIME).await;
    // A stranger can still come in.
    let other = KvClient::connect(net.cluster.clone(), client_key(2)).await.unwrap();
    other.put(b"other", b"served").await.unwrap();
    let grown = counting::peak().saturating_sub(before);
    drop(stop);
    println!("{:<15} {answered} puts of others answered, {} MiB more held", flood.name, grown >> 20);
    assert!(answered > 0, "{}: nobody else was served", flood.name);
    assert_eq!(net.view_changes(), 0, "{}: it changed the view", flood.name);
    drop(net);
    tokio::task::spawn_blocking(move || flooder.join()).await.unwrap().unwrap();
    grown
}

#[test]
fn promise_4_no_flood_makes_a_node_hold_more_than_its_bound_or_keeps_others_from_being_served() {
    for flood in FLOODS {
        // A runtime each: what one leaves behind does not count for the next.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let grown = runtime.block_on(survives(flood));
        runtime.shutdown_background();
        assert!(grown <= GROWTH_BYTES_MAX, "{}: {} MiB", flood.name, grown >> 20);
    }
}
