//! What a planner is given and what it asks for.

use std::fmt;

use polder_executor::{Frozen, FrozenPartition};
use polder_types::{Certificate, Checkpoint, Digest, PartitionId, Seq, Signed, Verified, merkle_root};

use crate::state::CertifiedState;
use crate::store::Writes;

/// What a planner is given.
#[derive(Clone, Debug)]
pub enum Input {
    /// The own state at a cut, digested, and the own statement about it. All slots up to the cut are executed.
    Digested {
        /// The state.
        frozen: Frozen,
        /// The statement, with that state's root.
        checkpoint: Checkpoint,
    },
    /// A replica's statement; the own ones come by this road too, once they are durable.
    Vote(Verified<Signed<Checkpoint>>),
    /// A certificate that came whole, from a peer.
    Certified(Certificate<Checkpoint>),
    /// What [`Output::Persist`] asked for is durable.
    Persisted {
        /// The cut.
        cut: Seq,
    },
    /// All images that [`Output::WriteImages`] asked for are declared and durable.
    ImagesWritten {
        /// The cut.
        cut: Seq,
    },
    /// Whether little space is left on the disk: while it is, no images are asked for (C10). Those in flight go on.
    Space {
        /// Whether it is.
        is_low: bool,
    },
    /// A transferred state is about to be installed: no images are asked for until it is. Those in flight must have
    /// ended first.
    Installing,
    /// A transferred state is installed and durable: [`crate::install::write`] has returned.
    Installed(CertifiedState),
    /// A peer's answer to [`crate::transfer::Message::AskDigests`].
    Digests {
        /// The cut.
        cut: Seq,
        /// The claimed digests of all partitions.
        digests: Vec<Digest>,
    },
}

/// What a planner asks for, in this order. The driver owes what each variant says.
#[derive(Clone, Debug)]
pub enum Output {
    /// Sign this statement and make it durable in the ordering log; when it is, send it to all others, and give it back
    /// as [`Input::Vote`]. Send the same bytes again whenever somebody lacks them (R29).
    Announce(Checkpoint),
    /// A newer cut is stable: tell the ordering core. Nothing is owed back. (A certificate that came as
    /// [`Input::Certified`] is among them; the core knows it then.)
    Stable(Certificate<Checkpoint>),
    /// Apply to the state store, synced, after the effects up to the cut and its frontier; then give
    /// [`Input::Persisted`]. One at a time.
    Persist {
        /// The cut.
        cut: Seq,
        /// The certificate, as a row.
        writes: Writes,
    },
    /// Run [`crate::images::write`] on the state store with these, off the loop; then give [`Input::ImagesWritten`].
    /// One at a time, and never beside an install.
    WriteImages {
        /// The certified cut.
        cut: Seq,
        /// The partitions that are due. Those that did not change cost metadata only.
        partitions: Vec<FrozenPartition>,
    },
    /// Apply to the state store, lazily: effects, frontiers and certificates that nothing needs any more (C10).
    Truncate {
        /// The deletions.
        writes: Writes,
    },
    /// Batches and records of slots below this one may be deleted from the ordering log.
    TruncateLog {
        /// The lowest slot that is kept.
        below: Seq,
    },
    /// The own state is not the certified one (R35). From now on: no replies, no statements, no images; ordering goes
    /// on, the stable cuts too. Ask all others with [`crate::transfer::Message::AskDigests`] and give their answers as
    /// [`Input::Digests`]; the first true one brings this output again with the partitions named. Halt then, or when no
    /// answer came within a time of the driver's own, printing the divergence.
    Diverged(Box<Divergence>),
}

/// An own state that is not the certified one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// What this replica computed.
    pub own: Checkpoint,
    /// What a quorum computed.
    pub certified: Certificate<Checkpoint>,
    /// The digests of the own partitions, whose root is the own one.
    pub digests: Vec<Digest>,
    /// Which partitions differ, once a peer's list of digests is known.
    pub partitions: Option<Vec<PartitionId>>,
}

impl Divergence {
    /// The cut.
    #[must_use]
    pub fn cut(&self) -> Seq {
        self.own.seq
    }

    /// Compares with a list of digests; false when the list is not the one under the certified root.
    pub(crate) fn compare(&mut self, digests: &[Digest]) -> bool {
        let is_certified =
            digests.len() == self.digests.len() && merkle_root(digests) == self.certified.statement().root;
        if is_certified {
            let pairs = self.digests.iter().zip(digests).enumerate();
            let differing = pairs.filter(|(_, (own, certified))| own != certified);
            self.partitions = Some(differing.map(|(index, _)| PartitionId(index as u16)).collect());
        }
        is_certified
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, certified) = (&self.own, self.certified.statement());
        write!(f, "the own state at {} is not the one that a quorum certified: own {own:?}, ", own.seq)?;
        write!(f, "certified {certified:?}; ")?;
        match self.partitions.as_deref() {
            None => f.write_str("which partitions differ is not known"),
            Some([]) => f.write_str("no partition differs: the history or the time does"),
            Some(partitions) => {
                f.write_str("differing partitions: ")?;
                let mut comma = "";
                for partition in partitions {
                    write!(f, "{comma}{partition}")?;
                    comma = ", ";
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digested { checkpoint, .. } => write!(f, "digested {checkpoint}"),
            Self::Vote(vote) => write!(f, "{}: {}", vote.by, vote.statement),
            Self::Certified(certificate) => write!(f, "certified {}", certificate.statement().seq),
            Self::Persisted { cut } => write!(f, "persisted {cut}"),
            Self::ImagesWritten { cut } => write!(f, "images written {cut}"),
            Self::Space { is_low } => write!(f, "space low={is_low}"),
            Self::Installing => f.write_str("installing"),
            Self::Installed(state) => write!(f, "installed {}", state.cut()),
            Self::Digests { cut, .. } => write!(f, "digests of {cut}"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announce(checkpoint) => write!(f, "announce {checkpoint}"),
            Self::Stable(certificate) => write!(f, "stable {}", certificate.statement().seq),
            Self::Persist { cut, .. } => write!(f, "persist {cut}"),
            Self::WriteImages { cut, partitions } => write!(f, "write {} images of {cut}", partitions.len()),
            Self::Truncate { writes } => write!(f, "truncate, {} deletions", writes.len()),
            Self::TruncateLog { below } => write!(f, "truncate log below {below}"),
            Self::Diverged(divergence) => write!(f, "diverged at {}", divergence.cut()),
        }
    }
}
