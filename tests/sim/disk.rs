//! The disk of a simulated machine: the files that the log asks for, in memory, with everything
//! that a real one may do to what was not synced, and some things that it must not do.
//!
//! A file has two faces. What a process reads is its *cache*; what a power cut leaves is decided
//! write by write from what was never synced: some arrived, some did not, of some only sectors or a
//! first part. A process that is killed leaves the cache behind, so the next one may read what the
//! disk does not hold yet.
//!
//! A sync that fails drops pages: the cache still shows them and calls them clean, and no later
//! sync writes them, until somebody writes them anew. Source: Rebello et al., "Can Applications
//! Recover from fsync Failures?" (USENIX ATC 2020), §3.
//!
//! Names work the same way: creations and renames are durable once the directory is synced; before
//! that a power cut leaves a first part of them.
//!
//! The cost is a copy of everything that is overwritten, until the next sync.

use crate::random::Random;
use paxos_ssh::disk::files::{Handle, Storage};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a disk writes whole or not at all, unless a draw says that it does not even do that.
const SECTOR_BYTES: usize = 512;

/// What the kernel keeps, drops and writes together.
const PAGE_BYTES: usize = 4096;

/// See the module's documentation. Clones are handles of one disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    files: Vec<File>,
    /// As a process sees them; the numbers are those of `files`.
    names: BTreeMap<OsString, usize>,
    /// As a power cut leaves them.
    durable_names: BTreeMap<OsString, usize>,
    /// What lies between the two.
    renames: Vec<Rename>,
    random: Random,
    /// No room for anything new.
    full: bool,
    /// The next sync fails.
    sync_fails: bool,
    /// Syncs say that they are done and do nothing.
    lies: bool,
    /// After so many operations more the power goes, in the middle of one.
    operations_left: Option<u64>,
}

enum Rename {
    Create(OsString, usize),
    Move(OsString, OsString),
}

#[derive(Clone, Default)]
struct File {
    cache: Vec<u8>,
    /// Whether it was written to its end once, as new segments are.
    filled: bool,
    /// How far it was written since then.
    used: usize,
    /// How long the file is after a power cut.
    synced_length: usize,
    /// What was under each write since the last sync, oldest first.
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Pages that the cache calls clean, and what the disk holds in their place.
    dropped: BTreeMap<usize, Vec<u8>>,
}

fn gone(what: &str) -> io::Error {
    io::Error::other(format!("{what} (simulated)"))
}

impl File {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        // Whoever writes to a page makes it dirty, all of it.
        for page in offset / PAGE_BYTES..=end.saturating_sub(1) / PAGE_BYTES {
            if let Some(held) = self.dropped.remove(&page) {
                self.unsynced.push((page * PAGE_BYTES, held));
            }
        }
        match self.unsynced.last_mut() {
            // The same bytes once more, or more of them: one write for the disk.
            Some((at, held)) if *at == offset => {
                let from = (offset + held.len()).min(end);
                held.extend_from_slice(&self.cache[from..end]);
            }
            _ => self.unsynced.push((offset, self.cache[offset..end].to_vec())),
        }
        self.cache[offset..end].copy_from_slice(bytes);
        if self.filled {
            self.used = self.used.max(end);
        }
        self.filled |= end == self.cache.len();
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.synced_length = self.cache.len();
    }

    /// A sync that failed: some writes arrived, the others count as clean.
    fn drop_pages(&mut self, random: &mut Random) {
        for (offset, held) in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if random.per_mille(500) {
                continue;
            }
            for page in offset / PAGE_BYTES..=(offset + held.len()).saturating_sub(1) / PAGE_BYTES {
                let (from, to) = (page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
                let Some(shown) = self.cache.get(from..to.min(self.cache.len())) else { continue };
                let page_held = self.dropped.entry(page).or_insert_with(|| shown.to_vec());
                let (first, last) = (offset.max(from), (offset + held.len()).min(to));
                page_held[first - from..last - from]
                    .copy_from_slice(&held[first - offset..last - offset]);
            }
        }
        self.synced_length = self.cache.len();
    }

    /// Clean pages leave the cache, and the disk's own take their place.
    fn evict(&mut self) {
        for (page, held) in std::mem::take(&mut self.dropped) {
            let from = page * PAGE_BYTES;
            self.cache[from..from + held.len()].copy_from_slice(&held);
        }
    }

    /// The power goes.
    fn cut(&mut self, random: &mut Random) {
        for (offset, held) in std::mem::take(&mut self.unsynced).into_iter().rev() {
            match random.below(6) {
                0 | 1 => {}
                2 | 3 => self.put_back(offset, &held, |_| true),
                4 => {
                    // Sectors arrive in any order.
                    let arrived = random.next();
                    self.put_back(offset, &held, |at| arrived >> (at / SECTOR_BYTES % 64) & 1 == 0);
                }
                _ => {
                    let arrived = offset + random.below(held.len() as u64 + 1) as usize;
                    self.put_back(offset, &held, |at| at >= arrived);
                }
            }
        }
        self.evict();
        if self.cache.len() > self.synced_length {
            self.cache.truncate(self.synced_length);
        }
    }

    fn put_back(&mut self, offset: usize, held: &[u8], lost: impl Fn(usize) -> bool) {
        for (index, byte) in held.iter().enumerate() {
            if lost(offset + index) {
                self.cache[offset + index] = *byte;
            }
        }
    }
}

impl State {
    /// Counts an operation that changes something; whether the power goes during it.
    fn is_last(&mut self) -> bool {
        let Some(left) = &mut self.operations_left else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }

    fn check_power(&self) -> io::Result<()> {
        if self.operations_left == Some(0) { Err(gone("the power is gone")) } else { Ok(()) }
    }

    /// Runs an operation, unless the power is gone; what it did counts as unsynced if the power
    /// goes meanwhile.
    fn change<T>(&mut self, what: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.check_power()?;
        let is_last = self.is_last();
        let done = what(self)?;
        if is_last { Err(gone("the power is gone")) } else { Ok(done) }
    }

    /// As [`State::change`], for what makes things durable: the power goes first.
    fn settle(&mut self, what: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        self.check_power()?;
        if self.is_last() { Err(gone("the power is gone")) } else { what(self) }
    }
}

fn name_of(path: &Path) -> OsString {
    path.file_name().expect("the log's files have names").to_owned()
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renames: Vec::new(),
            random: Random::new(seed),
            full: false,
            sync_fails: false,
            lies: false,
            operations_left: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no method panics with the state in hand")
    }

    /// The process ends and the machine goes on; or the power went already.
    pub fn kill(&self) {
        let mut state = self.state();
        if state.operations_left == Some(0) {
            drop(state);
            self.cut();
            return;
        }
        state.sync_fails = false;
        if state.random.per_mille(500) {
            state.files.iter_mut().for_each(File::evict);
        }
    }

    /// The power goes.
    pub fn cut(&self) {
        let state = &mut *self.state();
        let State { files, names, durable_names, renames, random, .. } = state;
        files.iter_mut().for_each(|file| file.cut(random));
        let kept = random.below(renames.len() as u64 + 1) as usize;
        for rename in renames.drain(..).take(kept) {
            match rename {
                Rename::Create(name, file) => {
                    durable_names.insert(name, file);
                }
                Rename::Move(from, to) => {
                    if let Some(file) = durable_names.remove(&from) {
                        durable_names.insert(to, file);
                    }
                }
            }
        }
        names.clone_from(durable_names);
        (state.sync_fails, state.lies, state.operations_left) = (false, false, None);
    }

    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub fn fail_next_sync(&self) {
        self.state().sync_fails = true;
    }

    /// Nothing goes wrong from now on; what went wrong did.
    pub fn heal(&self) {
        let state = &mut *self.state();
        if state.operations_left != Some(0) {
            (state.sync_fails, state.lies, state.operations_left) = (false, false, None);
        }
        state.full = false;
    }

    /// Syncs do nothing from now on, until the power goes.
    pub fn lie(&self) {
        self.state().lies = true;
    }

    /// Whether syncs do nothing.
    pub fn is_lying(&self) -> bool {
        self.state().lies
    }

    /// The power goes during the operation with this number, counted from now on.
    pub fn cut_after(&self, operations: u64) {
        self.state().operations_left = Some(operations.max(1));
    }
}

/// What a disk must not do, and what people do to it.
impl SimDisk {
    /// A file with records in it, and a place among them or, seldom, behind them.
    fn any_place(state: &mut State) -> Option<(usize, usize)> {
        // A file may have become shorter than what was used of it.
        let used_of = |file: usize| state.files[file].used.min(state.files[file].cache.len());
        let used: Vec<usize> =
            state.names.values().copied().filter(|file| used_of(*file) > 0).collect();
        let place = state.random.below(used.len() as u64) as usize;
        let file = *used.get(place)?;
        let (used, all) = (used_of(file), state.files[file].cache.len());
        let within = if state.random.per_mille(950) { used } else { all };
        Some((file, state.random.below(within as u64) as usize))
    }

    /// A bit changes its value. Says where.
    pub fn flip_bit(&self) -> Option<String> {
        let state = &mut *self.state();
        let (file, at) = SimDisk::any_place(state)?;
        state.files[file].cache[at] ^= 1 << state.random.below(8);
        Some(format!("a bit of byte {at} flips"))
    }

    /// A write to another place of the disk lands on records: whole sectors show what is elsewhere.
    pub fn misdirect(&self) -> Option<String> {
        let state = &mut *self.state();
        let (file, at) = SimDisk::any_place(state)?;
        let (source, from) = SimDisk::any_place(state)?;
        let (at, from) = (at / SECTOR_BYTES * SECTOR_BYTES, from / SECTOR_BYTES * SECTOR_BYTES);
        if (file, at) == (source, from) {
            return None;
        }
        let sectors = state.random.between(1, 8) as usize;
        let bytes = &state.files[source].cache[from..];
        let room = state.files[file].cache.len() - at;
        let bytes = bytes[..bytes.len().min(sectors * SECTOR_BYTES).min(room)].to_vec();
        state.files[file].cache[at..at + bytes.len()].copy_from_slice(&bytes);
        let what = format!("{} bytes of byte {from} land on byte {at}", bytes.len());
        if state.random.per_mille(500) {
            return Some(what);
        }
        // And where they belong there is what was there before.
        state.files[source].cache[from..from + bytes.len()].fill(0);
        Some(what + ", and are not where they belong")
    }

    /// Somebody empties the directory.
    pub fn wipe(&self) {
        let state = &mut *self.state();
        state.files.clear();
        state.names.clear();
        state.durable_names.clear();
        state.renames.clear();
        (state.sync_fails, state.lies, state.operations_left) = (false, false, None);
    }

    /// Somebody copies the directory away: what the disk holds for sure.
    pub fn backup(&self) -> SimDisk {
        let state = self.state();
        let copy = SimDisk::new(0);
        *copy.state() = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            renames: Vec::new(),
            random: state.random.clone(),
            full: false,
            sync_fails: false,
            lies: false,
            operations_left: None,
        };
        copy.cut();
        copy
    }

    /// The directories of two machines change places.
    pub fn swap(&self, other: &SimDisk) {
        let (mut mine, mut others) = (self.state(), other.state());
        std::mem::swap(&mut *mine, &mut *others);
    }
}

/// A handle of the disk as the log has it.
impl Storage for SimDisk {
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        state.check_power()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        let state = self.state();
        state.check_power()?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let file = *state.names.get(&name_of(path)).ok_or_else(missing)?;
        Ok(Box::new(Opened { disk: self.clone(), file }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Handle>> {
        let name = name_of(path);
        let file = self.state().change(|state| {
            let file = state.files.len();
            state.files.push(File::default());
            state.names.insert(name.clone(), file);
            state.renames.push(Rename::Create(name, file));
            Ok(file)
        })?;
        Ok(Box::new(Opened { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (name_of(from), name_of(to));
        self.state().change(|state| {
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            let file = state.names.remove(&from).ok_or_else(missing)?;
            state.names.insert(to.clone(), file);
            state.renames.push(Rename::Move(from, to));
            Ok(())
        })
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.state().settle(|state| {
            if std::mem::take(&mut state.sync_fails) {
                return Err(gone("input/output error"));
            }
            if !state.lies {
                state.renames.clear();
                state.durable_names = state.names.clone();
            }
            Ok(())
        })
    }

    fn seed(&self) -> u64 {
        self.state().random.next()
    }
}

struct Opened {
    disk: SimDisk,
    file: usize,
}

impl Handle for Opened {
    fn length(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.check_power()?;
        Ok(state.files[self.file].cache.len() as u64)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().change(|state| {
            if state.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let cache = &mut state.files[self.file].cache;
            let length = cache.len().max(bytes as usize);
            cache.resize(length, 0);
            Ok(())
        })
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        state.check_power()?;
        let from = offset as usize;
        let found = state.files[self.file].cache.get(from..from + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.state().change(|state| {
            if state.full {
                // A part fits, at times.
                let part = state.random.below(2 * bytes.len() as u64) as usize;
                let part = if part < bytes.len() { part } else { 0 };
                state.files[self.file].write(&bytes[..part], offset as usize);
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.files[self.file].write(bytes, offset as usize);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().settle(|state| {
            if std::mem::take(&mut state.sync_fails) {
                state.files[self.file].drop_pages(&mut state.random);
                return Err(gone("input/output error"));
            }
            if !state.lies {
                state.files[self.file].sync();
            }
            Ok(())
        })
    }
}
