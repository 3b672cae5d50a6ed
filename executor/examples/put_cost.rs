//! What a put costs the executor: run with `cargo run --release -p polder-executor --example put_cost [keys]`.
//!
//! One session, 16 commands of 128-byte values a request, 200 commands a slot, a freeze at every cut with the last two
//! kept, keys drawn evenly. Prints microseconds a command for executing, session, effects and all; and, beside it, for
//! the digests at the cuts. Of processor time as Linux counts it, so that a busy machine does not show.

use std::sync::Arc;
use std::time::Duration;

use polder_executor::{Access, Executor, ExecutorConfig, Footprint, Frozen, Service, Span};
use polder_types::{
    Application, Batch, Blob, Call, ClientAccess, ClientId, Constants, Epoch, FaultModel, Genesis, Nonce, Position,
    Request, Seq, SessionId, SigningKey, Timestamp, encode,
};
use serde::{Deserialize, Serialize};

#[derive(Debug)]
struct Store;

#[derive(Serialize, Deserialize)]
struct Put(Blob, Blob);

impl Application for Store {
    type Command = Put;
    type Reply = (Position, Position, u64);
}

impl Service for Store {
    fn footprint(&self, put: &Put) -> Footprint {
        Footprint::writes(vec![Span::Key(put.0.to_vec())])
    }

    fn execute(&self, _: Timestamp, put: &Put, state: &mut Access<'_>) -> (Position, Position, u64) {
        let entry = state.put(&put.0, put.1.clone());
        (entry.created, entry.modified, entry.version)
    }
}

/// The processor time of this thread.
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default())
}

fn main() {
    let keys: u64 = std::env::args().nth(1).and_then(|keys| keys.parse().ok()).unwrap_or(100_000);
    let clients = ClientAccess { open: true, keys: vec![] };
    let constants = Constants::default();
    let interval = constants.interval_slots;
    let genesis =
        Genesis { nonce: Nonce([1; 16]), replicas: vec![], fault_model: FaultModel::Byzantine, constants, clients };
    let config = ExecutorConfig { genesis: Arc::new(genesis), epoch: Epoch(0) };
    let key = SigningKey::from_seed(&[7; 32]);
    let (client, cluster) = (ClientId(key.public()), config.genesis.cluster());
    let mut executor = Executor::genesis(Arc::new(Store), config);
    let open = Request { client, call: Call::Open { nonce: [1; 16], cut: Seq(0) } }.sign(cluster, &key);
    executor.execute(Seq(1), &Batch { ts: Timestamp(1), requests: vec![open] });
    let session = SessionId(Position { slot: Seq(1), index: 0 });

    let value = Blob::from(vec![5; 128]);
    let (mut number, mut random) = (1u64, 1u64);
    let (mut spent, mut digesting, mut commands) = (Duration::ZERO, Duration::ZERO, 0u64);
    let mut kept: Vec<Frozen> = Vec::new();
    let fill = keys.div_ceil(200);
    let slots = fill + 12 * interval;
    for slot in 2..slots {
        let filling = slot < fill + 2;
        let requests = (0..200u64.div_ceil(16)).map(|_| {
            let puts = (0..16).map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let key = if filling { (number - 1) % keys } else { (random >> 33) % keys };
                number += 1;
                Blob::from(encode(&Put(Blob::copy(format!("user{key:012}").as_bytes()), value.clone())))
            });
            let commands = puts.collect();
            let first = number - 16;
            Request { client, call: Call::Commands { session, ack: first.saturating_sub(257), first, commands } }
                .sign(cluster, &key)
        });
        let batch = Batch { ts: Timestamp(slot), requests: requests.collect() };
        let begun = on_cpu();
        let executed = executor.execute(Seq(slot), &batch);
        assert!(executed.failures.is_empty(), "{:?}", executed.failures);
        drop(executed);
        if !filling {
            spent += on_cpu() - begun;
            commands += 208;
        }
        if slot % interval == 0 {
            kept.push(executor.freeze());
            if kept.len() > 2 {
                kept.remove(0);
            }
            let begun = on_cpu();
            assert!(kept.iter().all(|frozen| !frozen.digests().is_empty()));
            if !filling {
                digesting += on_cpu() - begun;
            }
        }
    }
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6 / commands as f64;
    println!("{keys} keys, {commands} puts: {:.2} µs a put, digests {:.2} µs a put", micros(spent), micros(digesting));
}
