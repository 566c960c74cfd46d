//! What the fuzzer once found, and what it begins with, on stable and without cargo-fuzz.
//!
//! Every target's check runs over its seeds (`fuzz/seeds/TARGET/`) and over every input that ever
//! crashed it (`fuzz/crashes/TARGET/`). A target without seeds, or a folder that no target has,
//! fails: nothing here may pass because it looked in the wrong place.
//!
//! `UPDATE_SEEDS=1 cargo test --release --test fuzz_inputs` writes the seeds that are made by hand
//! (`seeds.rs`); the others, named by a digest, were kept by the fuzzer because they reach code
//! that nothing else reaches.

#[path = "../../fuzz/checks/mod.rs"]
mod checks;
mod seeds;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// All seeds together: they are read by people and cloned by everybody.
const SEED_BYTES_MAX: usize = 200 * 1000;

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(of)
}

/// What is in a folder, in order; nothing if it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn run(target: &str, check: checks::Check, inputs: &[PathBuf]) {
    for path in inputs {
        // Told before, so that the last one is to blame when the process ends.
        println!("{target}: {}", path.display());
        check(&std::fs::read(path).unwrap());
    }
}

fn check_target(target: &str) {
    let (_, check) = checks::ALL.into_iter().find(|(name, _)| *name == target).unwrap();
    let inputs = entries(&folder("seeds").join(target));
    assert!(!inputs.is_empty(), "{target} has no seeds; see the head of this file");
    run(target, check, &inputs);
    run(target, check, &entries(&folder("crashes").join(target)));
    check(&[]);
}

#[test]
fn certificate() {
    check_target("certificate");
}

#[test]
fn frame() {
    check_target("frame");
}

#[test]
fn grammar() {
    check_target("grammar");
}

#[test]
fn inventory() {
    check_target("inventory");
}

#[test]
fn log_recovery() {
    check_target("log_recovery");
}

#[test]
fn message() {
    check_target("message");
}

#[test]
fn settings() {
    check_target("settings");
}

/// The test above of each target, its program, its folder, and its place in the list are one.
#[test]
fn each_target_is_run_here_and_has_a_program() {
    let names: BTreeSet<String> = checks::ALL.iter().map(|(name, _)| name.to_string()).collect();
    let this = include_str!("main.rs");
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in &names {
        assert!(this.contains(&format!("check_target(\"{name}\")")), "{name} is not run here");
        let program = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&program), "{name} has no program");
        let program = std::fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs")));
        assert!(program.unwrap().contains(&format!("checks::{name}::check(data)")), "{name}");
    }
    let stems = |of: &str| -> BTreeSet<String> {
        let paths = entries(&folder(of)).into_iter();
        paths.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("seeds"), names);
    for of in ["crashes", "dictionaries"] {
        assert!(stems(of).is_subset(&names), "{of} holds something that is no target's");
    }
    for path in entries(&folder("crashes")) {
        assert!(!entries(&path).is_empty(), "{} is empty", path.display());
    }
}

#[test]
fn seeds_are_few_and_small() {
    let files = entries(&folder("seeds")).into_iter().flat_map(|target| entries(&target));
    let bytes: usize = files.map(|path| std::fs::read(path).unwrap().len()).sum();
    assert!(bytes <= SEED_BYTES_MAX, "{bytes} bytes of seeds; minimise them (scripts/fuzz)");
}

/// Seeds that are made by hand are there as they are made: a layout that changes shows here too.
#[test]
fn seeds_made_by_hand_are_those_of_this_code() {
    let update = std::env::var_os("UPDATE_SEEDS").is_some();
    for (target, name, bytes) in seeds::all() {
        let path = folder("seeds").join(target).join(name);
        if update {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_default();
        assert!(found == bytes, "{} is another; see the head of this file", path.display());
    }
}
