//! How many acceptors must agree: sizes for phase 1 (elections) and phase 2 (writes).
//!
//! Any two quorums that must intersect do so by size alone: `phase1 + phase2 > acceptors` (Howard,
//! Malkhi, Spiegelman, "Flexible Paxos", §4.1). A [`QuorumSystem`] that breaks this cannot be
//! built, so nobody downstream checks it again. Which acceptors exist is the configuration's
//! business.

use std::fmt;

/// Quorum sizes over a fixed number of acceptors; intersection is checked when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuorumSystem {
    acceptors: u16,
    phase1: u16,
    phase2: u16,
}

/// Why sizes make no quorum system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuorumError {
    /// There is nobody to vote.
    NoAcceptors,
    /// A size is zero or above the number of acceptors.
    OutOfRange {
        /// How many acceptors there are.
        acceptors: u16,
        /// The phase-1 size asked for.
        phase1: u16,
        /// The phase-2 size asked for.
        phase2: u16,
    },
    /// Two quorums could miss each other.
    Disjoint {
        /// How many acceptors there are.
        acceptors: u16,
        /// The phase-1 size asked for.
        phase1: u16,
        /// The phase-2 size asked for.
        phase2: u16,
    },
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuorumError::NoAcceptors => {
                write!(f, "there is no acceptor; a cluster needs at least one")
            }
            QuorumError::OutOfRange { acceptors, phase1, phase2 } => write!(
                f,
                "quorum sizes phase1={phase1} phase2={phase2} do not fit {acceptors} acceptors; \
                 each must lie between 1 and {acceptors}"
            ),
            QuorumError::Disjoint { acceptors, phase1, phase2 } => write!(
                f,
                "quorums phase1={phase1} and phase2={phase2} of {acceptors} acceptors need not \
                 intersect; phase1 + phase2 must be above {acceptors}"
            ),
        }
    }
}

impl std::error::Error for QuorumError {}

impl QuorumSystem {
    /// More than half for both phases.
    pub fn majority(acceptors: u16) -> Result<QuorumSystem, QuorumError> {
        let half_and_one = acceptors / 2 + 1;
        QuorumSystem::flexible(acceptors, half_and_one, half_and_one)
    }

    /// Sizes of one's own choice.
    ///
    /// # Errors
    /// When there are no acceptors, a size is out of range, or the two need not intersect.
    pub fn flexible(acceptors: u16, phase1: u16, phase2: u16) -> Result<QuorumSystem, QuorumError> {
        if acceptors == 0 {
            return Err(QuorumError::NoAcceptors);
        }
        let fits = |size: u16| (1..=acceptors).contains(&size);
        if !fits(phase1) || !fits(phase2) {
            return Err(QuorumError::OutOfRange { acceptors, phase1, phase2 });
        }
        if u32::from(phase1) + u32::from(phase2) <= u32::from(acceptors) {
            return Err(QuorumError::Disjoint { acceptors, phase1, phase2 });
        }
        Ok(QuorumSystem { acceptors, phase1, phase2 })
    }

    /// How many acceptors vote.
    pub fn acceptors(self) -> usize {
        usize::from(self.acceptors)
    }

    /// Promises needed to lead.
    pub fn phase1(self) -> usize {
        usize::from(self.phase1)
    }

    /// Acceptances needed to choose.
    pub fn phase2(self) -> usize {
        usize::from(self.phase2)
    }

    /// Acceptors that must still follow a leader before its reads count: enough that no phase-1
    /// quorum avoids them all, so no newer leader can be hidden.
    pub fn confirmation(self) -> usize {
        self.acceptors() - self.phase1() + 1
    }

    /// Acceptors that a candidate wants to reach before it disturbs anybody.
    pub fn campaign(self) -> usize {
        self.phase1().max(self.phase2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether every `a`-subset meets every `b`-subset of `n` members, by trying them all.
    fn all_subsets_meet(n: u16, a: u16, b: u16) -> bool {
        let subsets = |size: u16| (0u32..1 << n).filter(move |s| s.count_ones() == u32::from(size));
        subsets(a).all(|x| subsets(b).all(|y| x & y != 0))
    }

    #[test]
    fn exactly_the_intersecting_sizes_are_accepted() {
        for n in 1..=6u16 {
            for a in 1..=n {
                for b in 1..=n {
                    let made = QuorumSystem::flexible(n, a, b);
                    assert_eq!(made.is_ok(), all_subsets_meet(n, a, b), "n={n} a={a} b={b}");
                    if let Ok(system) = made {
                        let confirmation = system.confirmation() as u16;
                        assert!(all_subsets_meet(n, a, confirmation), "n={n} a={a}");
                        assert!(
                            confirmation == 1 || !all_subsets_meet(n, a, confirmation - 1),
                            "n={n} a={a}: a smaller confirmation would do"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(QuorumSystem::majority(0), Err(QuorumError::NoAcceptors));
        assert!(matches!(QuorumSystem::flexible(3, 4, 1), Err(QuorumError::OutOfRange { .. })));
        assert!(matches!(QuorumSystem::flexible(3, 3, 0), Err(QuorumError::OutOfRange { .. })));
        let huge = QuorumSystem::flexible(u16::MAX, u16::MAX, u16::MAX);
        assert!(huge.is_ok());
    }
}
