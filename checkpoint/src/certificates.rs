//! Certificates on disk, each with the digests that are under its root, so that every partition can be checked alone.

use std::collections::BTreeSet;

use polder_types::Seq;

use crate::rows::{self, CertificateRow};
use crate::state::CertifiedState;
use crate::store::{Family, Writes};

/// Adds the certificate of a state.
pub(crate) fn put(writes: &mut Writes, state: &CertifiedState) {
    let row = CertificateRow { proof: state.certificate().proof().clone(), digests: state.digests() };
    writes.put(Family::Certificates, rows::certificate_key(state.cut()), rows::write(&row));
}

/// Adds the removal of those certificates below the newest frontier that no image needs (C10), and forgets them.
pub(crate) fn prune(writes: &mut Writes, on_disk: &mut BTreeSet<Seq>, frontier: Seq, needed: &BTreeSet<Seq>) {
    on_disk.retain(|cut| {
        let is_kept = *cut >= frontier || needed.contains(cut);
        if !is_kept {
            writes.delete(Family::Certificates, rows::certificate_key(*cut));
        }
        is_kept
    });
}
