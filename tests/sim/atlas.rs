//! The fault atlas: which machines may lose what, so that the cluster still owes us everything.
//!
//! Damage that a start notices costs the machine: it refuses its log, or has none, and stays away.
//! As long as both quorums, a proposer and a learner are left, the rest must go on. Source: ours,
//! after the "fault model" of TigerBeetle's simulator.
//!
//! Memory that is lost without a trace (a disk that lied about a sync, an old backup) cannot be
//! noticed by the machine itself; where somebody saw what it forgot, it is told and votes no more.
//! Nobody may rely on that. Any two quorums of the two phases share `p1 + p2 - n` acceptors;
//! while one of these remembers, nothing chosen is lost. Source: Lamport, "Paxos Made Simple"
//! (2001), §2.2, P2c, with the quorums of Howard et al., "Flexible Paxos" (2016), §4. A majority of
//! an odd number shares just one, so there nobody may forget.

use crate::checks::Machine;
use crate::shape::Shape;
use paxos_ssh::paxos::ballot::NodeId;
use std::collections::BTreeSet;

/// See the module's documentation.
#[derive(Default)]
pub struct Atlas {
    proposers: BTreeSet<Machine>,
    acceptors: BTreeSet<Machine>,
    learners: BTreeSet<Machine>,
    phase1: usize,
    phase2: usize,
    /// Whether damage may go beyond what the cluster can bear.
    beyond: bool,
    damaged: BTreeSet<Machine>,
    forgetful: BTreeSet<Machine>,
    /// Those of them that may find at their next start that they forgot something.
    forgetting: BTreeSet<Machine>,
    wiped: BTreeSet<Machine>,
    /// Wiped, and founded anew under another voter generation.
    founded_anew: BTreeSet<Machine>,
    refused: BTreeSet<Machine>,
}

impl Atlas {
    pub fn new(shape: &Shape) -> Atlas {
        let mut atlas = Atlas {
            phase1: usize::from(shape.phase1),
            phase2: usize::from(shape.phase2),
            beyond: shape.beyond,
            ..Atlas::default()
        };
        for (id, mix) in (1..).map(NodeId).zip(&shape.roles) {
            let with_role = [
                (mix.proposes, &mut atlas.proposers),
                (mix.accepts, &mut atlas.acceptors),
                (mix.learns, &mut atlas.learners),
            ];
            for (has, machines) in with_role {
                if has {
                    machines.insert(id);
                }
            }
        }
        atlas
    }

    /// Whether the cluster can do without this machine too.
    fn is_spare(&self, machine: Machine) -> bool {
        let left = |all: &BTreeSet<Machine>| {
            all.iter().filter(|of| **of != machine && !self.damaged.contains(of)).count()
        };
        left(&self.acceptors) >= self.phase1.max(self.phase2)
            && left(&self.proposers) > 0
            && left(&self.learners) > 0
    }

    /// Whether the machine may find its log damaged.
    pub fn may_damage(&self, machine: Machine) -> bool {
        self.beyond || self.is_spare(machine)
    }

    /// The machine may find its log damaged, which is allowed.
    pub fn damage(&mut self, machine: Machine) {
        self.damaged.insert(machine);
    }

    /// Marks the machine as one that may forget what it wrote, if that may be.
    pub fn forget(&mut self, machine: Machine) -> bool {
        let shared = (self.phase1 + self.phase2).saturating_sub(self.acceptors.len());
        let forgetful = self.forgetful.iter().filter(|of| self.acceptors.contains(of));
        let others = forgetful.filter(|of| **of != machine).count();
        let remembers = !self.acceptors.contains(&machine) || shared > others + 1;
        if self.beyond || !remembers || !self.is_spare(machine) {
            return false;
        }
        self.damaged.insert(machine);
        self.forgetful.insert(machine);
        self.forgetting.insert(machine);
        true
    }

    /// The machine forgets more than the quorums bear: whoever does that demands that it notices.
    pub fn forget_beyond(&mut self, machine: Machine) {
        self.damaged.insert(machine);
        self.forgetful.insert(machine);
        self.forgetting.insert(machine);
    }

    /// Whether the machine ever was one that may forget.
    pub fn is_forgetful(&self, machine: Machine) -> bool {
        self.forgetful.contains(&machine)
    }

    /// The machine's directory is emptied, which was allowed as damage.
    pub fn wipe(&mut self, machine: Machine) {
        self.wiped.insert(machine);
    }

    /// The wiped machine is given the genesis again, and another voter generation.
    pub fn found_anew(&mut self, machine: Machine) {
        self.founded_anew.insert(machine);
    }

    /// Whether its pledges count for nothing.
    pub fn is_founded_anew(&self, machine: Machine) -> bool {
        self.founded_anew.contains(&machine)
    }

    /// The machine refused its log: whether it has a reason to.
    pub fn refuse(&mut self, machine: Machine) -> bool {
        self.refused.insert(machine);
        self.damaged.contains(&machine)
    }

    pub fn is_damaged(&self, machine: Machine) -> bool {
        self.damaged.contains(&machine)
    }

    /// Whether what the machine finds at a start may be less than it said is durable.
    pub fn may_have_forgotten(&self, machine: Machine) -> bool {
        self.forgetting.contains(&machine) || self.is_wiped(machine)
    }

    /// From now on the machine answers for all that it holds.
    pub fn remembers_again(&mut self, machine: Machine) {
        self.forgetting.remove(&machine);
    }

    pub fn is_wiped(&self, machine: Machine) -> bool {
        self.wiped.contains(&machine) && !self.founded_anew.contains(&machine)
    }

    /// Whether its directory was emptied, whatever came afterwards.
    pub fn has_lost_its_log(&self, machine: Machine) -> bool {
        self.wiped.contains(&machine)
    }

    /// Whether the machine will not come back by itself.
    pub fn is_lost(&self, machine: Machine) -> bool {
        self.refused.contains(&machine)
    }

    /// How many machines stayed away.
    pub fn lost(&self) -> u64 {
        self.refused.union(&self.wiped).count() as u64
    }

    pub fn goes_beyond(&self) -> bool {
        self.beyond
    }
}
