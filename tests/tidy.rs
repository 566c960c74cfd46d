//! The house rules, as tests: who imports whom, what pure code may not touch, how long things get.
//!
//! Each rule is a function from all files to the violations found, a test that the tree has none,
//! and a test that the rule sees an offence when there is one. A rule that nobody has seen fail is
//! not in here. To change a rule, change its table below, and say why in the same commit.

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/limits.rs"]
mod limits;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/text.rs"]
mod text;

use source::Source;
use std::path::Path;
use std::sync::OnceLock;

/// A folder of `src/` and those that it may import. What stands nowhere in a right column is
/// imported by nobody; `paxos` imports nobody, so that it can become a crate of its own by moving
/// it.
const TABLE: &[(&str, &[&str])] = &[
    ("paxos", &[]),
    ("gossip", &["paxos"]),
    ("store", &["paxos"]),
    ("wire", &["paxos", "gossip", "store"]),
    ("disk", &["paxos", "store", "wire", "telemetry"]),
    ("transport", &["paxos", "wire", "telemetry"]),
    ("node", &["paxos", "gossip", "store", "wire", "disk", "transport", "telemetry"]),
    ("api", &["paxos", "node", "wire", "store", "transport", "telemetry"]),
    ("client", &["wire", "transport", "telemetry"]),
    ("controller", &["paxos", "client", "wire", "transport", "telemetry"]),
    ("telemetry", &[]),
    ("planted", &[]),
    (
        "cli",
        &[
            "api",
            "client",
            "controller",
            "disk",
            "gossip",
            "node",
            "paxos",
            "store",
            "telemetry",
            "transport",
            "wire",
        ],
    ),
    ("bin", &["cli"]),
];

/// Folders whose code gives the same answer to the same question, for ever, and the crates that
/// they may use nevertheless: containers, which are functions of what was put in.
const PURE: &[(&str, &[&str])] = &[("paxos", &[]), ("gossip", &[]), ("store", &["bytes", "imbl"])];

/// What pure folders may not call.
const PATHS_NOT_PURE: &[(&str, &str)] = &[
    ("std::time", "time comes in as ticks or as replicated time"),
    ("core::time", "time comes in as ticks or as replicated time"),
    ("std::fs", "files are the disk's"),
    ("std::io", "input and output are the driver's"),
    ("std::path", "files are the disk's"),
    ("std::net", "sockets are the transport's"),
    ("std::os", "the operating system is not here"),
    ("std::env", "settings are handed in"),
    ("std::process", "a fault is an assertion, and the driver ends the process"),
    ("std::thread", "pure code runs where it is called"),
    ("std::sync::mpsc", "what comes out is returned"),
    ("std::sync::atomic", "one owner, so nothing to share"),
    ("std::collections::hash_map", "its order differs from run to run; use BTreeMap"),
    ("std::collections::hash_set", "its order differs from run to run; use BTreeSet"),
    ("std::hash::RandomState", "differs from run to run"),
];

/// Words that pure folders may not even import under a longer name.
const WORDS_NOT_PURE: &[(&str, &str)] = &[
    ("Instant", "time comes in as ticks or as replicated time"),
    ("SystemTime", "time comes in as ticks or as replicated time"),
    ("HashMap", "its order differs from run to run; use BTreeMap"),
    ("HashSet", "its order differs from run to run; use BTreeSet"),
    ("RandomState", "differs from run to run"),
    ("thread_local", "state has one owner"),
    ("Mutex", "one owner, so nothing to lock"),
    ("RwLock", "one owner, so nothing to lock"),
    ("async", "pure code never waits"),
    ("await", "pure code never waits"),
    ("tokio", "pure code runs where it is called"),
    ("russh", "sockets are the transport's"),
    ("rand", "randomness is handed in, as a seed"),
    ("getrandom", "randomness is handed in, as a seed"),
];

/// Crates that one folder knows, whatever the others do.
const CALLERS_OF: &[(&str, &str)] = &[("russh", "transport"), ("ssh_key", "transport")];

/// Crates that wait, and what must run without them, tests included: one seed is one history only
/// where nothing but the simulator decides what runs next.
const WAITING: &[&str] = &["tokio", "russh"];
const NEVER_WAITS: &[&str] = &["tests/sim/", "src/paxos/", "src/store/"];

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;

/// Lines from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// As in `.rustfmt.toml`.
const LINE_CHARS_MAX: usize = 100;

/// Names under which everything fits.
const GRAB_BAGS: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "shared"];

/// Macros that mean "not yet".
const LEFT_BEHIND: &[&str] = &["todo", "unimplemented", "dbg"];

/// Built from halves, so that this file does not break its own rule.
fn machine_paths() -> Vec<String> {
    ["work", "root", "home", "Users", "tmp/t", "tmp/w"].map(|place| format!("/{place}/")).to_vec()
}

fn foreign_hosts() -> Vec<String> {
    ["crates", "npmjs", "pypi", "rubygems", "artifact", "jfrog"]
        .into_iter()
        .zip([".io", ".org", ".org", ".org", "ory", ".io"])
        .map(|(name, rest)| format!("{name}{rest}"))
        .collect()
}

fn default_source() -> String {
    format!("registry+https://github.com/rust-lang/{}.io-index", "crates")
}

/// One place where a rule is broken, and what to do there.
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    fn new(file: &Source, line: usize, what: String) -> Violation {
        Violation { path: file.path.clone(), line, what }
    }
}

/// The whole project, read once.
fn tree() -> &'static [Source] {
    static TREE: OnceLock<Vec<Source>> = OnceLock::new();
    TREE.get_or_init(|| source::load(Path::new(env!("CARGO_MANIFEST_DIR"))))
}

/// Fails with every violation at once.
#[track_caller]
fn demand_none(violations: &[Violation]) {
    let lines: Vec<String> =
        violations.iter().map(|v| format!("{}:{}: {}", v.path, v.line, v.what)).collect();
    assert!(lines.is_empty(), "{} places to tidy:\n{}", lines.len(), lines.join("\n"));
}

/// The lines at which `rule` finds fault with one file of this content.
fn lines(rule: fn(&[Source]) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
    rule(&[Source::new(path, text)]).iter().map(|violation| violation.line).collect()
}

mod arrow_rules {
    //! Imports.
    use super::*;

    #[test]
    fn folders_import_only_what_the_table_allows() {
        demand_none(&arrows::imports(tree()));
    }

    #[test]
    fn an_import_against_the_arrows_is_seen() {
        let rule = arrows::imports;
        assert_eq!(lines(rule, "src/paxos/x.rs", "use crate::wire::frame::Frame;"), [1]);
        assert_eq!(lines(rule, "src/paxos/x.rs", "\nfn f() { crate::node::g(); }"), [2]);
        assert_eq!(lines(rule, "src/paxos/x.rs", "use super::super::disk;"), [1]);
        assert_eq!(lines(rule, "src/paxos/mod.rs", "use super::disk::log;"), [1]);
        assert_eq!(lines(rule, "src/paxos/x.rs", "mod m { use super::super::super::disk; }"), [1]);
        let group = "use crate::{paxos::ballot::Slot,\n store::{A, B as C},\n api::x};";
        assert_eq!(lines(rule, "src/wire/x.rs", group), [3]);
        assert_eq!(lines(rule, "src/wire/x.rs", "use crate::*;"), [1]);
        assert_eq!(lines(rule, "src/node/x.rs", "use paxos_ssh::cli::main;"), [1]);
        assert_eq!(lines(rule, "src/bin/paxos.rs", "fn main() { paxos_ssh::node::run() }"), [1]);
        assert_eq!(lines(rule, "src/api/x.rs", "#[cfg(test)]\nmod t { use crate::cli; }"), [2]);
    }

    #[test]
    fn an_import_along_the_arrows_passes() {
        let rule = arrows::imports;
        assert!(lines(rule, "src/paxos/x.rs", "use super::ballot::Slot; use std::fmt;").is_empty());
        assert!(lines(rule, "src/paxos/x.rs", "mod m { use super::super::quorum; }").is_empty());
        assert!(lines(rule, "src/disk/x.rs", "use crate::{paxos, store::Engine};").is_empty());
        let words = "// crate::cli\n/* crate::cli /* */ */ const A: &str = r#\"crate::cli\"#;";
        assert!(lines(rule, "src/paxos/x.rs", words).is_empty());
    }

    #[test]
    fn pure_folders_touch_nothing_of_the_world() {
        demand_none(&arrows::purity(tree()));
    }

    #[test]
    fn a_pure_folder_that_touches_the_world_is_seen() {
        let manifest =
            "[dependencies]\nbytes = \"1\"\ntracing = \"1\"\n[dependencies.tokio-util]\n";
        let judge = |path: &str, text: &str| {
            let files = [Source::new("Cargo.toml", manifest), Source::new(path, text)];
            arrows::purity(&files).len()
        };
        for text in [
            "use tokio::sync::mpsc;",
            "use tokio;",
            "fn f() { tokio::spawn(g()); }",
            "use tokio_util::codec;",
            "use bytes::Bytes;",
            "use std::{fmt, fs::File};",
            "use std::time::Instant;",
            "fn f() { let now = std::time::SystemTime::now(); }",
            "use std::collections::{BTreeMap, HashMap as Map};",
            "use std::thread;",
            "fn f(seed: u64) { rand::random() }",
            "use tracing::info;",
            "async fn f() {}",
        ] {
            assert!(judge("src/paxos/x.rs", text) > 0, "paxos: {text}");
            let allowed = text.contains("bytes::");
            assert_eq!(judge("src/store/x.rs", text) == 0, allowed, "store: {text}");
            assert_eq!(judge("src/node/x.rs", text), 0, "node: {text}");
        }
        assert_eq!(judge("src/paxos/x.rs", "// tokio\n/// an Instant\nfn f() {}"), 0);
        assert_eq!(judge("src/paxos/x.rs", "#[cfg(test)]\nmod t { use tracing::info; }"), 0);
        assert_eq!(judge("src/paxos/x.rs", "#[cfg(not(test))]\nmod t { use tracing::info; }"), 1);
    }

    #[test]
    fn each_crate_that_has_an_owner_is_used_by_it_alone() {
        demand_none(&arrows::owners(tree()));
    }

    #[test]
    fn a_second_user_of_an_owned_crate_is_seen() {
        let text = "use russh::keys::{Certificate,\n ssh_key::Fingerprint};";
        assert_eq!(lines(arrows::owners, "src/controller/keys/mod.rs", text), [1, 2]);
        assert_eq!(lines(arrows::owners, "src/cli/mod.rs", "fn f() { russh::x() }"), [1]);
        assert!(lines(arrows::owners, "src/transport/server.rs", text).is_empty());
    }

    #[test]
    fn what_one_seed_decides_waits_for_nothing_else() {
        demand_none(&arrows::waiting(tree()));
        for place in NEVER_WAITS {
            let files = tree().iter().filter(|file| file.path.starts_with(place));
            assert!(files.count() > 1, "{place} is no folder any more; see NEVER_WAITS");
        }
    }

    #[test]
    fn a_simulator_that_waits_is_seen() {
        let rule = arrows::waiting;
        for path in ["tests/sim/x.rs", "tests/sim/checks/x.rs", "src/paxos/x.rs", "src/store/x.rs"]
        {
            let text = "//! No tokio.\nuse tokio::time;\nfn f() { russh::x(); tokio_util::y() }";
            assert_eq!(lines(rule, path, text), [2, 3, 3], "{path}");
            let tests = "#[cfg(test)]\nmod t { #[tokio::test]\nasync fn f() {} }";
            assert_eq!(lines(rule, path, tests), [2], "{path}");
        }
        assert!(lines(rule, "src/node/x.rs", "use tokio::time;").is_empty());
        assert!(lines(rule, "tests/sim/x.rs", "let tokio = 1; // russh\nf(\"tokio\")").len() == 1);
    }

    #[test]
    fn the_map_is_complete() {
        demand_none(&arrows::map(tree()));
    }

    #[test]
    fn a_folder_off_the_map_is_seen() {
        let library = "//! [`paxos`] is the protocol.\npub mod paxos;\npub mod ghost;";
        let files = [
            Source::new("src/lib.rs", library),
            Source::new("src/paxos/mod.rs", ""),
            Source::new("src/attic/mod.rs", ""),
        ];
        let found: Vec<String> = arrows::map(&files).into_iter().map(|v| v.what).collect();
        for word in ["no row", "src/attic is not in", "ghost is no folder", "ghost is not in"] {
            assert!(found.iter().any(|what| what.contains(word)), "{word}: {found:?}");
        }
        assert_eq!(found.len(), 4, "{found:?}");
    }
}

mod limit_rules {
    //! Sizes, names and places.
    use super::*;

    #[test]
    fn files_are_short() {
        demand_none(&limits::file_length(tree()));
    }

    #[test]
    fn a_long_file_is_seen() {
        let long = "fn f() {}\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(lines(limits::file_length, "src/api/x.rs", &long), [FILE_LINES_MAX + 1]);
        let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}\n}}");
        assert!(lines(limits::file_length, "src/api/x.rs", &tests).is_empty());
        let helper = format!("#[cfg(test)]\nfn helper() {{}}\n{long}");
        assert_eq!(lines(limits::file_length, "src/api/x.rs", &helper).len(), 1);
    }

    #[test]
    fn functions_are_short() {
        demand_none(&limits::function_length(tree()));
    }

    #[test]
    fn a_long_function_is_seen() {
        let text =
            |lines| format!("\nfn f(g: fn(u8), a: [u8; 2]) {{\n{}}}", "g(1);\n".repeat(lines));
        let long = text(FUNCTION_LINES_MAX - 1);
        assert_eq!(lines(limits::function_length, "src/api/x.rs", &long), [2]);
        let fits = text(FUNCTION_LINES_MAX - 2);
        assert!(lines(limits::function_length, "src/api/x.rs", &fits).is_empty());
        let declared = format!("trait T {{ fn f();\n{} }}", "fn g();\n".repeat(FUNCTION_LINES_MAX));
        assert!(lines(limits::function_length, "src/api/x.rs", &declared).is_empty());
    }

    #[test]
    fn lines_are_short() {
        demand_none(&limits::line_length(tree()));
    }

    #[test]
    fn a_long_line_is_seen() {
        let long = format!("//! ok\n// {}", "é".repeat(LINE_CHARS_MAX));
        assert_eq!(lines(limits::line_length, "tests/x.rs", &long), [2]);
        let fits = "é".repeat(LINE_CHARS_MAX);
        assert!(lines(limits::line_length, "tests/x.rs", &fits).is_empty());
    }

    #[test]
    fn folders_are_flat_and_named_for_a_subject() {
        demand_none(&limits::places(tree()));
    }

    #[test]
    fn a_deep_or_nameless_file_is_seen() {
        for path in [
            "src/node/inner/x.rs",
            "src/controller/host/inner/x.rs",
            "src/util/mod.rs",
            "src/node/helpers.rs",
            "src/node/lock_manager.rs",
            "tests/common/mod.rs",
        ] {
            assert_eq!(lines(limits::places, path, "").len(), 1, "{path}");
        }
        for path in ["src/node/commonplace.rs", "src/controller/host/x.rs"] {
            assert!(lines(limits::places, path, "").is_empty(), "{path}");
        }
    }

    #[test]
    fn every_file_says_what_it_is() {
        demand_none(&limits::heads(tree()));
    }

    #[test]
    fn a_file_without_a_head_is_seen() {
        assert_eq!(lines(limits::heads, "src/api/x.rs", "use std::fmt;\n//! Late."), [1]);
        assert!(lines(limits::heads, "src/api/x.rs", "//! A thing.\n").is_empty());
    }
}

mod text_rules {
    //! Words, calls, places.
    use super::*;

    #[test]
    fn nothing_is_left_behind() {
        demand_none(&text::left_behind(tree()));
    }

    #[test]
    fn work_left_behind_is_seen() {
        let rule = text::left_behind;
        let text = format!("fn f() {{ {}!() }}\n// {}: later", "todo", ["FIX", "ME"].concat());
        assert_eq!(lines(rule, "src/api/x.rs", &text), [1, 2]);
        assert_eq!(lines(rule, "docs/x.md", &["- TO", "DO write"].concat()), [1]);
        assert!(lines(rule, "src/api/x.rs", "fn f(todo: u8) { todo + 1 }").is_empty());
    }

    #[test]
    fn assertions_stay_on() {
        demand_none(&text::assertions(tree()));
    }

    #[test]
    fn an_assertion_that_is_off_in_release_is_seen() {
        let text = "fn f() {\n debug_assert_eq!(1, 1); assert_eq!(1, 1) }";
        assert_eq!(lines(text::assertions, "src/paxos/x.rs", text), [2]);
    }

    #[test]
    fn nothing_from_outside_is_unwrapped() {
        demand_none(&text::unwraps(tree()));
    }

    #[test]
    fn an_unwrap_is_seen() {
        let text =
            "fn f() { x()\n.unwrap(); y().unwrap_or(1) }\n#[cfg(test)]\nmod t { x.unwrap() }";
        assert_eq!(lines(text::unwraps, "src/wire/x.rs", text), [2]);
        assert!(lines(text::unwraps, "tests/x.rs", text).is_empty());
    }

    #[test]
    fn standard_output_is_for_answers() {
        demand_none(&text::prints(tree()));
    }

    #[test]
    fn a_stray_print_is_seen() {
        let text = "fn f() {\n println!(\"x\"); eprintln!(\"y\") }";
        assert_eq!(lines(text::prints, "src/node/x.rs", text), [2]);
        assert!(lines(text::prints, "src/cli/x.rs", text).is_empty());
    }

    #[test]
    fn every_queue_has_a_bound() {
        demand_none(&text::queues(tree()));
    }

    #[test]
    fn a_queue_without_a_bound_is_seen() {
        let rule = text::queues;
        assert_eq!(lines(rule, "src/node/x.rs", "use std::sync::mpsc::{channel, Sender};"), [1]);
        let through = "use std::sync::mpsc;\nfn f() { let (a, b) = mpsc::channel(); }";
        assert_eq!(lines(rule, "src/node/x.rs", through), [2]);
        let runtime =
            "use tokio::sync::mpsc;\nfn f() { mpsc::channel(1); mpsc::unbounded_channel(); }";
        assert_eq!(lines(rule, "src/node/x.rs", runtime), [2]);
    }

    #[test]
    fn no_text_is_tied_to_a_machine() {
        demand_none(&text::machines(tree()));
    }

    #[test]
    fn a_path_or_host_of_one_machine_is_seen() {
        let rule = text::machines;
        for path in machine_paths() {
            assert_eq!(lines(rule, "docs/x.md", &format!("see `{path}x`")), [1], "{path}");
            assert!(lines(rule, "docs/x.md", &format!("see src{path}x")).is_empty(), "{path}");
        }
        for host in foreign_hosts() {
            let text = format!("\nfrom https://index.{host}/x");
            assert_eq!(lines(rule, "scripts/x", &text), [2], "{host}");
        }
    }

    #[test]
    fn dependencies_come_from_the_default_registry() {
        demand_none(&text::sources(tree()));
    }

    #[test]
    fn a_dependency_from_elsewhere_is_seen() {
        let text =
            format!("source = \"{}\"\nsource = \"git+https://example.org\"", default_source());
        assert_eq!(lines(text::sources, "Cargo.lock", &text), [2]);
    }
}

#[test]
fn the_tree_was_read() {
    // A walk that finds nothing would pass every rule above.
    let has = |path: &str| tree().iter().any(|file| file.path == path);
    for path in ["Cargo.toml", "src/lib.rs", "src/paxos/ballot.rs", "tests/tidy.rs", ".ci/run"] {
        assert!(has(path), "{path} was not read");
    }
    let ballot = tree().iter().find(|file| file.path == "src/paxos/ballot.rs");
    let tokens = ballot.map_or(&[][..], |file| &file.tokens);
    assert!(tokens.iter().any(|token| token.test) && tokens.iter().any(|token| !token.test));
}
