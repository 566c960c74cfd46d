//! Whether each host can log in at each other one, as nodes do: the rows of `link`.
//!
//! A row is about the host that was dialled, for that is where a firewall is opened. Those that
//! came through share a row; each that did not has one of its own, with the address from which it
//! came.

use super::trial_login::{DIAL_LIMIT, Dialled, Outcome};
use super::{Grade, Row, span};
use crate::controller::host::HostError;
use crate::controller::inventory::NodeSpec;

/// What became of a host's dials.
#[derive(Debug)]
pub enum Tried {
    /// Each of them.
    Dialled(Vec<Dialled>),
    /// It could not dial at all.
    Failed(HostError),
    /// Its turn did not come while the others still listened.
    TooLate,
}

/// The rows about what these hosts saw of one another.
pub fn judge_links(nodes: &[&NodeSpec], tried: &[(&str, Tried)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for node in nodes {
        let (mut logged_in, mut recognised, mut slowest) = (Vec::new(), Vec::new(), 0);
        for (from, dialled) in of(node, tried) {
            match dialled.outcome {
                Outcome::LoggedIn => {
                    logged_in.push(from);
                    slowest = slowest.max(dialled.micros);
                }
                Outcome::Recognised => recognised.push(from),
                _ => rows.push(judge_link(node, from, dialled)),
            }
        }
        if !logged_in.is_empty() {
            let (all, slowest) = (logged_in.join(", "), span(slowest));
            let detail = format!("{all} logged in at {} within {slowest}", node.address());
            rows.push(Row::pass(&node.name, "link", detail));
        }
        if !recognised.is_empty() {
            let (all, address) = (recognised.join(", "), node.address());
            let detail = format!("{all} saw its certificate at {address}, and have no keys yet");
            rows.push(Row::pass(&node.name, "link", detail));
        }
    }
    for (from, tried) in tried {
        let row =
            |verdict, detail: String, remedy: &str| Row::not(verdict, from, "link", detail, remedy);
        match tried {
            Tried::Dialled(_) => {}
            Tried::Failed(error) => {
                let detail = format!("cannot {}: {}", error.what, error.reason);
                rows.push(row(Grade::Fail, detail, &error.hint));
            }
            Tried::TooLate => rows.push(row(
                Grade::Warn,
                "it was not tried from here: the others listened no longer".to_owned(),
                "mend what failed, which took the time, and check again",
            )),
        }
    }
    rows
}

/// By whom a node was dialled, and what came of it.
fn of<'a>(
    node: &'a NodeSpec,
    tried: &'a [(&'a str, Tried)],
) -> impl Iterator<Item = (&'a str, &'a Dialled)> {
    tried.iter().filter_map(|(from, tried)| match tried {
        Tried::Dialled(all) => {
            all.iter().find(|dialled| dialled.node == node.name).map(|dialled| (*from, dialled))
        }
        Tried::Failed(_) | Tried::TooLate => None,
    })
}

fn judge_link(node: &NodeSpec, from: &str, dialled: &Dialled) -> Row {
    let (name, address) = (&node.name, node.address());
    let whence = dialled.from.map_or_else(|| from.to_owned(), |from| from.to_string());
    let open = format!("open TCP {} on {name} for {whence}", node.port);
    let (verdict, detail, remedy) = match &dialled.outcome {
        Outcome::LoggedIn | Outcome::Recognised => {
            (Grade::Pass, format!("{from} reaches {name} at {address}"), String::new())
        }
        Outcome::Answered => (
            Grade::Warn,
            format!("{from} reaches an SSH server at {address}, and nobody here knows whose"),
            "check with the cluster's keys (--keys-dir), and it is compared".to_owned(),
        ),
        Outcome::Refused => (
            Grade::Fail,
            format!("{from} is refused at {address}"),
            format!(
                "{open}; or {} is no address of {name} on which paxos_listen has it listen",
                node.host
            ),
        ),
        Outcome::Silent => (
            Grade::Fail,
            format!("{from} gets no answer from {address} within {} s", DIAL_LIMIT.as_secs()),
            open,
        ),
        Outcome::Unresolved(why) => (
            Grade::Fail,
            format!("{from} cannot resolve {}: {why}", node.host),
            format!("give {name} a paxos_address that {from} knows, such as an IP address"),
        ),
        Outcome::Unreachable(why) => (
            Grade::Fail,
            format!("{from} cannot connect to {address}: {why}"),
            format!("{open}, and see that {from} has a route there"),
        ),
        Outcome::Stranger(why) => (
            Grade::Fail,
            format!("{from} reaches somebody else at {address}: {why}"),
            format!(
                "see who has {} as {from} sees it (two hosts with one address, a proxy), and mend \
                 paxos_address of {name}; or its certificate, by deploying again",
                node.host
            ),
        ),
        Outcome::Denied(presented) => (
            Grade::Fail,
            format!("{name} does not let {from} in with {presented}"),
            format!("see why in its log, paxos-ctl logs {name}; deploying renews certificates"),
        ),
        Outcome::Broken(why) => (
            Grade::Fail,
            format!("{from} reaches {address}, and no login comes of it: {why}"),
            format!(
                "see whether {name} is overloaded or stands still (paxos-ctl status), or something \
                 between {from} and {name} meddles with SSH"
            ),
        ),
    };
    Row::not(verdict, name, "link", detail, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;

    fn dialled(node: &str, outcome: Outcome) -> Dialled {
        let from = Some("10.0.0.1".parse().unwrap());
        Dialled { node: node.to_owned(), from, micros: 4000, outcome }
    }

    #[test]
    fn those_who_came_through_share_a_row_and_the_others_are_named() {
        let inventory = three_nodes();
        let nodes: Vec<&NodeSpec> = inventory.nodes.iter().collect();
        let tried = [
            (
                "n1",
                Tried::Dialled(vec![
                    dialled("n2", Outcome::Silent),
                    dialled("n3", Outcome::LoggedIn),
                ]),
            ),
            (
                "n2",
                Tried::Dialled(vec![
                    dialled("n1", Outcome::Recognised),
                    dialled("n3", Outcome::LoggedIn),
                ]),
            ),
            ("n3", Tried::TooLate),
        ];
        let rows = judge_links(&nodes, &tried);
        let seen: Vec<(&str, Grade)> =
            rows.iter().map(|row| (row.node.as_str(), row.verdict)).collect();
        use Grade::{Fail, Pass, Warn};
        assert_eq!(seen, [("n1", Pass), ("n2", Fail), ("n3", Pass), ("n3", Warn)]);
        assert!(rows[0].detail.starts_with("n2 saw its certificate"), "{rows:?}");
        assert_eq!(rows[1].remedy.as_deref(), Some("open TCP 2 on n2 for 10.0.0.1"));
        assert!(rows[1].detail.contains("no answer from 127.0.0.1:2 within 3 s"), "{rows:?}");
        assert!(rows[2].detail.starts_with("n1, n2 logged in"), "{rows:?}");
        assert_eq!(rows[2].remedy, None);
    }

    #[test]
    fn each_way_to_fail_is_told_with_what_to_do() {
        let inventory = three_nodes();
        let why = || "why".to_owned();
        let cases = [
            (Outcome::Refused, Grade::Fail, "open TCP 2 on n2 for 10.0.0.1; or"),
            (Outcome::Unreachable(why()), Grade::Fail, "open TCP 2 on n2 for 10.0.0.1, and"),
            (Outcome::Unresolved(why()), Grade::Fail, "paxos_address that n1 knows"),
            (Outcome::Stranger(why()), Grade::Fail, "paxos_address of n2"),
            (Outcome::Denied(why()), Grade::Fail, "paxos-ctl logs n2"),
            (Outcome::Broken(why()), Grade::Fail, "between n1 and n2"),
            (Outcome::Answered, Grade::Warn, "--keys-dir"),
        ];
        for (outcome, verdict, remedy) in cases {
            let row = judge_link(&inventory.nodes[1], "n1", &dialled("n2", outcome));
            assert_eq!(row.verdict, verdict, "{row:?}");
            assert!(row.remedy.as_deref().is_some_and(|told| told.contains(remedy)), "{row:?}");
        }
    }

    #[test]
    fn a_host_that_cannot_dial_is_told() {
        let error = HostError {
            node: "n1".to_owned(),
            what: "dial the others".to_owned(),
            reason: "no threads".to_owned(),
            hint: "raise the limit".to_owned(),
        };
        let rows = judge_links(&[], &[("n1", Tried::Failed(error))]);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].verdict, rows[0].remedy.as_deref()),
            (Grade::Fail, Some("raise the limit"))
        );
    }
}
