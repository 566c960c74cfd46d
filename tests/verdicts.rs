//! The eight checks against a cluster that is made up: green when all is well, and each of them
//! red, with the node in its evidence, when one node misbehaves.
//!
//! The stand-in answers as nodes do and keeps recorders as they do, but no protocol runs in it, so
//! it can also do what no real node can be made to: tell clients "Not the leader", lead without
//! votes, agree with nobody.

use paxos_ssh::controller::verify::hand_over::Timed;
use paxos_ssh::controller::verify::verdict::{Asked, Check, Role, Roster, Verdict, report};
use paxos_ssh::controller::verify::{Ask, Interrupted, Meanwhile, Nodes, Pace, Stream, verify};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nobody here needs time; the leader is looked at three times and more.
const PACE: Pace =
    Pace { leader: Duration::ZERO, settle: Duration::ZERO, watch: Duration::from_millis(400) };

/// What is wrong with the cluster, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// It does not answer.
    Silent(&'static str),
    /// It answers, but its logs may not be read.
    Secretive(&'static str),
    /// Requests of clients fail at it.
    Refuses(&'static str),
    /// It answers reads with something else.
    Forgets(&'static str),
    /// While leadership moves, it says so to clients.
    SaysNotTheLeader(&'static str),
    /// While leadership moves, it lets requests fail.
    FailsMeanwhile(&'static str),
    /// It does not answer requests that came while leadership moved.
    DropsMeanwhile(&'static str),
    /// It is asked to resign and does not.
    Clings,
    /// It leads with one promise.
    LeadsWithoutVotes,
    /// A second one leads as well.
    LeadsToo(&'static str),
    /// It campaigns and neither wins nor gives up.
    KeepsTrying(&'static str),
    /// It names somebody else as the leader.
    Follows(&'static str, &'static str),
    /// It leads and calls itself a follower.
    DoesNotKnow,
    /// It campaigns while somebody leads.
    Campaigns(&'static str),
    /// It leads and campaigns.
    LeaderCampaigns,
    /// No message of a proposer reaches it.
    Deaf(&'static str),
    /// Its answers do not reach the leader.
    Mute(&'static str),
    /// It learns nothing.
    Ignorant(&'static str),
    /// It learns, and does not apply.
    Lags(&'static str),
    /// It keeps another value.
    Corrupts(&'static str),
    /// Nobody's fault: others write all the time, and learners learn a moment later.
    Busy,
    /// So few acceptors are reached that nobody could be elected.
    FewReached,
    /// No request happens to be under way while leadership moves.
    NothingUnderWay,
    /// No request can be sent to it.
    Unreachable(&'static str),
    /// It is elected again.
    WinsAgain,
    /// It resigns, and nobody leads then.
    NobodyWins,
    /// It wins and does not record that it leads.
    WinsUnseen,
    /// A leader that votes records no vote of its own.
    NoOwnVotes,
    /// It hears what is chosen, and is never asked.
    HearsOnlyChosen(&'static str),
    /// Only the first acceptor accepts.
    FewAccept,
    /// It campaigns while somebody leads, and does not always show its metrics.
    CampaignsInSecret(&'static str),
    /// Quorums are larger than the inventory says.
    OtherQuorums,
    /// It has more roles than the inventory says.
    OtherRoles(&'static str),
    /// It is no member.
    NoMember(&'static str),
    /// There is a member that the inventory does not name.
    Stowaway,
}

/// The cluster that is made up.
struct Stand {
    fault: Fault,
    roster: Roster,
    state: RefCell<State>,
    /// The user stops the run after so many questions.
    patience: usize,
}

#[derive(Default)]
struct State {
    leader: String,
    counter: u64,
    ballot: u64,
    slot: u64,
    looks: u64,
    elections: BTreeMap<String, u64>,
    values: BTreeMap<String, String>,
    recorders: BTreeMap<String, Vec<Value>>,
    commands: Vec<String>,
    moment: u64,
}

impl State {
    fn record(&mut self, node: &str, event: &str, what: &str, peers: &[&str], run: (u64, u64)) {
        self.moment += 1;
        let recorder = self.recorders.entry(node.to_owned()).or_default();
        // Clocks run backwards here, for none may decide anything.
        let event = json!({
            "at": format!("2026-11-25T00:00:00.{:06}Z", 999_999 - self.moment), "node": node,
            "seq": recorder.len(), "event": event, "what": what, "peers": peers,
            "ballot": self.ballot.to_string(), "first": run.0, "last": run.1,
        });
        recorder.push(event);
    }
}

fn roster(nodes: &[(&str, &str)]) -> Roster {
    let role = |(name, roles): &(&str, &str)| Role {
        name: (*name).to_owned(),
        proposer: roles.contains('p'),
        acceptor: roles.contains('a'),
        learner: roles.contains('l'),
    };
    let nodes: Vec<Role> = nodes.iter().map(role).collect();
    let majority = nodes.iter().filter(|node| node.acceptor).count() / 2 + 1;
    Roster { nodes, phase1: majority, phase2: majority }
}

/// Three proposers, three acceptors, two learners and a client.
fn apart() -> Roster {
    roster(&[
        ("p1", "p"),
        ("p2", "p"),
        ("p3", "p"),
        ("a1", "a"),
        ("a2", "a"),
        ("a3", "a"),
        ("l1", "l"),
        ("l2", "l"),
        ("c1", ""),
    ])
}

impl Stand {
    fn new(roster: Roster, fault: Fault) -> Stand {
        let stand = Stand { fault, roster, state: RefCell::default(), patience: usize::MAX };
        let first = stand.proposers()[0].clone();
        stand.elect(&first);
        stand
    }

    fn names(&self, has: fn(&Role) -> bool) -> Vec<String> {
        self.roster.nodes.iter().filter(|role| has(role)).map(|role| role.name.clone()).collect()
    }

    fn proposers(&self) -> Vec<String> {
        self.names(|role| role.proposer)
    }

    /// A question of the leader's and the acceptors' answers, as both record them.
    fn phase(&self, leader: &str, words: (&str, &str), run: (u64, u64)) {
        let mut state = self.state.borrow_mut();
        let acceptors = self.names(|role| role.acceptor);
        let others: Vec<&str> =
            acceptors.iter().map(String::as_str).filter(|name| *name != leader).collect();
        let votes = acceptors.iter().any(|name| name == leader);
        if votes && self.fault != Fault::NoOwnVotes {
            state.record(leader, "sent", words.1, &[leader], run);
        }
        if others.is_empty() {
            return;
        }
        state.record(leader, "sent", words.0, &others, run);
        for acceptor in others {
            if self.fault.is(Fault::Deaf, acceptor) || self.fault.is(Fault::Silent, acceptor) {
                continue;
            }
            if self.fault.is(Fault::HearsOnlyChosen, acceptor) {
                state.record(acceptor, "received", "chosen", &[leader], run);
                continue;
            }
            state.record(acceptor, "received", words.0, &[leader], run);
            if self.fault == Fault::FewAccept && words.1 == "accepted" && acceptor != "a1" {
                continue;
            }
            state.record(acceptor, "sent", words.1, &[leader], run);
            let alone = self.fault == Fault::LeadsWithoutVotes && words.1 == "promise";
            if !self.fault.is(Fault::Mute, acceptor) && (!alone || acceptor == "a1") {
                state.record(leader, "received", words.1, &[acceptor], run);
            }
        }
    }

    fn elect(&self, winner: &str) {
        {
            let mut state = self.state.borrow_mut();
            state.counter += 1;
            state.ballot = state.counter * 100 + 1;
            *state.elections.entry(winner.to_owned()).or_default() += 1;
            let run = (state.slot + 1, state.slot + 1);
            state.record(winner, "local", "campaigns", &[], run);
        }
        let next = self.state.borrow().slot + 1;
        self.phase(winner, ("prepare", "promise"), (next, next));
        let mut state = self.state.borrow_mut();
        if self.fault != Fault::WinsUnseen {
            state.record(winner, "local", "leads", &[], (next, next));
        }
        state.leader = winner.to_owned();
        for other in self.proposers().iter().filter(|other| *other != winner) {
            if self.fault.is(Fault::LeadsToo, other) {
                state.record(other, "local", "campaigns", &[], (next, next));
                state.record(other, "received", "promise", &["a1", "a2"], (next, next));
                state.record(other, "local", "leads", &[], (next, next));
            } else if self.fault.is(Fault::KeepsTrying, other) {
                state.record(other, "local", "campaigns", &[], (next, next));
            } else {
                state.record(other, "local", "follows", &[winner], (next, next));
            }
        }
    }

    fn write(&self, key: &str, value: &str) {
        let (leader, slot) = {
            let mut state = self.state.borrow_mut();
            state.slot += 1;
            state.values.insert(key.to_owned(), value.to_owned());
            (state.leader.clone(), state.slot)
        };
        self.phase(&leader, ("accept", "accepted"), (slot, slot));
        let mut state = self.state.borrow_mut();
        let late = u64::from(self.fault == Fault::Busy);
        let slot = slot - late.min(slot - 1);
        for node in self.roster.nodes.iter().map(|role| role.name.as_str()) {
            if !self.fault.is(Fault::Ignorant, node) {
                state.record(node, "local", "learned", &[], (slot, slot));
            }
        }
    }

    fn status(&self, node: &str) -> Value {
        let state = self.state.borrow();
        let role = self.roster.nodes.iter().find(|role| role.name == node).unwrap();
        let leads = state.leader == node;
        let word = match role {
            _ if leads && self.fault != Fault::DoesNotKnow => "leader",
            Role { proposer: true, .. } => "follower",
            Role { acceptor: true, .. } => "acceptor",
            Role { learner: true, .. } => "learner",
            _ => "client",
        };
        let named = match self.fault {
            Fault::Follows(who, whom) if who == node => whom,
            _ => &state.leader,
        };
        let behind = u64::from(self.fault.is(Fault::Lags, node));
        let named = (!named.is_empty()).then_some(named);
        let reachable = if self.fault == Fault::FewReached { 1 } else { 3 };
        let larger = usize::from(self.fault == Fault::OtherQuorums);
        let mut members: Vec<Value> =
            self.roster.nodes.iter().filter_map(|role| self.member(role)).collect();
        if self.fault == Fault::Stowaway {
            members.push(self.member(&Role { name: "x4".to_owned(), ..role.clone() }).unwrap());
        }
        json!({
            "cluster": "made-up", "cluster_id": null, "node": node, "id": "1", "roles": [],
            "state": word, "leader": named,
            "ballot": {"number": state.ballot.to_string(), "counter": 1, "proposer": 1},
            "chosen_slot": state.slot, "applied_slot": state.slot - behind, "revision": null,
            "quorum": {"phase1": self.roster.phase1 + larger, "phase2": self.roster.phase2,
                       "acceptors": 3, "reachable": reachable, "unreachable_members": []},
            "members": members, "health": "healthy", "why": "", "next": "", "uptime_seconds": 1.0,
            "version": "0",
        })
    }

    /// As a status tells of it.
    fn member(&self, role: &Role) -> Option<Value> {
        let more = self.fault.is(Fault::OtherRoles, &role.name);
        let roles: Vec<&str> =
            [("proposer", role.proposer), ("acceptor", role.acceptor), ("learner", role.learner)]
                .into_iter()
                .filter(|(_, has)| *has || more)
                .map(|(word, _)| word)
                .collect();
        (!self.fault.is(Fault::NoMember, &role.name)).then(|| {
            json!({
                "name": role.name, "id": "1", "roles": roles, "address": "h:1", "state": "up",
                "rtt_seconds": null, "chosen_slot": null, "applied_slot": null,
                "last_heard_seconds": null,
            })
        })
    }

    fn metrics(&self, node: &str) -> String {
        let mut state = self.state.borrow_mut();
        state.looks += 1;
        let secret = self.fault.is(Fault::CampaignsInSecret, node);
        // Nodes are asked in turn, three of them: every other look at one of them.
        if secret && (state.looks - 1) / 3 % 2 == 1 {
            return String::new();
        }
        let counted = state.elections.get(node).copied().unwrap_or_default();
        let leads = self.fault == Fault::LeaderCampaigns && state.leader == node;
        let campaigns = leads || secret || self.fault.is(Fault::Campaigns, node);
        let more = if campaigns { state.looks } else { 0 };
        format!("paxos_is_leader 1\npaxos_elections_started_total {}\n", counted + more)
    }

    fn answer(&self, node: &str, words: &[&str]) -> (u32, String) {
        let protocol = words.contains(&"--protocol");
        match words[1] {
            "status" => (0, self.status(node).to_string()),
            "health" => (0, "healthy\n".to_owned()),
            "logs" if self.fault.is(Fault::Secretive, node) => (
                77,
                json!({"ok": false, "error": {"code": "denied", "message": "may not", "hint": "x"}})
                    .to_string(),
            ),
            "logs" if protocol => {
                let after =
                    |flag| words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
                let lines: usize = after("--lines").unwrap().parse().unwrap();
                let leads = self.state.borrow().leader == node;
                if leads && self.fault == Fault::Busy {
                    self.write("theirs", "x");
                }
                let state = self.state.borrow();
                let events = state.recorders.get(node).into_iter().flatten();
                let events: Vec<String> = events.map(|event| format!("{event}\n")).collect();
                let text = after("--grep");
                let wanted = |line: &&String| text.is_none_or(|text| line.contains(text));
                let wanted: Vec<&String> = events.iter().filter(wanted).collect();
                let last = &wanted[wanted.len().saturating_sub(lines)..];
                (0, last.iter().map(|line| line.as_str()).collect())
            }
            "logs" => (0, "a line\n".to_owned()),
            "metrics" => (0, self.metrics(node)),
            "leader" => (0, format!("{}\n", self.state.borrow().leader)),
            _ if self.fault.is(Fault::Refuses, node) => (69, "nobody serves it".to_owned()),
            "put" => {
                self.write(words[2], words[3]);
                (0, format!("revision {}\n", self.state.borrow().slot))
            }
            "get" if self.fault.is(Fault::Forgets, node) => (0, "old\n".to_owned()),
            "get" if self.fault.is(Fault::Corrupts, node) => (0, "other\n".to_owned()),
            "get" => match self.state.borrow().values.get(words[2]) {
                Some(value) => (0, format!("{value}\n")),
                None => (3, String::new()),
            },
            "list" => {
                let state = self.state.borrow();
                (0, state.values.keys().map(|key| format!("{key}\n")).collect())
            }
            "delete" => {
                self.state.borrow_mut().values.remove(words[2]);
                (0, String::new())
            }
            other => panic!("{other} was not expected"),
        }
    }
}

impl Fault {
    /// Whether it is this fault at this node.
    fn is(self, kind: fn(&'static str) -> Fault, node: &str) -> bool {
        ["p1", "p2", "p3", "a1", "a2", "a3", "l1", "l2", "c1"]
            .into_iter()
            .any(|name| name == node && self == kind(name))
    }
}

impl Nodes for Stand {
    fn ask(&self, asks: &[Ask], _limit: Duration) -> Vec<Asked> {
        let one = |ask: &Ask| {
            self.state.borrow_mut().commands.push(ask.command.clone());
            let words: Vec<&str> = ask.command.split(' ').collect();
            assert_eq!(words[0], "paxos");
            let (node, command) = (ask.node.clone(), ask.command.clone());
            if self.fault.is(Fault::Silent, &node) {
                let stderr = "it did not answer within 5s".to_owned();
                return Asked { node, command, stderr, ..Asked::default() };
            }
            let (exit, stdout) = self.answer(&node, &words);
            Asked { node, command, exit: Some(exit), stdout, ..Asked::default() }
        };
        asks.iter().map(one).collect()
    }

    fn interrupted(&self) -> bool {
        self.state.borrow().commands.len() > self.patience
    }

    fn ask_meanwhile(&self, ask: &Ask, streams: &[Stream], limit: Duration) -> Meanwhile {
        let at = Duration::from_millis;
        if ask.command.contains("resign") && self.fault != Fault::Clings {
            let next = self.proposers().into_iter().find(|name| *name != ask.node).unwrap();
            let again = self.fault == Fault::WinsAgain;
            self.elect(if again { &ask.node } else { &next });
            if self.fault == Fault::NobodyWins {
                self.state.borrow_mut().leader.clear();
            }
        }
        let leader = Ask { node: ask.node.clone(), command: "paxos leader".to_owned() };
        let asked = Asked { command: ask.command.clone(), ..self.ask(&[leader], limit).remove(0) };
        self.state.borrow_mut().commands.push(ask.command.clone());
        let request = |node: &str| {
            let (answered, ok, text) = match self.fault {
                Fault::SaysNotTheLeader(who) if who == node => {
                    (Some(at(30)), false, "Not the leader, ask p2")
                }
                Fault::FailsMeanwhile(who) if who == node => {
                    (Some(at(30)), false, "nobody leads (no_quorum)")
                }
                Fault::DropsMeanwhile(who) | Fault::Silent(who) if who == node => {
                    (None, false, "x")
                }
                _ => (Some(at(60)), true, ""),
            };
            let sent = if self.fault == Fault::NothingUnderWay { at(20) } else { at(5) };
            Timed { sent, answered, ok, text: text.to_owned() }
        };
        let mut meanwhile = Meanwhile { asked, span: (at(10), at(50)), ..Meanwhile::default() };
        for Stream { node, .. } in streams {
            match self.fault.is(Fault::Unreachable, node) {
                true => _ = meanwhile.unreached.insert(node.clone(), "refused".to_owned()),
                false => _ = meanwhile.requests.insert(node.clone(), vec![request(node)]),
            }
        }
        meanwhile
    }
}

fn run(roster: Roster, fault: Fault, passive: bool) -> (Vec<Verdict>, Stand) {
    let stand = Stand::new(roster, fault);
    let verdicts = verify(&stand, &stand.roster, "1", passive, PACE);
    (verdicts.expect("nobody interrupts it"), stand)
}

fn failed(verdicts: &[Verdict]) -> BTreeSet<&'static str> {
    verdicts.iter().filter(|verdict| !verdict.pass).map(|verdict| verdict.check).collect()
}

#[track_caller]
fn demand_green(verdicts: &[Verdict]) {
    assert!(failed(verdicts).is_empty(), "{}", report(verdicts));
    let names: Vec<&str> = verdicts.iter().map(|verdict| verdict.check).collect();
    assert_eq!(names, Check::ALL.map(Check::name));
    assert!(verdicts.iter().all(|verdict| !verdict.evidence.is_empty()));
}

/// The checks that fail under this fault, each with all of these words in one line of evidence
/// against the cluster.
#[track_caller]
fn demand_red(fault: Fault, expected: &[(Check, &[&str])]) {
    demand_red_of(apart(), fault, expected);
}

/// The same of a cluster of these nodes; answers what was asked of it.
#[track_caller]
fn demand_red_of(roster: Roster, fault: Fault, expected: &[(Check, &[&str])]) -> Vec<String> {
    let (verdicts, stand) = run(roster, fault, false);
    let wanted: BTreeSet<&str> = expected.iter().map(|(check, _)| check.name()).collect();
    assert_eq!(failed(&verdicts), wanted, "{fault:?}\n{}", report(&verdicts));
    for (check, words) in expected {
        let verdict = verdicts.iter().find(|verdict| verdict.check == check.name()).unwrap();
        let told = verdict.evidence.iter().filter(|line| line.starts_with("wrong: "));
        let all = |line: &&String| words.iter().all(|word| line.contains(word));
        assert!(told.clone().any(|line| all(&line)), "{fault:?}: {words:?}\n{}", report(&verdicts));
    }
    stand.state.take().commands
}

#[test]
fn a_healthy_cluster_of_separate_roles_passes_and_is_left_as_it_was() {
    let (verdicts, stand) = run(apart(), Fault::None, false);
    demand_green(&verdicts);
    assert!(verdicts.iter().all(|verdict| !verdict.skipped));
    let state = stand.state.borrow();
    assert!(state.values.is_empty(), "all keys are deleted: {:?}", state.values);
    let puts = state.commands.iter().filter(|command| command.contains(" put "));
    assert!(puts.clone().count() > 4 && puts.clone().all(|put| put.contains(" put _verify/1/")));
    assert!(state.commands.iter().any(|command| command.contains("leader resign")));
}

#[test]
fn a_healthy_cluster_of_all_role_nodes_passes() {
    let all = roster(&[("p1", "pal"), ("p2", "pal"), ("p3", "pal")]);
    demand_green(&run(all, Fault::None, false).0);
}

#[test]
fn one_node_alone_passes_and_is_not_asked_to_resign() {
    let (verdicts, stand) = run(roster(&[("p1", "pal")]), Fault::None, false);
    demand_green(&verdicts);
    assert!(!stand.state.borrow().commands.iter().any(|command| command.contains("resign")));
    let waits = verdicts.iter().find(|verdict| verdict.check == "no-leader").unwrap();
    assert!(waits.evidence[0].contains("p1 is the only proposer"), "{:?}", waits.evidence);
}

#[test]
fn a_passive_run_skips_what_moves_the_leader() {
    let (verdicts, stand) = run(apart(), Fault::None, true);
    demand_green(&verdicts);
    let skipped: Vec<&str> =
        verdicts.iter().filter(|verdict| verdict.skipped).map(|verdict| verdict.check).collect();
    assert_eq!(skipped, ["no-leader", "election"]);
    assert!(!stand.state.borrow().commands.iter().any(|command| command.contains("resign")));
    let json = serde_json::to_value(&verdicts).unwrap();
    assert_eq!(json[0]["check"], "proposer-reachable");
    assert_eq!(json[0].get("skipped"), None);
    assert_eq!(json[2]["skipped"], true);
    assert!(report(&verdicts).ends_with("\n6 passed, 0 failed, 2 skipped\n"));
}

#[test]
fn proposer_reachable_fails_for_one_that_hides_its_logs() {
    let expected: &[(Check, &[&str])] = &[
        (Check::ProposerReachable, &["p3", "paxos logs", "may not (denied)"]),
        (Check::Election, &["p3", "recorder"]),
    ];
    demand_red(Fault::Secretive("p3"), expected);
}

#[test]
fn a_silent_proposer_is_named_by_all_that_ask_it() {
    let expected: &[(Check, &[&str])] = &[
        (Check::ProposerReachable, &["p3", "status", "did not answer"]),
        (Check::ClientRequest, &["p3", "put", "no answer"]),
        (Check::NoLeader, &["p3", "is not answered"]),
        (Check::Election, &["p3"]),
    ];
    demand_red(Fault::Silent("p3"), expected);
}

#[test]
fn client_request_fails_for_one_that_refuses_or_forgets() {
    demand_red(Fault::Refuses("p3"), &[(Check::ClientRequest, &["p3", "put", "exit 69"])]);
    demand_red(Fault::Forgets("p3"), &[(Check::ClientRequest, &["p3", "old instead of"])]);
}

#[test]
fn no_leader_fails_when_requests_do_not_wait() {
    let check = Check::NoLeader;
    demand_red(Fault::SaysNotTheLeader("p3"), &[(check, &["p3", "Not the leader"])]);
    demand_red(Fault::FailsMeanwhile("l1"), &[(check, &["l1", "is refused", "no_quorum"])]);
    demand_red(Fault::DropsMeanwhile("c1"), &[(check, &["c1", "is not answered"])]);
    demand_red(
        Fault::Unreachable("c1"),
        &[(check, &["c1", "no request could be sent", "refused"])],
    );
}

#[test]
fn no_leader_shows_nothing_where_no_request_was_under_way() {
    let nothing: &[&str] = &["no request was under way"];
    let commands = demand_red_of(apart(), Fault::NothingUnderWay, &[(Check::NoLeader, nothing)]);
    let resigned = commands.iter().filter(|command| command.contains("resign"));
    assert_eq!(resigned.count(), 8, "it is tried a few times");
}

#[test]
fn nobody_is_asked_to_resign_where_nobody_could_be_elected() {
    let why: &[&str] = &["p1 was not asked to resign", "reaches 1 of 3", "promises of 2"];
    let expected = [(Check::NoLeader, why), (Check::Election, why)];
    let commands = demand_red_of(apart(), Fault::FewReached, &expected);
    assert!(!commands.iter().any(|command| command.contains("resign")));
}

#[test]
fn an_election_that_nobody_wins_or_the_same_one_again_is_no_hand_over() {
    let again: &[(Check, &[&str])] = &[
        (Check::NoLeader, &["p1 was asked to resign, and still leads"]),
        (Check::Election, &["p1 resigned and won again"]),
    ];
    demand_red(Fault::WinsAgain, again);
    let none: &[&str] = &["p1, p2, p3: none of them knows a leader"];
    let nobody: &[(Check, &[&str])] = &[
        (Check::NoLeader, &["p1 resigned, and nobody leads since"]),
        (Check::Election, &["says that nobody leads"]),
        (Check::ProposerAcceptor, none),
        (Check::LeaderKnows, none),
        (Check::AcceptorReceives, none),
        (Check::AcceptorLearner, none),
    ];
    demand_red(Fault::NobodyWins, nobody);
}

#[test]
fn proposer_reachable_fails_for_a_cluster_that_is_not_the_inventory_s() {
    let check = Check::ProposerReachable;
    let quorum: &[&str] = &["p1: its quorum of phase 1 is 3 acceptors; the inventory says 2"];
    demand_red(Fault::OtherQuorums, &[(check, quorum)]);
    let roles: &[&str] = &["p1: l1 is proposer, acceptor, learner; the inventory says learner"];
    demand_red(Fault::OtherRoles("l1"), &[(check, roles)]);
    demand_red(Fault::NoMember("c1"), &[(check, &["p1: c1 of the inventory is no member"])]);
    demand_red(
        Fault::Stowaway,
        &[(check, &["p1: x4 is a member; the inventory does not name it"])],
    );
}

#[test]
fn a_leader_that_votes_is_not_taken_to_have_voted() {
    let two = || roster(&[("p1", "pal"), ("p2", "pal")]);
    demand_green(&run(two(), Fault::None, false).0);
    let expected: &[(Check, &[&str])] = &[
        (Check::Election, &["p2", "promises of p1; 2 are needed"]),
        (Check::ProposerAcceptor, &["p2 leads and votes, and recorded no Promise of its own"]),
        (Check::AcceptorReceives, &["p2", "did not accept once"]),
        (Check::AcceptorLearner, &["was accepted by p1; 2 are needed"]),
    ];
    demand_red_of(two(), Fault::NoOwnVotes, expected);
}

#[test]
fn an_acceptor_that_is_told_and_never_asked_is_named() {
    let expected: &[(Check, &[&str])] = &[
        (Check::ProposerAcceptor, &["p2 sent Accept to a3", "not seen"]),
        (Check::AcceptorReceives, &["a3", "no Prepare and no Accept"]),
    ];
    demand_red(Fault::HearsOnlyChosen("a3"), expected);
}

#[test]
fn acceptor_learner_fails_where_no_quorum_accepted() {
    let expected: &[(Check, &[&str])] = &[
        (Check::ProposerAcceptor, &["a2 sent no Accepted to p2"]),
        (Check::AcceptorLearner, &["accepted by a1; 2 are needed"]),
    ];
    demand_red(Fault::FewAccept, expected);
}

#[test]
fn after_an_election_both_phases_are_seen_or_something_is_wrong() {
    let expected: &[(Check, &[&str])] = &[
        (Check::Election, &["p1, p2, p3: none recorded that it leads"]),
        (Check::ProposerAcceptor, &["p2: leads since the election just held"]),
    ];
    demand_red(Fault::WinsUnseen, expected);
    let (verdicts, _) = run(apart(), Fault::WinsUnseen, true);
    demand_green(&verdicts);
    let phases = verdicts.iter().find(|verdict| verdict.check == "proposer-acceptor").unwrap();
    assert!(phases.evidence[0].starts_with("phase 1: not seen"), "{:?}", phases.evidence);
}

#[test]
fn a_cluster_on_which_others_write_passes() {
    demand_green(&run(apart(), Fault::Busy, false).0);
}

#[test]
fn an_interrupted_run_has_no_verdicts_and_cleans_up() {
    let mut stand = Stand::new(apart(), Fault::None);
    stand.patience = 20;
    let stopped = verify(&stand, &stand.roster, "1", false, PACE);
    assert_eq!(stopped, Err(Interrupted("_verify/1/".to_owned())));
    let state = stand.state.borrow();
    assert!(state.values.is_empty(), "all keys are deleted: {:?}", state.values);
    assert!(!state.commands.iter().any(|command| command.contains("resign")));
}

#[test]
fn what_an_earlier_run_left_is_deleted() {
    let stand = Stand::new(apart(), Fault::None);
    for key in ["_verify/0/probe/p1", "theirs", "_verify/a b"] {
        stand.state.borrow_mut().values.insert(key.to_owned(), "x".to_owned());
    }
    demand_green(&verify(&stand, &stand.roster, "1", true, PACE).expect("nobody interrupts it"));
    let state = stand.state.borrow();
    assert_eq!(state.values.keys().collect::<Vec<_>>(), ["_verify/a b", "theirs"]);
}

#[test]
fn a_leader_that_does_not_resign_fails_both_checks() {
    let expected: &[(Check, &[&str])] = &[
        (Check::NoLeader, &["p1", "still leads"]),
        (Check::Election, &["p1, p2, p3: none recorded that it leads"]),
    ];
    demand_red(Fault::Clings, expected);
}

#[test]
fn election_fails_without_votes_without_agreement_and_with_two_winners() {
    let check = Check::Election;
    let missing: &[&str] = &["p2", "promises of a1", "2 are needed"];
    let phases: &[&str] = &["a3 sent Promise to p2"];
    let expected = [(check, missing), (Check::ProposerAcceptor, phases)];
    demand_red(Fault::LeadsWithoutVotes, &expected);
    demand_red(Fault::LeadsToo("p3"), &[(check, &["several", "p2", "p3"])]);
    demand_red(Fault::KeepsTrying("p3"), &[(check, &["p3", "did not back off"])]);
    demand_red(Fault::Follows("a2", "p3"), &[(check, &["a2", "p3 leads", "p2 won"])]);
}

#[test]
fn leader_knows_fails_for_a_leader_in_doubt_and_for_a_rival() {
    let check = Check::LeaderKnows;
    demand_red(Fault::DoesNotKnow, &[(check, &["p2", "follower"])]);
    demand_red(Fault::LeaderCampaigns, &[(check, &["p2", "elections_started went from"])]);
    demand_red(Fault::Campaigns("p3"), &[(check, &["p3", "elections_started went from"])]);
    demand_red(Fault::CampaignsInSecret("p3"), &[(check, &["p3", "elections_started went from"])]);
}

#[test]
fn an_acceptor_that_does_not_hear_or_is_not_heard_is_named() {
    let deaf: &[(Check, &[&str])] = &[
        (Check::ProposerAcceptor, &["p2 sent Accept to a3", "not seen"]),
        (Check::AcceptorReceives, &["a3", "no Prepare and no Accept"]),
    ];
    demand_red(Fault::Deaf("a3"), deaf);
    demand_red(
        Fault::Mute("a3"),
        &[(Check::ProposerAcceptor, &["a3 sent Accepted to p2", "not seen"])],
    );
}

#[test]
fn a_silent_acceptor_is_named_by_the_checks_of_acceptors() {
    let expected: &[(Check, &[&str])] = &[
        (Check::NoLeader, &["a3"]),
        (Check::Election, &["a3"]),
        (Check::ProposerAcceptor, &["a3"]),
        (Check::AcceptorReceives, &["a3"]),
    ];
    demand_red(Fault::Silent("a3"), expected);
}

#[test]
fn acceptor_learner_fails_for_a_learner_that_does_not_learn_apply_or_keep() {
    let check = Check::AcceptorLearner;
    demand_red(Fault::Ignorant("l2"), &[(check, &["l2", "did not learn slot"])]);
    demand_red(Fault::Lags("l2"), &[(check, &["l2", "applied up to slot"])]);
    demand_red(Fault::Corrupts("l2"), &[(check, &["l2", "other instead of"])]);
}
