//! Words, calls and places that have no business in what is committed.

use super::source::{Kind, Source};
use super::{LEFT_BEHIND, Violation, default_source, foreign_hosts, machine_paths};

/// Nothing is left for later without a name.
pub fn left_behind(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        for i in 0..file.tokens.len() {
            let token = &file.tokens[i];
            if LEFT_BEHIND.contains(&token.text.as_str()) && file.is(i + 1, "!") {
                let what = format!("{}! is for work in progress; finish it", token.text);
                violations.push(Violation::new(file, token.line, what));
            }
        }
        for (index, line) in file.text.lines().enumerate() {
            let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
            for mark in marks.into_iter().filter(|mark| has_word(line, mark)) {
                let what = format!("{mark}: do it, or open an issue and leave no mark");
                violations.push(Violation::new(file, index + 1, what));
            }
        }
    }
    violations
}

/// Assertions about what we hold stay on in release.
pub fn assertions(files: &[Source]) -> Vec<Violation> {
    calls(files, |file, i| {
        let word = &file.tokens[i].text;
        (word.starts_with("debug_assert") && file.is(i + 1, "!"))
            .then(|| format!("{word}! is off in release; use the one that stays on"))
    })
}

/// What came from outside may be wrong, and then an error says so.
pub fn unwraps(files: &[Source]) -> Vec<Violation> {
    calls(files, |file, i| {
        let called = i > 0 && file.is(i - 1, ".") && file.is(i + 1, "(");
        (called && file.is(i, "unwrap")).then(|| {
            "unwrap() tells the operator nothing; return an error, or expect() with the invariant"
                .to_string()
        })
    })
}

/// Standard output belongs to the answer that a program reads.
pub fn prints(files: &[Source]) -> Vec<Violation> {
    let may_print = |file: &Source| matches!(file.folder(), Some("cli" | "bin"));
    calls(files, |file, i| {
        let prints = (file.is(i, "println") || file.is(i, "print")) && file.is(i + 1, "!");
        (prints && !may_print(file)).then(|| {
            "prints; only src/cli writes to standard output, others return or log".to_string()
        })
    })
}

/// Every queue has a bound.
pub fn queues(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        let mentions = file.mentions();
        let of_std = mentions.iter().any(|mention| mention.path.join("::") == "std::sync::mpsc");
        for mention in mentions.iter().filter(|mention| !mention.test) {
            let path = mention.path.join("::");
            let unbounded = path == "std::sync::mpsc::channel"
                || (of_std && path == "mpsc::channel")
                || mention.path.iter().any(|part| {
                    ["unbounded_channel", "UnboundedSender", "UnboundedReceiver"]
                        .contains(&part.as_str())
                });
            if unbounded {
                let what = format!("{path} has no bound; use one that has, and say what then");
                violations.push(Violation::new(file, mention.line, what));
            }
        }
    }
    violations
}

fn calls(files: &[Source], judge: impl Fn(&Source, usize) -> Option<String>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        for (i, token) in file.tokens.iter().enumerate() {
            if token.test || token.kind != Kind::Word {
                continue;
            }
            if let Some(what) = judge(file, i) {
                violations.push(Violation::new(file, token.line, what));
            }
        }
    }
    violations
}

/// Text that is true on one machine only.
pub fn machines(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            for path in machine_paths().into_iter().filter(|path| has_path(line, path)) {
                let what = format!("{path}… is a place on somebody's machine; make it relative");
                violations.push(Violation::new(file, index + 1, what));
            }
            // The lock file names its source in full; `sources` looks at it.
            if file.path.ends_with("Cargo.lock") {
                continue;
            }
            for host in foreign_hosts().into_iter().filter(|host| line.contains(host.as_str())) {
                let what =
                    format!("names {host}; where packages come from is the reader's setting");
                violations.push(Violation::new(file, index + 1, what));
            }
        }
    }
    violations
}

/// Dependencies come from the default registry and nowhere else.
pub fn sources(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.lock")) {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(source) = line.strip_prefix("source = ")
                && source.trim_matches('"') != default_source()
            {
                let what = format!("{source} is not the default registry; lock it from there");
                violations.push(Violation::new(file, index + 1, what));
            }
        }
    }
    violations
}

/// Whether `word` stands in `line` with nothing of a word beside it.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// Whether an absolute path starts in `line` with `path`: `src/x` is none, `"/x` is one.
fn has_path(line: &str, path: &str) -> bool {
    let part_of_path = |c: char| c.is_alphanumeric() || "._-~*}$)/>".contains(c);
    line.match_indices(path)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(part_of_path))
}
