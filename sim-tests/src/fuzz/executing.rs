//! The executor, given batches whose requests and commands were changed: whatever a decided slot holds, every replica must
//! execute it alike and live.

use std::sync::{Arc, OnceLock};

use polder_executor::{Executed, Executor, ExecutorConfig};
use polder_kv::Kv;
use polder_types::{
    Answer, Batch, Blob, Call, ClientAccess, ClientId, Constants, Epoch, Failure, Genesis, Request, Seq, SessionId,
    SigningKey, Timestamp, encode, merkle_root,
};

use super::{Target, Verdict, counting, decoders, holds, samples, tree::Tree};
use crate::random::Random;

/// What executing a slot may hold at once: so many times the bytes of its batch, and so many beside (replies that are
/// read from the state among them).
const BYTES_PER_BYTE: usize = 512;
const BYTES_BESIDE: usize = 16 << 20;

/// Slots of one input.
const SLOTS: u64 = 12;

/// The targets.
pub const TARGETS: &[Target] = &[Target {
    name: "executor",
    what: "decided batches: executed alike by all, also by one restored in between (R26, R28)",
    iterations: 300,
    run: |random| executor(random),
}];

/// The cluster of the samples, with small constants, so that their edges are near.
fn config() -> ExecutorConfig {
    static GENESIS: OnceLock<Arc<Genesis>> = OnceLock::new();
    let genesis = GENESIS.get_or_init(|| {
        let constants = Constants {
            window_slots: 8,
            interval_slots: 4,
            session_window: 8,
            sessions_per_client_max: 2,
            sessions_max: 4,
            open_fresh_cuts: 2,
            reply_bytes_max: 2_048,
            reply_cache_per_session_bytes_max: 4_096,
            reply_cache_bytes_max: 8_192,
            state_bytes_max: 4_096,
            session_expiry_ms: 8_000,
            partitions: 4,
            session_partitions: 2,
            ..Constants::default()
        };
        let clients = ClientAccess { open: true, keys: Vec::new() };
        Arc::new(Genesis { constants, clients, ..(*samples::get().genesis).clone() })
    });
    ExecutorConfig { genesis: genesis.clone(), epoch: Epoch::ZERO }
}

/// What clients of the fuzz ask for: sessions that were opened in this input come up again.
struct Asker {
    key: SigningKey,
    sessions: Vec<SessionId>,
    next: u64,
}

impl Asker {
    fn request(&mut self, random: &mut Random, commands: &[Tree], slot: u64) -> Request {
        let call = match random.range(0, 9) {
            0 | 1 => Call::Open { nonce: random.bytes(), cut: Seq(4 * (slot.saturating_sub(1) / 4)) },
            2 if random.chance(200) => Call::Close { session: self.session(random) },
            _ => {
                let session = self.session(random);
                let count = random.range(1, 4);
                let commands = (0..count).map(|_| Blob::from(command(random, commands))).collect();
                let first = self.next;
                self.next += count;
                Call::Commands { session, ack: first.saturating_sub(random.range(1, 9)), first, commands }
            }
        };
        Request { client: ClientId(self.key.public()), call }
    }

    fn session(&self, random: &mut Random) -> SessionId {
        random.pick(&self.sessions).copied().unwrap_or_default()
    }
}

/// A command of the service, as it is or changed.
fn command(random: &mut Random, commands: &[Tree]) -> Vec<u8> {
    if random.chance(500) {
        return random.pick(commands).map(Tree::encode).unwrap_or_default();
    }
    decoders::changed(random, commands)
}

fn executor(random: &mut Random) -> Verdict {
    let commands: Vec<Tree> = decoders::commands().iter().filter_map(Tree::of).collect();
    let mut first = Executor::genesis(Arc::new(Kv), config());
    let mut second = Executor::genesis(Arc::new(Kv), config());
    let mut askers: Vec<Asker> =
        (1..=2).map(|seed| Asker { key: SigningKey::from_seed(&[seed; 32]), sessions: Vec::new(), next: 1 }).collect();
    let mut ts = 1_000;
    for slot in 1..=SLOTS {
        ts = if random.chance(50) { random.bits() } else { ts + random.range(0, 3_000) % 3_000 };
        let batch = batch(random, &mut askers, &commands, slot, Timestamp(ts));
        let bytes = encode(&batch).len();
        let (executed, peak) = counting::peak_of(|| first.execute(Seq(slot), &batch));
        holds(peak <= BYTES_PER_BYTE * bytes + BYTES_BESIDE, || {
            format!("a batch of {bytes} bytes made it hold {peak}")
        })?;
        answered(&executed)?;
        for (client, reply) in &executed.replies {
            if let Answer::Opened(session) = reply.answer
                && let Some(asker) = askers.iter_mut().find(|asker| asker.key.public() == client.0)
            {
                asker.sessions.push(session);
                asker.next = 1;
            }
        }
        // The other one was restored from a cut now and then, and never knows more than is in it.
        let again = second.execute(Seq(slot), &batch);
        holds(again == executed, || format!("at {slot} one executes {executed:?}\nand the restored one {again:?}"))?;
        if slot.is_multiple_of(4) {
            let frozen = second.freeze();
            holds(merkle_root(&frozen.digests()) == merkle_root(&first.freeze().digests()), || {
                format!("two roots at {slot}")
            })?;
            if random.chance(500) {
                let restored = Executor::restore(Arc::new(Kv), config(), &frozen);
                second = restored.map_err(|why| format!("the state of {slot} cannot be restored: {why}"))?;
            }
        }
    }
    Ok(())
}

fn batch(random: &mut Random, askers: &mut [Asker], commands: &[Tree], slot: u64, ts: Timestamp) -> Batch {
    let cluster = samples::get().keyring.cluster();
    let mut requests = Vec::new();
    for _ in 0..random.range(0, 5) {
        let at = random.below(askers.len());
        let Some(asker) = askers.get_mut(at) else { continue };
        let mut request = asker.request(random, commands, slot);
        if random.chance(300)
            && let Some(mut tree) = Tree::of(&request)
        {
            tree.mutate(random, commands);
            if let Ok(changed) = polder_types::decode(&tree.encode(), usize::MAX) {
                request = changed;
            }
        }
        let mut signed = request.sign(cluster, &asker.key);
        if random.chance(30) {
            // A slot that a new view forces may hold what is no request (R10).
            signed.body = Blob::from(decoders::changed(random, commands));
        }
        requests.push(signed);
        if random.chance(100)
            && let Some(copy) = requests.first().cloned()
        {
            requests.push(copy);
        }
    }
    Batch { ts, requests }
}

/// R25, R28: no reply is larger than a reply may be, and none says that the service panicked.
fn answered(executed: &Executed) -> Verdict {
    let reply_bytes_max = config().genesis.constants.reply_bytes_max as usize;
    for (client, reply) in &executed.replies {
        match &reply.answer {
            Answer::Done(blob) => {
                holds(blob.len() <= reply_bytes_max, || format!("{client} is answered {} bytes", blob.len()))?;
            }
            Answer::Failed(failure @ (Failure::Panicked | Failure::Undeclared)) => {
                return Err(format!("the key-value service: {failure} ({reply:?})"));
            }
            Answer::Failed(_) | Answer::Opened(_) | Answer::Closed => {}
        }
    }
    Ok(())
}
