//! What a seed draws: which nodes there are, under which quorums, and how bad the world is.
//!
//! In the manner of swarm testing (Groce et al., "Swarm Testing", 2012): a seed does not mix a
//! little of every fault, it leaves whole kinds out and has more of the others. Faults that hide
//! each other are thus apart in many seeds, and together in some.

use crate::faults::Kind;
use crate::random::Random;

/// Which roles a node has; none makes a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    pub proposes: bool,
    pub accepts: bool,
    pub learns: bool,
}

impl Mix {
    pub const ALL: Mix = Mix { proposes: true, accepts: true, learns: true };
    pub const PROPOSER: Mix = Mix { proposes: true, accepts: false, learns: false };
    pub const ACCEPTOR: Mix = Mix { proposes: false, accepts: true, learns: false };
    pub const LEARNER: Mix = Mix { proposes: false, accepts: false, learns: true };
    pub const CLIENT: Mix = Mix { proposes: false, accepts: false, learns: false };

    fn draw(random: &mut Random) -> Mix {
        let mut has = || random.per_mille(500);
        Mix { proposes: has(), accepts: has(), learns: has() }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Of each node, from node 1 on.
    pub roles: Vec<Mix>,
    pub phase1: u16,
    pub phase2: u16,
    pub window: u32,
    pub loss_per_mille: u64,
    pub duplicate_per_mille: u64,
    pub delay_max_micros: u64,
    /// Whether a message may overtake another one of the same link.
    pub reorders: bool,
    pub sync_max_micros: u64,
    /// From fault to fault, about; no faults at all at the largest value.
    pub fault_every_millis: u64,
    /// The kinds that happen, each as often as it is listed.
    pub kinds: Vec<Kind>,
    /// By how many parts in a thousand a node's clock may run fast or slow.
    pub drift_per_mille: u64,
    pub clients: u64,
    /// The length of a log's files.
    pub segment_bytes: u64,
    /// Micros that a process gathers events for at most before it ends a batch; none to end one
    /// after each event.
    pub batch_max_micros: u64,
    /// Whether some values are as large as values may be.
    pub bulky: bool,
    /// Whether disks are damaged beyond what the cluster can bear.
    pub beyond: bool,
    /// A node whose directory was copied to a second machine, and which runs there, too.
    pub cloned: Option<u64>,
}

/// Of seeds with a proposer that is not an acceptor, so many have it run on two machines.
const CLONED_PER_MILLE: u64 = 100;

/// Of seeds with four acceptors or more, so many have quorums that bear an acceptor which forgets:
/// drawn like any others, quorums hardly ever share two of whom one can be spared.
const FORGETFUL_PER_MILLE: u64 = 300;

/// How often as likely as another kind of fault it is there that a disk forgets.
const FORGETS: usize = 8;

/// Large values cost much time, so few seeds have them.
const BULKY_PER_MILLE: u64 = 10;

/// Holds the largest record three times.
const BULKY_SEGMENT_BYTES: u64 = 4 << 20;

/// Half of all clusters have nodes of all roles, a quarter one role a node, a quarter any mix.
fn draw_roles(random: &mut Random) -> Vec<Mix> {
    match random.below(4) {
        0 | 1 => vec![Mix::ALL; [1, 2, 3, 3, 3, 3, 5, 5, 7][random.below(9) as usize]],
        2 => {
            let mut roles = vec![Mix::PROPOSER; random.between(1, 3) as usize];
            roles.extend(vec![Mix::ACCEPTOR; [1, 3, 3, 5][random.below(4) as usize]]);
            roles.extend(vec![Mix::LEARNER; random.between(1, 2) as usize]);
            roles.extend(vec![Mix::CLIENT; random.below(2) as usize]);
            roles
        }
        _ => {
            let mut roles: Vec<Mix> =
                (0..random.between(2, 6)).map(|_| Mix::draw(random)).collect();
            // Nobody can do without any of the three.
            let last = roles.len() - 1;
            roles[0].proposes |= !roles.iter().any(|mix| mix.proposes);
            roles[last].accepts |= !roles.iter().any(|mix| mix.accepts);
            roles[last].learns |= !roles.iter().any(|mix| mix.learns);
            roles
        }
    }
}

/// A majority for both phases, mostly; else any sizes that intersect.
fn draw_quorums(acceptors: u16, random: &mut Random) -> (u16, u16) {
    let majority = acceptors / 2 + 1;
    if random.per_mille(600) {
        return (majority, majority);
    }
    let phase1 = random.between(1, u64::from(acceptors)) as u16;
    let least = acceptors + 1 - phase1;
    (phase1, random.between(u64::from(least), u64::from(acceptors)) as u16)
}

fn draw_kinds(random: &mut Random) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        if random.per_mille(500) {
            kinds.extend(std::iter::repeat_n(kind, random.between(1, 4) as usize));
        }
    }
    kinds
}

impl Shape {
    pub fn draw(random: &mut Random) -> Shape {
        let roles = draw_roles(random);
        let acceptors = roles.iter().filter(|mix| mix.accepts).count() as u16;
        let (phase1, phase2) = draw_quorums(acceptors, random);
        let mut shape = Shape {
            roles,
            phase1,
            phase2,
            window: [4, 64, 4096][random.below(3) as usize],
            loss_per_mille: [0, 10, 100, 250][random.below(4) as usize],
            duplicate_per_mille: [0, 10, 200][random.below(3) as usize],
            delay_max_micros: [500, 5_000, 40_000][random.below(3) as usize],
            reorders: random.per_mille(500),
            sync_max_micros: [300, 5_000, 60_000][random.below(3) as usize],
            fault_every_millis: [100, 300, 900][random.below(3) as usize],
            kinds: draw_kinds(random),
            drift_per_mille: [0, 0, 50, 400][random.below(4) as usize],
            clients: random.between(1, 6),
            segment_bytes: [8, 16, 64][random.below(3) as usize] * 1024,
            batch_max_micros: [0, 50, 300, 300, 2_000][random.below(5) as usize],
            bulky: false,
            beyond: false,
            cloned: None,
        };
        let is_apt = |mix: &Mix| mix.proposes && !mix.accepts;
        let apt = (1..).zip(&shape.roles).find(|(_, mix)| is_apt(mix)).map(|(id, _)| id);
        if random.per_mille(CLONED_PER_MILLE) {
            shape.cloned = apt;
        }
        if acceptors >= 4 && random.per_mille(FORGETFUL_PER_MILLE) {
            let share_two = (acceptors + 2).div_ceil(2);
            (shape.phase1, shape.phase2) = (share_two, share_two);
            shape.kinds.extend([Kind::Forget; FORGETS]);
        }
        if random.per_mille(BULKY_PER_MILLE) {
            shape.bulky = true;
            shape.segment_bytes = BULKY_SEGMENT_BYTES;
        }
        shape
    }

    /// Nothing goes wrong.
    pub fn calm(nodes: u64) -> Shape {
        let majority = nodes as u16 / 2 + 1;
        Shape {
            roles: vec![Mix::ALL; nodes as usize],
            phase1: majority,
            phase2: majority,
            window: 4096,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            delay_max_micros: 500,
            reorders: false,
            sync_max_micros: 500,
            fault_every_millis: u64::MAX,
            kinds: Vec::new(),
            drift_per_mille: 0,
            clients: 0,
            segment_bytes: 64 * 1024,
            batch_max_micros: 100,
            bulky: false,
            beyond: false,
            cloned: None,
        }
    }

    /// Disks are damaged, and nothing spares the last quorum.
    pub fn damaged(random: &mut Random) -> Shape {
        let mut shape = Shape::draw(random);
        shape.kinds.extend([Kind::Damage; 6]);
        shape.beyond = true;
        shape
    }

    /// Two proposers, three acceptors and a learner, and the first proposer runs twice.
    pub fn cloned_proposer(random: &mut Random) -> Shape {
        let mut shape = Shape::draw(random);
        shape.roles = vec![Mix::PROPOSER; 2];
        shape.roles.extend([Mix::ACCEPTOR; 3]);
        shape.roles.push(Mix::LEARNER);
        (shape.phase1, shape.phase2) = (2, 2);
        shape.cloned = Some(1);
        shape
    }
}
