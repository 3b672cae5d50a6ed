//! Complaints about other replicas, at most one a second about each: who lies must not fill the disk with the log.

use std::collections::BTreeMap;
use std::time::Duration;

use polder_types::ReplicaId;
use tokio::time::Instant;

/// The time between two complaints about one replica.
const GAP: Duration = Duration::from_secs(1);

/// When each replica was complained about last, and how often not since.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<ReplicaId, (Instant, u64)>);

impl Complaints {
    /// There is one more about this replica. If it is to be logged: how many since the last one were not.
    pub(super) fn next(&mut self, about: ReplicaId) -> Option<u64> {
        let now = Instant::now();
        let Some((last, silent)) = self.0.get_mut(&about) else {
            self.0.insert(about, (now, 0));
            return Some(0);
        };
        if now.saturating_duration_since(*last) < GAP {
            *silent = silent.saturating_add(1);
            return None;
        }
        *last = now;
        Some(std::mem::take(silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica may mislead this one a hundred times a second (R20).
    #[test]
    fn who_lies_all_the_time_is_named_once_a_second() {
        let mut complaints = Complaints::default();
        let logged = (0..1_000).filter(|_| complaints.next(ReplicaId(1)).is_some());
        assert_eq!(logged.count(), 1);
        assert_eq!(complaints.next(ReplicaId(2)), Some(0), "another is another");
        if let Some((last, _)) = complaints.0.get_mut(&ReplicaId(1)) {
            *last = last.checked_sub(GAP).unwrap_or(*last);
        }
        assert_eq!(complaints.next(ReplicaId(1)), Some(999));
        assert_eq!(complaints.next(ReplicaId(1)), None);
    }
}
