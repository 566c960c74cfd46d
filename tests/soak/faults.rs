//! What can go wrong, drawn by a seed.
//!
//! A turn has one fault of the network, or one of a process or its disk, or both at once. All are
//! over before the next turn begins, and each lasts at most [`LONGEST`]: a cluster that loses its
//! quorum meanwhile has it back. The draws are the same for the same seed; who leads when a leader
//! is wanted is not.

use super::disks;
use super::random::Random;
use std::time::Duration;

/// The shortest and the longest time that a fault lasts, in milliseconds.
const SHORTEST: u64 = 300;
const LONGEST: u64 = 4_000;

/// Two faults of one turn begin at most this far from each other, in milliseconds.
const APART: u64 = 600;

/// Whom a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Leader,
    Anybody,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Processes and disks.
    Killed,
    TwoKilled,
    AllKilled,
    Frozen,
    DiskFull,
    /// The network.
    Isolated,
    HearsNobody,
    NobodyHearsIt,
    Partitioned,
    LinkCut,
    LinkCutOneWay,
    Slow,
    SlowNode,
    Lossy,
    Reset,
}

/// How often each is drawn, of all of its sort.
const OF_PROCESSES: [(Kind, u64); 5] = [
    (Kind::Killed, 40),
    (Kind::TwoKilled, 15),
    (Kind::AllKilled, 8),
    (Kind::Frozen, 30),
    // Each takes some hundred megabytes, for logs do not shrink.
    (Kind::DiskFull, 4),
];
const OF_THE_NETWORK: [(Kind, u64); 10] = [
    (Kind::Isolated, 20),
    (Kind::HearsNobody, 10),
    (Kind::NobodyHearsIt, 10),
    (Kind::Partitioned, 12),
    (Kind::LinkCut, 10),
    (Kind::LinkCutOneWay, 10),
    (Kind::Slow, 8),
    (Kind::SlowNode, 8),
    (Kind::Lossy, 8),
    (Kind::Reset, 8),
];

impl Kind {
    /// Every kind, in the order of a report.
    pub fn all() -> impl Iterator<Item = Kind> {
        OF_PROCESSES.into_iter().chain(OF_THE_NETWORK).map(|(kind, _)| kind)
    }

    /// Whether processes start anew afterwards.
    pub fn kills(self) -> bool {
        matches!(self, Kind::Killed | Kind::TwoKilled | Kind::AllKilled | Kind::DiskFull)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Killed => "killed",
            Kind::TwoKilled => "two killed",
            Kind::AllKilled => "all killed",
            Kind::Frozen => "frozen",
            Kind::DiskFull => "disk full",
            Kind::Isolated => "isolated",
            Kind::HearsNobody => "hears nobody",
            Kind::NobodyHearsIt => "nobody hears it",
            Kind::Partitioned => "partitioned",
            Kind::LinkCut => "link cut",
            Kind::LinkCutOneWay => "link cut one way",
            Kind::Slow => "all slow",
            Kind::SlowNode => "one slow",
            Kind::Lossy => "lossy",
            Kind::Reset => "connections reset",
        }
    }
}

/// One fault, drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub whom: Whom,
    /// Nodes in the order in which they are met.
    order: Vec<usize>,
    pub lasts: Duration,
    /// Later than the turn.
    pub after: Duration,
    /// Of what is slow.
    pub delay: Duration,
}

/// The faults of one turn, and the quiet after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub faults: Vec<Fault>,
    pub quiet: Duration,
}

fn milliseconds(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_millis(random.between(low, high))
}

fn draw_one(random: &mut Random, nodes: usize, of: &[(Kind, u64)]) -> Fault {
    let mut left = random.below(of.iter().map(|(_, weight)| weight).sum());
    let mut kind = of[0].0;
    for (this, weight) in of {
        kind = *this;
        if left < *weight {
            break;
        }
        left -= weight;
    }
    let whom = if random.below(2) == 0 { Whom::Leader } else { Whom::Anybody };
    let mut order: Vec<usize> = (0..nodes).collect();
    for at in (1..nodes).rev() {
        order.swap(at, usize::try_from(random.below(at as u64 + 1)).expect("a small number"));
    }
    Fault {
        kind,
        whom,
        order,
        lasts: milliseconds(random, SHORTEST, LONGEST),
        after: Duration::ZERO,
        delay: milliseconds(random, 5, 150),
    }
}

/// The next turn.
pub fn draw(random: &mut Random, nodes: usize, has_disks: bool) -> Turn {
    // Without disks to fill, the last kind is left out, and the others are drawn as before.
    let of_processes = &OF_PROCESSES[..OF_PROCESSES.len() - usize::from(!has_disks)];
    let sorts = random.below(10);
    let mut faults = Vec::new();
    if sorts < 6 {
        faults.push(draw_one(random, nodes, of_processes));
    }
    if sorts >= 3 {
        faults.push(draw_one(random, nodes, &OF_THE_NETWORK));
    }
    // It takes longest to begin, and needs the network for that.
    if faults.first().is_some_and(|fault: &Fault| fault.kind == Kind::DiskFull) {
        faults.truncate(1);
    }
    if faults.len() > 1 {
        let later = usize::try_from(random.below(2)).expect("0 or 1");
        faults[later].after = milliseconds(random, 0, APART);
    }
    let quiet = milliseconds(random, 200, 2_000);
    Turn { faults, quiet }
}

/// A turn with this one fault only, for a kind that chance has left out so far.
pub fn draw_kind(random: &mut Random, nodes: usize, kind: Kind) -> Turn {
    let fault = draw_one(random, nodes, &[(kind, 1)]);
    Turn { faults: vec![fault], quiet: milliseconds(random, 200, 2_000) }
}

/// The nodes that a fault meets, its victim first.
pub fn met(fault: &Fault, leader: Option<usize>) -> Vec<usize> {
    let mut met = fault.order.clone();
    // Only some have a disk of their own.
    let may_be = |node: &usize| fault.kind != Kind::DiskFull || *node < disks::NODES;
    let leader = leader.filter(|node| fault.whom == Whom::Leader && may_be(node));
    let victim = leader.or_else(|| met.iter().copied().find(may_be)).expect("some have disks");
    met.retain(|node| *node != victim);
    met.insert(0, victim);
    met
}

/// Those of them that a fault kills.
pub fn victims(kind: Kind, met: &[usize]) -> &[usize] {
    match kind {
        Kind::TwoKilled => &met[..2],
        Kind::AllKilled => met,
        _ => &met[..1],
    }
}

#[test]
fn a_seed_draws_the_same_turns_again_and_every_kind() {
    let turns = |seed| {
        let mut random = Random::new(seed);
        (0..500).map(|_| draw(&mut random, 5, true)).collect::<Vec<_>>()
    };
    assert_eq!(turns(7), turns(7));
    assert_ne!(turns(7), turns(8));
    let drawn = turns(7);
    let mut faults = drawn.iter().flat_map(|turn| &turn.faults);
    for kind in Kind::all() {
        assert!(faults.clone().any(|fault| fault.kind == kind), "{kind:?} is never drawn");
    }
    assert!(faults.all(|fault| fault.lasts <= Duration::from_millis(LONGEST)));
    let mut random = Random::new(7);
    let without: Vec<Turn> = (0..500).map(|_| draw(&mut random, 5, false)).collect();
    let mut faults = without.iter().flat_map(|turn| &turn.faults);
    assert!(faults.all(|fault| fault.kind != Kind::DiskFull));
    for kind in Kind::all() {
        let turn = draw_kind(&mut random, 5, kind);
        assert_eq!(turn.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [kind]);
    }
}
