//! Where evidence against a replica (R41) is kept: one file a replica, kind and epoch, in `data/evidence`, written once.
//! There are never more than five a replica and epoch, of at most [`EVIDENCE_BYTES_MAX`] bytes. Nothing relies on them:
//! they are for whoever has to decide about that replica, and prove what they say by their bytes alone.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use polder_consensus::{EVIDENCE_BYTES_MAX, Evidence, EvidenceKind, Misdeed};
use polder_types::Keyring;

use crate::files::{FileError, Readers, write_durably};

/// What the names of these files end with.
const EXTENSION: &str = "evidence";

/// The folder of evidence in a data folder.
#[must_use]
pub fn folder(data: &Path) -> PathBuf {
    data.join("evidence")
}

/// A kind in a word.
#[must_use]
pub fn word(kind: EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::Proposals => "proposals",
        EvidenceKind::Votes => "votes",
        EvidenceKind::ViewChanges => "view-changes",
        EvidenceKind::NewViews => "new-views",
        EvidenceKind::Forgotten => "forgotten",
    }
}

/// The name of the file of what evidence proves.
#[must_use]
pub fn file_name(misdeed: &Misdeed) -> String {
    format!("replica-{}-epoch-{}-{}.{EXTENSION}", misdeed.culprit.0, misdeed.epoch.0, word(misdeed.kind))
}

/// Writes evidence that `misdeed` was read from, if there is none of its replica, kind and epoch yet. Returns its file.
///
/// # Errors
///
/// When the file system refuses.
pub fn keep(data: &Path, evidence: &Evidence, misdeed: &Misdeed) -> Result<PathBuf, FileError> {
    let folder = folder(data);
    let path = folder.join(file_name(misdeed));
    if !path.exists() {
        fs::create_dir_all(&folder).map_err(|error| FileError::Io { path: folder.clone(), error })?;
        write_durably(&path, &evidence.to_bytes(), Readers::All)?;
    }
    Ok(path)
}

/// The files of evidence in a data folder or a folder of evidence, in the order of their names; none where there is no
/// such folder.
///
/// # Errors
///
/// When a folder cannot be read.
pub fn files(at: &Path) -> Result<Vec<PathBuf>, FileError> {
    let inside = folder(at);
    let at = if inside.is_dir() { &inside } else { at };
    let read = || -> io::Result<Vec<PathBuf>> {
        let paths: Vec<PathBuf> = fs::read_dir(at)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        let mut found: Vec<PathBuf> =
            paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == EXTENSION)).collect();
        found.sort();
        Ok(found)
    };
    read().map_err(|error| FileError::Io { path: at.to_owned(), error })
}

/// What a file proves, or why it proves nothing.
///
/// # Errors
///
/// When it cannot be read, or is larger than any evidence.
pub fn judge(keyring: &Keyring, path: &Path) -> Result<Result<Misdeed, polder_consensus::NotEvidence>, FileError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(EVIDENCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > EVIDENCE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any evidence"));
        }
        Ok(bytes)
    };
    let bytes = read().map_err(|error| FileError::Io { path: path.to_owned(), error })?;
    Ok(polder_consensus::verify_evidence(keyring, &bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use polder_consensus::{NotEvidence, Phase, Vote};
    use polder_types::{
        ClientAccess, ClusterFile, Constants, Digest, Epoch, FaultModel, Nonce, ReplicaEntry, ReplicaId, Seq, Signed,
        SigningKey, View,
    };

    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn key(replica: u8) -> SigningKey {
        SigningKey::from_seed(&[replica + 1; 32])
    }

    pub(crate) fn cluster(nonce: u8) -> ClusterFile {
        let entry = |replica: u8| ReplicaEntry {
            address: format!("127.0.0.1:{}", 7_100 + u16::from(replica)),
            identity: SigningKey::from_seed(&[replica + 100; 32]).public(),
            signing: key(replica).public(),
        };
        ClusterFile {
            nonce: Nonce([nonce; 16]),
            fault_model: FaultModel::Byzantine,
            constants: Constants::default(),
            clients: ClientAccess { open: true, keys: Vec::new() },
            replicas: (0..4).map(entry).collect(),
        }
    }

    /// Replica 2 has voted twice in this phase.
    pub(crate) fn two_votes(cluster: &ClusterFile, phase: Phase, digests: [u8; 2]) -> Evidence {
        let vote = |digest: u8| {
            let (epoch, view, slot) = (Epoch(0), View(3), Seq(7));
            let vote = Vote { phase, epoch, view, slot, digest: Digest([digest; 32]) };
            Signed::sign(ReplicaId(2), vote, cluster.genesis().cluster(), &key(2)).into_inner()
        };
        Evidence::Votes(vote(digests[0]), vote(digests[1]))
    }

    #[test]
    fn r41_of_a_replica_kind_and_epoch_one_piece_is_kept_and_it_holds_for_this_cluster_alone() -> Outcome {
        let folder = tempfile::tempdir()?;
        let cluster = cluster(1);
        let keyring = cluster.genesis().check()?;
        assert!(files(folder.path())?.is_empty());
        for digests in [[1, 2], [3, 4]] {
            let evidence = two_votes(&cluster, Phase::Commit, digests);
            let misdeed = evidence.verify(&keyring)?;
            let path = keep(folder.path(), &evidence, &misdeed)?;
            assert_eq!(path, folder.path().join("evidence/replica-2-epoch-0-votes.evidence"));
            assert_eq!(judge(&keyring, &path)?, Ok(misdeed));
        }
        let found = files(folder.path())?;
        assert_eq!(found.len(), 1);
        assert_eq!(files(&super::folder(folder.path()))?, found);
        let path = found.first().ok_or("one")?;
        assert_eq!(fs::read(path)?, two_votes(&cluster, Phase::Commit, [1, 2]).to_bytes());
        let other = super::tests::cluster(2).genesis().check()?;
        assert_eq!(judge(&other, path)?, Err(NotEvidence::Signature));
        Ok(())
    }

    #[test]
    fn a_file_larger_than_any_evidence_is_not_read() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("huge.evidence");
        File::create(&path)?.set_len(1 << 40)?;
        let keyring = cluster(1).genesis().check()?;
        assert!(judge(&keyring, &path).is_err_and(|error| error.to_string().contains("larger than any evidence")));
        fs::write(&path, "nothing")?;
        assert_eq!(judge(&keyring, &path)?, Err(NotEvidence::Malformed));
        Ok(())
    }
}
