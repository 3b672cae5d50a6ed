//! The identity file `data/identity`: the part of the proof of memory (R18) that a file can give.
//!
//! An empty disk must never look like genesis: a replica that forgot what it had promised would promise otherwise. So
//! `testnet` *arms* a data folder once; its first start *disarms* it, durably, before the replica says a word; and a
//! disarmed folder without a log is refused. While it is armed, nothing was promised in any cluster, and the genesis may
//! still be edited. What a file cannot show, a folder rolled back as a whole, the replica asks its peers (MEMORY?).

use std::path::{Path, PathBuf};

use polder_checkpoint::{Family, Store, StoreError};
use polder_types::{ClusterId, PublicKey, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::files::{FileError, Readers, check_folder, make_folder, read_text, write_durably};
use crate::replica::Start;

/// What is left to do when a replica's memory is gone: nothing replaces a member yet.
const LOST: &str = "The members of a cluster are fixed in this version: it goes on without this replica, as long as no \
                    more fail than it tolerates. To have all of them again, export the data from the others and import \
                    them into a new cluster (export, testnet, import)";

/// What `data/identity` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The cluster id, in hexadecimal.
    pub cluster: String,
    /// Which replica.
    pub replica: u8,
    /// The key that signs its statements: the log holds what this key signed.
    pub signing: PublicKey,
    /// Whether the replica was never started yet.
    pub armed: bool,
}

/// A data folder that a replica must not start from.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no identity file.
    #[error(
        "{path}: there is no identity file, so this data folder is empty, wiped or not this replica's. A replica that \
         lost its data must not vote again as if it had promised nothing. If the folder was moved, set data_dir. {}",
        LOST
    )]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// It is this replica's, of another cluster: the genesis was edited too late.
    #[error(
        "{path}: cluster.toml was changed after the first start of this replica: its data are of cluster {found}, the \
         file now describes cluster {expected}. All but the addresses is fixed at the first start. Put the old \
         cluster.toml back, or make a new cluster (testnet)"
    )]
    ClusterChanged {
        /// The file.
        path: PathBuf,
        /// The beginning of the id of the cluster that it was started in.
        found: String,
        /// That of the cluster that is configured.
        expected: String,
    },
    /// It is of another replica or key.
    #[error(
        "{path}: this data folder belongs to {found}, but the configuration is of {expected}. Set data_dir to this \
         replica's own folder; never copy one replica's folder to another"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The replica was started before, but its log is gone, or emptied.
    #[error(
        "{path}: this replica was started before, but its ordering log is gone: its memory of what it signed is lost. \
         Put the log back if it was moved. {}",
        LOST
    )]
    MemoryLost {
        /// The identity file.
        path: PathBuf,
    },
    /// The replica was started before, but its state is gone, or emptied.
    #[error(
        "{path}: this replica was started before, but its state is gone, and what its log has forgotten was in it. Put \
         the folder back if it was moved. {}",
        LOST
    )]
    StateLost {
        /// The folder looked for.
        path: PathBuf,
    },
    /// The file cannot be read or written, or is damaged.
    #[error(transparent)]
    File(#[from] FileError),
    /// The log cannot be read.
    #[error(
        "the ordering log cannot be read: {0}. A replica that does not know what it signed must not vote: put back the \
         whole data folder as this replica left it last, never an older copy. Until then the others go on without it"
    )]
    Store(StoreError),
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The identity file of a data folder, read and found to be this replica's.
#[derive(Debug)]
pub struct IdentityFile {
    path: PathBuf,
    identity: Identity,
    /// The cluster that is configured. Another than the file's only while that is armed: the genesis was edited.
    cluster: String,
}

impl IdentityFile {
    /// Where it is in a data folder.
    #[must_use]
    pub fn path(data: &Path) -> PathBuf {
        data.join("identity")
    }

    /// Arms a data folder for its first start. Only whoever makes the keys does this, once.
    ///
    /// # Errors
    ///
    /// When the folder has an identity already, or the file system refuses.
    pub fn arm(data: &Path, cluster: ClusterId, replica: ReplicaId, signing: PublicKey) -> Result<(), FileError> {
        let path = Self::path(data);
        if path.exists() {
            let why = "this data folder has an identity already; it is armed once in its life".to_owned();
            return Err(FileError::Content { path, why });
        }
        make_folder(data, Readers::Owner)?;
        Identity { cluster: hex(cluster), replica: replica.0, signing, armed: true }.write(&path)
    }

    /// Reads the identity of a data folder and checks whose it is. To be called before any store in it is opened. An
    /// armed one may be of another cluster with the same replica and key: [`IdentityFile::start`] arms it for this one.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not this replica's.
    pub fn open(
        data: &Path,
        cluster: ClusterId,
        replica: ReplicaId,
        signing: PublicKey,
    ) -> Result<Self, IdentityError> {
        let path = Self::path(data);
        if !path.exists() {
            return Err(IdentityError::Missing { path });
        }
        check_folder(data)?;
        let identity: Identity = toml::from_str(&read_text(&path)?)
            .map_err(|error| FileError::Content { path: path.clone(), why: error.to_string().trim_end().to_owned() })?;
        let cluster = hex(cluster);
        if (identity.replica, identity.signing) != (replica.0, signing) {
            let expected = Identity { cluster, replica: replica.0, signing, armed: identity.armed };
            return Err(IdentityError::Foreign { path, found: identity.words(), expected: expected.words() });
        }
        let file = Self { path, identity, cluster };
        if file.identity.armed || !file.is_of_another_cluster() { Ok(file) } else { Err(file.cluster_changed()) }
    }

    fn is_of_another_cluster(&self) -> bool {
        self.identity.cluster != self.cluster
    }

    fn cluster_changed(&self) -> IdentityError {
        let whole = [self.identity.cluster.as_str(), self.cluster.as_str()];
        let begins = whole.map(short);
        // A damaged file may differ further behind.
        let [found, expected] = if begins[0] == begins[1] { whole } else { begins };
        let path = self.path.clone();
        IdentityError::ClusterChanged { path, found: found.to_owned(), expected: expected.to_owned() }
    }

    /// Whether the stores may be created: only before the first start.
    #[must_use]
    pub fn may_create(&self) -> bool {
        self.identity.armed
    }

    /// Where the ordering log is in a data folder.
    #[must_use]
    pub fn log_folder(data: &Path) -> PathBuf {
        data.join("log")
    }

    /// Where the state is in a data folder.
    #[must_use]
    pub fn state_folder(data: &Path) -> PathBuf {
        data.join("state")
    }

    /// Whether the stores are there that must be there. To be called before they are opened, so that nobody makes them
    /// anew.
    ///
    /// # Errors
    ///
    /// When the folder is disarmed and lacks its log or its state, or one of them is an empty folder.
    pub fn check_folders(&self) -> Result<(), IdentityError> {
        let data = self.path.parent().unwrap_or_else(|| Path::new(""));
        if self.identity.armed {
            return Ok(());
        }
        if !has_files(&Self::log_folder(data)) {
            return Err(IdentityError::MemoryLost { path: self.path.clone() });
        }
        let state = Self::state_folder(data);
        if has_files(&state) { Ok(()) } else { Err(IdentityError::StateLost { path: state }) }
    }

    /// How the replica starts, by this file and the log beside it. An armed folder with a log was started and crashed
    /// before it was disarmed, when nothing had left it: its log is its memory. One without is armed, durably, for the
    /// cluster that is configured now.
    ///
    /// # Errors
    ///
    /// [`IdentityError::MemoryLost`] when the folder is disarmed and the log empty, and
    /// [`IdentityError::ClusterChanged`] when the log was begun in another cluster.
    pub fn start(&mut self, log: &dyn Store) -> Result<Start, IdentityError> {
        match (self.identity.armed, is_empty(log)?) {
            (true, true) => {
                if self.is_of_another_cluster() {
                    self.identity.cluster.clone_from(&self.cluster);
                    self.identity.write(&self.path)?;
                }
                Ok(Start::Genesis)
            }
            (_, false) if self.is_of_another_cluster() => Err(self.cluster_changed()),
            (_, false) => Ok(Start::Memory),
            (false, true) => Err(IdentityError::MemoryLost { path: self.path.clone() }),
        }
    }

    /// Disarms the folder, durably. To be called when the replica's identity row is durable in the log, and before the
    /// replica sends anything.
    ///
    /// # Errors
    ///
    /// When the file system refuses: the replica must not go on.
    pub fn disarm(&mut self) -> Result<(), FileError> {
        if self.identity.armed {
            self.identity.armed = false;
            self.identity.write(&self.path)?;
        }
        Ok(())
    }
}

impl Identity {
    fn write(&self, path: &Path) -> Result<(), FileError> {
        let body = toml::to_string(self)
            .map_err(|error| FileError::Content { path: path.to_owned(), why: error.to_string() })?;
        let text = format!(
            "# Whose data this is, and whether its replica was never started (armed). Do not edit, copy or delete it:\n\
             # a replica without its memory could vote twice.\n{body}"
        );
        write_durably(path, text.as_bytes(), Readers::All)
    }

    fn words(&self) -> String {
        let cluster = short(&self.cluster);
        format!("replica {} of cluster {cluster} with signing key {}", self.replica, self.signing)
    }
}

/// The beginning of a cluster id, as people compare it.
fn short(cluster: &str) -> &str {
    cluster.get(..8).unwrap_or(cluster)
}

fn hex(cluster: ClusterId) -> String {
    cluster.0.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether there is such a folder and anything in it. One that cannot be read is left for its store to complain about.
fn has_files(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or_else(|_| folder.exists(), |mut files| files.next().is_some())
}

fn is_empty(store: &dyn Store) -> Result<bool, StoreError> {
    for family in [Family::Log, Family::Meta] {
        if !store.scan(family, &[], &[0xff; 64], 1)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use polder_checkpoint::{Durability, MemStore, Writes};
    use polder_types::{Digest, SigningKey};

    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const CLUSTER: ClusterId = ClusterId(Digest([7; 32]));
    const EDITED: ClusterId = ClusterId(Digest([8; 32]));

    fn key(seed: u8) -> PublicKey {
        SigningKey::from_seed(&[seed; 32]).public()
    }

    fn log_with_a_row() -> Result<MemStore, StoreError> {
        let store = MemStore::default();
        let mut writes = Writes::default();
        writes.put(Family::Log, vec![1], vec![2]);
        store.apply(&writes, Durability::Synced)?;
        Ok(store)
    }

    #[test]
    fn r18_an_empty_folder_never_looks_like_genesis() -> Outcome {
        let folder = tempfile::tempdir()?;
        let opened = IdentityFile::open(folder.path(), CLUSTER, ReplicaId(0), key(1));
        assert!(matches!(opened, Err(IdentityError::Missing { .. })));
        Ok(())
    }

    #[test]
    fn r18_the_first_start_disarms_and_a_lost_log_is_refused_after_it() -> Outcome {
        let folder = tempfile::tempdir()?;
        IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        let mut identity = IdentityFile::open(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        assert!(identity.may_create());
        assert_eq!(identity.start(&MemStore::default())?, Start::Genesis);
        identity.disarm()?;

        let mut identity = IdentityFile::open(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        assert!(!identity.may_create());
        assert!(matches!(identity.start(&MemStore::default()), Err(IdentityError::MemoryLost { .. })));
        assert_eq!(identity.start(&log_with_a_row()?)?, Start::Memory);
        Ok(())
    }

    #[test]
    fn r18_a_folder_that_lacks_its_log_or_its_state_is_refused_before_they_are_made_anew() -> Outcome {
        let folder = tempfile::tempdir()?;
        IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        let mut identity = IdentityFile::open(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        identity.check_folders()?;
        identity.disarm()?;
        assert!(matches!(identity.check_folders(), Err(IdentityError::MemoryLost { .. })));
        let [log, state] = [IdentityFile::log_folder(folder.path()), IdentityFile::state_folder(folder.path())];
        std::fs::create_dir(&log)?;
        assert!(matches!(identity.check_folders(), Err(IdentityError::MemoryLost { .. })), "emptied");
        std::fs::write(log.join("CURRENT"), [])?;
        assert!(matches!(identity.check_folders(), Err(IdentityError::StateLost { .. })));
        std::fs::create_dir(&state)?;
        assert!(matches!(identity.check_folders(), Err(IdentityError::StateLost { .. })), "emptied");
        std::fs::write(state.join("CURRENT"), [])?;
        identity.check_folders()?;
        Ok(())
    }

    #[test]
    fn r18_a_crash_between_the_first_row_and_the_disarming_starts_from_memory() -> Outcome {
        let folder = tempfile::tempdir()?;
        IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        let mut identity = IdentityFile::open(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        assert_eq!(identity.start(&log_with_a_row()?)?, Start::Memory);
        Ok(())
    }

    #[test]
    fn r18_a_folder_of_another_replica_or_key_is_refused_in_words() -> Outcome {
        let folder = tempfile::tempdir()?;
        IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        for (cluster, replica, signing) in [(CLUSTER, 1, key(1)), (CLUSTER, 0, key(2)), (EDITED, 0, key(2))] {
            let error = IdentityFile::open(folder.path(), cluster, ReplicaId(replica), signing).err();
            assert!(error.is_some_and(|error| error.to_string().contains("belongs to replica 0 of cluster 07070707")));
        }
        Ok(())
    }

    #[test]
    fn r18_the_genesis_may_be_edited_until_the_first_start_and_not_after_it() -> Outcome {
        let folder = tempfile::tempdir()?;
        IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        let mut identity = IdentityFile::open(folder.path(), EDITED, ReplicaId(0), key(1))?;
        assert_eq!(identity.start(&MemStore::default())?, Start::Genesis);
        let mut identity = IdentityFile::open(folder.path(), EDITED, ReplicaId(0), key(1))?;
        assert!(!identity.is_of_another_cluster(), "armed durably for the edited one");
        identity.disarm()?;

        let error = IdentityFile::open(folder.path(), CLUSTER, ReplicaId(0), key(1)).err();
        assert!(error.is_some_and(|error| {
            let words = error.to_string();
            words.contains("changed after the first start") && words.contains("of cluster 08080808")
        }));
        IdentityFile::open(folder.path(), EDITED, ReplicaId(0), key(1))?;
        Ok(())
    }

    #[test]
    fn r18_a_log_begun_in_another_cluster_is_refused_though_the_folder_is_armed() -> Outcome {
        let folder = tempfile::tempdir()?;
        IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        let mut identity = IdentityFile::open(folder.path(), EDITED, ReplicaId(0), key(1))?;
        assert!(matches!(identity.start(&log_with_a_row()?), Err(IdentityError::ClusterChanged { .. })));
        Ok(())
    }

    #[test]
    fn a_lost_folder_is_told_what_can_be_done_in_this_version() -> Outcome {
        let folder = tempfile::tempdir()?;
        let error = IdentityFile::open(folder.path(), CLUSTER, ReplicaId(0), key(1)).err();
        let words = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(words.contains("fixed in this version") && words.contains("export"), "{words}");
        Ok(())
    }

    #[test]
    fn r18_a_folder_is_armed_once() -> Outcome {
        let folder = tempfile::tempdir()?;
        IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1))?;
        assert!(IdentityFile::arm(folder.path(), CLUSTER, ReplicaId(0), key(1)).is_err());
        Ok(())
    }
}
