//! Sizes, names and places.

use super::source::{Kind, Source};
use super::{FILE_LINES_MAX, FUNCTION_LINES_MAX, GRAB_BAGS, LINE_CHARS_MAX, Violation};

/// Files keep to one subject: not too many lines before their tests.
pub fn file_length(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && file.path.starts_with("src/")) {
        let tests = (0..file.tokens.len()).find(|i| {
            file.tokens[*i].test && file.is(*i, "mod") && file.is(i.saturating_sub(1), "]")
        });
        let whole = file.text.lines().count();
        let lines = match tests {
            // Wholly for tests.
            _ if file.tokens.iter().all(|token| token.test) => 0,
            Some(i) => file.tokens[i].line - 1,
            None => whole,
        };
        if lines > FILE_LINES_MAX {
            let what = format!(
                "{lines} lines before its tests, more than {FILE_LINES_MAX}; \
                 find the second subject in it and move that out"
            );
            violations.push(Violation::new(file, FILE_LINES_MAX + 1, what));
        }
    }
    violations
}

/// A function fits on a screen.
pub fn function_length(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && file.path.starts_with("src/")) {
        for i in 0..file.tokens.len() {
            let named = file.tokens.get(i + 1).is_some_and(|next| next.kind == Kind::Word);
            if !file.is(i, "fn") || !named || file.tokens[i].test {
                continue;
            }
            let end = file.end_of_item(i);
            let lines = file.tokens[end].line - file.tokens[i].line + 1;
            if lines > FUNCTION_LINES_MAX {
                let name = &file.tokens[i + 1].text;
                let what = format!(
                    "fn {name} has {lines} lines, more than {FUNCTION_LINES_MAX}; \
                     give a name to a part of it"
                );
                violations.push(Violation::new(file, file.tokens[i].line, what));
            }
        }
    }
    violations
}

/// Lines that rustfmt leaves alone (comments, strings) stay readable too.
pub fn line_length(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() || file.text.starts_with("#!")) {
        for (index, line) in file.text.lines().enumerate() {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                let what =
                    format!("{chars} characters, more than {LINE_CHARS_MAX}; break the line");
                violations.push(Violation::new(file, index + 1, what));
            }
        }
    }
    violations
}

/// Folders that hold more than a reader takes in at once have folders in them, which have none.
/// Why: docs/decisions/0019.
const DEEPER: [&str; 1] = ["controller"];

/// Other folders under `src/` have no folders in them, and nothing is named for being left over.
pub fn places(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let is_deeper = file.folder().is_some_and(|folder| DEEPER.contains(&folder));
        let slashes_max = if is_deeper { 3 } else { 2 };
        if file.path.starts_with("src/") && file.path.matches('/').count() > slashes_max {
            let what = "folders under src are one level deep; move the file up";
            violations.push(Violation::new(file, 1, what.to_string()));
        }
        let stem = file.path.trim_end_matches(".rs");
        for word in stem.split(['/', '_', '-']) {
            if GRAB_BAGS.contains(&word) {
                let what = format!("\"{word}\" says nothing; name the file for its one subject");
                violations.push(Violation::new(file, 1, what));
            }
        }
    }
    violations
}

/// A reader who opens a file learns first what it is.
pub fn heads(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if !file.text.starts_with("//! ") {
            let what = "starts without //!; say what the file is and what it must never do";
            violations.push(Violation::new(file, 1, what.to_string()));
        }
    }
    violations
}
