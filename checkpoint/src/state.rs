//! A state that a certificate proves.

use polder_executor::Frozen;
use polder_types::{Certificate, Checkpoint, Digest, Seq};

/// A frozen state whose root a certificate proves: what a replica serves, restores and installs.
#[derive(Clone, Debug)]
pub struct CertifiedState {
    certificate: Certificate<Checkpoint>,
    frozen: Frozen,
}

impl CertifiedState {
    /// Joins the two; none when the state is not the certified one. Computes the digests that are not known yet.
    #[must_use]
    pub fn new(certificate: Certificate<Checkpoint>, frozen: Frozen) -> Option<Self> {
        let statement = certificate.statement();
        let is_certified = statement.seq == frozen.seq()
            && statement.root == frozen.root()
            // The time is in the system partition too: a certificate that contradicts it proves nothing.
            && statement.time == frozen.time();
        is_certified.then_some(Self { certificate, frozen })
    }

    /// The cut.
    #[must_use]
    pub fn cut(&self) -> Seq {
        self.certificate.statement().seq
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate<Checkpoint> {
        &self.certificate
    }

    /// The state.
    #[must_use]
    pub fn frozen(&self) -> &Frozen {
        &self.frozen
    }

    /// The digests of the partitions, in order: the root is over them.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.frozen.digests()
    }
}
