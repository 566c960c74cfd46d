//! What a client of a node sees: bytes, exit statuses and errors of every verb, batches, the
//! subsystem for programs. The node behind is a small imitation, so each answer can be known in
//! advance.

mod backend;

use backend::{Fake, Mood};
use bytes::{Bytes, BytesMut};
use paxos_ssh::node::recorder::{Detail, Peers, Recorded};
use paxos_ssh::node::status::Health;
use paxos_ssh::paxos::ballot::{NodeId, ProposalNumber, Slot};
use paxos_ssh::store::command::Condition;
use paxos_ssh::transport::identity::Principal;
use paxos_ssh::transport::rights::Rights;
use paxos_ssh::transport::session::{Attachment, ExecRequest, ExecSession, OutputEvent};
use paxos_ssh::wire::event::{Direction, Moment, ProtocolEvent, What};
use paxos_ssh::wire::failure::Code;
use paxos_ssh::wire::frame::{FrameDecoder, FrameKind, put_frame};
use paxos_ssh::wire::report::JsonId;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::rpc::{self, Call, Reply, Request};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinHandle;

/// What a client got.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    exit: u32,
    out: Vec<u8>,
    err: String,
}

impl Got {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap()
    }
}

fn person(rights: &[&str], force_command: Option<&str>) -> Principal {
    Principal::Person {
        name: "alice".into(),
        serial: Some(1),
        rights: Rights::from_words(rights.iter().copied()).unwrap(),
        force_command: force_command.map(str::to_owned),
    }
}

fn open(fake: &Fake, principal: Principal, request: ExecRequest) -> (Attachment, JoinHandle<()>) {
    let source = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let (session, far) = ExecSession::detached(principal, source, request);
    let api = fake.api();
    (far, tokio::spawn(async move { api.serve(session).await }))
}

fn open_command(fake: &Fake, command: &str) -> (Attachment, JoinHandle<()>) {
    open(fake, person(&["admin"], None), ExecRequest::Exec(command.as_bytes().to_vec()))
}

/// Reads to the end; a session that does not end fails the test.
async fn collect(far: &mut Attachment) -> Got {
    let mut got = Got { exit: u32::MAX, out: Vec::new(), err: String::new() };
    let all = async {
        loop {
            match far.next().await.expect("a session ends with an exit status") {
                OutputEvent::Stdout(bytes) => got.out.extend_from_slice(&bytes),
                OutputEvent::Stderr(bytes) => got.err += std::str::from_utf8(&bytes).unwrap(),
                OutputEvent::Exit(exit) => break got.exit = exit,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the session hangs");
    got
}

async fn ask_as(fake: &Fake, principal: Principal, request: ExecRequest, stdin: &[u8]) -> Got {
    let (mut far, _serving) = open(fake, principal, request);
    far.push(stdin).await;
    far.end();
    collect(&mut far).await
}

async fn ask(fake: &Fake, command: &str) -> Got {
    ask_with(fake, command, b"").await
}

async fn ask_with(fake: &Fake, command: &str, stdin: &[u8]) -> Got {
    let request = ExecRequest::Exec(command.as_bytes().to_vec());
    ask_as(fake, person(&["admin"], None), request, stdin).await
}

fn said(out: &str) -> Got {
    Got { exit: 0, out: out.as_bytes().to_vec(), err: String::new() }
}

fn failed(exit: u32, err: &str) -> Got {
    Got { exit, out: Vec::new(), err: err.to_owned() }
}

#[tokio::test]
async fn put_get_delete_for_people() {
    let fake = Fake::new();
    assert_eq!(ask(&fake, "paxos put k v").await, said("revision 1\n"));
    assert_eq!(ask(&fake, "paxos get k").await, said("v\n"));
    assert_eq!(ask(&fake, "paxos get --raw k").await, said("v"));
    assert_eq!(ask(&fake, "paxos put k 'two words'").await, said("revision 2\n"));
    assert_eq!(ask(&fake, "paxos get k").await, said("two words\n"));
    assert_eq!(ask(&fake, "paxos delete k").await, said("revision 3\n"));
    let missing = "paxos: there is no key \"k\" (not_found)\n\
                   hint: \"paxos list --keys-only\" shows which there are\n";
    assert_eq!(ask(&fake, "paxos get k").await, failed(3, missing));
    assert_eq!(ask(&fake, "paxos delete k").await, failed(3, missing));
}

#[tokio::test]
async fn put_get_delete_for_programs() {
    let fake = Fake::new();
    let got = ask(&fake, "paxos put k v -o json").await;
    assert_eq!(got, said("{\"ok\":true,\"key\":\"k\",\"revision\":1}\n"));
    let got = ask(&fake, "paxos --json get k").await;
    let fields = "\"revision\":1,\"create_revision\":1,\"version\":1";
    assert_eq!(got, said(&format!("{{\"ok\":true,\"key\":\"k\",\"value\":\"v\",{fields}}}\n")));
    fake.set(b"\xff", b"\xfe\x00");
    let got = ask(&fake, "paxos list -o json").await;
    assert_eq!(
        got.json(),
        json!({
            "ok": true, "revision": 2, "more": false,
            "items": [
                {"key": "k", "value": "v", "revision": 1, "create_revision": 1, "version": 1},
                {"key_base64": "/w==", "value_base64": "/gA=", "revision": 2, "create_revision": 2,
                 "version": 1},
            ]
        })
    );
    let got = ask(&fake, "paxos delete k --json").await;
    assert_eq!(got, said("{\"ok\":true,\"key\":\"k\",\"revision\":3}\n"));
    let got = ask(&fake, "paxos get k --json").await;
    assert_eq!((got.exit, got.err.as_str()), (3, ""));
    assert_eq!(
        got.text(),
        "{\"ok\":false,\"error\":{\"code\":\"not_found\",\"message\":\"there is no key \\\"k\\\"\",\
         \"hint\":\"\\\"paxos list --keys-only\\\" shows which there are\"}}\n"
    );
}

#[tokio::test]
async fn conditions_are_negative_answers() {
    let fake = Fake::new();
    assert_eq!(ask(&fake, "paxos put k 1 --if-value 0").await.exit, 3);
    assert_eq!(ask(&fake, "paxos put k 1 --if-absent").await.exit, 0);
    let got = ask(&fake, "paxos put k 2 --if-absent").await;
    assert_eq!(
        got,
        failed(
            3,
            "paxos: the condition on \"k\" does not hold: it was last changed at revision 1; \
             nothing was written (condition_failed)\n\
             hint: read the key again, and retry with what it holds now\n"
        )
    );
    assert_eq!(ask(&fake, "paxos put k 2 --if-value 1").await, said("revision 2\n"));
    assert_eq!(ask(&fake, "paxos put k 3 --if-revision 1").await.exit, 3);
    assert_eq!(ask(&fake, "paxos put k 3 --if-revision 2").await, said("revision 3\n"));
    let got = ask(&fake, "paxos delete k --if-revision 2 --json").await;
    assert_eq!((got.exit, &got.json()["error"]["revision"]), (3, &json!(3)));
    let got = ask(&fake, "paxos delete other --if-value x --json").await;
    assert_eq!(got.json()["error"]["code"], "condition_failed");
    assert_eq!(got.json()["error"].get("revision"), None);
}

#[tokio::test]
async fn standard_input_keeps_every_byte() {
    let fake = Fake::new();
    let bytes: Vec<u8> = (0..=255).chain(*b"{\"a\": 1}\r\n\n").collect();
    assert_eq!(ask_with(&fake, "paxos put k -", &bytes).await, said("revision 1\n"));
    assert_eq!(fake.value(b"k").unwrap(), bytes);
    assert_eq!(ask(&fake, "paxos get k --raw").await.out, bytes);
    assert_eq!(ask_with(&fake, "paxos put empty -", b"").await, said("revision 2\n"));
    assert_eq!(fake.value(b"empty").unwrap(), b""[..]);
}

#[tokio::test]
async fn a_value_at_the_limit_passes_and_one_above_is_too_large() {
    let fake = Fake::new();
    let value = vec![7; (1 << 20) + 1];
    assert_eq!(ask_with(&fake, "paxos put k -", &value[1..]).await.exit, 0);
    assert_eq!(ask(&fake, "paxos get k --raw").await.out, value[1..]);
    let (mut far, serving) = open_command(&fake, "paxos put big - --json");
    far.push(&value).await;
    // The input has not ended: the answer does not wait for the rest of it.
    let got = collect(&mut far).await;
    assert_eq!((got.exit, &got.json()["error"]["code"]), (64, &json!("too_large")));
    assert_eq!(fake.value(b"big"), None);
    serving.await.unwrap();
}

#[tokio::test]
async fn lists_for_people() {
    let fake = Fake::new();
    for (key, value) in [("/a/1", "x"), ("/a/2", "tab\there\x1b[2J"), ("/b", "z")] {
        fake.set(key.as_bytes(), value.as_bytes());
    }
    assert_eq!(ask(&fake, "paxos list /a/").await.text(), "/a/1\tx\n/a/2\ttab\\there\\u{1b}[2J\n");
    assert_eq!(ask(&fake, "paxos list --keys-only").await.text(), "/a/1\n/a/2\n/b\n");
    assert_eq!(ask(&fake, "paxos list --keys-only --after /a/1").await.text(), "/a/2\n/b\n");
    assert_eq!(ask(&fake, "paxos list --keys-only --limit 2").await.text(), "/a/1\n/a/2\n");
    assert_eq!(ask(&fake, "paxos list /nothing").await, said(""));
    let got = ask(&fake, "paxos list --limit 2 --keys-only -o json").await.json();
    assert_eq!((got["more"].clone(), got["items"].as_array().unwrap().len()), (json!(true), 2));
    assert_eq!(got["items"][0].get("value"), None);
    let got = ask(&fake, "paxos list --limit 3 -o json").await.json();
    assert_eq!(got["more"], json!(false));
}

#[tokio::test]
async fn long_lists_are_streamed_whole() {
    let fake = Fake::new();
    for number in 0..3000 {
        fake.set(format!("k{number:05}").as_bytes(), &[b'v'; 300]);
    }
    let got = ask(&fake, "paxos list").await;
    assert_eq!(got.text().lines().count(), 3000);
    let got = ask(&fake, "paxos list -o json").await.json();
    assert_eq!(got["items"].as_array().unwrap().len(), 3000);
    assert_eq!(got["items"][2999]["key"], "k02999");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_waited_for_and_one_that_leaves_is_not() {
    let fake = Fake::new();
    for number in 0..3000 {
        fake.set(format!("k{number:05}").as_bytes(), &[b'v'; 1000]);
    }
    let (mut far, serving) = open_command(&fake, "paxos list");
    let first = far.next().await;
    assert!(matches!(first, Some(OutputEvent::Stdout(_))));
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!serving.is_finished(), "the whole list went into some buffer");
    drop(far);
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("still waits").unwrap();
}

#[tokio::test]
async fn an_interrupt_ends_a_waiting_request_with_130() {
    let fake = Fake::new();
    let (mut far, _serving) = open_command(&fake, "paxos put held v");
    while fake.proposed() == 0 {
        tokio::task::yield_now().await;
    }
    far.interrupt();
    assert_eq!(collect(&mut far).await, failed(130, ""));
}

#[tokio::test]
async fn the_node_s_refusals_have_their_codes() {
    let fake = Fake::new();
    fake.set(b"k", b"v");
    for (mood, code, exit) in [
        (Mood::NoQuorum, "no_quorum", 69),
        (Mood::Unknown, "unknown_outcome", 74),
        (Mood::Busy, "busy", 75),
    ] {
        fake.mood(mood);
        for command in ["paxos put k v", "paxos get k", "paxos list", "paxos leader resign"] {
            let got = ask(&fake, &format!("{command} -o json")).await;
            assert_eq!((got.exit, &got.json()["error"]["code"]), (exit, &json!(code)), "{command}");
            assert_ne!(got.json()["error"]["hint"], json!(""));
        }
        assert_eq!(ask(&fake, "paxos get k --consistency local").await, said("v\n"));
        assert_eq!(ask(&fake, "paxos status -o json").await.exit, 0);
    }
}

/// A node that says nothing at all must not keep a client waiting for ever.
#[tokio::test]
async fn a_silent_node_is_given_up_after_the_deadline() {
    let fake = Fake::new();
    fake.mood(Mood::Silent);
    assert_eq!(ask(&fake, "paxos put k v --timeout 10ms").await.exit, 74);
    assert_eq!(ask(&fake, "paxos get k --timeout 10ms").await.exit, 69);
}

#[tokio::test]
async fn request_ids_reach_the_node() {
    let fake = Fake::new();
    assert_eq!(ask(&fake, "paxos put k 1 --request-id r1").await, said("revision 1\n"));
    assert_eq!(ask(&fake, "paxos put k 2").await, said("revision 2\n"));
    assert_eq!(ask(&fake, "paxos put k 1 --request-id r1").await, said("revision 1\n"));
    assert_eq!(fake.value(b"k").unwrap(), b"2"[..]);
}

#[tokio::test]
async fn a_request_id_serves_one_request() {
    let fake = Fake::new();
    assert_eq!(ask(&fake, "paxos put k 1 --request-id r1").await, said("revision 1\n"));
    let other = ask(&fake, "paxos put k 2 --request-id r1 -o json").await;
    assert_eq!(other.exit, 64);
    let error = &other.json()["error"];
    assert_eq!(error["code"], "usage");
    assert!(error["message"].as_str().unwrap().contains("nothing was written"), "{error}");
    assert_eq!(fake.value(b"k").unwrap(), b"1"[..]);
}

#[tokio::test]
async fn rights_are_asked_before_anything_is_proposed() {
    let fake = Fake::new();
    fake.set(b"/app1/k", b"v");
    fake.set(b"/app10/k", b"secret");
    let app = || person(&["write:/app1/"], None);
    let ask = |command: &str, principal| {
        let (fake, request) = (fake.clone(), ExecRequest::Exec(command.as_bytes().to_vec()));
        async move { ask_as(&fake, principal, request, b"").await }
    };
    assert_eq!(ask("paxos put /app1/k w", app()).await.exit, 0);
    assert_eq!(ask("paxos get /app1/k", app()).await, said("w\n"));
    assert_eq!(ask("paxos list /app1/", app()).await, said("/app1/k\tw\n"));
    let before = fake.proposed();
    for command in [
        "paxos put /app10/k w",
        "paxos get /app10/k",
        "paxos delete /app10/k",
        "paxos list",
        "paxos list /app1",
        "paxos logs",
        "paxos logs --protocol",
        "paxos logs -f",
        "paxos trace 8",
        "paxos leader resign",
        "paxos trust publish",
    ] {
        for principal in [app(), Principal::Node { id: NodeId(2) }] {
            let got = ask(command, principal).await;
            assert_eq!(got.exit, 77, "{command}: {got:?}");
            assert!(got.err.contains("(denied)") && got.out.is_empty(), "{command}: {got:?}");
        }
    }
    assert_eq!(fake.proposed(), before);
    assert_eq!(fake.transfers(), []);
    let reader = || person(&["read"], None);
    assert_eq!(ask("paxos get /app10/k", reader()).await, said("secret\n"));
    assert_eq!(ask("paxos put /app10/k w", reader()).await.exit, 77);
    assert_eq!(ask("paxos status", reader()).await.exit, 0);
    assert_eq!(ask("paxos put x y", Principal::Local).await.exit, 0);
    assert_eq!(
        ask("paxos put /x y", app()).await.err,
        "paxos: alice may not write \"/x\" (denied)\n\
         hint: use a key with the right write, or write:PREFIX for a prefix of it\n"
    );
}

#[tokio::test]
async fn a_forced_command_takes_the_place_of_any_other() {
    let fake = Fake::new();
    fake.set(b"k", b"v");
    for request in [
        ExecRequest::Exec(b"paxos put k w".to_vec()),
        ExecRequest::Shell,
        ExecRequest::Subsystem("paxos-rpc".into()),
    ] {
        let got = ask_as(&fake, person(&["admin"], Some("paxos get k")), request, b"").await;
        assert_eq!(got, said("v\n"));
    }
    assert_eq!(fake.value(b"k").unwrap(), b"v"[..]);
}

#[tokio::test]
async fn no_command_and_unknown_subsystems_are_usage_errors() {
    let fake = Fake::new();
    let admin = || person(&["admin"], None);
    let got = ask_as(&fake, admin(), ExecRequest::Shell, b"").await;
    assert_eq!(
        got,
        failed(
            64,
            "There is no shell here. Give a command: ssh NODE paxos status\n\
             All commands: ssh NODE paxos help\n"
        )
    );
    let got = ask_as(&fake, admin(), ExecRequest::Subsystem("sftp".into()), b"").await;
    assert_eq!(got.exit, 64);
    assert!(got.err.starts_with("paxos: there is no subsystem \"sftp\" here (usage)\n"));
    let got = ask(&fake, "paxos sttaus").await;
    assert_eq!(
        got,
        failed(
            64,
            "paxos: there is no verb \"sttaus\" (usage)\n\
             hint: did you mean status? \"paxos help\" lists the verbs\n"
        )
    );
    let got = ask(&fake, "paxos -o json sttaus").await;
    assert_eq!((got.exit, &got.json()["error"]["code"]), (64, &json!("usage")));
}

#[tokio::test]
async fn status_in_both_forms() {
    let fake = Fake::new();
    let got = ask(&fake, "paxos status -o json").await;
    let report = got.json();
    assert_eq!(
        report["quorum"],
        json!({
            "phase1": 2, "phase2": 2, "acceptors": 3, "reachable": 2,
            "unreachable_members":
                [{"name": "node3", "since_seconds": 12.0, "error": "connection refused"}],
        })
    );
    assert_eq!(
        report["members"][1],
        json!({
            "name": "node2", "id": "2", "roles": ["proposer", "acceptor", "learner"],
            "address": "127.0.0.1:7102", "state": "up", "rtt_seconds": 0.00018,
            "chosen_slot": 10, "applied_slot": null, "last_heard_seconds": 0.0,
        })
    );
    let names: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = vec![
        "ok",
        "cluster",
        "cluster_id",
        "node",
        "id",
        "roles",
        "state",
        "leader",
        "ballot",
        "chosen_slot",
        "applied_slot",
        "revision",
        "quorum",
        "members",
        "health",
        "why",
        "next",
        "stalled",
        "bundle",
        "certificates",
        "age_seconds",
        "uptime_seconds",
        "version",
        "cluster_version",
        "cluster_versions",
    ];
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    assert_eq!(report["ballot"], json!({"number": "301", "counter": 3, "proposer": 1}));
    assert_eq!(report["cluster_id"], "00000000000000000000000000000abc");
    assert_eq!((&report["uptime_seconds"], &report["stalled"]), (&json!(61.5), &json!([])));

    let got = ask(&fake, "paxos status").await;
    assert!(got.text().contains("\nwhy      node3 cannot be reached\nnext     start node3\n"));
    let members = ask(&fake, "paxos members").await;
    assert!(got.text().ends_with(members.text()) && members.text().starts_with("NAME"));
    assert_eq!(ask(&fake, "paxos members --json").await.json()["members"], report["members"]);
}

#[tokio::test]
async fn exit_statuses_tell_the_health() {
    let fake = Fake::new();
    for (health, word, status, serving) in [
        (Health::Healthy, "healthy", 0, 0),
        (Health::Degraded, "degraded", 2, 0),
        (Health::NoQuorum, "no_quorum", 69, 69),
    ] {
        fake.health(health);
        assert_eq!(ask(&fake, "paxos status").await.exit, status);
        let got = ask(&fake, "paxos health").await;
        assert_eq!((got.exit, got.text()), (serving, format!("{word}\n").as_str()));
        let got = ask(&fake, "paxos health --json").await;
        let report = got.json();
        assert_eq!((&report["ok"], &report["health"]), (&json!(true), &json!(word)));
        assert!(report["why"].is_string() && report["stalled"] == json!([]), "{report}");
    }
}

#[tokio::test]
async fn leaders() {
    let fake = Fake::new();
    assert_eq!(ask(&fake, "paxos leader").await, said("node1\n"));
    let got = ask(&fake, "paxos leader --json").await;
    assert_eq!(got.json(), json!({"ok": true, "leader": "node1", "id": "1"}));
    assert_eq!(ask(&fake, "paxos leader transfer node3").await, said("node3\n"));
    assert_eq!(ask(&fake, "paxos leader transfer 3").await, said("node3\n"));
    assert_eq!(ask(&fake, "paxos leader resign").await, said("node2\n"));
    assert_eq!(fake.transfers(), [Some(NodeId(3)), Some(NodeId(3)), None]);
    let got = ask(&fake, "paxos leader transfer node9").await;
    assert_eq!(
        got,
        failed(
            3,
            "paxos: no member is called \"node9\" (not_found)\n\
             hint: the members are node1, node2, node3\n"
        )
    );
    fake.health(Health::NoQuorum);
    assert_eq!(ask(&fake, "paxos leader").await.exit, 3);
}

#[tokio::test]
async fn metrics_logs_version_help() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("paxos.log");
    std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
    let fake = Fake::new();
    let api = fake.api_with_log(log);
    let ask = |command: &'static str| {
        let api = api.clone();
        async move {
            let source = SocketAddr::from(([127, 0, 0, 1], 1));
            let request = ExecRequest::Exec(command.as_bytes().to_vec());
            let (session, mut far) =
                ExecSession::detached(person(&["admin"], None), source, request);
            api.serve(session).await;
            collect(&mut far).await
        }
    };
    assert_eq!(ask("paxos logs --lines 2").await, said("two\nthree\n"));
    assert_eq!(
        ask("paxos logs --lines 1 --json").await.json(),
        json!({"ok": true, "lines": ["three"]})
    );
    assert!(ask("paxos metrics").await.text().ends_with("# EOF\n"));
    assert!(ask("paxos metrics --json").await.json()["metrics"].is_string());
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(ask("paxos version").await, said(&format!("{version}\n")));
    assert_eq!(ask("paxos version --json").await.json(), json!({"ok": true, "version": version}));
    assert_eq!(ask("paxos trust").await, said("the bundle\n"));
    assert_eq!(ask("paxos trust publish").await, said("3\n"));
    assert_eq!(ask("paxos trust destroy").await.exit, 64);
    assert!(ask("paxos help").await.text().contains("\n  status  "));
    assert!(ask("paxos put -h").await.text().starts_with("put: store a value"));
}

fn lines(got: &Got) -> Vec<Value> {
    got.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_batch_answers_every_line_in_order() {
    let fake = Fake::new();
    let input =
        b"put k v\n\n# a comment\n@r get k\n  get missing\nget\n@s put k 'two words'\nget k\n\
          put k -\nleader\nlist --keys-only";
    let got = ask_with(&fake, "paxos batch", input).await;
    assert_eq!((got.exit, got.err.as_str()), (0, ""));
    let answers = lines(&got);
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(json!(ids), json!([1, "r", 5, 6, "s", 8, 9, 10, 11]));
    assert_eq!(answers[0], json!({"id": 1, "ok": true, "key": "k", "revision": 1}));
    assert_eq!(answers[1]["value"], "v");
    assert_eq!(answers[2]["error"]["code"], "not_found");
    assert_eq!(answers[3]["error"]["code"], "usage");
    assert_eq!(answers[5]["value"], "two words");
    assert_eq!(answers[6]["error"]["code"], "usage");
    assert_eq!(answers[7], json!({"id": 10, "ok": true, "leader": "node1", "node_id": "1"}));
    assert_eq!(answers[8]["items"][0]["key"], "k");
}

#[tokio::test]
async fn a_window_runs_lines_at_once_and_keeps_the_order() {
    let fake = Fake::new();
    let (mut far, _serving) = open_command(&fake, "paxos batch --window 3");
    far.push(b"put held 1\nput b 2\nput c 3\nput d 4\n").await;
    far.end();
    while fake.value(b"c").is_none() {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.value(b"d"), None, "more than the window ran at once");
    fake.gate.add_permits(1);
    let got = collect(&mut far).await;
    let keys: Vec<Value> = lines(&got).iter().map(|answer| answer["key"].clone()).collect();
    assert_eq!(keys, ["held", "b", "c", "d"]);
    assert_eq!(fake.running_most(), 3);
}

#[tokio::test]
async fn without_a_window_each_line_sees_the_one_before() {
    let fake = Fake::new();
    let input: String = (1..=200).map(|n| format!("put k {n} --if-revision {}\n", n - 1)).collect();
    let got = ask_with(&fake, "paxos batch", input.as_bytes()).await;
    assert!(lines(&got).iter().all(|answer| answer["ok"] == json!(true)));
    assert_eq!(fake.running_most(), 1);
}

/// Somebody types: each answer comes before the next line is sent.
#[tokio::test]
async fn a_batch_answers_while_its_input_is_open() {
    let fake = Fake::new();
    let (mut far, _serving) = open_command(&fake, "paxos batch --window 16");
    for number in 1..=3 {
        far.push(format!("put k {number}\n").as_bytes()).await;
        let answer = tokio::time::timeout(Duration::from_secs(10), far.next()).await.unwrap();
        let Some(OutputEvent::Stdout(bytes)) = answer else { panic!("{answer:?}") };
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(answer["revision"], number);
    }
    far.interrupt();
    assert_eq!(collect(&mut far).await.exit, 130);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_answered_and_the_next_one_too() {
    let fake = Fake::new();
    let mut input = b"put a 1\n@long put b ".to_vec();
    input.resize(input.len() + (3 << 20), b'x');
    input.extend_from_slice(b"\nput c 3\n");
    input.resize(input.len() + (3 << 20), b'y');
    let got = ask_with(&fake, "paxos batch", &input).await;
    let answers = lines(&got);
    assert_eq!(answers.len(), 4);
    assert_eq!(
        (&answers[1]["id"], &answers[1]["error"]["code"]),
        (&json!("long"), &json!("too_large"))
    );
    assert_eq!((&answers[2]["id"], &answers[2]["ok"]), (&json!(3), &json!(true)));
    assert_eq!((&answers[3]["id"], &answers[3]["error"]["code"]), (&json!(4), &json!("too_large")));
}

#[tokio::test]
async fn a_batch_of_many_lines_and_a_slow_reader() {
    let fake = Fake::new();
    let (mut far, serving) = open_command(&fake, "paxos batch --window 64");
    let input: String = (0..20_000).map(|n| format!("put k{n} {n}\n")).collect();
    let (input_end, mut output) = far.streams();
    let give = async {
        input_end.push(input.as_bytes()).await;
        input_end.end();
    };
    let take = async {
        let mut out = Vec::new();
        loop {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            match output.next().await.unwrap() {
                OutputEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
                OutputEvent::Stderr(bytes) => panic!("{bytes:?}"),
                OutputEvent::Exit(exit) => return (exit, out),
            }
        }
    };
    let ((), (exit, out)) = tokio::join!(give, take);
    let answers: Vec<Value> = out
        .split(|&b| b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!((exit, answers.len()), (0, 20_000));
    assert!(answers.iter().enumerate().all(|(n, answer)| answer["id"] == json!(n + 1)));
    serving.await.unwrap();
}

fn rpc_frame(id: u64, call: Call) -> Bytes {
    let mut body = Vec::new();
    rpc::encode_request(&Request { id, timeout: Duration::from_secs(5), call }, &mut body);
    let mut out = BytesMut::new();
    put_frame(&mut out, FrameKind::Request, &body);
    out.freeze()
}

fn rpc_put(id: u64, key: &str) -> Bytes {
    rpc_frame(
        id,
        Call::Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::from_static(b"v"),
            condition: Condition::Always,
            request_id: None,
        },
    )
}

fn rpc_get(id: u64, key: &str) -> Bytes {
    let key = Bytes::copy_from_slice(key.as_bytes());
    rpc_frame(id, Call::Get { key, consistency: Consistency::Linearizable })
}

fn rpc_answers(bytes: &[u8]) -> Vec<(u64, Result<Reply, paxos_ssh::wire::failure::Failure>)> {
    let mut decoder = FrameDecoder::new();
    let mut input = bytes;
    let mut answers = Vec::new();
    while let Some(frame) = decoder.next(&mut input).unwrap() {
        assert_eq!(frame.kind, FrameKind::Answer);
        answers.push(rpc::decode_answer(&frame.body).unwrap());
    }
    answers
}

fn rpc_subsystem() -> ExecRequest {
    ExecRequest::Subsystem("paxos-rpc".into())
}

#[tokio::test]
async fn programs_have_many_requests_under_way() {
    let fake = Fake::new();
    let (mut far, _serving) = open(&fake, person(&["admin"], None), rpc_subsystem());
    let mut input = Vec::new();
    input.extend_from_slice(&rpc_put(1, "held"));
    for id in 2..=5000 {
        input.extend_from_slice(&rpc_put(id, &format!("k{id}")));
    }
    // In pieces that cut frames anywhere.
    let (input_end, mut output) = far.streams();
    let give = async {
        for piece in input.chunks(1009) {
            input_end.push(piece).await;
        }
    };
    let take = async {
        let mut out = Vec::new();
        let mut answers = Vec::new();
        while answers.len() < 4999 {
            match output.next().await.unwrap() {
                OutputEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
            answers = rpc_answers(&out);
        }
        answers
    };
    let ((), answers) = tokio::join!(give, take);
    let mut ids: Vec<u64> = answers.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (2..=5000).collect::<Vec<_>>(), "all but the one that is held");
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Ok(Reply::Written { .. }))));
    assert!((2..=1024).contains(&fake.running_most()), "{}", fake.running_most());
    fake.gate.add_permits(1);
    far.push(&rpc_get(6000, "k7")).await;
    far.end();
    let got = collect(&mut far).await;
    let rest = rpc_answers(&got.out);
    assert_eq!((got.exit, rest.len()), (0, 2));
    assert!(rest.iter().any(|(id, answer)| *id == 6000
        && matches!(answer, Ok(Reply::Value { value, .. }) if value == "v")));
}

#[tokio::test]
async fn programs_get_failures_as_answers() {
    let fake = Fake::new();
    let mut input = rpc_put(1, "").to_vec();
    input.extend_from_slice(&rpc_get(2, "missing"));
    input.extend_from_slice(&rpc_get(3, &"k".repeat(5000)));
    input.extend_from_slice(&rpc_put(4, "/elsewhere"));
    let got = ask_as(&fake, person(&["read", "write:/app1/"], None), rpc_subsystem(), &input).await;
    let mut answers = rpc_answers(&got.out);
    answers.sort_by_key(|(id, _)| *id);
    let codes: Vec<Code> =
        answers.into_iter().map(|(_, answer)| answer.unwrap_err().code).collect();
    assert_eq!(codes, [Code::Usage, Code::NotFound, Code::TooLarge, Code::Denied]);
    assert_eq!((got.exit, fake.proposed()), (0, 0));
}

#[tokio::test]
async fn a_stream_that_is_none_ends_with_65() {
    let fake = Fake::new();
    for garbage in
        [&b"GET / HTTP/1.1\r\n"[..], b"\0\0\0\x05\x01\x02abc", b"\0\0\0\x05\x01\x03\x01\x01\xc1"]
    {
        let got = ask_as(&fake, person(&["admin"], None), rpc_subsystem(), garbage).await;
        assert_eq!(got.exit, 65, "{got:?}");
        assert!(got.err.contains("cannot be read any further"), "{got:?}");
    }
}

fn recorded(first: u64) -> Recorded {
    Recorded {
        at: Duration::from_micros(1_795_568_523_000_000 + first),
        direction: Direction::Sent,
        what: What::Accept,
        peers: Peers::Many([NodeId(2), NodeId(9)].into()),
        ballot: Some(ProposalNumber::from_raw(101)),
        first: Some(Slot(first)),
        last: Some(Slot(first + 2)),
        detail: Detail::None,
    }
}

fn line(first: u64) -> String {
    let last = first + 2;
    format!(
        "01:02:03.{first:06} node1  → node2 n9     Accept    ballot 101, slots {first}..{last}\n"
    )
}

#[tokio::test]
async fn the_protocol_is_shown_line_by_line() {
    let fake = Fake::new();
    assert_eq!(ask(&fake, "paxos logs --protocol").await, said(""));
    (1..=7).for_each(|first| fake.record(recorded(first)));
    fake.forget(1);
    let all: String = (2..=7).map(line).collect();
    assert_eq!(ask(&fake, "paxos logs --protocol").await, said(&all));
    let last = line(6) + &line(7);
    assert_eq!(ask(&fake, "paxos logs --protocol --lines 2 --node node1").await, said(&last));
    let got = ask(&fake, "paxos logs --protocol --grep 'SLOTS 5..' --lines 1").await;
    assert_eq!(got, said(&line(5)));
    let got = ask(&fake, "paxos logs --protocol --lines 1 -o json").await;
    let object = "{\"at\":\"2026-11-25T01:02:03.000007Z\",\"node\":\"node1\",\"seq\":6,\
                  \"event\":\"sent\",\"what\":\"accept\",\"peers\":[\"node2\",\"n9\"],\
                  \"ballot\":\"101\",\"counter\":1,\"proposer\":1,\"first\":7,\"last\":9}\n";
    assert_eq!(got, said(object));
    let got = ask_with(&fake, "paxos batch", b"logs --protocol --lines 2\nlogs -f\n").await;
    let answers: Vec<Value> =
        got.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers[0]["events"].as_array().map(Vec::len), Some(2), "{answers:?}");
    assert_eq!(answers[1]["error"]["code"], "usage");
    assert_eq!(ask(&fake, "paxos logs --protocol --node node2").await.exit, 64);
    fake.mood(Mood::Busy);
    assert_eq!(ask(&fake, "paxos logs --protocol").await.exit, 75);
}

/// Reads standard output until it holds that much.
async fn read_until(far: &mut Attachment, expected: &str) {
    let mut out = String::new();
    let reading = async {
        while out.len() < expected.len() {
            match far.next().await.expect("it goes on") {
                OutputEvent::Stdout(bytes) => out += std::str::from_utf8(&bytes).unwrap(),
                other => panic!("{other:?} after {out}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("nothing comes");
    assert_eq!(out, expected);
}

#[tokio::test]
async fn what_is_followed_goes_on_until_an_interrupt() {
    let fake = Fake::new();
    (1..=3).for_each(|first| fake.record(recorded(first)));
    let (mut far, _serving) = open_command(&fake, "paxos logs --protocol -f --lines 1");
    read_until(&mut far, &line(3)).await;
    (4..=9).for_each(|first| fake.record(recorded(first)));
    read_until(&mut far, &(4..=9).map(line).collect::<String>()).await;
    far.interrupt();
    assert_eq!(collect(&mut far).await, Got { exit: 130, out: Vec::new(), err: String::new() });
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_lost() {
    let fake = Fake::new();
    fake.record(recorded(1));
    let (mut far, _serving) = open_command(&fake, "paxos logs --protocol -f");
    read_until(&mut far, &line(1)).await;
    // More than are read at once, and gone before they are.
    fake.overrun((2..=9).map(recorded).collect(), 8);
    let told = "paxos: 7 events were lost to this slow reader\n";
    let next = tokio::time::timeout(Duration::from_secs(20), far.next()).await.unwrap();
    assert_eq!(next, Some(OutputEvent::Stderr(told.into())));
    read_until(&mut far, &line(9)).await;
}

#[tokio::test]
async fn a_log_file_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("paxos.log");
    std::fs::write(&log, "one\ntwo\n").unwrap();
    let api = Fake::new().api_with_log(log.clone());
    let source = SocketAddr::from(([127, 0, 0, 1], 1));
    let request = ExecRequest::Exec(b"paxos logs -f --lines 1 --grep T".to_vec());
    let (session, mut far) = ExecSession::detached(person(&["admin"], None), source, request);
    let _serving = tokio::spawn(async move { api.serve(session).await });
    read_until(&mut far, "two\n").await;
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"three\nseven\nten\n").unwrap();
    read_until(&mut far, "three\nten\n").await;
    far.interrupt();
    assert_eq!(collect(&mut far).await.exit, 130);
}

#[tokio::test]
async fn a_slot_is_traced() {
    let fake = Fake::new();
    let event = |node: &str, at: u64, event, what, peer: &str| ProtocolEvent {
        at: Moment(at),
        node: node.to_owned(),
        seq: None,
        event,
        what,
        peers: vec![peer.to_owned()],
        ballot: Some(JsonId(101)),
        counter: Some(1),
        proposer: Some(1),
        first: Some(8),
        last: Some(9),
        votes: None,
        promised: None,
        detail: None,
    };
    fake.traced(vec![
        event("node2", 30, Direction::Local, What::Learned, ""),
        event("node1", 10, Direction::Sent, What::Accept, "node2"),
        event("node1", 20, Direction::Sent, What::Accepted, "node1"),
        event("node2", 20, Direction::Sent, What::Accepted, "node1"),
    ]);
    let got = ask(&fake, "paxos trace 8 -o json").await.json();
    assert_eq!((&got["ok"], &got["slot"]), (&json!(true), &json!(8)));
    assert_eq!(got["events"].as_array().map(Vec::len), Some(4));
    assert_eq!(got["summary"]["voters"], json!(["node1", "node2"]));
    let learned = json!([{"node": "node2", "after_seconds": 0.00002}]);
    assert_eq!(got["summary"]["learned"], learned);
    assert_eq!((&got["silent"], &got["forgotten"]), (&json!(["node3"]), &json!(["node4"])));
    let text = ask(&fake, "paxos trace 8").await;
    assert!(text.text().contains("slot 8: chosen under ballot 101, proposed by node1"), "{text:?}");
    let old = ask(&fake, "paxos trace 7").await;
    assert_eq!(old.exit, 3);
    assert!(old.err.contains("older than what the recorders keep"), "{}", old.err);
    let new = ask(&fake, "paxos trace 11").await;
    assert!(new.exit == 3 && new.err.contains("slots up to 10 are chosen"), "{}", new.err);
}
