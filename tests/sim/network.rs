//! The network: loses, delays, doubles, reorders, holds back and cuts, in one direction at a time.
//!
//! It stands for the contract of `node::world::Peers`: messages may be lost, doubled and reordered,
//! but not invented. What is cut is lost; what is stalled waits, and comes in a burst.
//!
//! Partitions have names here. Three are those of Ng, Haridi, Carbone, "Omni-Paxos: Breaking the
//! Barriers of Partial Connectivity" (EuroSys 2023), §2.2, in our words and for any odd number of
//! servers. In each of them some server reaches a quorum, itself included, and nobody is dead:
//!
//! * **Quorum loss.** Every link is cut but those of one server, which was not the leader. The
//!   leader lives on and is heard by the server in the middle, but reaches no quorum; the one in
//!   the middle does, and must come to lead although it hears a living leader.
//! * **Constrained election.** As above, and the leader is cut off from the middle too. Only the
//!   server in the middle can be elected, and just before the cuts it was behind: it must be
//!   elected and learn what it missed from those who could not be elected.
//! * **Chained.** The servers stand in a line and reach only their neighbours in it, as few of
//!   them as let a server in the middle reach a quorum. The leader stands at an end. Servers at
//!   both ends do not hear each other, and must not take leadership from each other for ever.

use crate::random::Random;
use paxos_ssh::paxos::ballot::NodeId;
use paxos_ssh::wire::peer::PeerMessage;
use std::collections::{BTreeMap, BTreeSet};

/// A direction of a connection: from, to.
pub type Link = (NodeId, NodeId);

/// Messages that a stalled link holds back; what comes then is lost, as behind a full buffer.
const HELD_MAX: usize = 2_000;

/// Which links a partition leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// Two groups.
    Split,
    /// Each with its two neighbours.
    Ring,
    /// Each with the one in the middle.
    Star,
    /// Two groups that share one node.
    Bridge,
    QuorumLoss,
    Constrained,
    Chained,
}

impl Partition {
    pub const ALL: [Partition; 7] = [
        Partition::Split,
        Partition::Ring,
        Partition::Star,
        Partition::Bridge,
        Partition::QuorumLoss,
        Partition::Constrained,
        Partition::Chained,
    ];

    /// The links that it cuts. `order` holds every node; its first is the leader, or whoever plays
    /// its part, and its last stands in the middle where there is a middle.
    pub fn cuts(self, order: &[NodeId]) -> BTreeSet<Link> {
        let count = order.len();
        let quorum = count / 2 + 1;
        let middle = count - 1;
        let half = count / 2;
        // In a line the leader is at an end, and the one in the middle in the middle.
        let mut line: Vec<usize> = (0..middle).collect();
        line.insert(middle.div_ceil(2), middle);
        let place = |at: usize| line.iter().position(|x| *x == at).unwrap_or(0);
        let connects = |a: usize, b: usize| match self {
            Partition::Split => (a < half) == (b < half),
            Partition::Ring => a.abs_diff(b) == 1 || a.abs_diff(b) == count - 1,
            Partition::Star | Partition::QuorumLoss => a == middle || b == middle,
            Partition::Bridge => a == middle || b == middle || (a < half) == (b < half),
            Partition::Constrained => (a == middle || b == middle) && a != 0 && b != 0,
            Partition::Chained => place(a).abs_diff(place(b)) <= (quorum - 1).div_ceil(2),
        };
        let mut cuts = BTreeSet::new();
        for a in 0..count {
            for b in 0..count {
                if a != b && !connects(a, b) {
                    cuts.insert((order[a], order[b]));
                }
            }
        }
        cuts
    }
}

/// What a link does to a message.
pub enum Fate {
    Lost,
    /// Kept until the link moves again.
    Held,
    /// Arrives after so many microseconds, each time.
    Arrives(Vec<u64>),
}

/// See the module's documentation.
#[derive(Default)]
pub struct Network {
    /// By how many faults each link is cut.
    cuts: BTreeMap<Link, u32>,
    /// Microseconds that a link adds.
    slow: BTreeMap<Link, u64>,
    /// By how many faults each link is stalled, and what it holds back.
    stalled: BTreeMap<Link, (u32, Vec<PeerMessage>)>,
    /// When the last message of a link arrives, where none may overtake another.
    arrivals: BTreeMap<Link, u64>,
    pub lost: u64,
    pub doubled: u64,
    pub delivered: u64,
}

/// How bad it is on every link.
pub struct Weather {
    pub loss_per_mille: u64,
    pub duplicate_per_mille: u64,
    pub delay_max_micros: u64,
    pub reorders: bool,
}

impl Network {
    /// What becomes of a message that is sent now.
    pub fn send(
        &mut self,
        link: Link,
        message: &PeerMessage,
        now: u64,
        weather: &Weather,
        random: &mut Random,
    ) -> Fate {
        if self.cuts.contains_key(&link) {
            self.lost += 1;
            return Fate::Lost;
        }
        if let Some((_, held)) = self.stalled.get_mut(&link) {
            if held.len() >= HELD_MAX {
                self.lost += 1;
                return Fate::Lost;
            }
            held.push(message.clone());
            return Fate::Held;
        }
        if random.per_mille(weather.loss_per_mille) {
            self.lost += 1;
            return Fate::Lost;
        }
        let twice = random.per_mille(weather.duplicate_per_mille);
        self.doubled += u64::from(twice);
        let extra = self.slow.get(&link).copied().unwrap_or(0);
        let delays = (0..1 + u64::from(twice)).map(|_| {
            let micros = random.between(30, weather.delay_max_micros) + extra;
            if weather.reorders {
                return micros;
            }
            let arrival = self.arrivals.entry(link).or_default();
            *arrival = (*arrival).max(now + micros);
            *arrival - now
        });
        Fate::Arrives(delays.collect())
    }

    /// Cuts a link once more; as many mends open it again.
    pub fn cut(&mut self, link: Link) {
        *self.cuts.entry(link).or_default() += 1;
    }

    pub fn mend(&mut self, link: Link) {
        if let Some(times) = self.cuts.get_mut(&link) {
            *times -= 1;
            if *times == 0 {
                self.cuts.remove(&link);
            }
        }
    }

    pub fn slow(&mut self, link: Link, micros: u64) {
        self.slow.insert(link, micros);
    }

    pub fn quicken(&mut self, link: Link) {
        self.slow.remove(&link);
    }

    pub fn stall(&mut self, link: Link) {
        self.stalled.entry(link).or_default().0 += 1;
    }

    /// The link moves again, unless another fault stalls it as well. Answers what it held back.
    pub fn unstall(&mut self, link: Link) -> Vec<PeerMessage> {
        let Some((times, _)) = self.stalled.get_mut(&link) else { return Vec::new() };
        *times -= 1;
        if *times > 0 {
            return Vec::new();
        }
        self.stalled.remove(&link).map_or(Vec::new(), |(_, held)| held)
    }

    /// Everything works again, at once. Answers what stalled links held back.
    pub fn heal(&mut self) -> Vec<(Link, Vec<PeerMessage>)> {
        self.cuts.clear();
        self.slow.clear();
        let stalled = std::mem::take(&mut self.stalled);
        stalled.into_iter().map(|(link, (_, held))| (link, held)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(partition: Partition, count: u64) -> Vec<usize> {
        let order: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let cuts = partition.cuts(&order);
        let linked = |a: NodeId, b: NodeId| !cuts.contains(&(a, b));
        order.iter().map(|a| order.iter().filter(|b| linked(*a, **b)).count()).collect()
    }

    #[test]
    fn the_named_cases_leave_somebody_who_reaches_a_quorum() {
        for count in [3, 5, 7] {
            let quorum = count as usize / 2 + 1;
            let loss = reaches(Partition::QuorumLoss, count);
            assert_eq!(loss[count as usize - 1], count as usize);
            assert!(loss[0] == 2, "the leader reaches the one in the middle only");
            let constrained = reaches(Partition::Constrained, count);
            assert_eq!((constrained[0], *constrained.last().unwrap()), (1, count as usize - 1));
            let chained = reaches(Partition::Chained, count);
            assert!(chained[count as usize - 1] >= quorum, "{count}: {chained:?}");
            assert!(chained[0] <= quorum, "{count}: {chained:?}");
        }
        assert_eq!(reaches(Partition::Split, 5), [2, 2, 3, 3, 3]);
        assert_eq!(reaches(Partition::Ring, 5), [3; 5]);
        assert_eq!(reaches(Partition::Bridge, 5), [3, 3, 3, 3, 5]);
    }
}
