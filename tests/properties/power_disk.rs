//! Files in memory that can lose what was not synced: of each write since the last sync a power
//! cut leaves all, nothing, a first part, or some sectors, and of the names a first part of the
//! changes.
//!
//! Less than the simulator's disk (`tests/sim/disk.rs`), which also lies, fails and fills up; here
//! the draws are proptest's, so that what fails shrinks.

use paxos_ssh::disk::files::{Handle, Storage};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR_BYTES: usize = 512;

/// See the module's documentation. Clones are handles of one disk.
#[derive(Clone, Default)]
pub(crate) struct PowerDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<OsString, usize>,
    durable_names: BTreeMap<OsString, usize>,
    /// Names as they were after each change since the last sync of the directory.
    changes: Vec<BTreeMap<OsString, usize>>,
    seeds: u64,
}

#[derive(Default)]
struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

struct Open {
    disk: PowerDisk,
    index: usize,
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn name_of(path: &Path) -> OsString {
    path.file_name().expect("the log's files have names").to_owned()
}

impl PowerDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The power goes and comes back; `draw` decides what arrived.
    pub(crate) fn cut_power(&self, mut draw: impl FnMut() -> u16) {
        let mut state = self.state();
        let kept = usize::from(draw()) % (state.changes.len() + 1);
        if let Some(names) = kept.checked_sub(1).map(|last| state.changes[last].clone()) {
            state.durable_names = names;
        }
        state.changes.clear();
        state.names = state.durable_names.clone();
        for file in &mut state.files {
            for (offset, bytes) in std::mem::take(&mut file.unsynced) {
                let drawn = usize::from(draw());
                let first_part = usize::from(draw()) % (bytes.len() + 1);
                let arrived = |at: usize| match drawn % 4 {
                    0 => false,
                    1 => true,
                    2 => at < offset + first_part,
                    _ => drawn >> (at / SECTOR_BYTES % 16) & 1 == 1,
                };
                if file.durable.len() < offset + bytes.len() {
                    file.durable.resize(offset + bytes.len(), 0);
                }
                for (i, byte) in bytes.into_iter().enumerate() {
                    if arrived(offset + i) {
                        file.durable[offset + i] = byte;
                    }
                }
            }
            file.content = file.durable.clone();
        }
    }
}

impl State {
    fn rename(&mut self, change: impl FnOnce(&mut BTreeMap<OsString, usize>)) {
        change(&mut self.names);
        self.changes.push(self.names.clone());
    }
}

impl Storage for PowerDisk {
    fn list(&self, _directory: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        let index = *self.state().names.get(&name_of(path)).ok_or_else(missing)?;
        Ok(Box::new(Open { disk: self.clone(), index }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        let mut state = self.state();
        let index = state.files.len();
        state.files.push(File::default());
        state.rename(|names| _ = names.insert(name_of(path), index));
        Ok(Box::new(Open { disk: self.clone(), index }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let index = *state.names.get(&name_of(from)).ok_or_else(missing)?;
        state.rename(|names| {
            names.remove(&name_of(from));
            names.insert(name_of(to), index);
        });
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn seed(&self) -> u64 {
        let mut state = self.state();
        state.seeds += 1;
        state.seeds.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Handle for Open {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.index].content.len() as u64)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // A length is durable at once: no test here is about it.
        let file = &mut self.disk.state().files[self.index];
        file.content.resize(bytes as usize, 0);
        file.durable.resize(bytes as usize, 0);
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let from = offset as usize;
        let held = state.files[self.index].content.get(from..from + buffer.len());
        buffer.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = &mut self.disk.state().files[self.index];
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if file.content.len() < to {
            file.content.resize(to, 0);
        }
        file.content[from..to].copy_from_slice(bytes);
        file.unsynced.push((from, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let file = &mut self.disk.state().files[self.index];
        file.unsynced.clear();
        file.durable = file.content.clone();
        Ok(())
    }
}
