//! What a node says of itself: to its admin port, to `polder status`, and whether it is ready.

use polder_types::{Digest, NodeStatus, ReplicaId};

use crate::disk_space::DiskSpace;
use crate::replica::{Phase, ReplicaStatus};

/// A peer that was not heard from for so long does not count as there, and a quorum that this replica took part in so
/// long ago says nothing of now.
const SILENCE_MAX_MS: u64 = 2_000;

/// What a node says of itself. Made ten times a second; never says more than is so.
#[derive(Clone, Debug)]
pub struct Report {
    /// The replica's own words.
    pub status: ReplicaStatus,
    /// The other replicas.
    pub peers: Vec<PeerReport>,
    /// How many replicas make a quorum, this one included.
    pub quorum: usize,
    /// Connections of clients.
    pub clients: usize,
    /// Bytes that the ordering log takes on its disk.
    pub log_bytes: u64,
    /// Bytes that all data takes on disk.
    pub disk_bytes: u64,
    /// What is free on the disks, as of the last second; none where they cannot tell.
    pub space: Option<DiskSpace>,
    /// Whether the node is shutting down.
    pub is_draining: bool,
}

/// One of the things that must hold for a node to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What must hold, in a word.
    pub name: &'static str,
    /// Whether it holds; if not, why, in words.
    pub outcome: Result<(), String>,
}

/// What a node says of a peer.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Which replica.
    pub replica: ReplicaId,
    /// Whether the own connection to it stands.
    pub is_connected: bool,
    /// How long ago it was last heard from, in milliseconds; none: never since this start.
    pub heard_ms_ago: Option<u64>,
    /// What the last failed attempt to reach it said.
    pub last_error: Option<String>,
}

impl PeerReport {
    fn is_heard(&self) -> bool {
        self.heard_ms_ago.is_some_and(|ago_ms| ago_ms <= SILENCE_MAX_MS)
    }
}

impl Report {
    /// Whether the node takes part in a quorum and answers clients: it did so within the last two seconds, which is
    /// measured, not guessed from who was heard.
    ///
    /// # Errors
    ///
    /// Why not, in words: those of the first of [`Report::checks`] that does not hold.
    pub fn ready(&self) -> Result<(), String> {
        self.checks().into_iter().try_for_each(|check| check.outcome)
    }

    /// All that must hold for the node to be ready, what is behind the others first.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let core = &self.status.core;
        let behind = self.status.stable.0.saturating_sub(self.status.executed.0);
        let check = |name, holds: bool, why: &dyn Fn() -> String| Check {
            name,
            outcome: if holds { Ok(()) } else { Err(why()) },
        };
        vec![
            check("not-shutting-down", !self.is_draining, &|| "shutting down".to_owned()),
            Check { name: "memory-proven", outcome: self.memory_proven() },
            Check { name: "state-sound", outcome: self.state_sound() },
            check("view-entered", core.entered, &|| format!("view {} has not started yet", core.view.0)),
            check("caught-up", !core.lagging, &|| format!("it executed {behind} slots less than are certified")),
            Check { name: "disk-space", outcome: self.disk_space() },
            Check { name: "in-a-quorum", outcome: self.in_a_quorum() },
        ]
    }

    /// R18: nobody remembers more of this replica than itself.
    fn memory_proven(&self) -> Result<(), String> {
        match self.status.phase {
            Phase::Remembering { answers_missing: 0 } => Err(
                "before it may vote, it waits a moment for those who have not said yet what they remember of it (R18)"
                    .to_owned(),
            ),
            Phase::Remembering { answers_missing } => Err(format!(
                "before it may vote, {answers_missing} more replicas must say what they remember of it (R18)"
            )),
            _ => Ok(()),
        }
    }

    /// The own state is there, and is the certified one.
    fn state_sound(&self) -> Result<(), String> {
        match &self.status.phase {
            Phase::Halted(why) => Err(format!("stopped for good: {why}")),
            Phase::Fetching(progress) => Err(format!(
                "it fell behind and fetches the state of slot {}: {} of {} partitions",
                progress.cut.0, progress.partitions_done, progress.partitions
            )),
            Phase::Installing { cut } => {
                Err(format!("it fell behind and writes the state of slot {} that it fetched", cut.0))
            }
            Phase::Diverged { cut } => {
                Err(format!("its own state at slot {} is not the certified one: it answers nobody", cut.0))
            }
            Phase::Running | Phase::Remembering { .. } => Ok(()),
        }
    }

    /// C10: there is space for new commands.
    fn disk_space(&self) -> Result<(), String> {
        match self.space.filter(|space| space.is_low) {
            Some(space) => Err(format!("{space}: it votes, but takes no new commands until there is more")),
            None => Ok(()),
        }
    }

    fn in_a_quorum(&self) -> Result<(), String> {
        match self.status.core.took_part_ms_ago {
            Some(ago_ms) if ago_ms <= SILENCE_MAX_MS => Ok(()),
            ago_ms => Err(self.why_apart(ago_ms)),
        }
    }

    /// Why the replica takes part in no quorum, as far as it can tell.
    fn why_apart(&self, ago_ms: Option<u64>) -> String {
        let core = &self.status.core;
        let heard = self.peers.iter().filter(|peer| peer.is_heard()).count();
        if heard + 1 < self.quorum {
            let missing = self.quorum - heard - 1;
            return format!("{missing} more replicas must be reachable for a quorum of {}", self.quorum);
        }
        let since = ago_ms.map_or("since its start".to_owned(), |ago_ms| format!("for {} s", ago_ms / 1_000));
        if core.behind_slots > 0 {
            return format!("it took part in no quorum {since}: it is {} slots behind the others", core.behind_slots);
        }
        let committed = core.committed.0;
        match core.waiting {
            0 => format!("it saw no quorum in view {} at slot {committed} {since}", core.view.0),
            waiting => format!("no slot after {committed} was decided {since}, and {waiting} requests wait"),
        }
    }

    /// What `polder status` asks for.
    #[must_use]
    pub fn node_status(&self) -> NodeStatus {
        NodeStatus {
            replica: self.status.me,
            is_leader: self.status.core.is_leader,
            not_ready: self.ready().err(),
            view: self.status.core.view,
            executed: self.status.executed,
            committed: self.status.core.committed,
            stable: self.status.certified,
            root: self.status.root.unwrap_or(Digest::ZERO),
            log_bytes: self.log_bytes,
            disk_bytes: self.disk_bytes,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use polder_checkpoint::planner::PlannerStatus;
    use polder_types::{Epoch, Seq, Timestamp, View};

    use super::*;

    fn report(heard: &[Option<u64>]) -> Report {
        let peers = (1u8..).zip(heard).map(|(replica, heard_ms_ago)| PeerReport {
            replica: ReplicaId(replica),
            is_connected: true,
            heard_ms_ago: *heard_ms_ago,
            last_error: None,
        });
        let core = polder_consensus::Status {
            me: ReplicaId(0),
            epoch: Epoch::ZERO,
            view: View(7),
            leader: ReplicaId(3),
            is_leader: false,
            entered: true,
            low: Seq(128),
            committed: Seq(140),
            delivered: Seq(140),
            executed: Seq(140),
            in_flight: 0,
            waiting: 0,
            stable: Some(Seq(128)),
            lagging: false,
            suspects: false,
            timeout_ms: 500,
            view_changes: 7,
            took_part_ms_ago: Some(100),
            behind_slots: 0,
            ignored: BTreeMap::new(),
        };
        let status = ReplicaStatus {
            me: ReplicaId(0),
            phase: Phase::Running,
            core,
            executed: Seq(140),
            history: Digest::ZERO,
            time: Timestamp(1),
            stable: Seq(128),
            certified: Seq(128),
            root: None,
            planner: PlannerStatus::default(),
            log_rows: 0,
            sessions: 0,
            state_bytes: 0,
        };
        let peers = peers.collect();
        Report { status, peers, quorum: 3, clients: 0, log_bytes: 1, disk_bytes: 2, space: None, is_draining: false }
    }

    /// One of a node that is ready.
    #[cfg(feature = "bin")]
    pub(crate) fn ready() -> Report {
        report(&[Some(1), Some(1), Some(1)])
    }

    #[test]
    fn ready_is_who_took_part_in_a_quorum_lately_not_who_was_heard() {
        let apart = |heard: &[Option<u64>], ago_ms, behind_slots, waiting| {
            let mut report = report(heard);
            report.status.core.took_part_ms_ago = ago_ms;
            report.status.core.behind_slots = behind_slots;
            report.status.core.waiting = waiting;
            report.ready()
        };
        let all = [Some(1), Some(1), Some(1)];
        assert_eq!(apart(&all, Some(2_000), 0, 9), Ok(()));
        let words = |why: &str| Err(why.to_owned());
        assert_eq!(apart(&all, None, 0, 0), words("it saw no quorum in view 7 at slot 140 since its start"));
        assert_eq!(apart(&all, Some(3_500), 0, 2), words("no slot after 140 was decided for 3 s, and 2 requests wait"));
        assert_eq!(
            apart(&all, Some(3_500), 60, 2),
            words("it took part in no quorum for 3 s: it is 60 slots behind the others")
        );
        assert_eq!(
            apart(&[Some(10), Some(2_001), None], Some(2_001), 0, 0),
            words("1 more replicas must be reachable for a quorum of 3")
        );
    }

    #[test]
    fn status_never_lies_about_what_keeps_the_node_from_serving() {
        let heard = [Some(1), Some(1), Some(1)];
        let changed = |change: &dyn Fn(&mut Report)| {
            let mut report = report(&heard);
            change(&mut report);
            assert_eq!(report.node_status().not_ready, report.ready().err());
            report.ready().err().unwrap_or_default()
        };
        assert!(changed(&|report| report.is_draining = true).contains("shutting down"));
        assert!(changed(&|report| report.status.core.entered = false).contains("view 7 has not started"));
        assert!(changed(&|report| report.status.phase = Phase::Halted("roots differ".into())).contains("roots differ"));
        assert!(
            changed(&|report| report.status.phase = Phase::Remembering { answers_missing: 2 })
                .contains("2 more replicas")
        );
        let lagging = changed(&|report| {
            report.status.core.lagging = true;
            report.status.stable = Seq(200);
        });
        assert!(lagging.contains("60 slots less"));
    }

    #[test]
    fn each_check_fails_for_its_own_reason_and_ready_says_the_first() {
        let failing = |report: &Report| {
            let failed = report.checks().into_iter().filter(|check| check.outcome.is_err());
            failed.map(|check| check.name).collect::<Vec<_>>()
        };
        let all = [Some(1), Some(1), Some(1)];
        assert!(failing(&report(&all)).is_empty());
        let fails = |change: &dyn Fn(&mut Report)| {
            let mut report = report(&all);
            change(&mut report);
            let first = report.checks().into_iter().find_map(|check| check.outcome.err());
            assert_eq!(report.ready().err(), first);
            failing(&report)
        };
        assert_eq!(fails(&|report| report.is_draining = true), ["not-shutting-down"]);
        let remembering = Phase::Remembering { answers_missing: 2 };
        assert_eq!(fails(&|report| report.status.phase = remembering.clone()), ["memory-proven"]);
        assert_eq!(fails(&|report| report.status.phase = Phase::Diverged { cut: Seq(128) }), ["state-sound"]);
        assert_eq!(fails(&|report| report.status.core.entered = false), ["view-entered"]);
        assert_eq!(fails(&|report| report.status.core.lagging = true), ["caught-up"]);
        let space = |is_low| Some(DiskSpace { free_bytes: 1 << 20, reserve_bytes: 256 << 20, is_low });
        assert_eq!(fails(&|report| report.space = space(true)), ["disk-space"]);
        assert!(fails(&|report| report.space = space(false)).is_empty());
        assert_eq!(fails(&|report| report.status.core.took_part_ms_ago = None), ["in-a-quorum"]);
        let several = fails(&|report| {
            report.status.core.took_part_ms_ago = None;
            report.is_draining = true;
        });
        assert_eq!(several, ["not-shutting-down", "in-a-quorum"]);
    }
}
