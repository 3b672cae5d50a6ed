//! How a claim hardens: a [`Statement`] is [`Signed`], a signature that was checked makes it [`Verified`], a quorum of
//! them on one statement is a [`Certificate`]. What arrives as a certificate is only a [`Proof`] until it is verified.

use alloc::vec::Vec;
use core::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::{BadSignature, ClusterId, Keyring, ReplicaId, Signature, SigningKey};

/// Something a replica signs. Its bytes are written by hand, fixed-width, so that there is one encoding (R2).
pub trait Statement: Clone + Eq {
    /// The kind, part of the signed prefix: no two statements share one.
    const KIND: &'static str;

    /// Appends the fields, fixed-width.
    fn write(&self, out: &mut Vec<u8>);
}

/// The bytes that are signed: `polder/v1/<kind>\0 ‖ cluster id ‖ fields` (R2).
#[must_use]
pub fn signing_bytes<S: Statement>(cluster: ClusterId, statement: &S) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(160);
    bytes.extend_from_slice(b"polder/v1/");
    bytes.extend_from_slice(S::KIND.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&cluster.0.0);
    statement.write(&mut bytes);
    bytes
}

/// A statement with a signature that nobody has checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<S> {
    /// Who is said to have signed.
    pub by: ReplicaId,
    /// What was signed.
    pub statement: S,
    /// The signature.
    pub signature: Signature,
}

impl<S: Statement> Signed<S> {
    /// Signs a statement oneself; what one signs oneself is verified.
    #[must_use]
    pub fn sign(by: ReplicaId, statement: S, cluster: ClusterId, key: &SigningKey) -> Verified<Self> {
        let signature = key.sign(&signing_bytes(cluster, &statement));
        Verified(Self { by, statement, signature })
    }

    /// Checks the signature.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when it is not that replica's over this statement in this cluster.
    pub fn verify(self, keyring: &Keyring) -> Result<Verified<Self>, BadSignature> {
        keyring.verify(self.by, &signing_bytes(keyring.cluster(), &self.statement), &self.signature)?;
        Ok(Verified(self))
    }
}

/// A value whose every signature was checked, or that was signed here. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value, which no longer carries the mark.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }

    /// Marks a composite whose parts `check` verifies one by one. This is how a message that carries several
    /// signatures becomes verified: `check` must verify each of them, and returns the value that it verified.
    ///
    /// # Errors
    ///
    /// Whatever `check` returns.
    pub fn by<E>(value: T, check: impl FnOnce(&T) -> Result<(), E>) -> Result<Self, E> {
        check(&value)?;
        Ok(Self(value))
    }
}

impl<T: Clone> Verified<T> {
    /// A part that was carried, and checked, inside a verified whole.
    #[must_use]
    pub fn carried<W>(whole: &Verified<W>, pick: impl FnOnce(&W) -> Option<&T>) -> Option<Self> {
        pick(whole).cloned().map(Self)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A claimed certificate, as it travels: a statement and signatures that nobody has checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof<S> {
    /// The statement.
    pub statement: S,
    /// Who signed it, in increasing order of replica; at most as many as a cluster may have.
    #[serde(deserialize_with = "crate::at_most::<{ crate::Quorum::REPLICAS_MAX }, _, _>")]
    pub signers: Vec<(ReplicaId, Signature)>,
}

impl<S: Statement> Proof<S> {
    /// Checks that at least `threshold` distinct replicas signed this very statement.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when there are fewer, when they are not in strictly increasing order (so nobody is counted
    /// twice), when there are more than the threshold (so a certificate has one length), or when one does not verify.
    pub fn verify(self, keyring: &Keyring, threshold: usize) -> Result<Certificate<S>, BadSignature> {
        self.check(keyring, threshold)?;
        Ok(Certificate(self))
    }

    /// As [`Proof::verify`], by reference.
    ///
    /// # Errors
    ///
    /// As [`Proof::verify`].
    pub fn check(&self, keyring: &Keyring, threshold: usize) -> Result<(), BadSignature> {
        if self.signers.len() != threshold {
            return Err(BadSignature);
        }
        if !self.signers.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(BadSignature);
        }
        let bytes = signing_bytes(keyring.cluster(), &self.statement);
        self.signers.iter().try_for_each(|(by, signature)| keyring.verify(*by, &bytes, signature))
    }
}

/// A statement with the checked signatures of enough distinct replicas. Made by [`crate::Tally::certificate`] or by
/// [`Proof::verify`]; nothing else makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate<S>(pub(crate) Proof<S>);

impl<S> Certificate<S> {
    /// The statement.
    #[must_use]
    pub fn statement(&self) -> &S {
        &self.0.statement
    }

    /// Who signed it.
    pub fn signers(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.0.signers.iter().map(|(by, _)| *by)
    }

    /// The form in which it travels and rests.
    #[must_use]
    pub fn proof(&self) -> &Proof<S> {
        &self.0
    }

    /// A certificate that was carried, and checked, inside a verified whole.
    #[must_use]
    pub fn carried<T>(whole: &Verified<T>, pick: impl FnOnce(&T) -> Option<&Proof<S>>) -> Option<Self>
    where
        S: Clone,
    {
        pick(whole).cloned().map(Self)
    }
}
