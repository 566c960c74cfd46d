//! Where the running cluster is not what the inventory says, in either direction.
//!
//! Who takes part is decided in the cluster's log, and the nodes tell it. The controller's own
//! notes may be older: another controller, with a copy of the keys, may have been at work since.
//! What those notes explain already is told elsewhere and not repeated here. Nothing here may make
//! a member of anybody, or none: it tells, and a person decides.

use super::inventory::{Inventory, NodeSpec};
use super::membership::{Known, Membership};
use super::obstacle::Obstacle;
use super::state::ClusterState;

/// What differs, against what the cluster itself says.
pub(super) fn drift(
    inventory: &Inventory,
    state: &ClusterState,
    told: &Membership,
) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for node in &inventory.nodes {
        let member = told.members.iter().find(|member| member.name == node.name);
        // One that our notes do not know either is told to be no member.
        let ours = state.members().any(|founder| founder.name == node.name);
        match member {
            Some(member) => found.extend(difference(node, member, state)),
            None if ours => found.push(Obstacle::Drift {
                node: node.name.clone(),
                what: "it is in the inventory, and the running cluster does not count it among \
                       its members"
                    .to_owned(),
            }),
            None => {}
        }
    }
    let unknown = told.members.iter().filter(|member| {
        inventory.node(&member.name).is_none() && state.node(&member.name).is_none()
    });
    found.extend(unknown.map(|member| Obstacle::Drift {
        node: member.name.clone(),
        what: format!(
            "the running cluster counts it among its members, at {}, and neither the inventory \
             nor state.yaml knows it",
            member.address
        ),
    }));
    found
}

fn difference(node: &NodeSpec, member: &Known, state: &ClusterState) -> Option<Obstacle> {
    // A survivor whose log could not vote lost its vote in the recovery, whatever is wanted.
    let may_vote = state.acceptors().any(|founder| founder.name == node.name);
    let wanted = [
        ("proposer", node.proposer.is_some()),
        ("acceptor", node.acceptor && may_vote),
        ("learner", node.learner),
    ];
    let wanted: Vec<&str> =
        wanted.into_iter().filter_map(|(role, has)| has.then_some(role)).collect();
    let drift = |what: String| Some(Obstacle::Drift { node: node.name.clone(), what });
    if node.address() != member.address {
        return drift(format!(
            "the inventory has it at {}, and the running cluster at {}",
            node.address(),
            member.address
        ));
    }
    if wanted != member.roles {
        let roles = |roles: &[String]| match roles.is_empty() {
            true => "client".to_owned(),
            false => roles.join(" and "),
        };
        let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        return drift(format!(
            "in the inventory it is {}, and in the running cluster {}",
            roles(&wanted),
            roles(&member.roles)
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;
    use crate::paxos::ballot::ClusterId;

    fn words(change: impl FnOnce(&mut Membership)) -> Vec<String> {
        let inventory = three_nodes();
        let state = ClusterState::form(&inventory, ClusterId(7), || 9);
        let mut told = Membership::from(&state);
        change(&mut told);
        drift(&inventory, &state, &told).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_cluster_says_is_compared_both_ways() {
        assert_eq!(words(|_| ()), [""; 0]);
        type Change = fn(&mut Membership);
        let table: [(Change, &str); 4] = [
            (|told| drop(told.members.remove(1)), "n2: it is in the inventory, and the running"),
            (|told| told.members[0].name = "n9".to_owned(), "n9: the running cluster counts it"),
            (|told| told.members[2].address = "h:5".to_owned(), "n3: the inventory has it at 127"),
            (|told| told.members[2].roles.truncate(1), "n3: in the inventory it is proposer and"),
        ];
        for (change, part) in table {
            let found = words(change);
            assert!(found.iter().any(|line| line.starts_with(part)), "{part}: {found:?}");
        }
    }

    #[test]
    fn what_our_own_notes_explain_is_not_told_twice() {
        let inventory = three_nodes();
        let all = ClusterState::form(&inventory, ClusterId(7), || 9);
        let told = Membership::from(&all);
        let mut fewer = inventory.clone();
        fewer.nodes.pop();
        assert_eq!(drift(&fewer, &all, &told), [], "it stays a member, and that is a note");
        let formed_without = ClusterState::form(&fewer, ClusterId(7), || 9);
        let told = Membership::from(&formed_without);
        assert_eq!(drift(&inventory, &formed_without, &told), [], "it is told to be no member");
    }
}
