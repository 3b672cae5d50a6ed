//! The rows of the state store: their keys, their values, and reading them. Nothing outside this crate builds one.
//!
//! | family | key | value |
//! | --- | --- | --- |
//! | Effects | partition ‖ slot | the effects of that slot on that partition, in order |
//! | Images | partition ‖ generation ‖ key of the entry | the entry |
//! | Certificates | cut | the certificate, and the digests under its root |
//! | Meta | `F` ‖ cut | nothing: a frontier (C7) |
//! | Meta | `B` ‖ partition | [`Begun`]: an image that is being written |
//! | Meta | `D` ‖ partition | [`Declared`]: the image of the partition |
//!
//! Numbers in keys are big-endian, so that rows lie in their order. A generation counts the images of a partition:
//! each is written beside the one before, never over it, also when both are of one cut.

use polder_types::{Checkpoint, Digest, PartitionId, Position, Proof, Seq, decode, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{Family, Store, StoreError};

/// Rows read at a time: a row holds at most a batch's worth of bytes, so a page is bounded.
const PAGE_ROWS: usize = 128;

/// A job that writes an image and has not declared it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// The cut that it is of.
    pub(crate) cut: Seq,
    /// Where its rows are.
    pub(crate) generation: u64,
    /// Whether it is part of a base that is being installed: it is valid only with all others of that base (C3).
    pub(crate) base: bool,
}

/// The image of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declared {
    /// The certified cut that it is of. Moves forward alone when the partition does not change (C5).
    pub(crate) cut: Seq,
    /// Where its rows are.
    pub(crate) generation: u64,
    /// The partition's digest.
    pub(crate) digest: Digest,
    /// The partition's last delete, which is under the digest but in no entry.
    pub(crate) last_delete: Position,
    /// How many entries it has.
    pub(crate) entries: u64,
    /// Bytes of their keys and values on disk.
    pub(crate) bytes: u64,
}

/// A certificate, and the digests of all partitions, whose Merkle root is the certified one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateRow {
    pub(crate) proof: Proof<Checkpoint>,
    pub(crate) digests: Vec<Digest>,
}

fn key(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(crate) fn effects_key(partition: PartitionId, slot: Seq) -> Vec<u8> {
    key(&[&partition.0.to_be_bytes(), &slot.0.to_be_bytes()])
}

/// The effects of a partition in slots `(after, through]`.
pub(crate) fn effects_range(partition: PartitionId, after: Seq, through: Seq) -> (Vec<u8>, Vec<u8>) {
    (effects_key(partition, after.next()), effects_after(partition, through))
}

/// The effects of all partitions.
pub(crate) fn effects_all() -> (Vec<u8>, Vec<u8>) {
    (Vec::new(), vec![0xff; 11])
}

/// The first key beyond the effects of a partition up to a slot.
fn effects_after(partition: PartitionId, slot: Seq) -> Vec<u8> {
    let mut key = effects_key(partition, slot);
    key.push(0);
    key
}

pub(crate) fn image_key(partition: PartitionId, generation: u64, entry: &[u8]) -> Vec<u8> {
    key(&[&partition.0.to_be_bytes(), &generation.to_be_bytes(), entry])
}

/// The images of a partition of generations `from ≤ generation < to`.
pub(crate) fn images_range(partition: PartitionId, from: u64, to: u64) -> (Vec<u8>, Vec<u8>) {
    (image_key(partition, from, &[]), image_key(partition, to, &[]))
}

/// The part of an image row's key that is the entry's.
pub(crate) fn image_entry(key: &[u8]) -> &[u8] {
    key.get(10..).unwrap_or_default()
}

pub(crate) fn certificate_key(cut: Seq) -> Vec<u8> {
    cut.0.to_be_bytes().to_vec()
}

fn meta(tag: u8, rest: &[u8]) -> Vec<u8> {
    key(&[&[tag], rest])
}

pub(crate) fn frontier_key(cut: Seq) -> Vec<u8> {
    meta(b'F', &cut.0.to_be_bytes())
}

/// The frontiers of all cuts.
pub(crate) fn frontiers_all() -> (Vec<u8>, Vec<u8>) {
    (meta(b'F', &[]), meta(b'F' + 1, &[]))
}

pub(crate) fn begun_key(partition: PartitionId) -> Vec<u8> {
    meta(b'B', &partition.0.to_be_bytes())
}

pub(crate) fn declared_key(partition: PartitionId) -> Vec<u8> {
    meta(b'D', &partition.0.to_be_bytes())
}

pub(crate) fn begun(store: &dyn Store, partition: PartitionId) -> Result<Option<Begun>, StoreError> {
    get(store, Family::Meta, &begun_key(partition), || format!("the begin mark of {partition}"))
}

pub(crate) fn declared(store: &dyn Store, partition: PartitionId) -> Result<Option<Declared>, StoreError> {
    get(store, Family::Meta, &declared_key(partition), || format!("the declaration of the image of {partition}"))
}

pub(crate) fn certificate(store: &dyn Store, cut: Seq) -> Result<Option<CertificateRow>, StoreError> {
    get(store, Family::Certificates, &certificate_key(cut), || format!("the certificate of {cut}"))
}

/// The cuts of all frontiers, oldest first.
pub(crate) fn frontiers(store: &dyn Store) -> Result<Vec<Seq>, StoreError> {
    let (from, to) = frontiers_all();
    cuts(store, Family::Meta, &from, &to, 1)
}

/// The cuts of all certificates, oldest first.
pub(crate) fn certificates(store: &dyn Store) -> Result<Vec<Seq>, StoreError> {
    cuts(store, Family::Certificates, &[], &[0xff; 9], 0)
}

fn cuts(store: &dyn Store, family: Family, from: &[u8], to: &[u8], skip: usize) -> Result<Vec<Seq>, StoreError> {
    let mut cuts = Vec::new();
    each(store, family, from, to, |key, _| {
        let number = key.get(skip..).and_then(|number| <[u8; 8]>::try_from(number).ok());
        let number = number.ok_or_else(|| StoreError::Damaged(format!("a row of {family:?} has no cut in its key")))?;
        cuts.push(Seq(u64::from_be_bytes(number)));
        Ok(())
    })?;
    Ok(cuts)
}

/// Calls `visit` with every row of `from ≤ key < to`, in order.
pub(crate) fn each(
    store: &dyn Store,
    family: Family,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = from.to_vec();
    loop {
        let rows = store.scan(family, &from, to, PAGE_ROWS)?;
        rows.iter().try_for_each(|(key, value)| visit(key, value))?;
        let is_last = rows.len() < PAGE_ROWS;
        match rows.into_iter().next_back() {
            Some((last, _)) if !is_last => from = key(&[&last, &[0]]),
            _ => return Ok(()),
        }
    }
}

fn get<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    family: Family,
    key: &[u8],
    what: impl Fn() -> String,
) -> Result<Option<T>, StoreError> {
    store.get(family, key)?.map(|bytes| read(&bytes, what)).transpose()
}

/// The value of a row.
pub(crate) fn read<T: Serialize + DeserializeOwned>(bytes: &[u8], what: impl Fn() -> String) -> Result<T, StoreError> {
    decode(bytes, bytes.len()).map_err(|error| StoreError::Damaged(format!("{}: {error}", what())))
}

/// The bytes of a row.
pub(crate) fn write<T: Serialize>(value: &T) -> Vec<u8> {
    encode(value)
}
