//! Rare branches, marked: a test names each mark and a script that reaches it (in the manner of SQLite's `testcase()`).
//! Compiled only under `--cfg polder_mutations`, like the planted bugs: in what is shipped nothing of it is left.

use ::core::sync::atomic::{AtomicU64, Ordering};

macro_rules! marks {
    ($($variant:ident, $what:literal;)*) => {
        /// A rare branch.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $(#[doc = $what] $variant,)*
        }

        impl Mark {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What happens there.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what,)*
                }
            }
        }

        static HITS: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];
    };
}

marks! {
    HoleIsNoOp, "A slot that no VIEW-CHANGE lists is forced to a no-op.";
    HigherViewWins, "Two VIEW-CHANGEs list different views for a slot: the higher one counts.";
    ViewChangeLeftOut, "A new leader lacks the body of a chosen entry, and leaves out who lists it.";
    NewViewProvesEnd, "A NEW-VIEW brings the certificate that the view before it ended.";
    CarriedCut, "A VIEW-CHANGE or NEW-VIEW brings the certificate of a cut.";
    ProposalHeld, "A proposal is too far ahead of the own clock.";
    ProposalReleased, "It is not any more.";
    ForcedBodyPulled, "The body of a slot that the NEW-VIEW forces is pulled.";
    PreparedBodyPulled, "The body of a prepared slot is pulled.";
    CommittedBodyPulled, "The body of a committed slot is pulled.";
    JoinsSuspects, "u+1 suspect, and that is reason enough.";
    BelievesAbdication, "The leader says itself that it should not lead.";
    SkipsViews, "A certificate of a later view moves a replica over several views.";
    AbdicatesAfterRestart, "A replica restarts as the leader of its view.";
    VotesRestored, "The own votes of the view are found in the log.";
    ProvedByHistory, "A certified history proves batches without their votes.";
    FellBehind, "What is missing below the watermark is not to be had from the log of others.";
    GapTimesOut, "What is missing below the watermark did not come in time.";
    Restored, "Execution goes on from a transferred state.";
    TruncatedSlotAsked, "Somebody asks for a slot that was truncated.";
    EndRelayed, "Somebody is in a lower view and gets the certificate that ended it.";
    NewViewRelayed, "A backup sends the NEW-VIEW on.";
    FillerProposed, "An empty batch is proposed.";
    NewViewMissed, "The NEW-VIEW does not come.";
    LeaderSilent, "Nothing at all comes from the leader.";
    FillerMissed, "Due filler does not come.";
    LostMemory, "Another replica has heard more of this one than its log says.";
    StatementSaidAgain, "After a restart a cut is executed again, and the same statement is said again.";
    SettledWhileWaiting, "What waits here to be forwarded was answered, or can never execute.";
    AnsweredFromCache, "A request that was executed comes again.";
}

/// A branch was taken.
pub fn hit(mark: Mark) {
    if let Some(hits) = HITS.get(mark as usize) {
        hits.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often it was taken in this process.
#[must_use]
pub fn hits(mark: Mark) -> u64 {
    HITS.get(mark as usize).map_or(0, |hits| hits.load(Ordering::Relaxed))
}
