//! `node.toml`: a node's local settings, and the only place that knows TOML's and the environment's names for them.
//!
//! What all replicas must agree on is in `cluster.toml` ([`polder_types::ClusterFile`]). Every key can be overridden by
//! an environment variable: `POLDER_` and the key in capitals. Paths are relative to the folder of the file.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use polder_types::{ClusterFile, Genesis, ReplicaId, SigningKey};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, read_cluster, read_key};

/// The prefix of environment variables.
const ENV_PREFIX: &str = "POLDER_";

/// What `node.toml` says, as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// Which replica of the cluster file this node is, from 0.
    pub replica: u8,
    /// The cluster's public file.
    pub cluster_file: PathBuf,
    /// The key by which other replicas and clients know this node.
    pub identity_key_file: PathBuf,
    /// The key that signs its votes.
    pub signing_key_file: PathBuf,
    /// The folder of its log and state.
    pub data_dir: PathBuf,
    /// The UDP address to listen on.
    pub listen: String,
    /// The TCP address of the admin port; empty for none.
    pub admin_listen: String,
    /// Slots that a leader keeps uncommitted.
    pub pipeline_slots: u64,
    /// Threads that check signatures; 0 for half of the processors.
    pub verify_threads: usize,
    /// Whether a vote waits for the disk.
    pub durability: DurabilityMode,
    /// Bytes that should stay free on the disk of the data folder; below that no new commands are taken (C10).
    pub disk_reserve_bytes: u64,
    /// What to log.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
}

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "bin", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// Whether a vote waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityMode {
    /// Synced before it is sent (R8).
    #[default]
    Sync,
    /// Written, never synced: for experiments. A machine that loses power loses votes, and more than `r` such
    /// replicas can break agreement.
    None,
}

impl NodeFile {
    /// The keys of the file, in its order.
    pub const KEYS: [&str; 13] = [
        "replica",
        "cluster_file",
        "identity_key_file",
        "signing_key_file",
        "data_dir",
        "listen",
        "admin_listen",
        "pipeline_slots",
        "verify_threads",
        "durability",
        "disk_reserve_bytes",
        "log",
        "log_format",
    ];
}

/// The values of the keys that may be left out.
#[derive(Serialize)]
struct Defaults {
    cluster_file: &'static str,
    identity_key_file: &'static str,
    signing_key_file: &'static str,
    data_dir: &'static str,
    admin_listen: &'static str,
    pipeline_slots: u64,
    verify_threads: usize,
    durability: DurabilityMode,
    disk_reserve_bytes: u64,
    log: &'static str,
    log_format: LogFormat,
}

const DEFAULTS: Defaults = Defaults {
    cluster_file: "../cluster.toml",
    identity_key_file: "identity.key",
    signing_key_file: "signing.key",
    data_dir: "data",
    admin_listen: "",
    pipeline_slots: 4,
    verify_threads: 0,
    durability: DurabilityMode::Sync,
    disk_reserve_bytes: 256 << 20,
    log: "info",
    log_format: LogFormat::Human,
};

/// A configuration that a node cannot start from.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `node.toml` is not there, is no TOML, or lacks a key.
    #[error("{path}: {why}")]
    Node {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no such key.
    #[error("{path}: unknown key `{key}`{}", suggestion.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The key that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A value is out of its bounds, or does not fit the cluster file.
    #[error("{path}: {key}: {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Why.
        why: String,
    },
    /// Another file that it names cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A node's configuration, checked: what its files say, and the keys in them.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// Which replica.
    pub me: ReplicaId,
    /// The cluster file.
    pub cluster: ClusterFile,
    /// The genesis in it, checked.
    pub genesis: Arc<Genesis>,
    /// The transport's key.
    pub identity: SigningKey,
    /// The key of its statements.
    pub signing: SigningKey,
    /// The folder of log and state.
    pub data_dir: PathBuf,
    /// The UDP address.
    pub listen: SocketAddr,
    /// The TCP address of the admin port.
    pub admin_listen: Option<SocketAddr>,
    /// Slots that a leader keeps uncommitted.
    pub pipeline_slots: u64,
    /// Threads that check signatures.
    pub verify_threads: usize,
    /// Whether a vote waits for the disk.
    pub durability: DurabilityMode,
    /// Bytes that should stay free on the disk of the data folder; 0: none.
    pub disk_reserve_bytes: u64,
    /// What to log, as `tracing-subscriber` filters are written.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
}

/// Reads `node.toml`, the environment, and the files they name, and checks all of it.
///
/// # Errors
///
/// [`ConfigError`], in words that say what to do.
pub fn load(path: &Path) -> Result<LoadedConfig, ConfigError> {
    let file = read(path, Env::prefixed(ENV_PREFIX))?;
    check(path, file)
}

fn read(path: &Path, env: Env) -> Result<NodeFile, ConfigError> {
    // figment takes a file that is not there for an empty one.
    crate::files::read_text(path)?;
    let merged = Figment::from(Serialized::defaults(DEFAULTS))
        .merge(Toml::file_exact(path))
        // Other POLDER_ variables are other programs' business.
        .merge(env.filter(|key| NodeFile::KEYS.contains(&key.as_str().to_ascii_lowercase().as_str())));
    merged.extract().map_err(|error| explain(path, &error))
}

fn explain(path: &Path, error: &figment::Error) -> ConfigError {
    let path = path.to_owned();
    match &error.kind {
        figment::error::Kind::UnknownField(key, _) => {
            ConfigError::UnknownKey { path, suggestion: closest(key, &NodeFile::KEYS), key: key.clone() }
        }
        figment::error::Kind::MissingField(key) => {
            ConfigError::Node { path, why: format!("the key `{key}` is missing; configs/node.toml says what it means") }
        }
        // By figment's words a key is below its profile: `default.replica`.
        kind if !error.path.is_empty() => {
            ConfigError::Node { path, why: format!("the key `{}`: {kind}", error.path.join(".")) }
        }
        _ => ConfigError::Node { path, why: error.to_string() },
    }
}

fn check(path: &Path, file: NodeFile) -> Result<LoadedConfig, ConfigError> {
    let value = |key, why: String| ConfigError::Value { path: path.to_owned(), key, why };
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let cluster_path = folder.join(&file.cluster_file);
    let cluster = read_cluster(&cluster_path)?;
    let genesis = Arc::new(cluster.genesis());
    let count = cluster.replicas.len();
    let entry = cluster.replicas.get(usize::from(file.replica)).ok_or_else(|| {
        value(
            "replica",
            format!("{} is none of the {count} of {}, counted from 0", file.replica, cluster_path.display()),
        )
    })?;
    let identity = read_key(&folder.join(&file.identity_key_file))?;
    let signing = read_key(&folder.join(&file.signing_key_file))?;
    for (key, own, listed) in [
        ("identity_key_file", identity.public(), entry.identity),
        ("signing_key_file", signing.public(), entry.signing),
    ] {
        if own != listed {
            let why = format!(
                "its public half is {own}, but {} lists {listed} for replica {}",
                cluster_path.display(),
                file.replica
            );
            return Err(value(key, why));
        }
    }
    let fresh_slots_max = cluster.constants.fresh_slots_max;
    if file.pipeline_slots == 0 || file.pipeline_slots > fresh_slots_max {
        return Err(value(
            "pipeline_slots",
            format!("must be from 1 to fresh_slots_max of the cluster, {fresh_slots_max}"),
        ));
    }
    let admin_listen = match file.admin_listen.as_str() {
        "" => None,
        text => Some(address(text).map_err(|why| value("admin_listen", why))?),
    };
    Ok(LoadedConfig {
        me: ReplicaId(file.replica),
        genesis,
        identity,
        signing,
        data_dir: folder.join(&file.data_dir),
        listen: address(&file.listen).map_err(|why| value("listen", why))?,
        admin_listen,
        pipeline_slots: file.pipeline_slots,
        verify_threads: verify_threads(file.verify_threads),
        durability: file.durability,
        disk_reserve_bytes: file.disk_reserve_bytes,
        log: file.log,
        log_format: file.log_format,
        cluster,
    })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| format!("`{text}` is no address to listen on: {error}"))?;
    found.next().ok_or_else(|| format!("`{text}` names no address"))
}

fn verify_threads(asked: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if asked == 0 { (processors / 2).max(1) } else { asked.min(256) }
}

/// The environment variables that set nothing but are nearly the name of a key, each with the name that was probably
/// meant. Other variables with Polder's prefix are other programs' business.
pub fn misspelt_variables(names: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let meant = |name: &str| {
        let key = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase();
        let key = closest(&key, &NodeFile::KEYS).filter(|meant| *meant != key)?;
        Some(format!("{ENV_PREFIX}{}", key.to_ascii_uppercase()))
    };
    names.filter_map(|name| meant(&name).map(|meant| (name, meant))).collect()
}

/// The known word nearest to `word`, when it is near enough to have been meant.
#[must_use]
pub fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, nearest) = known.iter().map(|known| (edits(word, known), *known)).min()?;
    (distance <= (nearest.len() / 3).max(2)).then_some(nearest)
}

/// The Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = diagonal + usize::from(x != y);
            diagonal = *above;
            left = cost.min(*above + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::{Readers, write_durably};

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn in_a_file(text: &str) -> Result<(tempfile::TempDir, PathBuf), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("node.toml");
        write_durably(&path, text.as_bytes(), Readers::All)?;
        Ok((folder, path))
    }

    /// The text of an example, and a file with it that only its owner may change, as the checkout's may not be.
    fn example(name: &str) -> Result<(String, tempfile::TempDir, PathBuf), Box<dyn std::error::Error>> {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name))?;
        let (folder, path) = in_a_file(&text)?;
        Ok((text, folder, path))
    }

    fn no_environment() -> Env {
        Env::prefixed("NOBODY_SETS_THIS_")
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_suggestion() -> Outcome {
        let (_folder, path) = in_a_file("replica = 0\nlisten = \"127.0.0.1:1\"\npipeline_slot = 3\n")?;
        let error = read(&path, no_environment()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.ends_with("unknown key `pipeline_slot`; did you mean `pipeline_slots`?"), "{error}");
        Ok(())
    }

    #[test]
    fn an_unknown_key_like_no_other_is_refused_without_one() -> Outcome {
        let (_folder, path) = in_a_file("replica = 0\nlisten = \"127.0.0.1:1\"\ncolour_of_the_sea = 3\n")?;
        let error = read(&path, no_environment()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.ends_with("unknown key `colour_of_the_sea`"), "{error}");
        Ok(())
    }

    #[test]
    fn a_missing_key_is_named() -> Outcome {
        let (_folder, path) = in_a_file("replica = 0\n")?;
        let error = read(&path, no_environment()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("the key `listen` is missing"), "{error}");
        Ok(())
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_key() -> Outcome {
        let (_folder, path) = in_a_file("replica = \"0\"\nlisten = \"127.0.0.1:1\"\n")?;
        let error = read(&path, no_environment()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(": the key `replica`: ") && !error.contains("default"), "{error}");
        Ok(())
    }

    #[test]
    fn a_misspelt_variable_is_found_and_others_are_left_alone() {
        let names = ["POLDER_DATADIR", "POLDER_DATA_DIR", "POLDER_CLUSTER", "POLDER_BIN", "DATA_DIRS"];
        let found = misspelt_variables(names.into_iter().map(str::to_owned));
        assert_eq!(found, [("POLDER_DATADIR".to_owned(), "POLDER_DATA_DIR".to_owned())]);
    }

    #[test]
    fn the_keys_are_those_of_the_struct() -> Outcome {
        let (_folder, path) = in_a_file("replica = 0\nlisten = \"127.0.0.1:1\"\n")?;
        let file = read(&path, no_environment())?;
        let table = toml::Table::try_from(&file)?;
        assert_eq!(table.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), NodeFile::KEYS.into());
        Ok(())
    }

    /// The example is what an operator copies: every key in it, each with a comment above, and it loads.
    #[test]
    fn the_example_file_has_every_key_with_a_comment() -> Outcome {
        let (text, _folder, path) = example("node.toml")?;
        read(&path, no_environment())?;
        for key in NodeFile::KEYS {
            let lines: Vec<&str> = text.lines().collect();
            let at = lines.iter().position(|line| line.starts_with(&format!("{key} = ")));
            let before = at.and_then(|at| at.checked_sub(1)).and_then(|at| lines.get(at));
            assert!(
                before.is_some_and(|line| line.starts_with("# ")),
                "{key} is not in configs/node.toml, or has no comment"
            );
        }
        Ok(())
    }

    #[test]
    fn the_example_cluster_file_is_a_cluster_and_shows_every_constant_at_its_default() -> Outcome {
        let (text, _folder, path) = example("cluster.toml")?;
        let cluster = read_cluster(&path)?;
        assert_eq!(cluster.constants, polder_types::Constants::default());
        for key in toml::Table::try_from(polder_types::Constants::default())?.keys() {
            assert!(
                text.lines().any(|line| line.starts_with(&format!("{key} = "))),
                "{key} is not in configs/cluster.toml"
            );
        }
        Ok(())
    }
}
