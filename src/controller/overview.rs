//! `paxos-ctl status`: what the hosts show and what the nodes say, as one table or JSON object.
//!
//! The field names are a contract; fields may be added, none changes its meaning.

use super::host::Found;
use super::inventory::Inventory;
use super::observe::{Answer, leader};
use super::plan::Obstacle;
use crate::wire::failure::Failure;
use crate::wire::report::{JsonId, status_exit, table};
use serde::Serialize;
use std::collections::BTreeMap;

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeOverview {
    /// Its name.
    pub name: String,
    /// Its host, as in the inventory.
    pub host: String,
    /// Its id.
    pub id: JsonId,
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it has one.
    pub running: bool,
    /// Whether its host could be looked at; if not, nothing is known of its process.
    pub host_reached: bool,
    /// What it says it does (leader, follower, …); none if it does not answer.
    pub state: Option<String>,
    /// Its roles, as it says, else as the inventory has it.
    pub roles: Vec<String>,
    /// `host:port`.
    pub address: String,
    /// Its data directory.
    pub directory: String,
    /// The end of the chosen prefix it knows.
    pub chosen_slot: Option<u64>,
    /// The end of what it applied.
    pub applied_slot: Option<u64>,
    /// Why it did not answer, or what it says is wrong.
    pub error: Option<String>,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// Its name.
    pub cluster: String,
    /// Who leads.
    pub leader: Option<String>,
    /// healthy, degraded or no_quorum.
    pub health: String,
    /// Why it is not healthy.
    pub why: String,
    /// What to do about it.
    pub next: String,
    /// Every node of the inventory.
    pub nodes: Vec<NodeOverview>,
}

/// What a deployment would come to.
#[derive(Debug)]
pub enum Deployment {
    /// These obstacles, or none.
    Meets(Vec<Obstacle>),
    /// It would fail before it has a plan.
    Fails(Failure),
}

impl Deployment {
    /// What keeps it from starting this node in particular.
    fn obstacle(&self, node: &str) -> Option<&Obstacle> {
        let Deployment::Meets(obstacles) = self else { return None };
        obstacles.iter().find(|obstacle| obstacle.node() == Some(node))
    }
}

/// Puts together what was found, what was said, and what a deployment would say.
pub fn overview(
    inventory: &Inventory,
    found: &BTreeMap<String, Result<Found, String>>,
    answers: &BTreeMap<String, Answer>,
    deployment: &Deployment,
) -> Overview {
    let mut nodes = Vec::new();
    for spec in &inventory.nodes {
        let on_host = found.get(&spec.name);
        let pid = on_host.and_then(|found| found.as_ref().ok()).and_then(|found| found.running);
        let answer = answers.get(&spec.name);
        let status = answer.and_then(|answer| answer.as_ref().ok());
        let host_error = on_host.and_then(|found| found.as_ref().err()).cloned();
        let error = match (answer, pid) {
            (Some(Ok(status)), _) => (!status.why.is_empty()).then(|| status.why.clone()),
            (_, None) if host_error.is_some() => host_error,
            (_, None) => Some(match deployment.obstacle(&spec.name) {
                Some(obstacle) => format!("it does not run: {obstacle}"),
                None => "it does not run".to_owned(),
            }),
            (Some(Err(error)), _) => Some(error.clone()),
            (None, _) => Some("it was not asked: there is no operator's key".to_owned()),
        };
        nodes.push(NodeOverview {
            name: spec.name.clone(),
            host: spec.host.clone(),
            id: JsonId(spec.id.0),
            pid,
            running: pid.is_some(),
            host_reached: on_host.is_some_and(Result::is_ok),
            state: status.map(|status| status.state.clone()),
            roles: status.map_or_else(|| spec.roles(), |status| status.roles.clone()),
            address: spec.address(),
            directory: spec.data_dir.display().to_string(),
            chosen_slot: status.map(|status| status.chosen_slot),
            applied_slot: status.map(|status| status.applied_slot),
            error,
        });
    }
    let serving = answers.values().flatten().any(|status| status.health != "no_quorum");
    let well = |node: &NodeOverview| match answers.get(&node.name) {
        Some(Ok(status)) => status.health == "healthy",
        _ => false,
    };
    let ill: Vec<&str> = nodes.iter().filter(|n| !well(n)).map(|n| n.name.as_str()).collect();
    let silent: Vec<&str> =
        nodes.iter().filter(|n| n.state.is_none()).map(|n| n.name.as_str()).collect();
    let (health, why, next) = match (serving, ill.is_empty()) {
        (true, true) => ("healthy", String::new(), String::new()),
        (true, false) if silent.is_empty() => (
            "degraded",
            format!("{} not healthy", is_are(&ill)),
            "see the nodes' errors".to_owned(),
        ),
        (true, false) => {
            ("degraded", format!("{} not answering", is_are(&silent)), advice(&nodes, deployment))
        }
        (false, _) => (
            "no_quorum",
            format!("no node reaches a quorum; {} not answering", is_are(&silent)),
            advice(&nodes, deployment),
        ),
    };
    let leader = if serving { leader(answers) } else { None };
    let cluster = inventory.cluster.clone();
    Overview { cluster, leader, health: health.to_owned(), why, next, nodes }
}

fn is_are(names: &[&str]) -> String {
    match names {
        [] => "nobody is".to_owned(),
        [one] => format!("{one} is"),
        many => format!("{} are", many.join(", ")),
    }
}

/// What to do about nodes that do not answer: never something that `deploy` would refuse.
fn advice(nodes: &[NodeOverview], deployment: &Deployment) -> String {
    let obstacles = match deployment {
        Deployment::Fails(failure) => return failure.hint.clone(),
        Deployment::Meets(obstacles) => obstacles,
    };
    if let Some(stopper) = obstacles.iter().find(|obstacle| obstacle.stops_everything()) {
        return stopper.hint();
    }
    let stopped = |node: &&NodeOverview| !node.running;
    let startable = |node: &NodeOverview| deployment.obstacle(&node.name).is_none();
    let mut advice = Vec::new();
    if nodes.iter().filter(stopped).any(startable) {
        advice.push("paxos-ctl deploy starts what is stopped".to_owned());
    }
    advice.extend(obstacles.iter().map(Obstacle::hint));
    match advice.is_empty() {
        true => "paxos-ctl logs NODE shows what a node says".to_owned(),
        false => advice.join("\n"),
    }
}

impl Overview {
    /// 0 healthy, 2 degraded, 69 without a quorum.
    pub fn exit(&self) -> u8 {
        status_exit(&self.health)
    }

    /// For people.
    pub fn to_table(&self) -> String {
        let leader = self.leader.as_deref().unwrap_or("none known");
        let mut text = format!("cluster {}, leader {leader}, {}\n", self.cluster, self.health);
        for (label, line) in [("why", &self.why), ("next", &self.next)] {
            if !line.is_empty() {
                text.push_str(&format!("{label}: {line}\n"));
            }
        }
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let rows = self.nodes.iter().map(|node| {
            [
                node.name.clone(),
                node.id.0.to_string(),
                node.pid.map_or("-".to_owned(), |pid| pid.to_string()),
                match (&node.state, node.running) {
                    (Some(state), _) => state.clone(),
                    (None, true) => "silent".to_owned(),
                    (None, false) if !node.host_reached => "unknown".to_owned(),
                    (None, false) => "stopped".to_owned(),
                },
                match node.roles.is_empty() {
                    true => "client".to_owned(),
                    false => node.roles.join(","),
                },
                node.address.clone(),
                number(node.chosen_slot),
                number(node.applied_slot),
            ]
        });
        text.push('\n');
        let head = ["NAME", "ID", "PID", "STATE", "ROLES", "ADDRESS", "CHOSEN", "APPLIED"];
        text.push_str(&table(head, rows));
        for node in &self.nodes {
            if let Some(error) = &node.error {
                text.push_str(&format!("{}: {error}\n", node.name));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::plan::tests::three_nodes;
    use crate::wire::report::tests::sample;

    type Hosts = BTreeMap<String, Result<Found, String>>;

    fn hosts(running: &[&str]) -> Hosts {
        let found = |name: &str| Found {
            running: running.contains(&name).then_some(77),
            ..Found::default()
        };
        ["n1", "n2", "n3"].map(|name| (name.to_owned(), Ok(found(name)))).into()
    }

    fn nothing() -> Deployment {
        Deployment::Meets(Vec::new())
    }

    fn answer(health: &str) -> Answer {
        let mut status = sample();
        status.health = health.to_owned();
        status.why = if health == "healthy" { String::new() } else { "n3 is gone".to_owned() };
        Ok(status)
    }

    #[test]
    fn health_is_what_somebody_can_still_serve() {
        let silent = || Err("it did not answer within 5s".to_owned());
        let table = [
            ([answer("healthy"), answer("healthy"), answer("healthy")], "healthy", 0),
            ([answer("degraded"), answer("degraded"), silent()], "degraded", 2),
            ([answer("healthy"), answer("healthy"), silent()], "degraded", 2),
            ([answer("no_quorum"), silent(), silent()], "no_quorum", 69),
            ([silent(), silent(), silent()], "no_quorum", 69),
        ];
        for (answers, health, exit) in table {
            let names = ["n1", "n2", "n3"].map(str::to_owned);
            let answers = names.into_iter().zip(answers).collect();
            let overview = overview(&three_nodes(), &hosts(&["n1", "n2"]), &answers, &nothing());
            assert_eq!((overview.health.as_str(), overview.exit()), (health, exit));
            assert_eq!(overview.why.is_empty(), health == "healthy", "{}", overview.why);
            assert_eq!(overview.leader.is_some(), health != "no_quorum");
        }
    }

    #[test]
    fn the_advice_is_what_deploy_would_say() {
        let lost = || Obstacle::LogLost("n2".to_owned());
        let changed = Obstacle::Changed("n1".to_owned(), "address");
        let damaged =
            Failure::new(crate::wire::failure::Code::BadSettings, "it is damaged", "mend it");
        let table = [
            (&["n1", "n3"][..], Deployment::Meets(vec![lost()]), lost().hint()),
            (&["n1", "n3"], nothing(), "paxos-ctl deploy starts what is stopped".to_owned()),
            (
                &["n1"],
                Deployment::Meets(vec![lost()]),
                format!("paxos-ctl deploy starts what is stopped\n{}", lost().hint()),
            ),
            (&["n1"], Deployment::Meets(vec![lost(), changed.clone()]), changed.hint()),
            (&["n1"], Deployment::Fails(damaged), "mend it".to_owned()),
            (&["n1", "n2", "n3"], nothing(), "paxos-ctl logs NODE shows what a node says".into()),
        ];
        for (running, deployment, next) in table {
            let answers = [("n1".to_owned(), answer("degraded"))].into();
            let overview = overview(&three_nodes(), &hosts(running), &answers, &deployment);
            assert_eq!(overview.next, next);
            let told = overview.nodes[1].error.as_deref().unwrap_or_default();
            let stopped_for_good = next.contains("do not copy an old log back");
            assert_eq!(told.contains("its log is gone"), stopped_for_good || next.contains("put"));
        }
    }

    #[test]
    fn the_fields_are_those_of_the_contract() {
        let answers = [("n1".to_owned(), answer("healthy"))].into();
        let overview = overview(&three_nodes(), &hosts(&["n1"]), &answers, &nothing());
        let json = serde_json::to_value(&overview).unwrap();
        for field in ["cluster", "leader", "health", "nodes"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        let fields = [
            "name",
            "host",
            "id",
            "pid",
            "running",
            "state",
            "roles",
            "address",
            "directory",
            "chosen_slot",
            "applied_slot",
            "error",
        ];
        for field in fields {
            assert!(json["nodes"][2].get(field).is_some(), "{field}");
        }
        assert_eq!(json["nodes"][0]["running"], true);
        assert_eq!(json["nodes"][2]["running"], false);
        assert_eq!(json["nodes"][2]["error"], "it does not run");
        assert!(overview.to_table().contains("n3    3   -    stopped"), "{}", overview.to_table());
    }
}
