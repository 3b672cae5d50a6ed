//! What befalls a data folder while its replica is down: it is wiped, another replica's, an older copy of itself, or bits
//! in it have changed. It is refused in words, or the replica halts in words (R18), or it goes on and is as correct as
//! before; never does it sign a second, different vote. A rollback that nobody can see counts in `r`.

use polder_checkpoint::{Durability, Family, MemStore, Store as _, StoreError, Writes};
use polder_node::replica::{Mark, OpenError};
use polder_types::{ReplicaId, decode};

use super::World;
use super::host::Standing;
use crate::checkers::Verdict;
use crate::random::Random;

/// What happened to a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// It is empty.
    Wiped,
    /// Its log is.
    LogWiped,
    /// Its state is.
    StateWiped,
    /// It is another replica's.
    Foreign,
    /// Its log is.
    LogForeign,
    /// Bits in its log have changed.
    LogFlipped,
    /// Bits in its state have changed.
    StateFlipped,
    /// It is an older copy of itself.
    RolledBack,
    /// Its log is, its state is the newest.
    LogRolledBack,
    /// Its state is, its log is the newest.
    StateRolledBack,
}

impl Damage {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Wiped,
        Self::LogWiped,
        Self::StateWiped,
        Self::Foreign,
        Self::LogForeign,
        Self::LogFlipped,
        Self::StateFlipped,
        Self::RolledBack,
        Self::LogRolledBack,
        Self::StateRolledBack,
    ];

    /// Whether a start from it is refused with these words: not at a guess, but for what is wrong with it.
    #[must_use]
    pub fn explains(self, why: &OpenError) -> bool {
        match self {
            Self::Wiped | Self::LogWiped => matches!(why, OpenError::NoMemory),
            Self::Foreign | Self::LogForeign => matches!(why, OpenError::Foreign { .. }),
            Self::LogFlipped => matches!(why, OpenError::Damaged(_) | OpenError::Store(StoreError::Damaged(_))),
            Self::StateFlipped => matches!(why, OpenError::Recovery(_) | OpenError::Restore(_)),
            Self::StateWiped | Self::StateRolledBack => matches!(why, OpenError::StateLost { .. }),
            Self::RolledBack | Self::LogRolledBack => false,
        }
    }

    /// Whether a start from it must be refused.
    #[must_use]
    pub fn is_refused(self) -> bool {
        matches!(self, Self::Wiped | Self::LogWiped | Self::Foreign | Self::LogForeign | Self::LogFlipped)
    }

    fn loses_votes(self) -> bool {
        matches!(self, Self::RolledBack | Self::LogRolledBack)
    }
}

impl World {
    /// Copies the folder of one replica, as a backup does: what is synced.
    pub(super) fn save(&mut self) {
        let correct = self.hosts.iter().filter(|host| host.is_correct() && !host.is_gone);
        let candidates: Vec<usize> = correct.map(|host| usize::from(host.id.0)).collect();
        if let Some(host) = self.fault_random.pick(&candidates).copied() {
            let host = &mut self.hosts[host];
            host.saved = Some([synced(host.log.store()), synced(host.state.store())]);
        }
    }

    /// One correct replica crashes, and its folder is damaged while it is down.
    pub(super) fn damage(&mut self) -> Verdict {
        let damage = self.fault_random.pick(&Damage::ALL).copied().unwrap_or(Damage::Wiped);
        let needs_copy = matches!(damage, Damage::RolledBack | Damage::LogRolledBack | Damage::StateRolledBack);
        let fits = |host: &&super::Host| {
            host.is_correct() && host.is_up() && host.doom.is_none() && (!needs_copy || host.saved.is_some())
        };
        let candidates: Vec<usize> = self.hosts.iter().filter(fits).map(|host| usize::from(host.id.0)).collect();
        let Some(host) = self.fault_random.pick(&candidates).copied().filter(|_| self.faults_left() > 0) else {
            return Ok(());
        };
        let standing = if damage.loses_votes() { self.standing_after_rollback(host) } else { Some(Standing::Correct) };
        let Some(standing) = standing else { return Ok(()) };
        self.crash(host, None)?;
        if self.hosts[host].is_blank() || !self.apply(host, damage) {
            return Ok(());
        }
        self.trace.line(format_args!("{} the folder of r{host}: {damage:?}, {standing:?}", self.now_us));
        self.counts.damages.count(damage as usize);
        self.hosts[host].damage = Some(damage);
        self.hosts[host].standing = standing;
        Ok(())
    }

    /// What a replica is after its log was set back to the copy: one that must halt, if everybody who may answer it has
    /// durably heard of more than the copy holds; otherwise it counts in `r`, if one more may lie.
    fn standing_after_rollback(&self, host: usize) -> Option<Standing> {
        let [copy, _] = self.hosts[host].saved.as_ref()?;
        let rows = rows_ever(copy);
        if rows >= rows_ever(&synced(self.hosts[host].log.store())) {
            return None;
        }
        let me = self.hosts[host].id;
        let others = self.hosts.iter().filter(|other| other.id != me && other.is_correct() && !other.is_gone);
        let mut heard = others.map(|other| rows_heard(&synced(other.log.store()), me));
        if heard.all(|heard| heard > rows) {
            return Some(Standing::MustHalt);
        }
        let lying = self.hosts.iter().filter(|host| !host.is_correct()).count();
        (lying < self.keyring.quorum().liars()).then_some(Standing::Excused)
    }

    /// Damages a folder; false when there is nothing in it to be damaged that way.
    fn apply(&mut self, host: usize, damage: Damage) -> bool {
        let empty = MemStore::new();
        let donor = self.donor(host);
        let saved = self.hosts[host].saved.take();
        let [log, state] = [self.hosts[host].log.store().clone(), self.hosts[host].state.store().clone()];
        match (damage, donor, saved) {
            (Damage::Wiped, ..) => {
                log.restore(&empty);
                state.restore(&empty);
            }
            (Damage::LogWiped, ..) => log.restore(&empty),
            (Damage::StateWiped, ..) => state.restore(&empty),
            (Damage::Foreign, Some([foreign_log, foreign_state]), _) => {
                log.restore(&foreign_log);
                state.restore(&foreign_state);
            }
            (Damage::LogForeign, Some([foreign_log, _]), _) => log.restore(&foreign_log),
            (Damage::LogFlipped, ..) => return flip(&log, &[Family::Log, Family::Meta], &mut self.disk_random),
            (Damage::StateFlipped, ..) => {
                let families = [Family::Meta, Family::Effects, Family::Images, Family::Certificates];
                return flip(&state, &families, &mut self.disk_random);
            }
            (Damage::RolledBack, _, Some([old_log, old_state])) => {
                log.restore(&old_log);
                state.restore(&old_state);
            }
            (Damage::LogRolledBack, _, Some([old_log, _])) => log.restore(&old_log),
            (Damage::StateRolledBack, _, Some([_, old_state])) => state.restore(&old_state),
            _ => return false,
        }
        true
    }

    /// The folder of another replica, if any has a log.
    fn donor(&mut self, host: usize) -> Option<[MemStore; 2]> {
        // Of a folder that was damaged itself nobody knows whose it is.
        let is_own = |other: &&super::Host| !other.is_blank() && !other.is_gone && other.damage.is_none();
        let others = self.hosts.iter().filter(|other| usize::from(other.id.0) != host).filter(is_own);
        let others: Vec<usize> = others.map(|other| usize::from(other.id.0)).collect();
        let donor = &self.hosts[*self.fault_random.pick(&others)?];
        let stores = [synced(donor.log.store()), synced(donor.state.store())];
        (rows_ever(&stores[0]) > 0).then_some(stores)
    }
}

/// What a crash right now would leave at least.
fn synced(store: &MemStore) -> MemStore {
    let copy = store.snapshot();
    copy.crash(0);
    copy
}

/// How many rows a log ever had.
fn rows_ever(log: &MemStore) -> u64 {
    let rows = log.rows(Family::Log);
    let last = rows.last().and_then(|(key, _)| key.as_slice().try_into().ok());
    last.map_or(0, |last| u64::from_be_bytes(last) + 1)
}

/// How many rows of another replica's log this log's owner has heard of.
fn rows_heard(log: &MemStore, of: ReplicaId) -> u64 {
    let row = log.get(Family::Meta, &[b"memory/".as_slice(), &[of.0]].concat());
    let heard = row.ok().flatten().and_then(|row| decode::<(Mark, Mark)>(&row, 1 << 10).ok());
    heard.map_or(0, |(highest, _)| highest.rows)
}

/// Bits of one row change: in front of the store's checksums, which tell, or behind them, where it is the replica that
/// must tell.
fn flip(store: &MemStore, families: &[Family], random: &mut Random) -> bool {
    let rows = families.iter().flat_map(|family| store.rows(*family).into_iter().map(|row| (*family, row)));
    let rows: Vec<_> = rows.filter(|(_, (_, value))| !value.is_empty()).collect();
    let Some((family, (key, mut value))) = random.pick(&rows).cloned() else { return false };
    // Small rows carry no check of their own: there the store's must do.
    if family == Family::Meta || random.chance(500) {
        store.damage(family, &key);
        return true;
    }
    let index = random.below(value.len());
    let bit = 1 << random.range(0, 7);
    value.get_mut(index).into_iter().for_each(|byte| *byte ^= bit);
    let mut writes = Writes::new();
    writes.put(family, key, value);
    store.apply(&writes, Durability::Synced).is_ok()
}

#[cfg(test)]
mod tests {
    use polder_types::SigningKey;

    use super::*;

    #[test]
    fn rows_are_counted_over_truncation_and_marks_are_read_as_replicas_write_them() {
        let store = MemStore::new();
        assert_eq!((rows_ever(&store), rows_heard(&store, ReplicaId(1))), (0, 0));
        let mark = Mark::new(7, 1, &SigningKey::from_seed(&[1; 32]));
        let mut writes = Writes::new();
        writes.put(Family::Log, 8u64.to_be_bytes().to_vec(), vec![1]);
        writes.put(Family::Meta, b"memory/\x01".to_vec(), polder_types::encode(&(mark, Mark::default())));
        assert_eq!(store.apply(&writes, Durability::Synced), Ok(()));
        assert_eq!((rows_ever(&store), rows_heard(&store, ReplicaId(1))), (9, 7));
    }

    #[test]
    fn a_refusal_for_another_reason_explains_nothing() {
        assert!(Damage::Wiped.explains(&OpenError::NoMemory) && Damage::Wiped.is_refused());
        assert!(!Damage::Wiped.explains(&OpenError::NotEmpty));
        assert!(!Damage::RolledBack.explains(&OpenError::NoMemory));
    }
}
