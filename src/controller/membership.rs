//! Who belongs to a cluster, and whether it can do without one of them for a while.
//!
//! Taken from what nodes say, else from what the controller remembers; never from an inventory,
//! which says what somebody wants.

use super::observe::Answer;
use super::state::{ClusterState, Founder};
use std::collections::BTreeMap;

/// A member with its roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Among proposer, acceptor and learner.
    pub roles: Vec<String>,
}

/// The members and the sizes of their quorums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Acceptors that must promise, for an election.
    pub phase1: usize,
    /// Acceptors that must accept, for a write.
    pub phase2: usize,
    /// All of them.
    pub members: Vec<Known>,
}

impl From<&ClusterState> for Membership {
    fn from(state: &ClusterState) -> Membership {
        let (phase1, phase2) = state.quorums();
        let known = |node: &Founder| {
            let roles = [
                ("proposer", node.proposer.is_some()),
                ("acceptor", state.acceptors().any(|voter| voter.name == node.name)),
                ("learner", node.learner),
            ];
            let roles = roles.into_iter().filter(|(_, has)| *has);
            Known {
                name: node.name.clone(),
                address: node.address.clone(),
                roles: roles.map(|(name, _)| name.to_owned()).collect(),
            }
        };
        let members = state.members().map(known).collect();
        Membership { phase1: phase1.into(), phase2: phase2.into(), members }
    }
}

impl Membership {
    /// As the nodes have it that answered: of two that differ, the one that knows more of the log.
    /// None if nobody knows.
    pub fn told(answers: &BTreeMap<String, Answer>) -> Option<Membership> {
        let knowing = answers.values().flatten().filter(|status| !status.members.is_empty());
        let status = knowing.max_by_key(|status| status.chosen_slot)?;
        let members = status.members.iter().map(|member| Known {
            name: member.name.clone(),
            address: member.address.clone(),
            roles: member.roles.clone(),
        });
        let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        Some(Membership {
            phase1: size(status.quorum.phase1),
            phase2: size(status.quorum.phase2),
            members: members.collect(),
        })
    }

    /// Whether the others can go on while a member is away: enough acceptors for an election and
    /// for writes, a proposer and a learner. Where the member is needed in any case, all others
    /// that could help must be there, so that it is missed no longer than it takes to start.
    ///
    /// # Errors
    /// Who is missed.
    pub fn can_spare(&self, name: &str, answers: impl Fn(&str) -> bool) -> Result<(), String> {
        let Some(member) = self.members.iter().find(|member| member.name == name) else {
            return Ok(());
        };
        let needed = [("acceptor", self.phase1.max(self.phase2)), ("proposer", 1), ("learner", 1)];
        for (role, needed) in needed {
            let has = |member: &Known| member.roles.iter().any(|has| has == role);
            if !has(member) {
                continue;
            }
            let others: Vec<&Known> =
                self.members.iter().filter(|other| other.name != name && has(other)).collect();
            let up = others.iter().filter(|other| answers(&other.name)).count();
            let needed = needed.min(others.len());
            if up < needed {
                let (s, verb) = if up == 1 { ("", "answers") } else { ("s", "answer") };
                return Err(format!(
                    "without {name} only {up} {role}{s} {verb}, and {needed} must"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;
    use crate::paxos::ballot::ClusterId;
    use crate::wire::report::JsonId;
    use crate::wire::report::tests::sample;

    fn members(phases: (usize, usize), members: &[(&str, &str)]) -> Membership {
        let known = |(name, roles): &(&str, &str)| Known {
            name: (*name).to_owned(),
            address: "127.0.0.1:1".to_owned(),
            roles: roles
                .chars()
                .map(|role| match role {
                    'p' => "proposer".to_owned(),
                    'a' => "acceptor".to_owned(),
                    _ => "learner".to_owned(),
                })
                .collect(),
        };
        let members = members.iter().map(known).collect();
        Membership { phase1: phases.0, phase2: phases.1, members }
    }

    #[test]
    fn a_member_is_spared_only_while_the_others_can_go_on() {
        let three = [("n1", "pal"), ("n2", "pal"), ("n3", "pal")];
        let five = [("n1", "pal"), ("n2", "pal"), ("n3", "pal"), ("n4", "pal"), ("n5", "pal")];
        let apart = [
            ("p1", "p"),
            ("p2", "p"),
            ("a1", "a"),
            ("a2", "a"),
            ("a3", "a"),
            ("l1", "l"),
            ("c", ""),
        ];
        let two = [("n1", "pal"), ("n2", "pal")];
        type Row<'a> = (Membership, &'a str, &'a [&'a str], Result<(), &'a str>);
        let table: Vec<Row<'_>> = vec![
            (members((2, 2), &three), "n2", &["n1", "n3"], Ok(())),
            (members((2, 2), &three), "n2", &["n1", "n2"], Err("only 1 acceptor answers")),
            (members((3, 1), &three), "n2", &["n1"], Err("only 1 acceptor answers, and 2 must")),
            (members((3, 1), &three), "n2", &["n1", "n3"], Ok(())),
            (members((4, 2), &five), "n1", &["n2", "n3", "n4", "n5"], Ok(())),
            (members((4, 2), &five), "n1", &["n2", "n3", "n4"], Err("only 3 acceptors answer")),
            (members((1, 1), &[("n1", "pal")]), "n1", &[], Ok(())),
            (members((2, 2), &two), "n1", &["n2"], Ok(())),
            (members((2, 2), &two), "n1", &[], Err("only 0 acceptors answer, and 1 must")),
            (members((2, 2), &apart), "p1", &["p2"], Ok(())),
            (members((2, 2), &apart), "p1", &["a1", "a2", "a3"], Err("0 proposers")),
            (members((2, 2), &apart), "a1", &["a2", "a3"], Ok(())),
            (members((2, 2), &apart), "a1", &["a2", "p1", "p2", "l1"], Err("1 acceptor ")),
            (members((2, 2), &apart), "l1", &[], Ok(())),
            (members((2, 2), &apart), "c", &[], Ok(())),
            (members((1, 1), &[("a", "pa"), ("l1", "l"), ("l2", "l")]), "l1", &["a"], Err("0 lea")),
            (members((2, 2), &three), "stranger", &[], Ok(())),
        ];
        for (membership, name, up, expected) in table {
            let found = membership.can_spare(name, |other| up.contains(&other));
            match expected {
                Ok(()) => assert_eq!(found, Ok(()), "{name} {up:?}"),
                Err(part) => {
                    let why = found.expect_err(part);
                    assert!(why.contains(part), "{name} {up:?}: {why}");
                }
            }
        }
    }

    #[test]
    fn nodes_are_believed_before_the_state_and_those_with_more_of_the_log_first() {
        let mut old = sample();
        (old.chosen_slot, old.quorum.phase1, old.members[0].id) = (1, 9, JsonId(9));
        let blank = crate::wire::report::StatusReport { members: Vec::new(), ..sample() };
        let answers: BTreeMap<String, Answer> = [
            ("node1".to_owned(), Ok(old)),
            ("node2".to_owned(), Ok(sample())),
            ("node3".to_owned(), Ok(blank.clone())),
        ]
        .into();
        let told = Membership::told(&answers).unwrap();
        assert_eq!((told.phase1, told.phase2, told.members.len()), (2, 2, 3));
        assert_eq!(told.members[0].roles, ["proposer", "acceptor", "learner"]);
        let nobody = [("n1".to_owned(), Ok(blank)), ("n2".to_owned(), Err("gone".to_owned()))];
        assert_eq!(Membership::told(&nobody.into()), None);
        let state = ClusterState::form(&three_nodes(), ClusterId(7), || 9);
        let remembered = Membership::from(&state);
        assert_eq!((remembered.phase1, remembered.phase2), (2, 2));
        assert_eq!(remembered.members[2].roles, ["proposer", "acceptor", "learner"]);
        assert_eq!(remembered.members[2].address, "127.0.0.1:3");
    }
}
