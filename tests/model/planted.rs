//! Planted bugs: which wrong variants of the core (`src/planted`) the small runs find.
//!
//! A blind model would find none of them. What it cannot find is named as well, with the reason, so
//! that nobody counts on it; a bug that changes sides fails the test. Before all, the sound core
//! goes through the same runs and must pass them: what fails there too would be no finding.
//!
//! It costs all small runs once, and as much again for each bug that is missed.

use super::{CRASHES, Explored, FLEXIBLE, MAJORITIES, explore};
use paxos_ssh::planted::{Bug, plant};

/// A wrong core may have no end of states. The largest small run of the sound one has 1.3 million
/// transitions.
const TRANSITIONS_MAX: usize = 2_000_000;

/// What the model has words for, and finds.
const FOUND: &[Bug] = &[
    Bug::PromiseNotLogged,
    Bug::PromiseLowered,
    Bug::AcceptsBelowPromise,
    Bug::VotesNotReported,
    Bug::FloorTooHigh,
    Bug::OwnVoteBeforeDurable,
    Bug::SaidBeforeDurable,
    Bug::Phase1OffByOne,
    Bug::Phase2OffByOne,
    Bug::LowestVoteWins,
    Bug::FoundIgnored,
    Bug::NoopOverVote,
    Bug::FloorIgnored,
    Bug::IncarnationReused,
    Bug::AcceptedIsChosen,
    Bug::ChosenUnderAnyBallot,
];

/// What it has words for, and misses within these bounds; the simulator finds all of them.
const MISSED: &[(Bug, &str)] = &[
    (Bug::VotesForgottenEarly, "slots are filled together, so no known prefix ends between them"),
    (Bug::GapsClosed, "slots are filled together, so none stays empty below another"),
    (
        Bug::VotesOfAllBallots,
        "among three, whoever knows the newer value votes for it: a quorum anyway",
    ),
    (Bug::LearnedNotLogged, "whoever learns a value has voted for it; only a fetch is otherwise"),
];

/// The first run that finds something, and what.
fn finding() -> Option<String> {
    MAJORITIES.iter().chain(CRASHES).chain(FLEXIBLE).find_map(|(name, bounds)| {
        let Explored { finding, .. } = explore(name, *bounds, Some(TRANSITIONS_MAX));
        let finding = finding?;
        let first = finding.lines().next().unwrap_or_default();
        let told = finding.find("Panicked(").map_or("", |at| &finding[at..]);
        let told: String = told.chars().take(80).take_while(|c| *c != '\n').collect();
        Some(format!("{first} ({name}) {told}").trim_end().to_owned())
    })
}

#[test]
fn planted_bugs_of_the_core_are_found() {
    // Assertions of the core are findings here, and told in one line each.
    std::panic::set_hook(Box::new(|_| {}));
    plant(None);
    let sound = finding();
    let mut changed = Vec::new();
    let mut count = 0;
    let missed = MISSED.iter().map(|(bug, why)| (*bug, Some(*why)));
    for (bug, why) in FOUND.iter().map(|bug| (*bug, None)).chain(missed) {
        plant(Some(bug));
        let found = finding();
        plant(None);
        count += usize::from(found.is_some());
        let told = found.as_deref().unwrap_or("not found");
        println!("{:<26} {told}", bug.name());
        if found.is_some() == why.is_some() {
            changed.push(format!("{}: {told}, against {}", bug.name(), why.unwrap_or("FOUND")));
        }
    }
    drop(std::panic::take_hook());
    println!("{count} of {} planted bugs of the core are found", FOUND.len() + MISSED.len());
    assert!(sound.is_none(), "the sound core fails: {}", sound.unwrap_or_default());
    assert!(changed.is_empty(), "not as the lists say:\n{}", changed.join("\n"));
}
