//! Planted bugs: wrong variants of the core, the disk and the driver, which the simulator must
//! find.
//!
//! Where the program does something that a mistake could leave out, `planted!(Bug)` leaves it out,
//! if it is that bug's turn. The macro is `false` unless the crate has the feature `planted`; with
//! that feature there are no programs, for both need the feature `programs`, and the two do not go
//! together. So no build of a program holds a planted bug.
//!
//! What must hold of each: the simulator's ordinary seeds, or its checks of liveness and of numbers
//! for those that harm nothing else, find it. `scripts/sim --planted all` keeps the score.
//!
//! The cost is a word of test in the line of production. It stands there so that whoever changes
//! the line sees which mistake is known to be found.

#[cfg(all(feature = "planted", feature = "programs"))]
compile_error!("planted bugs never go into programs; build with --no-default-features");

/// Whether this wrong variant is in force.
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::never()
    };
}

/// No bug is in force. A call, so that the compiler removes what it guards but nobody reads the
/// line as if it could be simplified.
#[cfg(not(feature = "planted"))]
pub(crate) const fn never() -> bool {
    false
}

/// Whether this wrong variant is in force.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::in_force($crate::planted::Bug::$bug)
    };
}

#[cfg(feature = "planted")]
pub use switch::{Bug, in_force, plant};

#[cfg(feature = "planted")]
mod switch {
    use std::sync::atomic::{AtomicUsize, Ordering};

    macro_rules! bugs {
        ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
            /// A wrong variant.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Bug {
                $($(#[$doc])* $bug,)*
            }

            impl Bug {
                /// All of them.
                pub const ALL: &[Bug] = &[$(Bug::$bug,)*];

                /// What it is called on a command line.
                pub fn name(self) -> &'static str {
                    match self {
                        $(Bug::$bug => $name,)*
                    }
                }
            }
        };
    }

    /// Number in [`Bug::ALL`], or anything else for none.
    static PLANTED: AtomicUsize = AtomicUsize::new(usize::MAX);

    /// Puts one wrong variant in force, in the whole process, in place of any other.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(usize::MAX, |bug| bug as usize), Ordering::SeqCst);
    }

    /// Whether this one is.
    pub fn in_force(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as usize
    }

    bugs! {
        /// An acceptor promises and writes no record of it.
        PromiseNotLogged = "promise-not-logged",
        /// An acceptor promises whatever it is asked to.
        PromiseLowered = "promise-lowered",
        /// An acceptor accepts below its promise.
        AcceptsBelowPromise = "accepts-below-promise",
        /// A promise does not tell of votes.
        VotesNotReported = "votes-not-reported",
        /// An acceptor lets go of the vote above the chosen prefix, too.
        VotesForgottenEarly = "votes-forgotten-early",
        /// A promise calls a slot chosen that is not.
        FloorTooHigh = "floor-too-high",
        /// A node counts its own pledges before they are durable.
        OwnVoteBeforeDurable = "own-vote-before-durable",
        /// A pledge leaves before its record is durable.
        SaidBeforeDurable = "said-before-durable",
        /// A vote leaves before its record is durable.
        VoteSaidBeforeDurable = "vote-said-before-durable",
        /// One promise too few makes a leader.
        Phase1OffByOne = "phase1-off-by-one",
        /// One vote too few makes a value chosen.
        Phase2OffByOne = "phase2-off-by-one",
        /// Of the votes found for a slot, the one of the lowest ballot is proposed.
        LowestVoteWins = "lowest-vote-wins",
        /// A new leader proposes nothing of what phase 1 found.
        FoundIgnored = "found-ignored",
        /// Gaps in what was found are closed, not filled: values move to lower slots.
        GapsClosed = "gaps-closed",
        /// The last vote found is taken for a gap.
        NoopOverVote = "noop-over-vote",
        /// A candidate goes on although others know more to be chosen than it does.
        FloorIgnored = "floor-ignored",
        /// Every run of a process has the same incarnation.
        IncarnationReused = "incarnation-reused",
        /// A leader sends no proposal a second time.
        NeverSentAgain = "never-sent-again",
        /// A node takes for chosen what it accepted itself, and acknowledges it.
        AcceptedIsChosen = "accepted-is-chosen",
        /// "Chosen up to here" is believed of proposals under any ballot.
        ChosenUnderAnyBallot = "chosen-under-any-ballot",
        /// Votes under different ballots are counted together.
        VotesOfAllBallots = "votes-of-all-ballots",
        /// An acceptor that forgot what others saw it pledge votes on.
        WitnessIgnored = "witness-ignored",
        /// An acceptor that is fenced forgets that with its next start.
        FenceNotLogged = "fence-not-logged",
        /// Votes of another life of a log are counted.
        StaleGenerationCounts = "stale-generation-counts",
        /// A value that was learned from a peer is called chosen in the log without being there.
        LearnedNotLogged = "learned-not-logged",
        /// Nobody asks for chosen slots that it missed.
        NeverCatchesUp = "never-catches-up",
        /// A leader answers reads without asking whether it still leads.
        ReadUnconfirmed = "read-unconfirmed",
        /// A leader answers reads before its first no-op is chosen.
        ReadBeforeFirstNoop = "read-before-first-noop",
        /// A read waits only for what the leader knows chosen, not for what it proposed.
        ReadAtLearnedEnd = "read-at-learned-end",
        /// A read is confirmed by a round of heartbeats that began before it.
        ReadJoinsRound = "read-joins-round",
        /// A node answers a read before it applied the slot that the read waits for.
        ReadBeforeApplied = "read-before-applied",
        /// A leader that no quorum follows goes on leading.
        NeverStepsDown = "never-steps-down",
        /// A leader that was heard once counts as heard for ever.
        StickyForEver = "sticky-for-ever",
        /// Waits are not drawn at random.
        NoJitter = "no-jitter",
        /// A new leader outbids whoever prepares above it.
        RivalsNeverYield = "rivals-never-yield",
        /// Whoever misses a leader waits until everybody says so.
        LeaderNeverReplaced = "leader-never-replaced",
        /// Slots that were chosen together are applied last first.
        AppliedOutOfOrder = "applied-out-of-order",
        /// A write that is handed out again gets a new number.
        RetryIsNew = "retry-is-new",
        /// The outcome of a command is not part of the replicated state.
        OutcomeNotKept = "outcome-not-kept",
        /// A request id is not remembered.
        RequestIdNotKept = "request-id-not-kept",
        /// A conditional write takes place whatever the key holds.
        ConditionIgnored = "condition-ignored",
        /// The log calls durable what it never synced.
        SyncSkipped = "sync-skipped",
        /// A sync that failed is tried again, and then believed.
        SyncTriedAgain = "sync-tried-again",
        /// What a start reads is believed to be durable.
        NotSyncedAtStart = "not-synced-at-start",
        /// A new segment is used before its name is durable.
        NameNotSynced = "name-not-synced",
        /// A new segment gets its name before its header is durable.
        SegmentHeaderNotSynced = "segment-header-not-synced",
        /// Real damage at the end of the log is taken for a write that a crash tore.
        DamageIsTorn = "damage-is-torn",
        /// Records are read without looking at their checksums.
        ChecksumsIgnored = "checksums-ignored",
        /// A log is opened whoever it belongs to.
        OwnerIgnored = "owner-ignored",
        /// A torn write is dropped, and its bytes stay where they are.
        TornTailLeft = "torn-tail-left",
        /// A write for which there was no room counts as done.
        FullIsWritten = "full-is-written",
        /// The log reports one record more than it made durable.
        PositionOffByOne = "position-off-by-one",
    }
}
