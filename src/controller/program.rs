//! The programs that a cluster was upgraded to: copies beside the keys, so that a controller that
//! takes over, and one that goes back, have them at hand.
//!
//! A cluster that was never upgraded runs the program that deploys it. From its first upgrade on it
//! runs the one that it was upgraded to, whichever controller deploys, until the next; the one
//! before is kept, to go back to.
//!
//! The cost: some fifty megabytes for each of the two.

use super::host::remote::sha256;
use super::told;
use crate::wire::build::Build;
use crate::wire::failure::{Code, Failure};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory beside the keys.
pub const PROGRAMS: &str = "programs";

/// How many characters of the checksum tell one build of a version from another.
const SUM_CHARS: usize = 12;

/// A program that a cluster runs, or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its version, as it says itself.
    pub version: String,
    /// SHA-256, 64 hexadecimal digits.
    pub sum: String,
    /// The oldest and the newest cluster version that it can run.
    pub cluster_versions: (u16, u16),
}

impl Program {
    /// What a file is.
    ///
    /// # Errors
    /// When it cannot be read, or is no program of ours.
    pub fn of(file: &Path) -> Result<Program, Failure> {
        let unable = |error: io::Error| {
            let message = format!("cannot read the program {}: {error}", file.display());
            Failure::new(Code::NotFound, message, "give the path of a paxos program: --binary FILE")
        };
        let bytes = fs::read(file).map_err(unable)?;
        let Some(Build { version, cluster_versions }) = Build::of(&bytes) else {
            let message = format!("{} does not say that it is a paxos program", file.display());
            let hint = "give a paxos or paxos-ctl that was built for the hosts";
            return Err(Failure::new(Code::BadSettings, message, hint));
        };
        let mut sum = String::new();
        for byte in sha256(file).map_err(unable)? {
            write!(sum, "{byte:02x}").expect("a string takes everything");
        }
        Ok(Program { version, sum, cluster_versions })
    }

    /// For people: its version, and the beginning of its checksum.
    pub fn name(&self) -> String {
        format!("{}-{}", self.version, self.sum.get(..SUM_CHARS).unwrap_or(&self.sum))
    }

    /// Where its copy lies.
    pub fn path(&self, keys_dir: &Path) -> PathBuf {
        keys_dir.join(PROGRAMS).join(self.name()).join("paxos")
    }

    /// Copies a file, which is this program, to where its copy lies, unless it is there.
    ///
    /// # Errors
    /// When it cannot be copied; nothing lies there then.
    pub fn keep(&self, file: &Path, keys_dir: &Path) -> Result<(), Failure> {
        let path = self.path(keys_dir);
        let unable = |error: io::Error| {
            let message = format!("cannot keep a copy of {}: {error}", file.display());
            let hint = format!("make room where the keys are: {}", keys_dir.display());
            Failure::new(Code::Internal, message, hint)
        };
        if path.exists() {
            return self.check(keys_dir);
        }
        let folder = path.parent().unwrap_or(keys_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unable)?;
        let temporary = folder.join(".paxos.new");
        let copy = || -> io::Result<()> {
            let mut to = OpenOptions::new();
            let mut to = to.write(true).create(true).truncate(true).mode(0o755).open(&temporary)?;
            io::copy(&mut File::open(file)?, &mut to)?;
            to.sync_all()?;
            // A file that is open for writing cannot be executed.
            drop(to);
            fs::rename(&temporary, &path)?;
            File::open(folder)?.sync_all()
        };
        copy().map_err(unable)?;
        self.check(keys_dir)
    }

    /// Whether its copy is there and whole.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, keys_dir: &Path) -> Result<(), Failure> {
        let path = self.path(keys_dir);
        match Program::of(&path) {
            Ok(found) if found.sum == self.sum => Ok(()),
            Ok(_) => {
                let what = format!("{} is not the program that its name says", path.display());
                Err(told(Code::Corrupt, &format!("{what}; remove it and upgrade again")))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Removes all copies but these.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn forget_others(keys_dir: &Path, kept: &[&Program]) -> io::Result<()> {
        let entries = match fs::read_dir(keys_dir.join(PROGRAMS)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let is_kept = |program: &&&Program| *program.name() == *entry.file_name();
            if !kept.iter().any(|program| is_kept(&program)) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_kept_whole_and_others_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let make = |tail: &str| {
            let file = folder.path().join(format!("paxos{tail}"));
            let bytes = [fs::read(std::env::current_exe().unwrap()).unwrap(), tail.into()].concat();
            fs::write(&file, bytes).unwrap();
            (Program::of(&file).unwrap(), file)
        };
        let (one, one_file) = make("1");
        let (two, two_file) = make("2");
        assert_ne!(one.name(), two.name(), "two builds of one version");
        one.keep(&one_file, &keys).unwrap();
        one.keep(&one_file, &keys).unwrap();
        two.keep(&two_file, &keys).unwrap();
        assert_eq!(fs::read(two.path(&keys)).unwrap(), fs::read(&two_file).unwrap());
        Program::forget_others(&keys, &[&two]).unwrap();
        assert!(!one.path(&keys).exists() && two.path(&keys).exists());
        fs::write(two.path(&keys), fs::read(&one_file).unwrap()).unwrap();
        assert_eq!(two.check(&keys).unwrap_err().code, Code::Corrupt);
        let text = folder.path().join("notes.txt");
        fs::write(&text, "no program").unwrap();
        assert_eq!(Program::of(&text).unwrap_err().code, Code::BadSettings);
        assert_eq!(Program::of(folder.path()).unwrap_err().code, Code::NotFound);
    }
}
