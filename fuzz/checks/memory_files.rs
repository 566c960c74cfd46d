//! Files in memory for the log: what was written is there, and no clock, disk or directory is
//! touched. Remembers the last write, so that a check can tear it.
//!
//! Nothing here fails by itself; a damaged disk is made by changing what the files hold.

use paxos_ssh::disk::files::{Handle, Storage};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module's documentation. Clones are handles of the same files.
#[derive(Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    names: BTreeMap<OsString, usize>,
    contents: Vec<Vec<u8>>,
    last: Option<Write>,
    seeds: u64,
}

/// A write, and what it covered.
#[derive(Clone)]
pub struct Write {
    file: usize,
    /// Where in the file.
    pub offset: usize,
    /// What was there.
    pub before: Vec<u8>,
    /// What was written.
    pub after: Vec<u8>,
}

struct MemoryFile {
    files: MemoryFiles,
    index: usize,
}

impl MemoryFiles {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all files, in order.
    pub fn names(&self) -> Vec<OsString> {
        self.state().names.keys().cloned().collect()
    }

    /// Everything that is there.
    pub fn contents(&self) -> BTreeMap<OsString, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, i)| (name.clone(), state.contents[*i].clone())).collect()
    }

    /// Puts a file there, in the place of one that has the name.
    pub fn put(&self, name: &OsStr, bytes: Vec<u8>) {
        let mut state = self.state();
        let index = state.contents.len();
        state.contents.push(bytes);
        state.names.insert(name.to_owned(), index);
    }

    /// Changes what a file holds.
    pub fn change(&self, name: &OsStr, how: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Some(index) = state.names.get(name).copied() {
            how(&mut state.contents[index]);
        }
    }

    /// Takes a file away.
    pub fn remove(&self, name: &OsStr) {
        self.state().names.remove(name);
    }

    /// The last write.
    pub fn last_write(&self) -> Option<Write> {
        self.state().last.clone()
    }

    /// Leaves of a write what `arrived` says of each of its bytes, by offset in the file.
    pub fn tear(&self, write: &Write, arrived: impl Fn(usize) -> bool) {
        let mut state = self.state();
        for (i, (before, after)) in write.before.iter().zip(&write.after).enumerate() {
            let at = write.offset + i;
            state.contents[write.file][at] = if arrived(at) { *after } else { *before };
        }
    }
}

fn name_of(path: &Path) -> OsString {
    path.file_name().expect("the log's files have names").to_owned()
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Storage for MemoryFiles {
    fn list(&self, _directory: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.names())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        let index = *self.state().names.get(&name_of(path)).ok_or_else(missing)?;
        Ok(Box::new(MemoryFile { files: self.clone(), index }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        self.put(&name_of(path), Vec::new());
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let index = state.names.remove(&name_of(from)).ok_or_else(missing)?;
        state.names.insert(name_of(to), index);
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn seed(&self) -> u64 {
        let mut state = self.state();
        state.seeds += 1;
        // Any odd constant: no two segments share a seed, and the same story gives the same ones.
        state.seeds.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Handle for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.files.state().contents[self.index].len() as u64)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.files.state().contents[self.index].resize(bytes as usize, 0);
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.files.state();
        let from = offset as usize;
        let held = state.contents[self.index].get(from..from + buffer.len());
        buffer.copy_from_slice(held.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.files.state();
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        let content = &mut state.contents[self.index];
        if content.len() < to {
            content.resize(to, 0);
        }
        let before = content[from..to].to_vec();
        content[from..to].copy_from_slice(bytes);
        state.last = Some(Write { file: self.index, offset: from, before, after: bytes.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
