//! Inventories as people write them, and as they get them wrong: each error with its line.

use paxos_ssh::controller::inventory::groups::Sources;
use paxos_ssh::controller::inventory::problem::InventoryError;
use paxos_ssh::controller::inventory::{Connection, Inventory};
use paxos_ssh::controller::plan::{Facts, NodeFacts, plan};
use paxos_ssh::controller::state::ClusterState;
use paxos_ssh::paxos::ballot::ClusterId;
use paxos_ssh::wire::failure::{Code, Failure};
use paxos_ssh::wire::genesis::decode_genesis;
use std::path::Path;

fn load(text: &str) -> Result<Inventory, InventoryError> {
    let sources =
        Sources { file: "inventory/i.yaml".into(), text: text.to_owned(), ..Sources::default() };
    Inventory::from_sources(&sources, Path::new("/state"))
}

/// Three local nodes, with lines put in before the hosts and after each of them.
fn three(vars: &str, hosts: [&str; 3]) -> String {
    let mut text =
        String::from("all:\n  vars:\n    paxos_cluster: c\n    ansible_connection: local\n");
    text.push_str(vars);
    text.push_str("  hosts:\n");
    for (i, own) in hosts.iter().enumerate() {
        let (n, port) = (i + 1, 7101 + i);
        text.push_str(&format!("    node{n}:\n      paxos_port: {port}\n"));
        let id = format!("      paxos_id: {n}\n");
        text.push_str(if own.contains("paxos_id:") || own.contains("no id") { "" } else { &id });
        text.push_str(own);
    }
    text
}

#[test]
fn three_nodes_of_all_roles() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory/local.yaml");
    let inventory = Inventory::load(&file).expect("the project's own inventory is right");
    assert_eq!(inventory.cluster, "local");
    let nodes: Vec<_> = inventory.nodes.iter().map(|n| (&*n.name, n.id.0, n.address())).collect();
    let expected: Vec<_> = [(1, "node1"), (2, "node2"), (3, "node3")]
        .map(|(id, name)| (name, id, format!("127.0.0.1:710{id}")))
        .into();
    assert_eq!(nodes, expected);
    for node in &inventory.nodes {
        assert_eq!(node.connection, Connection::Local);
        assert_eq!(node.roles(), ["proposer", "acceptor", "learner"]);
        assert_eq!(node.listen, [node.address()]);
        assert!(node.data_dir.ends_with(format!("paxos/local/{}", node.name)));
        assert_eq!(node.proposer.map(|p| u64::from(p.value())), Some(node.id.0));
    }
    assert_eq!((inventory.quorums.phase1(), inventory.quorums.phase2()), (2, 2));
}

fn shipped(name: &str) -> Inventory {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory").join(name);
    Inventory::load(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn each_one_that_comes_with_the_project_is_tested_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["local-five.yaml", "local-roles.yaml", "local.yaml", "three-hosts.yaml"]);
}

#[test]
fn five_nodes_with_quorums_of_four_and_two() {
    let inventory = shipped("local-five.yaml");
    assert_eq!((&*inventory.cluster, inventory.nodes.len()), ("five", 5));
    for (node, n) in inventory.nodes.iter().zip(1..) {
        assert_eq!((&*node.name, node.id.0), (&*format!("node{n}"), n));
        assert_eq!(node.address(), format!("127.0.0.1:730{n}"));
        assert_eq!(node.roles(), ["proposer", "acceptor", "learner"]);
        assert_eq!(node.connection, Connection::Local);
    }
    let quorums = inventory.quorums;
    assert_eq!((quorums.acceptors(), quorums.phase1(), quorums.phase2()), (5, 4, 2));
    assert_eq!(inventory.sizes, [Some(4), Some(2)]);
}

#[test]
fn nine_nodes_with_a_role_each_and_the_genesis_made_of_them() {
    let inventory = shipped("local-roles.yaml");
    assert_eq!((&*inventory.cluster, inventory.nodes.len()), ("roles", 9));
    let names = ["p1", "p2", "p3", "a1", "a2", "a3", "l1", "l2", "c1"];
    for (node, n) in inventory.nodes.iter().zip(1..) {
        let name = names[n as usize - 1];
        let role = match &name[..1] {
            "p" => "proposer",
            "a" => "acceptor",
            "l" => "learner",
            _ => "",
        };
        assert_eq!((&*node.name, node.id.0, &*node.roles().join(",")), (name, n, role));
        assert_eq!(node.address(), format!("127.0.0.1:720{n}"));
        assert_eq!(node.connection, Connection::Local);
    }
    let quorums = inventory.quorums;
    assert_eq!((quorums.acceptors(), quorums.phase1(), quorums.phase2()), (3, 2, 2));

    let mut drawn = 0;
    let state = ClusterState::form(&inventory, ClusterId(1), || {
        drawn += 1;
        drawn
    });
    let genesis = state.genesis().unwrap();
    let members = genesis.configuration.members();
    assert_eq!((members.len(), genesis.configuration.quorums()), (9, quorums));
    for (id, member) in members {
        let (role, roles) = (&member.name[..1], &member.roles);
        let proposer = roles.proposer.map(|proposer| u64::from(proposer.value()));
        assert_eq!(proposer, (role == "p").then_some(id.0), "{}", member.name);
        assert_eq!(roles.acceptor.is_some(), role == "a", "{}", member.name);
        assert_eq!(roles.learner, role == "l", "{}", member.name);
        // Each is told in its own file whether it votes, and as whom.
        let file = decode_genesis(&state.genesis_file(&member.name).unwrap()).unwrap();
        assert_eq!((file.generation, &file.genesis), (roles.acceptor, &genesis));
    }
    assert_eq!(drawn, 3, "only acceptors have a generation");
}

#[test]
fn three_hosts_over_ssh_are_all_needed_to_form_a_cluster() {
    let inventory = shipped("three-hosts.yaml");
    let addresses: Vec<String> = inventory.nodes.iter().map(|node| node.address()).collect();
    assert_eq!(addresses, ["host1.example.org:7022", "host2.example.org:7022", "10.0.0.3:7022"]);
    for node in &inventory.nodes {
        assert_eq!(node.connection, Connection::Ssh);
        assert_eq!(node.roles(), ["proposer", "acceptor", "learner"]);
        assert_eq!(node.data_dir, Path::new("/var/lib/paxos/three-hosts"));
        let login = node.login.as_ref().expect("it is reached over ssh");
        assert_eq!((login.user.as_deref(), login.becomes_root), (Some("ops"), true));
        assert_eq!(node.listen, ["0.0.0.0:7022", "[::]:7022"]);
        assert!(node.zone.is_some());
    }
    assert_eq!((inventory.quorums.phase1(), inventory.quorums.phase2()), (2, 2));
    assert!(plan(&inventory, &Facts::default()).stopper().is_none());
    let out_of_reach = Some(("it is down".to_owned(), "start it".to_owned()));
    let facts = NodeFacts { out_of_reach, ..NodeFacts::default() };
    let facts = Facts { nodes: [("node2".to_owned(), facts)].into(), ..Facts::default() };
    let plan = plan(&inventory, &facts);
    assert!(plan.steps.is_empty(), "a cluster is not formed without its founders");
    let stopper = plan.stopper().expect("a host is missing");
    assert_eq!(stopper.node(), Some("node2"));
    assert!(stopper.to_string().ends_with("could not be looked at: it is down"), "{stopper}");
    assert_eq!(stopper.hint(), "start it");
}

#[test]
fn roles_follow_the_groups() {
    let text = "\
all:
  vars: {paxos_cluster: c}
  hosts:
    web1: {http_port: 80}
  children:
    paxos_proposers: {hosts: {a: {paxos_id: 1}}}
    paxos_acceptors: {hosts: {a: , 'w[1:2]': }}
    paxos_learners: {children: {stores: {hosts: {a: , r: {paxos_id: 7}}}}}
    paxos_clients: {hosts: {k: {paxos_id: 9}}}
    others:
      hosts:
        w1: {paxos_id: 500}
        w2: {paxos_id: 501}
        web1: {paxos_id: 10}
";
    let inventory = load(text).unwrap();
    let roles = |name: &str| inventory.node(name).unwrap().roles().join(",");
    assert_eq!(roles("a"), "proposer,acceptor,learner");
    assert_eq!(roles("w1"), "acceptor");
    assert_eq!(roles("r"), "learner");
    assert_eq!(roles("k"), "");
    assert_eq!(roles("web1"), "", "a host in none of the groups is a client");
    assert_eq!(inventory.quorums.acceptors(), 3);
    assert_eq!(inventory.node("w1").unwrap().connection, Connection::Ssh);
    assert_eq!(inventory.node("w1").unwrap().address(), "w1:7022");
    assert_eq!(inventory.node("w1").unwrap().listen, ["0.0.0.0:7022", "[::]:7022"]);
}

#[test]
fn hosts_of_other_people_are_left_alone() {
    let text = "\
web:
  hosts: {'w[1:9]': {http_port: 80, secret: !vault abc}}
db:
  vars: {paxos_cluster: c, ansible_connection: local, x: '{{ y }}'}
  hosts:
    d1:
      paxos_id: 1
      paxos_address: '[::1]'
      paxos_listen: ['::1', '127.0.0.1:9']
";
    let inventory = load(text).unwrap();
    assert_eq!(inventory.nodes.len(), 1);
    assert_eq!(inventory.nodes[0].address(), "[::1]:7022");
    assert_eq!(inventory.nodes[0].listen, ["[::1]:7022", "127.0.0.1:9"]);
    assert_eq!(inventory.nodes[0].data_dir, Path::new("/state/paxos/c/d1"));
}

#[test]
fn each_slip_is_named_with_its_line() {
    let none = ["", "", ""];
    let table: Vec<(&str, String, u64, &str)> = vec![
        ("duplicate id", three("", ["", "      paxos_id: 1\n", ""]), 11, "both have paxos_id 1"),
        ("missing id", three("", ["", "      # no id\n", ""]), 9, "host node2 has no paxos_id"),
        ("id zero", three("", ["      paxos_id: 0\n", "", ""]), 8, "from 1 on"),
        ("id no number", three("", ["      paxos_id: one\n", "", ""]), 8, "\"one\""),
        (
            "default proposer id above 99",
            three("", ["", "", "      paxos_id: 100\n"]),
            14,
            "proposer id 100 of host node3 is above 99; set paxos_proposer_id",
        ),
        (
            "proposer id above 99",
            three("", ["", "      paxos_proposer_id: 100\n", ""]),
            12,
            "proposer id 100",
        ),
        (
            "proposer id twice",
            three("", ["", "      paxos_proposer_id: 1\n", ""]),
            12,
            "both have proposer id 1",
        ),
        (
            "quorums that miss each other",
            three("    paxos_quorum_phase1: 2\n    paxos_quorum_phase2: 1\n", none),
            6,
            "need not intersect",
        ),
        ("quorum too large", three("    paxos_quorum_phase2: 4\n", none), 5, "do not fit"),
        (
            "quorums that differ",
            three("", ["", "      paxos_quorum_phase1: 3\n", ""]),
            12,
            "another paxos_quorum_phase1",
        ),
        (
            "unknown variable",
            three("    paxos_quorom_phase1: 2\n", none),
            5,
            "did you mean paxos_quorum_phase1?",
        ),
        ("unknown, near nothing", three("    paxos_zzzzzzzzzz: 2\n", none), 5, "unknown variable"),
        (
            "unknown of a host",
            three("", ["", "", "      paxos_prot: 1\n"]),
            15,
            "unknown variable paxos_prot; did you mean paxos_port?",
        ),
        (
            "unknown group",
            three("", none) + "  children:\n    paxos_aceptors:\n      hosts: {node1: }\n",
            16,
            "did you mean paxos_acceptors?",
        ),
        (
            "one address twice",
            three("", ["", "", "      paxos_port: 7101\n"]).replacen(
                "      paxos_port: 7103\n",
                "",
                1,
            ),
            14,
            "both have the address 127.0.0.1:7101",
        ),
        (
            "one directory twice",
            three("    paxos_data_dir: /var/p\n", none),
            5,
            "both use the directory /var/p",
        ),
        ("relative directory", three("", ["      paxos_data_dir: p\n", "", ""]), 9, "an absolute"),
        ("port", three("", ["", "", "      paxos_zone: [a]\n"]), 15, "a single value"),
        ("address with port", three("    paxos_address: a:1\n", none), 5, "the port goes into"),
        ("template", three("    paxos_address: '{{ x }}'\n", none), 5, "templates are not filled"),
        ("listen", three("    paxos_listen: [localhost]\n", none), 5, "an IP address"),
        (
            "two clusters",
            three("", ["", "", "      paxos_cluster: d\n"]),
            15,
            "one inventory per cluster",
        ),
        ("cluster name", three("", none).replace("paxos_cluster: c", "paxos_cluster: C!"), 3, "C!"),
        ("node name", three("", none).replace("node2", "Node 2"), 9, "cannot name a node"),
        (
            "no cluster",
            three("", none).replace("    paxos_cluster: c\n", ""),
            5,
            "has no paxos_cluster",
        ),
        (
            "no acceptor",
            three("", none)
                + "  children:\n    paxos_proposers: {hosts: {node1: }}\n    \
                   paxos_learners: {hosts: {node1: }}\n",
            0,
            "no host is an acceptor",
        ),
        (
            "no learner",
            three("", none)
                + "  children:\n    paxos_proposers: {hosts: {node1: }}\n    \
                   paxos_acceptors: {hosts: {node1: }}\n",
            0,
            "no host is a learner",
        ),
        (
            "no proposer",
            three("", none)
                + "  children:\n    paxos_learners: {hosts: {node1: }}\n    \
                   paxos_acceptors: {hosts: {node1: }}\n",
            0,
            "no host is a proposer",
        ),
        ("not YAML", "all: [\n".to_owned(), 1, "not YAML"),
        ("empty", String::new(), 0, "no host has paxos_cluster"),
        ("nobody", "all: {hosts: {a: {x: 1}}}\n".to_owned(), 0, "no host has paxos_cluster"),
    ];
    for (name, text, line, part) in table {
        let error = load(&text).expect_err(name);
        let found = error.problems.iter().any(|problem| {
            problem.line == line
                && problem.file == Path::new("inventory/i.yaml")
                && problem.to_string().contains(part)
        });
        assert!(found, "{name}: no problem on line {line} that says {part:?}:\n{error}\n{text}");
        let failure = Failure::from(error);
        assert_eq!((failure.code, failure.code.exit()), (Code::BadSettings, 78), "{name}");
        assert!(!failure.hint.is_empty());
    }
}

#[test]
fn all_slips_are_told_at_once_in_the_order_of_the_file() {
    let text = three(
        "    paxos_prot: 1\n    paxos_quorum_phase2: 9\n",
        ["", "      paxos_id: 1\n", "      paxos_proposer_id: 500\n"],
    );
    let error = load(&text).unwrap_err();
    let lines: Vec<u64> = error.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [5, 6, 13, 17], "{error}");
    let message = Failure::from(error).message;
    assert!(message.contains("4 reasons"), "{message}");
    assert!(message.contains("inventory/i.yaml:13: "), "{message}");
}

#[test]
fn files_beside_the_inventory_count_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let file = write("i.yaml", "all:\n  hosts:\n    a:\n    b:\n      paxos_id: 2\n");
    write("group_vars/all.yml", "paxos_cluster: c\nansible_connection: local\n");
    let host_file = write("host_vars/a.yaml", "# about a\npaxos_id: 2\npaxos_port: 1\n");
    let error = Inventory::load(&file).unwrap_err();
    assert!(error.to_string().contains("both have paxos_id 2"), "{error}");
    std::fs::write(&host_file, "paxos_id: 1\npaxos_port: none\n").unwrap();
    let error = Inventory::load(&file).unwrap_err();
    assert_eq!((&error.problems[0].file, error.problems[0].line), (&host_file, 2), "{error}");
    std::fs::write(&host_file, "paxos_id: 1\npaxos_port: 99\n").unwrap();
    let inventory = Inventory::load(&file).unwrap();
    assert_eq!(inventory.node("a").unwrap().address(), "127.0.0.1:99");
    let error = Inventory::load(&folder.path().join("none.yaml")).unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

#[test]
fn people_with_plain_keys_are_one_list_for_the_cluster() {
    let people = format!(
        "    paxos_people:\n      backup: {{rights: \"read, write:/b/\", key: \"{KEY} at home\"}}\n"
    );
    let inventory = load(&three(&people, ["", "", ""])).unwrap();
    let backup = &inventory.people[0];
    assert_eq!((&*backup.name, &*backup.rights), ("backup", "read, write:/b/"));
    assert_eq!(backup.key, format!("{KEY} at home"));
    assert_eq!(load(&three("", ["", "", ""])).unwrap().people, []);

    let list = |entry: &str| format!("    paxos_people:\n      {entry}\n");
    let table = [
        (list("- bob"), 5, "paxos_people is a list, but must be a mapping"),
        (list("bob: read"), 6, "paxos_people: bob is a single value"),
        (list("bob: {rights: read}"), 6, "incomplete"),
        (list(&format!("bob: {{right: read, key: {KEY}}}")), 6, "rights and key, and nothing else"),
        (list(&format!("bob: {{rights: rule, key: {KEY}}}")), 6, "bob"),
        (list("bob: {rights: read, key: ssh-ed25519 AAAA}"), 6, "no public key"),
        (list(&format!("\"bo b\": {{rights: read, key: {KEY}}}")), 6, "is no name"),
        (
            format!(
                "    paxos_people:\n      a: {{rights: read, key: {KEY}}}\n      b: {{rights: \
                 write, key: {KEY}}}\n"
            ),
            7,
            "the key of a",
        ),
    ];
    for (text, line, part) in table {
        let error = load(&three(&text, ["", "", ""])).expect_err(part);
        let named = error
            .problems
            .iter()
            .any(|problem| problem.line == line && problem.to_string().contains(part));
        assert!(named, "{part} on line {line}: {error}");
    }
    let own = format!("      paxos_people: {{a: {{rights: read, key: {KEY}}}}}\n");
    let error = load(&three("", ["", &own, ""])).expect_err("one host has another list");
    assert!(error.to_string().contains("another paxos_people"), "{error}");
}

#[test]
fn what_stands_there_twice_is_named_with_its_line() {
    let error = load(&three("", ["", "      paxos_port: 1\n", ""])).expect_err("a port twice");
    let problem = &error.problems[0];
    assert_eq!(problem.line, 12, "{error}");
    assert!(problem.to_string().contains("\"paxos_port\" stands here a second time"), "{error}");
}
