//! The named points at which a replica can crash: before and after everything that it asks for, and between a thing
//! being done and the replica hearing of it.

use polder_checkpoint::Durability;
use polder_consensus::{Message, Phase};
use polder_node::replica::{Action, Disk, VerifiedPeer};

/// A point. Of what a replica asks for, the crash strikes right before it or right after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A synced write of the ordering log: votes, views, statements.
    PersistLog,
    /// A write of the ordering log for which nothing waits.
    PersistLogLazily,
    /// A write of the state's store.
    PersistState,
    /// A request is forwarded to the leader.
    SendRequest,
    /// A proposal is sent.
    SendProposal,
    /// A PREPARE is sent.
    SendPrepare,
    /// A COMMIT is sent.
    SendCommit,
    /// A SUSPECT is sent.
    SendSuspect,
    /// The certificate that ends a view is sent.
    SendSuspects,
    /// An ABDICATE is sent.
    SendAbdicate,
    /// A VIEW-CHANGE is sent.
    SendViewChange,
    /// A NEW-VIEW is sent.
    SendNewView,
    /// A STATUS is sent.
    SendStatus,
    /// A FETCH is sent.
    SendFetch,
    /// A body is sent.
    SendBody,
    /// A decision is sent.
    SendCommitted,
    /// The certificate of a cut is sent.
    SendStable,
    /// A statement about a cut is sent.
    SendCheckpoint,
    /// A question or an answer of state transfer is sent.
    SendTransfer,
    /// A MEMORY? is sent.
    SendMemoryAsk,
    /// A MEMORY is sent.
    SendMemory,
    /// A client is answered.
    Reply,
    /// A batch is delivered and executed.
    Deliver,
    /// A digest is asked for.
    Digest,
    /// Images are asked for.
    WriteImages,
    /// A base is to be installed.
    InstallBase,
    /// A write of the log is done, and the replica does not know yet.
    LogWritten,
    /// A write of the state is done, and the replica does not know yet.
    StateWritten,
    /// An image or a base is being written.
    Work,
}

impl Point {
    /// How many there are.
    pub const COUNT: usize = 29;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::PersistLog,
        Self::PersistLogLazily,
        Self::PersistState,
        Self::SendRequest,
        Self::SendProposal,
        Self::SendPrepare,
        Self::SendCommit,
        Self::SendSuspect,
        Self::SendSuspects,
        Self::SendAbdicate,
        Self::SendViewChange,
        Self::SendNewView,
        Self::SendStatus,
        Self::SendFetch,
        Self::SendBody,
        Self::SendCommitted,
        Self::SendStable,
        Self::SendCheckpoint,
        Self::SendTransfer,
        Self::SendMemoryAsk,
        Self::SendMemory,
        Self::Reply,
        Self::Deliver,
        Self::Digest,
        Self::WriteImages,
        Self::InstallBase,
        Self::LogWritten,
        Self::StateWritten,
        Self::Work,
    ];

    /// Its name, for traces and counts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PersistLog => "persist log",
            Self::PersistLogLazily => "persist log lazily",
            Self::PersistState => "persist state",
            Self::SendRequest => "send REQUEST",
            Self::SendProposal => "send PRE-PREPARE",
            Self::SendPrepare => "send PREPARE",
            Self::SendCommit => "send COMMIT",
            Self::SendSuspect => "send SUSPECT",
            Self::SendSuspects => "send SUSPECTS",
            Self::SendAbdicate => "send ABDICATE",
            Self::SendViewChange => "send VIEW-CHANGE",
            Self::SendNewView => "send NEW-VIEW",
            Self::SendStatus => "send STATUS",
            Self::SendFetch => "send FETCH",
            Self::SendBody => "send BODY",
            Self::SendCommitted => "send COMMITTED",
            Self::SendStable => "send STABLE",
            Self::SendCheckpoint => "send CHECKPOINT",
            Self::SendTransfer => "send TRANSFER",
            Self::SendMemoryAsk => "send MEMORY?",
            Self::SendMemory => "send MEMORY",
            Self::Reply => "reply",
            Self::Deliver => "deliver",
            Self::Digest => "digest",
            Self::WriteImages => "write images",
            Self::InstallBase => "install base",
            Self::LogWritten => "log written",
            Self::StateWritten => "state written",
            Self::Work => "work beside the loop",
        }
    }

    /// The point of an action; none where a crash makes no difference.
    #[must_use]
    pub fn of(action: &Action) -> Option<Self> {
        Some(match action {
            Action::Send { message, .. } => Self::of_message(message),
            Action::Reply { .. } => Self::Reply,
            Action::Write { disk: Disk::Log, durability: Durability::Synced, .. } => Self::PersistLog,
            Action::Write { disk: Disk::Log, durability: Durability::Lazy, .. } => Self::PersistLogLazily,
            Action::Write { disk: Disk::State, .. } => Self::PersistState,
            Action::Digest { .. } => Self::Digest,
            Action::WriteImages { .. } => Self::WriteImages,
            Action::InstallBase { .. } => Self::InstallBase,
            Action::Executed { .. } => Self::Deliver,
            Action::Evidence(_) | Action::Misled(_) | Action::Halt(_) => return None,
        })
    }

    fn of_message(message: &VerifiedPeer) -> Self {
        let ordering = match message {
            VerifiedPeer::Ordering(ordering, _) => ordering.message(),
            VerifiedPeer::Checkpoint(..) => return Self::SendCheckpoint,
            VerifiedPeer::Transfer(_) => return Self::SendTransfer,
            VerifiedPeer::MemoryAsk { .. } => return Self::SendMemoryAsk,
            VerifiedPeer::Memory { .. } => return Self::SendMemory,
        };
        match ordering {
            Message::Request(_) => Self::SendRequest,
            Message::Proposal(..) => Self::SendProposal,
            Message::Vote(vote) if vote.statement.phase == Phase::Prepare => Self::SendPrepare,
            Message::Vote(_) => Self::SendCommit,
            Message::Suspect(_) => Self::SendSuspect,
            Message::Suspects(_) => Self::SendSuspects,
            Message::Abdicate(_) => Self::SendAbdicate,
            Message::ViewChange(..) => Self::SendViewChange,
            Message::NewView(..) => Self::SendNewView,
            Message::Status(_) => Self::SendStatus,
            Message::Fetch(_) => Self::SendFetch,
            Message::Body(_) => Self::SendBody,
            Message::Committed(..) => Self::SendCommitted,
            Message::Stable(_) => Self::SendStable,
        }
    }

    /// Whether it is one of leaving or entering a view.
    #[must_use]
    pub fn is_of_view_change(self) -> bool {
        matches!(self, Self::SendSuspects | Self::SendViewChange | Self::SendNewView | Self::SendAbdicate)
    }

    /// Whether it is one of a cut.
    #[must_use]
    pub fn is_of_cut(self) -> bool {
        matches!(
            self,
            Self::Digest
                | Self::WriteImages
                | Self::InstallBase
                | Self::SendCheckpoint
                | Self::PersistState
                | Self::Work
        )
    }
}

/// When a replica is to crash: at what it does next, or at something rarer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// At what.
    pub aim: Aim,
    /// After this time, at anything.
    pub latest_us: u64,
}

/// What a crash waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Anything.
    Anything,
    /// Leaving or entering a view.
    ViewChange,
    /// A cut: its digest, its statement, its images, a new base.
    Cut,
    /// One point.
    At(Point),
}

impl Doom {
    /// Whether it strikes at this point.
    #[must_use]
    pub fn strikes_at(&self, now_us: u64, point: Point) -> bool {
        match self.aim {
            _ if now_us >= self.latest_us => true,
            Aim::Anything => true,
            Aim::ViewChange => point.is_of_view_change(),
            Aim::Cut => point.is_of_cut(),
            Aim::At(at) => at == point,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_place_and_a_name_of_its_own() {
        for (index, point) in Point::ALL.into_iter().enumerate() {
            assert_eq!(point as usize, index);
        }
        let names: BTreeSet<&str> = Point::ALL.into_iter().map(Point::name).collect();
        assert_eq!(names.len(), Point::COUNT);
    }

    #[test]
    fn a_doom_waits_for_its_point_and_no_longer_than_its_time() {
        let doom = Doom { aim: Aim::At(Point::SendCommit), latest_us: 10 };
        assert!(doom.strikes_at(0, Point::SendCommit));
        assert!(!doom.strikes_at(9, Point::SendPrepare));
        assert!(doom.strikes_at(10, Point::SendPrepare));
    }
}
