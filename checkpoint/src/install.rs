//! Installing a transferred state as a new base (C3).
//!
//! The images of a base need its certificate but no effects. They are written beside the old ones; one synced change
//! makes all of them valid, which is also the frontier of their cut and voids the effects of the life before; only then
//! the old images go. A crash before that change leaves the old state, a crash after it the new one.

use crate::images::{self, Job, Written};
use crate::rows::{self, Declared};
use crate::state::CertifiedState;
use crate::store::{Durability, Family, Store, StoreError, Writes};
use crate::{certificates, effects_log};

/// Installs a certified state as the base that recovery starts from. On return it is durable.
///
/// Calls of this and of [`crate::images::write`] for one store come one after the other. From before the call until
/// after its return nothing may be appended to the effects log: what is in it is voided. The cut must be above all that
/// this replica ever said that it can recover to (R29). Partitions whose image on disk has the digest already are kept.
///
/// # Errors
///
/// When the store fails, or holds an image of a newer cut.
pub fn write(store: &dyn Store, state: &CertifiedState, chunk_bytes: usize) -> Result<Written, StoreError> {
    let cut = state.cut();
    let mut written = Written::default();
    let mut jobs = Vec::new();
    let mut switch = Writes::new();
    for partition in state.frozen().partitions() {
        let id = partition.id();
        let (begun, declared) = (rows::begun(store, id)?, rows::declared(store, id)?);
        if declared.is_some_and(|declared| declared.cut > cut) {
            return Err(StoreError::Damaged(format!("the image of {id} is newer than the base at {cut}")));
        }
        match declared {
            Some(declared) if declared.digest == partition.digest() => {
                if let Some(begun) = begun {
                    images::remove_begun(&mut switch, id, begun);
                }
                switch.put(Family::Meta, rows::declared_key(id), rows::write(&Declared { cut, ..declared }));
                written.relabelled += 1;
            }
            _ => jobs.push(Job::new(partition, cut, begun, declared, true)),
        }
    }
    if !jobs.is_empty() {
        images::begin(store, &jobs)?;
    }
    for (id, declared) in images::write_entries(store, &jobs, chunk_bytes)? {
        switch.put(Family::Meta, rows::declared_key(id), rows::write(&declared));
        switch.delete(Family::Meta, rows::begun_key(id));
        written.images += 1;
        written.bytes += declared.bytes;
    }
    become_base(&mut switch, state);
    store.apply(&switch, Durability::Synced)?;
    let mut old = Writes::new();
    jobs.iter().for_each(|job| job.remove_replaced(&mut old));
    if !old.is_empty() {
        store.apply(&old, Durability::Lazy)?;
    }
    Ok(written)
}

/// What makes the images of a base valid, with their declarations: its certificate, its frontier as the only one, and
/// no effects of the life before.
fn become_base(switch: &mut Writes, state: &CertifiedState) {
    certificates::put(switch, state);
    let (from, to) = rows::frontiers_all();
    switch.delete_range(Family::Meta, from, to);
    effects_log::frontier(switch, state.cut());
    let (from, to) = rows::effects_all();
    switch.delete_range(Family::Effects, from, to);
}
