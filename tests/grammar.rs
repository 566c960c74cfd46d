//! The words of `paxos …`: what they mean, what is refused and in which words, and that no input
//! whatever makes the parser panic. The manual is compared with a file; `UPDATE_GOLDEN=1` writes it
//! anew.

use bytes::Bytes;
use paxos_ssh::store::command::Condition;
use paxos_ssh::wire::failure::{Code, Failure};
use paxos_ssh::wire::logs::LogQuery;
use paxos_ssh::wire::request::{
    self, Consistency, Format, Request, TIMEOUT_DEFAULT, ValueSource, Verb,
};
use paxos_ssh::wire::{grammar, help, words};
use proptest::prelude::*;
use std::time::Duration;

fn parse(line: &str) -> Result<Request, Failure> {
    request::parse(&words::split(line.as_bytes()).unwrap())
}

fn verb(line: &str) -> Verb {
    parse(line).unwrap_or_else(|failure| panic!("{line}: {failure:?}")).verb
}

fn put(key: &str, value: &str, condition: Condition) -> Verb {
    Verb::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: ValueSource::Given(Bytes::copy_from_slice(value.as_bytes())),
        condition,
        request_id: None,
    }
}

#[test]
fn verbs_without_operands() {
    assert_eq!(verb("status"), Verb::Status);
    assert_eq!(verb("health"), Verb::Health);
    assert_eq!(verb("members"), Verb::Members);
    assert_eq!(verb("metrics"), Verb::Metrics);
    assert_eq!(verb("version"), Verb::Version);
    assert_eq!(verb("leader"), Verb::Leader);
    assert_eq!(verb("leader resign"), Verb::Transfer { to: None });
    assert_eq!(verb("leader transfer"), Verb::Transfer { to: None });
    assert_eq!(verb("leader transfer node2"), Verb::Transfer { to: Some("node2".into()) });
    assert_eq!(verb("logs"), Verb::Logs(LogQuery::default()));
    let grep = Some("Accept".to_owned());
    let (protocol, follow, node) = (true, true, Some("a1".to_owned()));
    assert_eq!(
        verb("logs -f --protocol --grep Accept --lines 32768 --node a1"),
        Verb::Logs(LogQuery { lines: 32_768, protocol, grep, follow, node })
    );
    assert!(verb("logs --follow").is_endless() && !verb("logs").is_endless());
    assert_eq!(verb("trace 8"), Verb::Trace { slot: 8 });
    for line in ["logs --lines 32769", "logs --grep ''", "trace", "trace 0", "trace -1", "trace x"]
    {
        assert_eq!(parse(line).unwrap_err().code, Code::Usage, "{line}");
    }
    assert_eq!(verb("logs --lines 7"), Verb::Logs(LogQuery { lines: 7, ..LogQuery::default() }));
    assert_eq!(verb("batch"), Verb::Batch { window: 1 });
    assert_eq!(verb("batch --window=64"), Verb::Batch { window: 64 });
    assert_eq!(verb("help"), Verb::Help(None));
    assert_eq!(verb("help put"), Verb::Help(grammar::verb(b"put")));
    assert_eq!(verb("put --help"), Verb::Help(grammar::verb(b"put")));
    assert_eq!(verb("-h"), Verb::Help(None));
}

#[test]
fn put_in_all_its_forms() {
    assert_eq!(verb("put k v"), put("k", "v", Condition::Always));
    assert_eq!(verb("put k ''"), put("k", "", Condition::Always));
    assert_eq!(verb("put --if-absent k v"), put("k", "v", Condition::Absent));
    let same = Condition::Value(Bytes::from_static(b"a=b"));
    assert_eq!(verb("put k v --if-value=a=b"), put("k", "v", same.clone()));
    assert_eq!(verb("put k v --if-value a=b"), put("k", "v", same));
    assert_eq!(verb("put k v --if-revision 9"), put("k", "v", Condition::Revision(9)));
    assert_eq!(verb("put k v --if-revision 0"), put("k", "v", Condition::Absent));
    assert_eq!(verb("put -- --k -v"), put("--k", "-v", Condition::Always));
    assert!(matches!(verb("put k -"), Verb::Put { value: ValueSource::Stdin, .. }));
    assert!(verb("put k -").reads_stdin() && !verb("put k v").reads_stdin());
    assert!(!verb("put k v").is_repeatable());
    assert!(verb("put k v --request-id a-1").is_repeatable());
}

#[test]
fn reads() {
    let key = Bytes::from_static(b"k");
    let get = |raw, consistency| Verb::Get { key: key.clone(), raw, consistency };
    assert_eq!(verb("get k"), get(false, Consistency::Linearizable));
    assert_eq!(verb("get --raw k --consistency local"), get(true, Consistency::Local));
    assert_eq!(verb("get k --consistency linearizable"), get(false, Consistency::Linearizable));
    assert_eq!(
        verb("list"),
        Verb::List {
            prefix: Bytes::new(),
            after: None,
            limit: None,
            keys_only: false,
            consistency: Consistency::Linearizable,
        }
    );
    assert_eq!(
        verb("list /a --limit 3 --keys-only --after /a/b --consistency=local"),
        Verb::List {
            prefix: Bytes::from_static(b"/a"),
            after: Some(Bytes::from_static(b"/a/b")),
            limit: Some(3),
            keys_only: true,
            consistency: Consistency::Local,
        }
    );
}

#[test]
fn common_flags_stand_before_or_after_the_verb() {
    assert_eq!(parse("status").unwrap().timeout, TIMEOUT_DEFAULT);
    assert_eq!(parse("--timeout 2 status").unwrap().timeout, Duration::from_secs(2));
    assert_eq!(parse("status --timeout=250ms").unwrap().timeout, Duration::from_millis(250));
    assert_eq!(parse("status --timeout 0.5").unwrap().timeout, Duration::from_millis(500));
    assert_eq!(parse("status --timeout 1m30s").unwrap().timeout, Duration::from_secs(90));
    assert_eq!(parse("status").unwrap().format, None);
    for line in ["status -o json", "-ojson status", "status --output=json", "--json status"] {
        assert_eq!(parse(line).unwrap().format, Some(Format::Json), "{line}");
    }
    assert_eq!(parse("status -o table").unwrap().format, Some(Format::Table));
}

/// Every refusal of the grammar, in its words.
#[test]
fn refusals() {
    let cases = [
        ("", "no verb is given", "\"paxos help\" lists the verbs"),
        (
            "stauts",
            "there is no verb \"stauts\"",
            "did you mean status? \"paxos help\" lists the verbs",
        ),
        ("xyzzy", "there is no verb \"xyzzy\"", "\"paxos help\" lists the verbs"),
        (
            "node --config f",
            "there is no verb \"node\"",
            "\"paxos node\" runs a node and is typed on its own machine",
        ),
        ("put", "put misses operands", "write paxos put KEY VALUE or paxos put KEY -"),
        ("get", "get misses its operand", "write paxos get KEY"),
        (
            "put k two words",
            "put got a word too many, \"words\"",
            "write paxos put KEY VALUE or paxos put KEY -. Quotes do not survive ssh: your own \
             shell takes them off and the far end cuts the line at blanks again. Quote twice, as \
             in \"'two words'\", or pipe the value into: put KEY -",
        ),
        (
            "get a b c",
            "get got 2 words too many, from \"b\" on",
            "write paxos get KEY. Quotes do not survive ssh: your own shell takes them off and the \
             far end cuts the line at blanks again. Quote twice, as in \"'two words'\"",
        ),
        ("put '' v", "the key is empty", "a key holds at least one byte"),
        (
            "get k --rwa",
            "--rwa is no flag of get",
            "did you mean --raw? If it is no flag: a key or value that starts with - goes behind \
             --, as in: put -- KEY -1",
        ),
        (
            "put k -v",
            "-v is no flag of put",
            "did you mean --if-value? If it is no flag: a key or value that starts with - goes \
             behind --, as in: put -- KEY -1",
        ),
        (
            "list --prefix a",
            "--prefix is no flag of list",
            "the prefix is a plain word, as in: list PREFIX",
        ),
        (
            "get k --to node1 -F F",
            "--to is no flag of get",
            "-F, --to and --socket are the local program's and go before the verb, as in: paxos \
             -F SSH_CONFIG --to NODE get",
        ),
        (
            "get k -F F",
            "-F is no flag of get",
            "-F, --to and --socket are the local program's and go before the verb, as in: paxos \
             -F SSH_CONFIG --to NODE get",
        ),
        (
            "put k -1",
            "-1 is no flag of put",
            "a key or value that starts with - goes behind --, as in: put -- KEY -1",
        ),
        ("get k --raw=1", "--raw takes no value", "leave out = and the value"),
        (
            "get k --consistency",
            "--consistency misses its value",
            "write --consistency local|linearizable",
        ),
        (
            "get k --consistency eventual",
            "\"eventual\" is no consistency",
            "use --consistency linearizable (the default) or --consistency local",
        ),
        ("get k --raw --raw", "--raw is given twice", "give it once"),
        (
            "put k v --if-absent --if-revision 3",
            "more than one condition is given",
            "use one of --if-absent, --if-value and --if-revision",
        ),
        (
            "put k v --if-revision +3",
            "\"+3\" is no number for --if-revision",
            "use a whole number from 0 on",
        ),
        (
            "batch --window 0",
            "\"0\" is no number for --window",
            "use a whole number from 1 to 1024",
        ),
        (
            "status --timeout soon",
            "\"soon\" is no timeout",
            "write it as 5s, 500ms, 1m30s or plain seconds; above zero, at most 1h",
        ),
        (
            "status --timeout 0",
            "\"0\" is no timeout",
            "write it as 5s, 500ms, 1m30s or plain seconds; above zero, at most 1h",
        ),
        ("status -o xml", "\"xml\" is no output format", "use -o table or -o json"),
        ("status -o table --json", "-o table and --json contradict each other", "give one of them"),
        (
            "put k v --request-id ''",
            "\"\" cannot be an id (--request-id)",
            "use 1 to 128 visible characters without blanks",
        ),
        (
            "leader steal",
            "leader does not take \"steal\" so",
            "write paxos leader or paxos leader transfer [NODE] or paxos leader resign",
        ),
        ("help nothing", "there is no verb \"nothing\"", "\"paxos help\" lists the verbs"),
    ];
    for (line, message, hint) in cases {
        let failure = parse(line).expect_err(line);
        assert_eq!((failure.message.as_str(), failure.hint.as_str()), (message, hint), "{line}");
        assert_eq!(failure.code, Code::Usage, "{line}");
    }
}

#[test]
fn a_verb_to_come_is_told_from_a_slip() {
    for word in ["watch", "lock", "txn", "lease", "elect", "top", "snapshot", "config"] {
        let failure = parse(&format!("{word} k")).unwrap_err();
        assert_eq!(failure.code, Code::Usage, "{word}");
        assert_eq!(failure.message, format!("\"{word}\" is not in this version"));
        assert_eq!(failure.hint, "\"paxos help\" lists the verbs that are");
    }
}

#[test]
fn what_is_over_a_limit_is_too_large() {
    let key = "k".repeat(4097);
    let failure = parse(&format!("get {key}")).unwrap_err();
    assert_eq!((failure.code, failure.code.exit()), (Code::TooLarge, 64));
    assert_eq!(failure.message, "the key has 4097 bytes, more than 4096");
    assert!(parse(&format!("get {}", &key[1..])).is_ok());

    let value = "v".repeat((1 << 20) + 1);
    let failure = parse(&format!("put k {value}")).unwrap_err();
    assert_eq!(failure.code, Code::TooLarge);
    assert_eq!(failure.message, "the value has 1048577 bytes, more than 1048576");
    assert!(parse(&format!("put k {}", &value[1..])).is_ok());
}

#[test]
fn a_command_starts_with_paxos() {
    assert_eq!(request::parse_command(b"paxos status").unwrap().verb, Verb::Status);
    assert_eq!(request::parse_command(b"/usr/local/bin/paxos status").unwrap().verb, Verb::Status);
    let (failure, format) = request::parse_command(b"scp -t /tmp").unwrap_err();
    assert_eq!(failure.message, "\"scp\" is no command here");
    assert_eq!(format, Format::Table);
    assert_eq!(request::parse_command(b"").unwrap_err().0.message, "the command is empty");
    let (failure, format) = request::parse_command(b"paxos put k 'v --json").unwrap_err();
    assert_eq!(
        failure.message,
        "cannot cut the command into words: the quote ' is opened and never closed"
    );
    assert_eq!(format, Format::Table);
}

#[test]
fn an_error_about_the_words_comes_in_the_format_they_ask_for() {
    for line in
        ["paxos -o json putt", "paxos putt --json", "paxos get --output=json", "paxos get -ojson"]
    {
        assert_eq!(request::parse_command(line.as_bytes()).unwrap_err().1, Format::Json, "{line}");
    }
    for line in ["paxos putt", "paxos -o table putt", "paxos get a b -- --json"] {
        assert_eq!(request::parse_command(line.as_bytes()).unwrap_err().1, Format::Table, "{line}");
    }
}

#[test]
fn binary_words_are_kept() {
    let request = request::parse_command(b"paxos put \xff\xfe \x80v").unwrap();
    let Verb::Put { key, value, .. } = request.verb else { panic!("not a put") };
    assert_eq!(&key[..], b"\xff\xfe");
    assert_eq!(value, ValueSource::Given(Bytes::from_static(b"\x80v")));
}

#[test]
fn lines_of_a_batch() {
    let line = |text: &str| request::parse_batch_line(text.as_bytes(), Duration::from_secs(9));
    assert_eq!(line(""), None);
    assert_eq!(line("  \t "), None);
    assert_eq!(line("# put k v"), None);
    let plain = line("put k 'two words'\r").unwrap();
    assert_eq!(plain.id, None);
    let request = plain.request.unwrap();
    assert_eq!(request.verb, put("k", "two words", Condition::Always));
    assert_eq!(request.timeout, Duration::from_secs(9));
    let named = line("@a7  get k --timeout 1s").unwrap();
    assert_eq!(named.id.as_deref(), Some("a7"));
    assert_eq!(named.request.unwrap().timeout, Duration::from_secs(1));

    let refused = |text: &str| line(text).unwrap().request.unwrap_err().message;
    assert_eq!(refused("@a7"), "no verb is given");
    assert_eq!(refused("@ get k"), "\"\" cannot be an id (@ID)");
    assert_eq!(
        refused("put k -"),
        "standard input holds the batch itself, so a line of it cannot read there"
    );
    assert_eq!(
        refused("batch"),
        "standard input holds the batch itself, so a line of it cannot read there"
    );
    assert_eq!(refused("get k -o table"), "a batch answers in JSON only");
    assert_eq!(
        refused("get 'k"),
        "cannot cut the line into words: the quote ' is opened and never closed"
    );
    assert!(line("get k -o json").unwrap().request.is_ok());
}

#[test]
fn the_manual_is_the_golden_one() {
    let mut manual = help::overview();
    for spec in grammar::VERBS {
        manual.push_str(&format!("\n=== paxos help {} ===\n{}", spec.name, help::about(spec)));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &manual).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert_eq!(manual, golden, "set UPDATE_GOLDEN=1 and read the difference");
    let too_wide = manual.lines().find(|line| line.chars().count() > 100);
    assert_eq!(too_wide, None);
}

/// What the local program sends means what was typed.
#[test]
fn requests_become_words_and_come_back() {
    for line in [
        "status",
        "members --timeout 1m30s -o json",
        "health -o table",
        "put k v",
        "put -- -k '-- two words'",
        "put k - --if-absent --request-id a",
        "put k '' --if-value '' --timeout 250ms",
        "put k v --if-revision 7",
        "get k --raw --consistency local",
        "get -- --raw",
        "delete k --if-value '-o json'",
        "delete k --if-revision 0 --request-id 7",
        "list",
        "list --after /a/b --limit 3 -- -p",
        "list /a --after /a/b --limit 3 --keys-only --consistency local",
        "batch --window 7",
        "leader",
        "leader resign",
        "leader transfer -- -odd",
        "metrics --json",
        "logs --lines 3",
        "logs --protocol --grep 'ballot 101' -f --node a1",
        "trace 8",
        "version",
        "help",
        "help put",
        "get -h",
    ] {
        let request = parse(line).unwrap();
        assert_eq!(request::parse(&request.to_words()).as_ref(), Ok(&request), "{line}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(line in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _parsed = request::parse_command(&line);
        let _parsed = request::parse_batch_line(&line, TIMEOUT_DEFAULT);
    }

    /// Near misses reach further into the parser than noise does.
    #[test]
    fn no_words_make_it_panic(
        words in proptest::collection::vec(
            prop_oneof![
                Just("put"), Just("get"), Just("list"), Just("leader"), Just("transfer"),
                Just("--timeout"), Just("-o"), Just("json"), Just("--"), Just("-"),
                Just("--if-value"),
                Just("--if-revision=18446744073709551616"), Just("k"), Just(""), Just("@x"),
                Just("--limit"), Just("1e999"), Just("."), Just("help"), Just("-h"), Just("--=--"),
            ],
            0..8,
        ),
    ) {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        if let Err(failure) = request::parse(&words) {
            prop_assert!(!failure.message.is_empty() && !failure.hint.is_empty());
            prop_assert!(!failure.message.contains('\n'));
        }
    }
}
