//! Files for parsers that take a path and not a text: in a directory of this thread's own, in
//! memory where the system has such a place, and gone with the thread.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where files are memory, on the systems that have it.
const IN_MEMORY: &str = "/dev/shm";

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let place = match Path::new(IN_MEMORY).is_dir() {
            true => PathBuf::from(IN_MEMORY),
            false => std::env::temp_dir(),
        };
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = place.join(format!("paxos-fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the scratch directory can be made");
        Scratch(directory)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind after a crash is a few kilobytes, and has the process in its name.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Hands `use_it` the scratch directory with `text` in its file `name`.
pub fn with_file<T>(name: &str, text: &[u8], use_it: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static SCRATCH: Scratch = Scratch::new();
    }
    SCRATCH.with(|scratch| {
        std::fs::write(scratch.0.join(name), text).expect("the scratch file can be written");
        use_it(&scratch.0)
    })
}
