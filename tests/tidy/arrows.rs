//! Who imports whom, and what pure code may not call.

use super::source::{Mention, Source};
use super::{CALLERS_OF, NEVER_WAITS, PURE, TABLE, Violation, WAITING, WORDS_NOT_PURE};

/// A folder of `src/` imports only what its row of the table names.
pub fn imports(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        let Some(folder) = file.folder() else { continue };
        // A folder without a row is reported once, by `map`.
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == folder) else { continue };
        for mention in file.mentions() {
            let Some(target) = own_module(&mention) else { continue };
            if target == folder || allowed.contains(&target) {
                continue;
            }
            let advice = if target == "*" {
                "names what it needs, one by one".to_string()
            } else {
                format!(
                    "imports {target}, which is not in the row of {folder}; \
                     move what both need to where both may look, or hand it in"
                )
            };
            violations.push(Violation::new(file, mention.line, format!("{folder} {advice}")));
        }
    }
    violations
}

/// The module below the crate's root to which a path leads, if it leads into this crate.
fn own_module(mention: &Mention) -> Option<&str> {
    let mut path = mention.path.iter().map(String::as_str).peekable();
    match path.next()? {
        "crate" | "paxos_ssh" => path.next(),
        "super" => {
            let mut ups = 1;
            while path.peek() == Some(&"super") {
                path.next();
                ups += 1;
            }
            // A path that stays below the folder is no import.
            let at_root = mention.module.len() <= ups;
            if at_root { path.next() } else { None }
        }
        _ => None,
    }
}

/// Pure folders name no clock, no randomness, no file, no socket, no thread and no hashed map.
pub fn purity(files: &[Source]) -> Vec<Violation> {
    let dependencies = dependencies(files);
    let mut violations = Vec::new();
    for file in files {
        let Some((folder, allowed)) =
            file.folder().and_then(|folder| PURE.iter().find(|(name, _)| *name == folder))
        else {
            continue;
        };
        for mention in file.mentions().iter().filter(|mention| !mention.test) {
            let first = mention.path[0].as_str();
            if dependencies.iter().any(|name| name == first) && !allowed.contains(&first) {
                violations.push(Violation::new(
                    file,
                    mention.line,
                    format!("{folder} uses the crate {first}; pure code gets by without it"),
                ));
            }
            let full = mention.path.join("::");
            if let Some((path, why)) = super::PATHS_NOT_PURE
                .iter()
                .find(|(path, _)| full == *path || full.starts_with(&format!("{path}::")))
            {
                violations.push(Violation::new(
                    file,
                    mention.line,
                    format!("{folder} uses {path}: {why}"),
                ));
            }
        }
        for token in file.tokens.iter().filter(|token| !token.test) {
            if let Some((word, why)) = WORDS_NOT_PURE.iter().find(|(word, _)| token.text == *word) {
                violations.push(Violation::new(
                    file,
                    token.line,
                    format!("{folder} says {word}: {why}"),
                ));
            }
        }
    }
    violations
}

/// Names of crates, as code spells them.
fn dependencies(files: &[Source]) -> Vec<String> {
    let Some(manifest) = files.iter().find(|file| file.path == "Cargo.toml") else {
        return Vec::new();
    };
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.text.lines() {
        if let Some(section) = line.trim().strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies");
            if let Some((_, name)) = section.split_once("dependencies.") {
                names.push(name.replace('-', "_"));
            }
        } else if inside && let Some((name, _)) = line.split_once(['=', '.']) {
            names.push(name.trim().replace('-', "_"));
        }
    }
    names
}

/// Some crates have one folder that knows them.
pub fn owners(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        for mention in file.mentions() {
            let first = mention.path[0].as_str();
            for (name, owner) in CALLERS_OF {
                if first == *name && file.folder() != Some(*owner) {
                    violations.push(Violation::new(
                        file,
                        mention.line,
                        format!("uses {name}, which only src/{owner} may; use what {owner} offers"),
                    ));
                }
            }
        }
    }
    violations
}

/// What one seed decides names no crate that waits, nor those that belong to one.
pub fn waiting(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let is_watched = |file: &&Source| NEVER_WAITS.iter().any(|place| file.path.starts_with(place));
    for file in files.iter().filter(is_watched) {
        for token in &file.tokens {
            let belongs = |name: &&&str| {
                let rest = token.text.strip_prefix(**name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            };
            if let Some(name) = WAITING.iter().find(belongs) {
                let what =
                    format!("says {}; what one seed decides runs without {name}", token.text);
                violations.push(Violation::new(file, token.line, what));
            }
        }
    }
    violations
}

/// Every folder of `src/` has a row, is a module of the library, and every module has a folder.
pub fn map(files: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some(library) = files.iter().find(|file| file.path == "src/lib.rs") else {
        return violations;
    };
    let declared: Vec<(&str, usize)> = (0..library.tokens.len())
        .filter(|i| library.is(*i, "mod") && library.is(*i + 2, ";"))
        .map(|i| (library.tokens[i + 1].text.as_str(), library.tokens[i].line))
        .collect();
    let mut seen = Vec::new();
    for file in files {
        let Some(folder) = file.folder().filter(|folder| !seen.contains(folder)) else { continue };
        seen.push(folder);
        if !TABLE.iter().any(|(name, _)| *name == folder) {
            let what = format!("src/{folder} has no row in the import table of tests/tidy.rs");
            violations.push(Violation::new(file, 1, what));
        }
        if folder != "bin" && !declared.iter().any(|(name, _)| *name == folder) {
            let what = format!("src/{folder} is not in src/lib.rs; add it to the map");
            violations.push(Violation::new(file, 1, what));
        }
    }
    for (name, line) in declared {
        if !seen.contains(&name) {
            let what = format!("module {name} is no folder under src; folders are the unit here");
            violations.push(Violation::new(library, line, what));
        }
        if !library.text.contains(&format!("[`{name}`]")) {
            let what = format!("module {name} is not in the map at the head of this file; say");
            violations.push(Violation::new(library, line, format!("{what} what it is for")));
        }
    }
    violations
}
