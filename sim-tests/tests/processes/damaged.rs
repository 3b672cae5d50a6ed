//! Damage to any file of a replica that is stopped, and what becomes of it when it starts. Whatever it is: no panic, no
//! wrong state, no second vote.
//!
//! A flipped bit is *refused*, in words that say where, when it is read and no checksum fits; *served* when nobody reads
//! it, or what it says is somewhere else as well: then the replica votes on, and its roots are the others'. What is cut
//! off a write-ahead log, or a flip in the length of one of its records, makes it look torn, as a crash leaves it, and
//! RocksDB forgets what follows: of the log the others know better (R18), and of the state the certificates do (C8).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use polder_sim_tests::random::{Purpose, Random};

use crate::cluster::{Cluster, pause, succeed};
use crate::load::Load;
use crate::{chaos, seed};

const VICTIM: usize = 2;
/// A replica that cannot be reached any more, because a flip has changed an address, is not waited for longer.
const APART: Duration = Duration::from_secs(4);

/// What may become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Served,
    /// It runs, and nobody reaches it where it was.
    Apart,
}
use Outcome::{Apart, Refused, Served};

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wound {
    /// A bit is flipped, anywhere.
    Bit,
    /// A bit is flipped in the length or the type of a record of a log or a manifest.
    Header,
    /// It is shorter, as after a crash or a copy that was not finished.
    Cut,
    /// A sector is empty.
    Zeros,
    /// A sector is another one's.
    Garbage,
    /// There is more behind its end.
    Longer,
    Gone,
}
use Wound::{Bit, Cut, Garbage, Gone, Header, Longer, Zeros};

/// A kind of file, below the replica's folder: what its name begins and ends with.
struct Kind {
    folder: &'static str,
    begins: &'static str,
    ends: &'static str,
    /// What is done to such files, once each in a round.
    wounds: &'static [Wound],
    allowed: &'static [Outcome],
}

const fn kind(
    folder: &'static str,
    begins: &'static str,
    ends: &'static str,
    wounds: &'static [Wound],
    allowed: &'static [Outcome],
) -> Kind {
    Kind { folder, begins, ends, wounds, allowed }
}

/// What is done to each kind of file, and what may become of it.
const KINDS: &[Kind] = &[
    // All live rows are read at the start, each block with its checksum; rows that were deleted are not.
    kind("data/log", "", ".sst", &[Bit, Bit, Gone], &[Refused, Served]),
    kind("data/state", "", ".sst", &[Bit, Bit, Zeros, Cut], &[Refused, Served]),
    // Each record has a checksum; what looks torn is cut off, and if it was more than a torn tail, it is missed.
    kind("data/log", "", ".log", &[Bit, Header, Header, Header, Cut, Zeros, Gone], &[Refused, Served]),
    kind("data/state", "", ".log", &[Bit, Header, Header, Header, Cut, Garbage, Gone], &[Refused, Served]),
    kind("data/log", "MANIFEST-", "", &[Bit, Header, Cut, Longer], &[Refused, Served]),
    kind("data/state", "MANIFEST-", "", &[Bit, Header, Cut], &[Refused, Served]),
    // It names the manifest.
    kind("data/log", "CURRENT", "", &[Bit], &[Refused]),
    kind("data/state", "CURRENT", "", &[Gone], &[Refused]),
    // For people, and for tools.
    kind("data/log", "OPTIONS-", "", &[Bit], &[Served]),
    kind("data/state", "LOG", "", &[Bit], &[Served]),
    kind("data/state", "IDENTITY", "", &[Bit], &[Served]),
    // A flip in a comment, or in the case of a digit of a key, says the same as before.
    kind("data", "identity", "", &[Bit, Cut], &[Refused, Served]),
    kind("", "identity.key", "", &[Bit], &[Refused, Served]),
    kind("", "signing.key", "", &[Bit, Cut], &[Refused, Served]),
    // Local settings are as good as any others; the rest must fit the keys, the folder and the cluster.
    kind("", "node.toml", "", &[Bit, Cut], &[Refused, Served, Apart]),
    // Its addresses are no part of the genesis.
    kind("", "cluster.toml", "", &[Bit, Garbage], &[Refused, Served, Apart]),
];

impl Kind {
    /// Its files that have a byte to flip, in order.
    fn files(&self, cluster: &Cluster) -> Vec<PathBuf> {
        let folder = cluster.node_folder(VICTIM).join(self.folder);
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<PathBuf> = entries
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let is_named = name.starts_with(self.begins) && name.ends_with(self.ends);
                is_named && path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
            })
            .collect();
        files.sort();
        files
    }
}

/// A file that was damaged.
struct Damage {
    file: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
    what: String,
}

impl Damage {
    fn make(file: PathBuf, wound: Wound, random: &mut Random) -> Self {
        const SECTOR_BYTES: usize = 512;
        let before = fs::read(&file).expect("a file");
        let mut after = before.clone();
        let place = match wound {
            Header => {
                let headers = headers_of(&before);
                // Behind the checksum: two bytes of length and one of type. Half of them where a tail may be torn.
                let from = if random.chance(500) { headers.len() * 9 / 10 } else { 0 };
                (headers[from + random.below(headers.len() - from)] + 4 + random.below(3)).min(before.len() - 1)
            }
            _ => random.below(before.len()),
        };
        let end = before.len().min(place + SECTOR_BYTES);
        match wound {
            Bit | Header => after[place] ^= 1 << random.below(8),
            Cut => after.truncate(place),
            Zeros => after[place..end].fill(0),
            Garbage => after[place..end].iter_mut().for_each(|byte| *byte = random.bits() as u8),
            Longer => after.extend((0..SECTOR_BYTES).map(|_| random.bits() as u8)),
            Gone => after.clear(),
        }
        match wound {
            Gone => fs::remove_file(&file).expect("a file"),
            // In place: the permissions stay.
            _ => fs::write(&file, &after).expect("a file"),
        }
        let what = format!("{wound:?} at {place} of {}", before.len());
        Self { file, before, after, what }
    }

    /// Mends it, if it is still as it was damaged.
    fn undo(&self) {
        if fs::read(&self.file).is_ok_and(|content| content == self.after) {
            fs::write(&self.file, &self.before).expect("a file");
        }
    }
}

/// Where the records of a log of RocksDB begin: in blocks, each record with a checksum, a length and a type.
fn headers_of(content: &[u8]) -> Vec<usize> {
    const BLOCK_BYTES: usize = 32 << 10;
    const HEADER_BYTES: usize = 7;
    let mut found = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES <= content.len() {
        let left_in_block = BLOCK_BYTES - at % BLOCK_BYTES;
        if left_in_block < HEADER_BYTES {
            at += left_in_block;
            continue;
        }
        found.push(at);
        at += HEADER_BYTES + usize::from(u16::from_le_bytes([content[at + 4], content[at + 5]]));
    }
    found
}

#[test]
fn damage_to_any_file_is_refused_in_words_or_says_nothing() {
    let mut cluster = Cluster::short_intervals_unstarted("damaged");
    // A file of its own, for the others and the clients need theirs.
    let own_file = cluster.node_folder(VICTIM).join("cluster.toml");
    fs::copy(cluster.file(), &own_file).expect("a copy");
    cluster.set(VICTIM, "POLDER_CLUSTER_FILE", &own_file);
    let mut cluster = cluster.started();
    let mut random = Random::new(seed(), Purpose::Disk);
    // Rows in sorted files and rows in write-ahead logs: a start turns the ones into the others.
    let load = Load::start(&cluster, 10);
    for _ in 0..2 {
        load.wait_for_answers(150);
        cluster.kill(VICTIM);
        cluster.restart(VICTIM);
        cluster.wait_for_replica(VICTIM);
    }
    load.wait_for_answers(100);
    load.finish(&cluster);
    cluster.kill(VICTIM);

    let (start, duration) = (Instant::now(), chaos(0));
    let mut refused = 0;
    let mut round = 0;
    while round == 0 || start.elapsed() < duration {
        for kind in KINDS {
            for wound in kind.wounds {
                refused += usize::from(trial(&mut cluster, kind, *wound, &mut random) == Some(Refused));
            }
        }
        round += 1;
    }
    assert!(refused > 5, "only {refused} damages were felt");
    cluster.restart(VICTIM);
    cluster.wait_for_replica(VICTIM);
    write_a_cut(&cluster);
    cluster.wait_for_equal_roots();
    cluster.assert_sane();
}

/// Nothing that a running replica says is read from its disk: the state, its sessions and what it gives to others are in
/// memory, and a start checks all of it against a certificate (C8). So bits that flip under it, in the middle of every
/// sorted file, reach nobody. RocksDB meets them when it merges files: the replica ends, in words.
#[test]
fn damage_under_a_running_replica_reaches_nobody() {
    let mut cluster = Cluster::with_short_intervals("lazily");
    let mut random = Random::new(seed(), Purpose::Disk);
    let load = Load::start(&cluster, 11);
    load.wait_for_answers(300);
    cluster.kill(VICTIM);
    cluster.restart(VICTIM);
    cluster.wait_for_replica(VICTIM);
    load.wait_for_answers(100);
    load.finish(&cluster);
    let behind = VICTIM + 1;
    cluster.kill(behind);
    let before = cluster.export(&["--format", "jsonl"]);
    let mut flipped = 0;
    for folder in ["data/log", "data/state"] {
        let kind = kind(folder, "", ".sst", &[], &[]);
        for file in kind.files(&cluster) {
            flipped += flip_in_the_middle(&file, &mut random);
        }
    }
    assert!(flipped > 20, "only {flipped} bits");

    // Values as they were, from all that answer; more than the log holds, so that who was away has the state given, by
    // the damaged one too; and cuts, images and truncation on top of the damage.
    assert_eq!(cluster.export(&["--format", "jsonl"]), before);
    for round in 0..60 {
        succeed(cluster.command("kv").args(["put", "lazily", &round.to_string()]));
    }
    cluster.restart(behind);
    cluster.wait("replica that was given the state", |status| {
        status.iter().any(|row| row["id"] == behind && row["ready"] == true)
    });
    let value = succeed(cluster.command("kv").args(["get", "lazily"])).stdout;
    assert_eq!(value, b"59", "{}", String::from_utf8_lossy(&value));
    if cluster.has_ended(VICTIM).is_none() {
        cluster.wait_for_equal_roots();
        cluster.kill(VICTIM);
    }

    // What a start reads of it is refused in words, unless nothing of what was hit is read any more.
    let said = cluster.said(VICTIM);
    cluster.restart(VICTIM);
    let any = kind("data/state", "", ".sst", &[], &[Refused, Served]);
    let outcome = outcome(&mut cluster, &any);
    let words = cluster.said_since(VICTIM, said);
    eprintln!("{flipped} bits: {outcome:?}: {}", words.lines().last().unwrap_or_default());
    match outcome {
        Served => {
            write_a_cut(&cluster);
            cluster.wait_for_equal_roots();
        }
        _ => assert!(words.contains("damaged") || words.contains("cannot be read"), "{words}"),
    }
    cluster.assert_sane();
}

/// Flips bits of a file in place, between a tenth and nine tenths of it, so that whoever has it open sees it. Returns how
/// many.
fn flip_in_the_middle(file: &Path, random: &mut Random) -> usize {
    use std::os::unix::fs::FileExt as _;
    const BITS: usize = 32;
    let content = fs::read(file).expect("a file");
    let open = fs::File::options().write(true).open(file).expect("a file");
    for _ in 0..BITS {
        let at = content.len() / 10 + random.below(content.len() * 8 / 10);
        open.write_all_at(&[content[at] ^ 1 << random.below(8)], at as u64).expect("a byte");
    }
    BITS
}

/// Damages, starts, looks, and leaves the replica stopped and undamaged. None when there is no such file.
fn trial(cluster: &mut Cluster, kind: &Kind, wound: Wound, random: &mut Random) -> Option<Outcome> {
    let files = kind.files(cluster);
    if files.is_empty() {
        return None;
    }
    let node = cluster.node_folder(VICTIM);
    let saved = cluster.folder.join("saved");
    let _absent = fs::remove_dir_all(&saved);
    succeed(Command::new("cp").arg("-a").arg(&node).arg(&saved));
    let damage = Damage::make(files[random.below(files.len())].clone(), wound, random);
    let name = damage.file.strip_prefix(&node).unwrap_or(&damage.file).display().to_string();
    let what = format!("{name}: {}", damage.what);

    let said = cluster.said(VICTIM);
    cluster.restart(VICTIM);
    let outcome = outcome(cluster, kind);
    if outcome == Served {
        write_a_cut(cluster);
        cluster.wait_for_equal_roots();
    }
    if outcome != Refused {
        cluster.kill(VICTIM);
    }
    let words = cluster.said_since(VICTIM, said);
    let last = words.lines().last().unwrap_or_default();
    eprintln!("{what}: {outcome:?}{}", if outcome == Refused { format!(": {last}") } else { String::new() });
    assert!(kind.allowed.contains(&outcome), "{what}: {outcome:?}: {words}");
    assert!(!words.contains("panicked"), "{what}: {words}");
    match outcome {
        // It has said nothing since the copy was made, so that is no older than what the others know.
        Refused => restore(&saved, &node),
        Served | Apart => damage.undo(),
    }
    Some(outcome)
}

fn outcome(cluster: &mut Cluster, kind: &Kind) -> Outcome {
    let start = Instant::now();
    loop {
        if let Some(status) = cluster.has_ended(VICTIM) {
            assert_eq!(status.code(), Some(2), "{status}: {}", cluster.output(VICTIM));
            return Refused;
        }
        if cluster.status().get(VICTIM).is_some_and(|row| row["ready"] == true) {
            return Served;
        }
        if kind.allowed.contains(&Apart) && start.elapsed() > APART {
            return Apart;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "it neither serves nor ends");
        pause(Duration::from_millis(10));
    }
}

fn restore(saved: &Path, node: &Path) {
    // What it said stays.
    fs::copy(node.join("output"), saved.join("output")).expect("a log file");
    fs::remove_dir_all(node).expect("a folder");
    fs::rename(saved, node).expect("a folder");
}

/// Enough for a cut that is certified with the victim's own root.
fn write_a_cut(cluster: &Cluster) {
    for value in ["one", "two", "three"] {
        succeed(cluster.command("kv").args(["put", "cut", value]));
    }
}
