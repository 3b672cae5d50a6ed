//! The planted bugs: compiled only under `--cfg polder_mutations`, in a build of their own, to prove that the
//! simulator's alarms ring. A bug that forgets to make something durable writes [`crate::Record::Volatile`] in its
//! place: the driver appends it like any record, and recovery finds nothing in it.

macro_rules! mutations {
    ($($variant:ident = $name:literal, $what:literal;)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation {
            $(#[doc = $what] $variant,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it breaks, in a few words.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what,)*
                }
            }

            /// The one of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutation| mutation.name() == name)
            }
        }
    };
}

mutations! {
    Canary = "canary", "Replicas of even number chain the third slot wrongly: any simulator must see it at once.";
    ViewChangeWithoutAccepted = "view-change-without-accepted", "With r = 0 a VIEW-CHANGE leaves out what was accepted.";
    VoteAfterViewChange = "vote-after-view-change", "A replica still commits in the view that its VIEW-CHANGE has ended.";
    EnteredViewNotDurable = "entered-view-not-durable", "The VIEW-CHANGE is sent without being durable.";
    AcceptNotDurable = "accept-not-durable", "The first vote leaves without what it promises being durable.";
    PreparedNotDurable = "prepared-not-durable", "COMMIT leaves without the prepared certificate being durable.";
    NewViewNotDurableNoAbdication = "new-view-not-durable-no-abdication", "A restarted leader goes on leading its view.";
    MostCommonInsteadOfHighest = "most-common-instead-of-highest", "A new view takes the most common entry of a slot.";
    EntriesPerReplica = "entries-per-replica", "A VIEW-CHANGE lists only entries of the sender's highest view.";
    QuorumMinusOne = "quorum-minus-one", "One COMMIT fewer than a quorum decides.";
    BackupsDoNotRecompute = "backups-do-not-recompute", "Backups start a view from their own log, not from the NEW-VIEW.";
    VotesCountedTwice = "votes-counted-twice", "A COMMIT that comes twice counts twice.";
    JoinAtWeak = "join-at-weak", "A replica joins r+1 suspects instead of u+1.";
    ReproposalsRechecked = "reproposals-rechecked", "A forced slot is refused when its batch is old.";
    TimersRestart = "timers-restart", "Every decided slot starts the requests' deadlines afresh.";
    StatusSilentWhenIdle = "status-silent-when-idle", "No STATUS is sent while nothing waits.";
    SuspectSentOnce = "suspect-sent-once", "SUSPECTs are not sent again.";
    ScNotDurable = "sc-not-durable", "A restarted replica cannot prove how the view before its own ended.";
    CommitWithoutBody = "commit-without-body", "COMMIT is voted without the body.";
    BodiesOfAllViewsKept = "bodies-of-all-views-kept", "No body is dropped when a view is entered.";
    TsOutsideDigest = "ts-outside-digest", "Each replica takes a batch's time from its own clock.";
    ViewZeroNotRecorded = "view-zero-not-recorded", "That view 0 was entered is not made durable.";
    GapCountsAsLag = "gap-counts-as-lag", "A gap in the window pauses the requests' deadlines.";
    DeadlinesForTheInexecutable = "deadlines-for-the-inexecutable", "Requests that cannot execute arm deadlines, too.";
    KUnbounded = "k-unbounded", "The time-out doubles without end.";
    NewViewJudgedByHeld = "new-view-judged-by-held", "A NEW-VIEW is refused when a copy held differs from the one enclosed.";
    ProposalsNotFetched = "proposals-not-fetched", "Nobody re-sends a proposal that STATUS shows missing.";
    WipedVotesAtOnce = "wiped-votes-at-once", "A replica that others have heard more of than it remembers goes on.";
    ImagesBeforeCertification = "images-before-certification", "Images of a cut are written before its certificate is durable.";
    StableNotDurable = "stable-not-durable", "A certificate that moves the window is not written.";
    EvidenceNotReported = "evidence-not-reported", "A second, different vote is dropped and nobody is named.";
    MarkStartsAtZero = "mark-starts-at-zero", "After a restart the mark counts only the rows that were written since.";
    EffectsNotDurable = "effects-not-durable", "Images are begun though the effects up to their cut are not durable.";
}
