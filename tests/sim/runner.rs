//! Runs seeds on a few threads, one world on one thread, and says of a failure how to see it again.
//!
//! | variable | meaning |
//! |---|---|
//! | `SIM_SEEDS` | so many seeds |
//! | `SIM_START` | the first one |
//! | `SIM_THREADS` | so many threads; the machine's cores by default |
//! | `SIM_FINISHED` | a file: ranges that are done are added to it, and those in it are not run |
//! | `SIM_BUILD` | what the ranges in that file are good for: another build makes other histories |
//! | `SIM_TEST` | the test's full name; other tests have ranges of their own in that file |
//!
//! `scripts/sim` sets them, and adds to that file what passed as a whole.

use crate::stats::Stats;
use crate::tape::Tape;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Seeds in a range that is noted as done.
const RANGE: u64 = 500;

/// Stack of a thread; the search of histories goes as deep as they are long.
pub const STACK_BYTES: usize = 64 << 20;

pub fn setting(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number"))
}

/// The seeds to run; `default` so many.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let start = setting("SIM_START", 0);
    start..start + setting("SIM_SEEDS", default)
}

pub fn threads() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    setting("SIM_THREADS", cores).max(1)
}

/// Runs `each` for every seed and answers what it answered, in order. A seed that panics is run
/// again with its story written down, and named.
pub fn for_each_seed<T: Send>(
    name: &str,
    seeds: std::ops::Range<u64>,
    each: impl Fn(u64, &Tape) -> T + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let results: Mutex<Vec<(u64, T)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<u64>> = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| each(seed, &Tape::off()))) {
                Ok(result) => results.lock().unwrap().push((seed, result)),
                Err(_) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut failed = failed.lock().unwrap();
                    *failed = Some(failed.map_or(seed, |other| other.min(seed)));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, work).expect("a thread");
        }
    });
    if let Some(seed) = *failed.lock().unwrap() {
        tell_failure(name, seed, &each);
    }
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}

fn tell_failure<T>(name: &str, seed: u64, each: impl Fn(u64, &Tape) -> T) -> ! {
    let tape = Tape::told();
    let again = catch_unwind(AssertUnwindSafe(|| drop(each(seed, &tape))));
    let what = match again {
        Ok(()) => "it did not fail a second time: the simulation is not deterministic".to_owned(),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default(),
    };
    eprintln!(
        "\nthe end of the story of seed {seed}:\n{}\nseed {seed} failed: \
         {what}\nreplay it with\n  SIM_START={seed} SIM_SEEDS=1 cargo test --release --test sim \
         {name} -- --nocapture",
        tape.text()
    );
    panic!("seed {seed}: {what}");
}

/// Runs seeds range by range, adds up their statistics, and remembers what is done.
pub fn run(
    name: &str,
    seeds: std::ops::Range<u64>,
    each: impl Fn(u64, &Tape) -> Stats + Sync,
) -> Stats {
    let finished = Finished::from_settings(name);
    let mut total = Stats::default();
    let mut first = seeds.start;
    while first < seeds.end {
        let end = (first + RANGE).min(seeds.end);
        if finished.as_ref().is_some_and(|finished| finished.has(first, end)) {
            println!("seeds {first}..{end} were clean before");
        } else {
            for stats in for_each_seed(name, first..end, &each) {
                total.add(&stats);
            }
            if let Some(finished) = &finished {
                finished.add(first, end);
            }
        }
        first = end;
    }
    total
}

/// The file of ranges that are done: a line for each, `BUILD TEST FIRST END`.
struct Finished {
    path: PathBuf,
    /// What the lines of this run begin with.
    key: String,
    done: Vec<(u64, u64)>,
}

impl Finished {
    fn from_settings(name: &str) -> Option<Finished> {
        let path = PathBuf::from(std::env::var_os("SIM_FINISHED")?);
        let build = std::env::var("SIM_BUILD").unwrap_or_else(|_| "unknown".to_owned());
        let test = std::env::var("SIM_TEST").unwrap_or_else(|_| name.to_owned());
        let key = format!("{build} {test} ");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let parse = |line: &str| {
            let (first, end) = line.strip_prefix(&key)?.split_once(' ')?;
            Some((first.parse().ok()?, end.parse().ok()?))
        };
        let mut done: Vec<(u64, u64)> = text.lines().filter_map(parse).collect();
        done.sort_unstable();
        Some(Finished { path, key, done })
    }

    /// Whether ranges that are done cover this one.
    fn has(&self, first: u64, end: u64) -> bool {
        let mut at = first;
        for (from, to) in &self.done {
            if *from <= at {
                at = at.max(*to);
            }
        }
        at >= end
    }

    fn add(&self, first: u64, end: u64) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
        let line = format!("{}{first} {end}\n", self.key);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot add to {}: {error}", self.path.display()));
    }
}
