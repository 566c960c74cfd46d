//! Planted bugs: each wrong variant of the program (`src/planted`) must be found by seeds like
//! any others, or by the checks of liveness and of numbers.
//!
//! A hunt goes through the histories that every test run goes through, seed after seed; then
//! through elections among five, which must stay few; then through partitions in which somebody can
//! still lead; then through old logs that are put back; and then through more histories. It ends
//! with the first finding. Each bug is hunted from several starting points, and the score says how
//! many seeds it took in the median.
//!
//! A finding that the program makes without the bug as well is none: whatever ended a hunt is gone
//! through once more with the bug taken out, and must be clean then. That waits until all hunts for
//! the bug are over, for a bug is in force in the whole process. For the same reason a build with
//! the feature `planted` has no other tests that run worlds.
//!
//! | variable | default | |
//! |---|---|---|
//! | `SIM_PLANTED` | `all` | the name of one bug, or all |
//! | `SIM_SEEDS` | 1,000 | histories before a hunt goes on to the next kind of test |
//! | `SIM_HUNTS` | 3 | hunts for each bug |

use crate::amnesia;
use crate::connectivity;
use crate::history;
use crate::random::Random;
use crate::runner::{for_each_seed, setting};
use crate::shape::Shape;
use crate::stats::percentile;
use crate::tape::Tape;
use crate::world::World;
use paxos_ssh::planted::{Bug, plant};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

/// Bugs that are known to be missed, and why that is so for now. Whoever makes one of them found
/// takes its row out; any other that is missed fails the test.
const EXPECTED_MISSED: &[(Bug, &str)] = &[];

/// Hunts begin so many seeds apart.
const APART: u64 = 1_000_000;

/// Elections whose numbers are looked at together.
const ELECTIONS: u64 = 60;

/// Partitions of each kind that are tried.
const PARTITIONS: u64 = 6;

/// Old copies of a directory that are put back.
const OLD_LOGS: u64 = 6;

/// A hunt that found nothing anywhere goes on through histories, until it has been through so many
/// times as many: some bugs need a coincidence that one history in five hundred has.
const PATIENCE: u64 = 10;

thread_local! {
    /// Where this thread panicked last.
    static PANICKED_IN: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What a hunt looks at in one go.
#[derive(Debug, Clone, Copy)]
enum Place {
    History(u64),
    Election(u64),
    /// The numbers of all elections from this seed on.
    Elections(u64),
    Partitions(u64),
    /// A directory is put back as it once was.
    Amnesia(u64),
}

impl Place {
    /// Every place of a hunt that begins at this seed, in order.
    fn all(first: u64, histories: u64) -> impl Iterator<Item = Place> {
        let elections = (first..first + ELECTIONS).map(Place::Election);
        let partitions = (first..first + PARTITIONS).map(Place::Partitions);
        let old_logs = (first..first + OLD_LOGS).map(Place::Amnesia);
        (first..first + histories)
            .map(Place::History)
            .chain(elections)
            .chain([Place::Elections(first)])
            .chain(partitions)
            .chain(old_logs)
            .chain((first + histories..first + PATIENCE * histories).map(Place::History))
    }

    fn seed(self) -> u64 {
        match self {
            Place::History(seed)
            | Place::Election(seed)
            | Place::Elections(seed)
            | Place::Partitions(seed)
            | Place::Amnesia(seed) => seed,
        }
    }

    /// Panics if something is wrong there.
    fn visit(self) {
        match self {
            Place::History(seed) => {
                drop(history(seed, Shape::draw(&mut Random::new(seed)), &Tape::off()));
            }
            Place::Election(seed) => drop(elect(seed)),
            Place::Elections(first) => {
                let ballots: Vec<u64> = (first..first + ELECTIONS).map(elect).collect();
                crate::check_elections(&ballots);
            }
            Place::Partitions(seed) => connectivity::recover_all(seed, &Tape::off()),
            Place::Amnesia(seed) => drop(amnesia::forget(seed, 5, &Tape::off())),
        }
    }

    /// What is wrong there, if anything is.
    fn finding(self) -> Option<Finding> {
        let panic = catch_unwind(AssertUnwindSafe(|| self.visit())).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_else(|| "a panic without words".to_owned());
        Some(Finding::new(&text, &PANICKED_IN.take()))
    }
}

/// How many ballots an election among five takes.
fn elect(seed: u64) -> u64 {
    let mut world = World::new(seed, Shape::calm(5), &Tape::off());
    world.run_until_stable_leader();
    world.checks.elections.campaigns()
}

/// What was found, and what found it.
struct Finding {
    check: String,
    what: String,
}

impl Finding {
    /// Checks say their name in brackets first. What does not is an assertion in a line of code:
    /// of the program's, most likely.
    fn new(text: &str, file: &str) -> Finding {
        let named = text.strip_prefix('[').and_then(|text| text.split_once("] "));
        let (check, what) = match named {
            Some((check, what)) => (check.to_owned(), what),
            None => (format!("assertion in {file}"), text),
        };
        let what = what.lines().next().unwrap_or_default().chars().take(80).collect();
        Finding { check, what }
    }
}

/// What a hunt came back with.
struct Catch {
    /// Seeds that were tried, the one with the finding included.
    seeds: u64,
    place: Place,
    finding: Finding,
}

fn hunt(first: u64, histories: u64) -> Option<Catch> {
    Place::all(first, histories)
        .zip(1..)
        .find_map(|(place, seeds)| Some(Catch { seeds, place, finding: place.finding()? }))
}

/// What came of all hunts for one bug.
struct Score {
    bug: Bug,
    hunts: u64,
    caught: Vec<Catch>,
    /// Catches that are none: there the program fails without the bug.
    unsound: Vec<String>,
}

impl Score {
    fn of(bug: Bug, hunts: u64, histories: u64) -> Score {
        plant(Some(bug));
        let caught = for_each_seed("hunts", 0..hunts, |hunter, _| hunt(hunter * APART, histories));
        plant(None);
        let caught: Vec<Catch> = caught.into_iter().flatten().collect();
        let control = |at: u64, _: &Tape| caught[at as usize].place.finding();
        let controls = for_each_seed("controls", 0..caught.len() as u64, control);
        let mut score = Score { bug, hunts, caught: Vec::new(), unsound: Vec::new() };
        for (catch, control) in caught.into_iter().zip(controls) {
            let Some(Finding { check, what }) = control else {
                score.caught.push(catch);
                continue;
            };
            let seed = catch.place.seed();
            let what = format!(
                "the program itself fails at seed {seed} ({:?}), without {}: [{check}] {what}",
                catch.place,
                bug.name()
            );
            score.unsound.push(what);
        }
        score
    }

    fn is_found(&self) -> bool {
        self.caught.len() as u64 == self.hunts
    }

    /// The checks that caught it, and how often.
    fn checks(&self) -> BTreeMap<&str, u64> {
        let mut checks = BTreeMap::new();
        for catch in &self.caught {
            *checks.entry(catch.finding.check.as_str()).or_default() += 1;
        }
        checks
    }

    /// Seeds that a hunt took in the median.
    fn median(&self) -> u64 {
        let seeds: Vec<u64> = self.caught.iter().map(|catch| catch.seeds).collect();
        percentile(&seeds, 500)
    }

    fn line(&self) -> String {
        let name = self.bug.name();
        let took = match self.is_found() {
            true => format!("{:>6} seeds", self.median()),
            false => {
                let missed = self.hunts - self.caught.len() as u64;
                format!("MISSED by {missed} of {} hunts", self.hunts)
            }
        };
        let checks = self.checks();
        let checks: Vec<String> = checks.iter().map(|(name, n)| format!("{n} × {name}")).collect();
        let first = self.caught.first().map(|catch| catch.finding.what.as_str());
        let by =
            first.map_or(String::new(), |first| format!("  by {}: {first}", checks.join(", ")));
        format!("{name:<26} {took}{by}")
    }

    /// What is not as it should be.
    fn complaints(&self) -> Vec<String> {
        let name = self.bug.name();
        let expected = EXPECTED_MISSED.iter().find(|(bug, _)| *bug == self.bug);
        match (self.is_found(), expected) {
            _ if !self.unsound.is_empty() => self.unsound.clone(),
            (true, None) | (false, Some(_)) => Vec::new(),
            (false, None) => vec![format!("{name} is not found")],
            (true, Some((_, why))) => {
                vec![format!("{name} is found, though it was expected not to be: {why}")]
            }
        }
    }
}

/// Which check caught how many bugs; one that two checks caught, in two hunts, counts for both.
fn print_table(scores: &[Score]) {
    let mut caught: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for score in scores {
        for check in score.checks().into_keys() {
            caught.entry(check).or_default().insert(score.bug.name());
        }
    }
    println!("\n{:<40} bugs it caught", "check");
    for (check, bugs) in &caught {
        println!("{check:<40} {:>4}", bugs.len());
    }
}

/// Findings are what is wanted here, and told in one line each: of a panic only its place is kept.
fn keep_place(panic: &PanicHookInfo<'_>) {
    let file = panic.location().map_or("an unknown file", |location| location.file());
    PANICKED_IN.set(file.to_owned());
}

#[test]
fn planted_bugs_are_found() {
    let wanted = std::env::var("SIM_PLANTED").unwrap_or_else(|_| "all".to_owned());
    let (histories, hunts) = (setting("SIM_SEEDS", 1_000), setting("SIM_HUNTS", 3).max(1));
    let is_wanted = |bug: &Bug| wanted == "all" || bug.name() == wanted;
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(is_wanted).collect();
    let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    assert!(!bugs.is_empty(), "no bug is named {wanted}; there are: {}", names.join(", "));
    std::panic::set_hook(Box::new(keep_place));
    let mut scores = Vec::new();
    for bug in bugs {
        let score = Score::of(bug, hunts, histories);
        println!("{}", score.line());
        score.unsound.iter().for_each(|what| println!("  {what}"));
        scores.push(score);
    }
    drop(std::panic::take_hook());
    print_table(&scores);
    let found = scores.iter().filter(|score| score.is_found()).count();
    println!(
        "\n{found} of {} planted bugs are found, by {hunts} of {hunts} hunts each; {} are expected \
         to be missed",
        scores.len(),
        EXPECTED_MISSED.len()
    );
    let complaints: Vec<String> = scores.iter().flat_map(Score::complaints).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
