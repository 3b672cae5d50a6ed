//! Recovery from the own disk, as a plan and then run (C8).
//!
//! `S` is the newest frontier on disk whose certificate is there too. Every partition is its image (or genesis) with
//! its effects up to `S` redone in slot order, is checked against the digest that is under the certified root, and only
//! then is the whole used. Redoing effects, not commands, is what makes commands over several partitions right:
//! executing one again that straddles two images would read the future.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use polder_executor::{Frozen, FrozenPartition, PartitionBuilder};
use polder_types::{Blob, Certificate, Checkpoint, Digest, Keyring, PartitionId, Seq, merkle_root};

use crate::images::{self, Image};
use crate::rows::{self, Begun, Declared};
use crate::state::CertifiedState;
use crate::store::{Durability, Family, Store, StoreError, Writes};
use crate::{certificates, effects_log};

/// How the state of a replica is got back from its own disk. Made by reading a few small rows; [`Plan::load`] may then
/// be called for different partitions on several threads.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The certificate of `S`, and the digests under its root; none when there is nothing but genesis.
    certified: Option<(Certificate<Checkpoint>, Vec<Digest>)>,
    parts: Vec<Part>,
    /// The cuts of all certificates on disk.
    certificates: BTreeSet<Seq>,
}

/// One partition of a plan.
#[derive(Clone, Copy, Debug)]
struct Part {
    id: PartitionId,
    image: Option<Declared>,
    begun: Option<Begun>,
}

impl Part {
    /// The slot after which effects are redone.
    fn redo_after(&self) -> Seq {
        self.image.map_or(Seq::ZERO, |image| image.cut)
    }
}

/// What a replica's own disk gives back.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The state at `S`; none when execution starts from genesis.
    pub state: Option<CertifiedState>,
    /// The images on disk.
    pub images: BTreeMap<PartitionId, Image>,
    /// The cuts of all certificates on disk.
    pub certificates: BTreeSet<Seq>,
}

impl Recovered {
    /// The slot after which execution goes on.
    #[must_use]
    pub fn cut(&self) -> Seq {
        self.state.as_ref().map_or(Seq::ZERO, CertifiedState::cut)
    }
}

/// Why a replica's state cannot be got back from its own disk. Says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// The store cannot be read or written.
    Store(StoreError),
    /// The certificate of a cut does not verify.
    Certificate {
        /// The cut.
        cut: Seq,
    },
    /// Partitions that are not what the certificate says.
    Partitions {
        /// The certified cut.
        cut: Seq,
        /// Which.
        partitions: Vec<PartitionId>,
    },
    /// Rows that contradict one another.
    Contradiction {
        /// How.
        what: String,
    },
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WHAT_TO_DO: &str = "Nothing was changed. Look at the disk and the kernel's log, then put back the whole \
             data folder as this very node left it last, or replace the node; never use an older copy or another \
             node's";
        match self {
            Self::Store(StoreError::Failed(what)) => {
                write!(f, "the state on disk cannot be read: {what}. Mend the disk, then start again")
            }
            Self::Store(StoreError::Damaged(what)) => {
                write!(f, "the state on disk is damaged: {what}. {WHAT_TO_DO}")
            }
            Self::Certificate { cut } => write!(
                f,
                "the certificate of cut {cut} is not signed by a quorum of this cluster: the data folder is another \
                 cluster's, or damaged. Check that the configuration names the folder of this node. {WHAT_TO_DO}"
            ),
            Self::Partitions { cut, partitions } => {
                write!(f, "the state on disk is not the one that a quorum certified at {cut}: ")?;
                let mut comma = "";
                for partition in partitions {
                    write!(f, "{comma}{partition}")?;
                    comma = ", ";
                }
                write!(f, " differ. {WHAT_TO_DO}")
            }
            Self::Contradiction { what } => write!(f, "the state on disk contradicts itself: {what}. {WHAT_TO_DO}"),
        }
    }
}

impl std::error::Error for RecoveryError {}

impl From<StoreError> for RecoveryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Gets the state back from the own disk: plans, loads every partition, checks all, and then removes from the disk what
/// unfinished jobs left there and what leads beyond `S` (it is executed again from the ordering log).
///
/// `genesis` is the state that follows from the genesis configuration alone.
///
/// # Errors
///
/// [`RecoveryError`], in words that say what to do. The disk is then unchanged.
pub fn recover(store: &dyn Store, keyring: &Keyring, genesis: &Frozen) -> Result<Recovered, RecoveryError> {
    let plan = plan(store, keyring, genesis)?;
    let loaded = plan.partitions().map(|partition| plan.load(store, genesis, partition)).collect::<Result<_, _>>()?;
    let cleaning = plan.cleaning();
    let recovered = plan.check(loaded)?;
    store.apply(&cleaning, Durability::Lazy)?;
    Ok(recovered)
}

/// Finds out how to get the state back. Reads only.
///
/// # Errors
///
/// [`RecoveryError`] when rows cannot be read or contradict one another, or the certificate does not verify.
pub fn plan(store: &dyn Store, keyring: &Keyring, genesis: &Frozen) -> Result<Plan, RecoveryError> {
    let certificates: BTreeSet<Seq> = rows::certificates(store)?.into_iter().collect();
    // The newest frontier whose certificate is durable.
    let newest = rows::frontiers(store)?.into_iter().rev().find(|cut| certificates.contains(cut));
    let certified = newest.map(|cut| read_certificate(store, keyring, genesis, cut)).transpose()?;
    let newest = newest.unwrap_or_default();
    let mut parts = Vec::new();
    for partition in genesis.partitions() {
        let id = partition.id();
        let part = Part { id, image: rows::declared(store, id)?, begun: rows::begun(store, id)? };
        // C3: an image is of a cut whose certificate and frontier were durable before its first byte. Only a base that
        // is being installed is ahead, and it is not valid yet.
        let begun = part.begun.filter(|begun| !begun.base).map(|begun| begun.cut);
        let image = part.image.map(|image| image.cut);
        if let Some(ahead) = image.max(begun).filter(|cut| *cut > newest) {
            let what = format!("the image of {id} is of {ahead}, but the newest certified frontier is {newest}");
            return Err(RecoveryError::Contradiction { what });
        }
        parts.push(part);
    }
    Ok(Plan { certified, parts, certificates })
}

fn read_certificate(
    store: &dyn Store,
    keyring: &Keyring,
    genesis: &Frozen,
    cut: Seq,
) -> Result<(Certificate<Checkpoint>, Vec<Digest>), RecoveryError> {
    let missing = || StoreError::Damaged(format!("the certificate of {cut} is gone"));
    let row = rows::certificate(store, cut)?.ok_or_else(missing)?;
    let certificate = row.proof.verify(keyring, keyring.quorum().quorum());
    let certificate = certificate.map_err(|_| RecoveryError::Certificate { cut })?;
    let statement = certificate.statement();
    if statement.seq != cut
        || row.digests.len() != genesis.partitions().len()
        || merkle_root(&row.digests) != statement.root
    {
        let what = format!("the certificate of {cut} and the digests beside it do not belong together");
        return Err(RecoveryError::Contradiction { what });
    }
    Ok((certificate, row.digests))
}

impl Plan {
    /// `S`: the slot whose state the plan leads to; 0 is genesis.
    #[must_use]
    pub fn cut(&self) -> Seq {
        self.certified.as_ref().map_or(Seq::ZERO, |(certificate, _)| certificate.statement().seq)
    }

    /// The partitions, in order.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.parts.iter().map(|part| part.id)
    }

    /// Loads one partition: its image, or genesis, and its effects up to `S` redone in slot order. Reads only.
    ///
    /// # Errors
    ///
    /// When rows cannot be read, or are not as many as were declared.
    pub fn load(
        &self,
        store: &dyn Store,
        genesis: &Frozen,
        partition: PartitionId,
    ) -> Result<FrozenPartition, RecoveryError> {
        let unknown = || RecoveryError::Contradiction { what: format!("there is no partition {partition}") };
        let index = usize::from(partition.0);
        let part = self.parts.get(index).ok_or_else(unknown)?;
        let mut builder = match part.image {
            Some(image) => load_image(store, partition, &image)?,
            None => PartitionBuilder::from(genesis.partitions().get(index).ok_or_else(unknown)?),
        };
        effects_log::redo(store, &mut builder, partition, part.redo_after(), self.cut())?;
        Ok(builder.finish())
    }

    /// Checks every partition and the whole against the certificate.
    ///
    /// # Errors
    ///
    /// [`RecoveryError::Partitions`] names those that are not the certified ones.
    pub fn check(self, partitions: Vec<FrozenPartition>) -> Result<Recovered, RecoveryError> {
        let images = self.parts.iter().filter_map(|part| {
            let image = part.image?;
            Some((part.id, Image { cut: image.cut, bytes: image.bytes }))
        });
        let images = images.collect();
        let Some((certificate, digests)) = self.certified else {
            return Ok(Recovered { state: None, images, certificates: self.certificates });
        };
        let cut = certificate.statement().seq;
        let pairs = partitions.iter().zip(&digests);
        let damaged: Vec<PartitionId> =
            pairs.filter(|(partition, digest)| partition.digest() != **digest).map(|(part, _)| part.id()).collect();
        if !damaged.is_empty() {
            return Err(RecoveryError::Partitions { cut, partitions: damaged });
        }
        let contradiction = |what: String| RecoveryError::Contradiction { what };
        let frozen = Frozen::assemble(cut, partitions).map_err(|error| contradiction(error.to_string()))?;
        let state = CertifiedState::new(certificate, frozen)
            .ok_or_else(|| contradiction(format!("the state of {cut} is not the certified one")))?;
        Ok(Recovered { state: Some(state), images, certificates: self.certificates })
    }

    /// What is to be removed from the disk once the plan has led to the certified state.
    fn cleaning(&self) -> Writes {
        let mut writes = Writes::new();
        let cut = self.cut();
        for part in &self.parts {
            // C4: unfinished jobs are abandoned.
            if let Some(begun) = part.begun {
                images::remove_begun(&mut writes, part.id, begun);
            }
            // C10: what a crash left between a declaration and the deletions after it.
            if let Some(image) = part.image {
                let (from, to) = rows::images_range(part.id, 0, image.generation);
                writes.delete_range(Family::Images, from, to);
                effects_log::remove(&mut writes, part.id, Seq::ZERO, image.cut);
            }
            // Slots beyond S are executed again, and named again.
            effects_log::remove(&mut writes, part.id, cut, Seq(u64::MAX - 1));
        }
        let (from, to) = rows::frontiers_all();
        writes.delete_range(Family::Meta, from, rows::frontier_key(cut));
        writes.delete_range(Family::Meta, rows::frontier_key(cut.next()), to);
        let mut left = self.certificates.clone();
        let images = self.parts.iter().filter_map(|part| part.image.map(|image| image.cut)).collect();
        certificates::prune(&mut writes, &mut left, cut, &images);
        writes
    }
}

fn load_image(store: &dyn Store, id: PartitionId, image: &Declared) -> Result<PartitionBuilder, StoreError> {
    let mut builder = PartitionBuilder::new(id);
    let (from, to) = rows::images_range(id, image.generation, image.generation.saturating_add(1));
    let mut entries = 0;
    rows::each(store, Family::Images, &from, &to, |key, value| {
        let entry = rows::read(value, || format!("an entry of the image of {id}"))?;
        builder.put(Blob::copy(rows::image_entry(key)), entry);
        entries += 1;
        Ok(())
    })?;
    if entries != image.entries {
        return Err(StoreError::Damaged(format!(
            "the image of {id} of {} has {entries} entries, {} were declared",
            image.cut, image.entries
        )));
    }
    builder.set_last_delete(image.last_delete);
    Ok(builder)
}
