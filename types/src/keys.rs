//! Ed25519 under one verification rule (R3).
//!
//! The rule is `verify_strict`, singly, everywhere: no batch verification. The batch verification of the library
//! accepts signatures with a small-order component that every single verification rejects, so that one liar could
//! split replicas that mix the two.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ClusterId, Quorum, ReplicaId, hex};

/// A signature that does not verify, or a key that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not verify")
    }
}

impl core::error::Error for BadSignature {}

/// An Ed25519 public key, as 32 bytes; whether they are a point is seen when something is verified. Files hold it as
/// 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Verifies a signature by this key over `bytes`.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when the key is no valid point or of small order, or the signature is not this key's.
    pub fn verify(&self, bytes: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        verify(&key, bytes, signature)
    }

    /// The key written as 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> alloc::string::String {
        hex::encode(&self.0)
    }

    /// The key of 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        hex::decode(hex).map(Self)
    }
}

impl fmt::Display for PublicKey {
    /// The first four bytes in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex::deserialize(deserializer).map(Self)
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex::deserialize(deserializer).map(Self)
    }
}

/// An Ed25519 signing key. Its bytes are wiped when it is dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The key of 64 hexadecimal digits, as key files hold it.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        hex::decode(hex).map(|seed| Self::from_seed(&seed))
    }

    /// The 32 secret bytes, for the TLS identity and for key files.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `bytes`; the same bytes always get the same signature.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        use ed25519_dalek::Signer as _;
        Signature(self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

/// The replicas' public keys of one epoch, with the cluster and the quorum that give them meaning.
#[derive(Clone, Debug)]
pub struct Keyring {
    cluster: ClusterId,
    quorum: Quorum,
    keys: Vec<ed25519_dalek::VerifyingKey>,
}

impl Keyring {
    /// The keyring of a cluster whose replica `i` has `keys[i]`.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when a key is no valid point, or there are not as many keys as replicas.
    pub fn new(cluster: ClusterId, quorum: Quorum, keys: &[PublicKey]) -> Result<Self, BadSignature> {
        if keys.len() != quorum.replicas() {
            return Err(BadSignature);
        }
        let keys = keys
            .iter()
            .map(|key| ed25519_dalek::VerifyingKey::from_bytes(&key.0).map_err(|_| BadSignature))
            .collect::<Result<_, _>>()?;
        Ok(Self { cluster, quorum, keys })
    }

    /// The cluster whose replicas these are.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The quorums among them.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// The public key of a replica.
    #[must_use]
    pub fn key(&self, replica: ReplicaId) -> Option<PublicKey> {
        self.keys.get(usize::from(replica.0)).map(|key| PublicKey(key.to_bytes()))
    }

    /// Verifies a replica's signature over `bytes`.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when there is no such replica or the signature is not its.
    pub fn verify(&self, replica: ReplicaId, bytes: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let key = self.keys.get(usize::from(replica.0)).ok_or(BadSignature)?;
        verify(key, bytes, signature)
    }
}

/// R3: the one verification rule.
fn verify(key: &ed25519_dalek::VerifyingKey, bytes: &[u8], signature: &Signature) -> Result<(), BadSignature> {
    key.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&signature.0)).map_err(|_| BadSignature)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of the base point, little-endian: adding it to `s` gives a second, non-canonical encoding.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    #[test]
    fn r3_the_right_signature_verifies_and_no_other() {
        let signature = key().sign(b"hello");
        assert_eq!(key().public().verify(b"hello", &signature), Ok(()));
        assert_eq!(key().public().verify(b"hellp", &signature), Err(BadSignature));
        assert_eq!(SigningKey::from_seed(&[8; 32]).public().verify(b"hello", &signature), Err(BadSignature));
    }

    #[test]
    fn r3_a_non_canonical_s_is_refused() {
        let mut signature = key().sign(b"hello");
        let mut carry = 0u16;
        for (byte, add) in signature.0[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(key().public().verify(b"hello", &signature), Err(BadSignature));
    }

    #[test]
    fn r3_small_order_keys_and_points_are_refused() {
        // The eight points of small order, canonical and not, as keys and as R: with s = 0 a lax rule accepts them.
        let small = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for key_hex in small {
            let key = hex::decode(key_hex).map(PublicKey);
            for point_hex in small {
                let mut signature = [0; 64];
                if let Some(point) = hex::decode::<32>(point_hex) {
                    signature[..32].copy_from_slice(&point);
                }
                assert_eq!(key.map(|key| key.verify(b"any", &Signature(signature))), Some(Err(BadSignature)));
            }
        }
    }

    #[test]
    fn hex_round_trips_and_refuses_what_is_not_a_key() {
        let hex = key().public().to_hex();
        assert_eq!(PublicKey::from_hex(&hex), Some(key().public()));
        assert_eq!(PublicKey::from_hex(&hex[1..]), None);
        assert_eq!(PublicKey::from_hex(&hex.replace(&hex[..1], "g")), None);
        assert_eq!(PublicKey::from_hex("é".repeat(32).as_str()), None);
    }
}
