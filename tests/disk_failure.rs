//! A disk that fails: the process must end, at once and for good. In a file of its own because it
//! starts processes, and a process between fork and exec holds the locks of the tests beside it.

mod disk_fixture;

use disk_fixture::{Faults, PATIENCE, SMALL, beat_of, faulty, genesis, owner};
use paxos_ssh::disk::files::{Handle, Kernel};
use paxos_ssh::disk::log::open_with;
use paxos_ssh::disk::{Log, LogEvent};
use paxos_ssh::paxos::ballot::*;
use paxos_ssh::paxos::record::Record;
use paxos_ssh::telemetry::metrics::LogMetrics;
use paxos_ssh::telemetry::watchdog::Watchdog;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

const SIGABRT: i32 = 6;

/// Fails as a broken disk does.
struct Broken {
    writes: bool,
    broken: AtomicBool,
}

impl Broken {
    fn check(&self, is_write: bool) -> io::Result<()> {
        match self.broken.load(Ordering::SeqCst) && self.writes == is_write {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }
}

impl Faults for Broken {
    fn write(&self, file: &dyn Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check(true).and_then(|()| file.write(bytes, offset))
    }

    fn sync(&self, file: &dyn Handle) -> io::Result<()> {
        self.check(false).and_then(|()| file.sync())
    }
}

const CHILD: &str = "PAXOS_TEST_BROKEN_DISK";

/// Not a test by itself: the process that the next one watches die.
#[test]
fn broken_disk_child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (what, directory) = what.split_once(':').unwrap();
    let disk = Arc::new(Broken { writes: what == "write", broken: AtomicBool::new(false) });
    let (sender, events) = channel();
    let on_event = move |event| sender.send(event).unwrap();
    let metrics = LogMetrics::default();
    let directory = Path::new(directory);
    let (mut log, _) = open_with(
        directory,
        owner(),
        SMALL,
        faulty(disk.clone()),
        metrics,
        beat_of(&Watchdog::default(), PATIENCE),
        on_event,
    )
    .unwrap();
    log.append(vec![genesis()]);
    assert!(matches!(events.recv_timeout(PATIENCE), Ok(LogEvent::Durable { .. })));
    disk.broken.store(true, Ordering::SeqCst);
    log.append(vec![Record::Promised(Ballot::ZERO)]);
    match events.recv_timeout(PATIENCE) {
        Ok(event) => println!("reported {event:?}"),
        Err(error) => println!("lived on: {error}"),
    }
}

#[test]
fn a_failed_sync_or_write_ends_the_process() {
    for (what, words) in [("sync", "could not sync"), ("write", "could not write to")] {
        let directory = tempfile::tempdir().unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "broken_disk_child", "--nocapture"])
            .env(CHILD, format!("{what}:{}", directory.path().display()))
            .output()
            .unwrap();
        let (out, complaint) =
            (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert_eq!(child.status.signal(), Some(SIGABRT), "{what}: {out} {complaint}");
        assert!(complaint.contains(words), "{complaint}");
        assert!(!out.contains("reported") && !out.contains("lived on"), "{out}");
        // Whether the record is there after a failed sync is anybody's guess; the genesis is.
        let (files, metrics) = (Arc::new(Kernel), LogMetrics::default());
        let (_, recovered) = open_with(
            directory.path(),
            owner(),
            SMALL,
            files,
            metrics,
            beat_of(&Watchdog::default(), PATIENCE),
            |_| {},
        )
        .unwrap();
        assert!(recovered.genesis.is_some());
    }
}
