//! Files: what an operator writes, copies and damages. They are read by the functions that the node reads them with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use polder_client::{SessionState, Token};
use polder_consensus::EVIDENCE_BYTES_MAX;
use polder_node::config;
use polder_node::evidence;
use polder_node::files::{read_cluster, read_key};
use polder_node::identity::IdentityFile;
use polder_types::{Blob, ClientId, ClusterFile, Position, ReplicaId, Seq, SessionId, SigningKey, decode, encode};

use super::{Target, Verdict, counting, decoders, holds, mutate, samples};
use crate::random::Random;

/// What reading a text file may hold at once, for each of its bytes, and beside. The files are an operator's own; what
/// bounds them is their length, at most 16 MiB.
const BYTES_PER_BYTE: usize = 2_048;
const BYTES_BESIDE: usize = 2 << 20;

const CLUSTER: &str = include_str!("../../../configs/cluster.toml");
const NODE: &str = include_str!("../../../configs/node.toml");

/// The targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "cluster-file",
        what: "cluster.toml: what is read is what was written, and can be started from",
        iterations: 500,
        run: |random| cluster_file(random),
    },
    Target {
        name: "node-file",
        what: "node.toml with the files it names: refused in words, or within its bounds",
        iterations: 300,
        run: |random| node_file(random),
    },
    Target {
        name: "key-file",
        what: "key files: the key that was written, or nothing",
        iterations: 800,
        run: |random| key_file(random),
    },
    Target {
        name: "identity-file",
        what: "the identity file of a data folder: this replica's, or refused",
        iterations: 150,
        run: |random| identity_file(random),
    },
    Target {
        name: "session-state",
        what: "the session in the state file of an import",
        iterations: 4_000,
        run: |random| session_state(random),
    },
    Target {
        name: "token",
        what: "tokens of calls whose outcome is unknown: the one that was made, or refused in words",
        iterations: 3_000,
        run: |random| token(random),
    },
    Target {
        name: "evidence-file",
        what: "files of evidence: what is proved by one is proved by its bytes; the rest is refused in words (R41)",
        iterations: 400,
        run: |random| evidence_file(random),
    },
];

/// A folder of this iteration, removed when it is over.
fn folder() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| error.to_string())
}

fn write(path: &Path, text: &str, mode: u32) -> Verdict {
    let written = fs::write(path, text).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

fn changed(text: &str, random: &mut Random) -> String {
    let mut text = text.to_owned();
    (0..random.range(1, 4)).for_each(|_| mutate::text(&mut text, random));
    text
}

/// Reads, within a bound; what is refused is refused in words that name the file.
fn reads<T, E: std::fmt::Display>(
    path: &Path,
    text: &str,
    read: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<Option<T>, String> {
    let (outcome, peak) = counting::peak_of(|| read(path));
    let bytes_max = BYTES_PER_BYTE * text.len() + BYTES_BESIDE;
    holds(peak <= bytes_max, || format!("{} bytes made it hold {peak}:\n{text}", text.len()))?;
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            let words = error.to_string();
            // The file itself, or another in its folder or above that it names; or one elsewhere, by its whole path.
            let folder = path.ancestors().nth(2).and_then(Path::to_str).unwrap_or_default();
            let named = words.split(": ").next().unwrap_or_default();
            let is_elsewhere = named.starts_with('/') && text.contains(named);
            holds(words.contains(folder) || is_elsewhere, || format!("no file is named in: {words}"))?;
            Ok(None)
        }
    }
}

fn cluster_file(random: &mut Random) -> Verdict {
    let folder = folder()?;
    let path = folder.path().join("cluster.toml");
    let text = changed(CLUSTER, random);
    write(&path, &text, 0o644)?;
    let Some(cluster) = reads(&path, &text, read_cluster)? else { return Ok(()) };
    holds(cluster.genesis().check().is_ok(), || "a cluster is read that cannot be".to_owned())?;
    let again = toml::to_string(&cluster).map_err(|error| error.to_string())?;
    let twice: ClusterFile =
        toml::from_str(&again).map_err(|error| format!("it does not read what it writes: {error}"))?;
    holds(twice == cluster, || format!("another cluster is read than was written:\n{text}"))
}

/// A folder in which a node could start, but for what was changed.
fn node_folder(node: &str, cluster: &str) -> Result<(tempfile::TempDir, PathBuf), String> {
    let folder = folder()?;
    write(&folder.path().join("cluster.toml"), cluster, 0o644)?;
    let of_node = folder.path().join("r0");
    fs::create_dir(&of_node).map_err(|error| error.to_string())?;
    for (name, seed) in [("identity.key", 1), ("signing.key", 2)] {
        let key = SigningKey::from_seed(&[seed; 32]);
        let hex: String = key.seed().iter().map(|byte| format!("{byte:02x}")).collect();
        write(&of_node.join(name), &hex, 0o600)?;
    }
    let path = of_node.join("node.toml");
    write(&path, node, 0o644)?;
    Ok((folder, path))
}

/// The example cluster, with replica 0's keys those of [`node_folder`].
fn cluster_of_node() -> Result<String, String> {
    let mut cluster: ClusterFile = toml::from_str(CLUSTER).map_err(|error| error.to_string())?;
    if let Some(replica) = cluster.replicas.first_mut() {
        replica.identity = SigningKey::from_seed(&[1; 32]).public();
        replica.signing = SigningKey::from_seed(&[2; 32]).public();
    }
    toml::to_string(&cluster).map_err(|error| error.to_string())
}

fn node_file(random: &mut Random) -> Verdict {
    let cluster = cluster_of_node()?;
    let text = if random.chance(50) { NODE.to_owned() } else { changed(NODE, random) };
    let (_folder, path) = node_folder(&text, &cluster)?;
    let loaded = reads(&path, &text, config::load)?;
    holds(text != NODE || loaded.is_some(), || "the example is refused".to_owned())?;
    let Some(loaded) = loaded else { return Ok(()) };
    let fresh_slots_max = loaded.genesis.constants.fresh_slots_max;
    holds((1..=fresh_slots_max).contains(&loaded.pipeline_slots), || {
        format!("{} slots in the pipeline", loaded.pipeline_slots)
    })?;
    holds((1..=1_024).contains(&loaded.verify_threads), || format!("{} threads that verify", loaded.verify_threads))?;
    holds(usize::from(loaded.me.0) < loaded.genesis.replicas.len(), || format!("there is no {}", loaded.me))
}

fn key_file(random: &mut Random) -> Verdict {
    let folder = folder()?;
    let path = folder.path().join("identity.key");
    let seed: [u8; 32] = random.bytes();
    let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut bytes = hex.clone().into_bytes();
    (0..random.range(0, 3)).for_each(|_| mutate::bytes(&mut bytes, random, b"\n\xff\0"));
    fs::write(&path, &bytes).map_err(|error| error.to_string())?;
    // Nobody but the owner may read it: any other bit refuses it, whatever is in it.
    let mode = if random.chance(300) { 0o600 | 1 << random.below(6) } else { 0o600 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|error| error.to_string())?;
    let read = reads(&path, &String::from_utf8_lossy(&bytes), read_key)?;
    holds(mode == 0o600 || read.is_none(), || format!("a key that others may read is taken: mode {mode:o}"))?;
    let intact = String::from_utf8_lossy(&bytes).trim() == hex;
    holds(mode != 0o600 || !intact || read.is_some(), || "the key that was written is refused".to_owned())?;
    let Some(key) = read else { return Ok(()) };
    let said: String = key.seed().iter().map(|byte| format!("{byte:02x}")).collect();
    let written = String::from_utf8_lossy(&bytes).trim().to_ascii_lowercase();
    holds(said == written, || format!("the file says {written}, the key is {said}"))
}

fn identity_file(random: &mut Random) -> Verdict {
    let folder = folder()?;
    let cluster = samples::get().keyring.cluster();
    let signing = SigningKey::from_seed(&[3; 32]).public();
    let me = ReplicaId(2);
    IdentityFile::arm(folder.path(), cluster, me, signing).map_err(|error| error.to_string())?;
    let path = IdentityFile::path(folder.path());
    let before = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let text = changed(&before, random);
    write(&path, &text, 0o600)?;
    let open = |_: &Path| IdentityFile::open(folder.path(), cluster, me, signing);
    let Some(file) = reads(&path, &text, open)? else { return Ok(()) };
    // What is taken names this replica and this key; one that is disarmed names this cluster too.
    let says = |word: &str| text.contains(word);
    holds(says(&signing.to_hex()) || says(&signing.to_hex().to_uppercase()), || {
        format!("another key is taken:\n{text}")
    })?;
    let id: String = cluster.0.0.iter().map(|byte| format!("{byte:02x}")).collect();
    holds(file.may_create() || says(&id), || format!("another cluster is taken:\n{text}"))
}

/// It is one JSON object in a file of the operator's; `import` keeps it beside its own numbers.
fn session_state(random: &mut Random) -> Verdict {
    let samples = samples::get();
    let session = samples.bodies.iter().find_map(|request| match request.call {
        polder_types::Call::Commands { session, .. } => Some(session),
        _ => None,
    });
    let state = SessionState {
        cluster: samples.keyring.cluster(),
        client: ClientId(SigningKey::from_seed(&[4; 32]).public()),
        session: session.ok_or("no session among the samples")?,
        acknowledged: random.bits() >> random.below(64),
    };
    let mut bytes = serde_json::to_vec(&state).map_err(|error| error.to_string())?;
    let before: SessionState = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    holds(before == state, || format!("{state:?} is read as {before:?}"))?;
    (0..random.range(1, 3)).for_each(|_| mutate::bytes(&mut bytes, random, b"{\"[18446744073709551616"));
    let (read, peak) = counting::peak_of(|| serde_json::from_slice::<SessionState>(&bytes));
    holds(peak <= BYTES_BESIDE, || format!("{} bytes made it hold {peak}", bytes.len()))?;
    let Ok(read) = read else { return Ok(()) };
    let again = serde_json::to_vec(&read).and_then(|bytes| serde_json::from_slice::<SessionState>(&bytes));
    holds(again.is_ok_and(|again| again == read), || format!("{read:?} is written as something else"))
}

/// What somebody copied from a terminal, a log or a mail. Another number than was meant must not be asked about.
fn token(random: &mut Random) -> Verdict {
    let samples = samples::get();
    let (slot, index) = (Seq(random.range(1, 500)), random.range(0, 9) as u32);
    let ack = random.bits() >> random.range(1, 63);
    let number = ack + random.range(0, 20);
    let command: Vec<u8> = (0..random.range(0, 200)).map(|_| random.bits() as u8).collect();
    let client = ClientId(SigningKey::from_seed(&[4; 32]).public());
    let session = SessionId(Position { slot, index });
    let parts = (samples.keyring.cluster(), client, session, ack, number, Blob::from(command));
    let made = decode::<Token>(&encode(&parts), usize::MAX);
    holds(made.is_ok() == (number > ack), || format!("number {number} above {ack}: {made:?}"))?;
    let Ok(made) = made else { return Ok(()) };
    let text = made.to_string();
    let json = serde_json::to_string(&made).map_err(|error| error.to_string())?;
    holds(serde_json::from_str(&json).is_ok_and(|read: Token| read == made), || format!("{json} is read otherwise"))?;
    let mut bytes = text.clone().into_bytes();
    (0..random.range(0, 3)).for_each(|_| mutate::bytes(&mut bytes, random, text.as_bytes()));
    let given = String::from_utf8_lossy(&bytes).into_owned();
    let (read, peak) = counting::peak_of(|| given.parse::<Token>());
    holds(peak <= 8 * given.len() + 1_024, || format!("{} bytes made it hold {peak}", given.len()))?;
    match read {
        Ok(read) => holds(read == made && given.trim() == text, || format!("{given} is read as {read}, not {text}")),
        Err(error) => {
            let words = error.to_string();
            holds(given.trim() != text, || format!("the token that was made is refused: {words}"))?;
            let says = words.contains(Token::PREFIX) || words.contains("copy it whole");
            holds(says, || format!("what to do is not said in: {words}"))
        }
    }
}

/// What `polder inspect` reads: another may have written it, copied it in part, or made it up.
fn evidence_file(random: &mut Random) -> Verdict {
    let folder = folder()?;
    let path = folder.path().join("replica-1-epoch-0-votes.evidence");
    let all = decoders::evidences();
    let Some(evidence) = random.pick(&all) else { return Err("no evidence among the samples".to_owned()) };
    let mut bytes = evidence.to_bytes();
    (0..random.range(0, 4)).for_each(|_| mutate::bytes(&mut bytes, random, b"\xff\xff\xff\x7f"));
    if random.chance(20) {
        bytes.resize(EVIDENCE_BYTES_MAX + random.range(0, 2) as usize, 0);
    }
    fs::write(&path, &bytes).map_err(|error| error.to_string())?;
    let keyring = &samples::get().keyring;
    let (judged, peak) = counting::peak_of(|| evidence::judge(keyring, &path));
    holds(peak <= 128 * bytes.len() + BYTES_BESIDE, || format!("{} bytes made it hold {peak}", bytes.len()))?;
    match judged {
        Ok(Ok(misdeed)) => Err(format!("a correct replica is accused: {misdeed:?}")),
        Ok(Err(why)) => holds(why.to_string().len() > 10, || format!("it is not said why: {why}")),
        Err(error) => {
            let words = error.to_string();
            let is_named = words.contains(&path.display().to_string());
            holds(is_named && bytes.len() > EVIDENCE_BYTES_MAX, || format!("{} bytes: {words}", bytes.len()))
        }
    }
}
