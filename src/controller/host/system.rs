//! How a host with root is laid out: an account of its own for the nodes, versions side by side,
//! and `paxos` on everybody's PATH.
//!
//! | path | what |
//! |---|---|
//! | `/opt/paxos/VERSION-SUM/paxos` | an executable, as it was sent |
//! | `/opt/paxos/current` | a link to the version that runs, replaced whole |
//! | `/usr/local/bin/paxos` | a link to the current one |
//! | `/etc/paxos/CLUSTER.yaml` | the node's settings |
//! | `/etc/paxos/CLUSTER.program` | where systemd runs the host: see [`unit`](super::unit) |
//! | `/var/lib/paxos/CLUSTER/` | log, keys, socket and output, of the account `paxos` alone |
//!
//! An old version stays where it is until the cluster is destroyed, so that going back is a link.

use super::agent_call::Digest;
use super::{Layout, Place};
use crate::transport::confined::{Account, Confined};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where versions of the program lie.
pub const VERSIONS: &str = "/opt/paxos";

/// The link to the one that runs.
pub const CURRENT: &str = "/opt/paxos/current";

/// Where settings lie.
pub const SETTINGS: &str = "/etc/paxos";

/// Where clusters keep what is theirs, unless an inventory says otherwise.
pub const STATE: &str = "/var/lib/paxos";

/// The program on everybody's PATH.
pub const PROGRAM: &str = "/usr/local/bin/paxos";

/// Whose processes and files nodes are.
pub const ACCOUNT: &str = "paxos";

/// How many characters of the checksum tell one build of a version from another.
const SUM_CHARS: usize = 12;

/// Where an executable of this version and checksum lies.
pub fn version_path(version: &str, digest: &Digest) -> PathBuf {
    let mut name = format!("{version}-");
    for byte in &digest[..SUM_CHARS / 2] {
        write!(name, "{byte:02x}").expect("a string takes everything");
    }
    Path::new(VERSIONS).join(name).join("paxos")
}

/// The account of the nodes, if there is one.
pub fn account() -> Option<Account> {
    let number = |flag: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, ACCOUNT]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    Some(Account { user: number("-u")?, group: number("-g")? })
}

/// Makes the account unless it is there, and the directories that belong to no node.
///
/// # Errors
/// When one of them cannot be made, with the words of the program that tried.
pub fn prepare(place: &Place) -> io::Result<Account> {
    fs::create_dir_all(SETTINGS)?;
    if let Some(parent) = place.directory.parent() {
        fs::create_dir_all(parent)?;
    }
    if let Some(account) = account() {
        return Ok(account);
    }
    let mut command = Command::new("useradd");
    command.args(["--system", "--user-group", "--no-create-home", "--home-dir", STATE]);
    let output = command.args(["--shell", "/usr/sbin/nologin", ACCOUNT]).output()?;
    account().ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        io::Error::other(format!("the account {ACCOUNT} cannot be made: {said}"))
    })
}

/// Makes a directory the account's own: a new one, an empty one, or one that is its own already.
///
/// # Errors
/// When it is somebody else's or a link, or cannot be made.
pub fn take_directory(path: &Path, account: Account) -> io::Result<Confined> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let directory = Confined::open(path)?;
    directory.take(account).map_err(|error| {
        let message = format!("{error}; give paxos_data_dir a directory of its own");
        io::Error::new(error.kind(), message)
    })?;
    Ok(directory.owned_by(Some(account)))
}

/// Makes an executable below [`VERSIONS`] the current one.
///
/// # Errors
/// When a link cannot be made, or somebody else's file is where ours should be.
pub fn adopt(executable: &Path) -> io::Result<()> {
    let target = Path::new(CURRENT).join("paxos");
    let program = Path::new(PROGRAM);
    match fs::read_link(program) {
        Ok(found) if found == target => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(program.parent().unwrap_or(program))?;
            replace_link(&target, program)?;
        }
        Ok(_) | Err(_) => {
            let message = format!("{PROGRAM} is somebody else's; move it away");
            return Err(io::Error::other(message));
        }
    }
    // Last, for this is what a plan looks at.
    replace_link(executable.parent().unwrap_or(executable), Path::new(CURRENT))
}

/// A link appears whole, over an older one.
///
/// # Errors
/// When it cannot be made there.
pub fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let mut new = link.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &new)?;
    fs::rename(&new, link)
}

/// Takes away what belongs to no cluster any more, once the last one is gone. Says whether it is.
///
/// # Errors
/// When something of ours cannot be removed.
pub fn remove_shared() -> io::Result<bool> {
    let is_settings = |entry: &fs::DirEntry| {
        entry.path().extension().is_some_and(|extension| extension == "yaml")
    };
    let in_use = match fs::read_dir(SETTINGS) {
        Ok(mut entries) => entries.any(|entry| entry.is_ok_and(|entry| is_settings(&entry))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if in_use {
        return Ok(false);
    }
    let ours = fs::read_link(PROGRAM).is_ok_and(|target| target.starts_with(CURRENT));
    if ours {
        fs::remove_file(PROGRAM)?;
    }
    for entry in fs::read_dir(VERSIONS).into_iter().flatten().flatten() {
        let version = entry.path();
        if version == Path::new(CURRENT) {
            fs::remove_file(&version)?;
        } else if version.join("paxos").is_file() {
            fs::remove_file(version.join("paxos"))?;
            let _not_empty = fs::remove_dir(&version);
        }
    }
    for directory in [VERSIONS, SETTINGS, STATE] {
        // Whatever else lies there is somebody's.
        let _not_empty = fs::remove_dir(directory);
    }
    Ok(true)
}

/// Where the settings of a cluster's node lie.
pub fn settings_path(cluster: &str) -> PathBuf {
    Path::new(SETTINGS).join(format!("{cluster}.yaml"))
}

/// Whether a process's executable is some version of ours.
pub fn is_version(executable: &Path) -> bool {
    let below = executable.strip_prefix(VERSIONS);
    below.is_ok_and(|rest| rest.components().count() == 2 && rest.ends_with("paxos"))
}

/// The account that a node of this layout runs under, where it is not the one who starts it.
///
/// # Errors
/// When it should have one and there is none.
pub fn account_of(layout: &Layout) -> io::Result<Option<Account>> {
    match layout {
        Layout::Own => Ok(None),
        Layout::System { .. } => match account() {
            Some(account) => Ok(Some(account)),
            None => Err(io::Error::other(format!("there is no account {ACCOUNT}; deploy again"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn versions_of_the_program_are_told_from_others() {
        let path = version_path("0.2.0", &[0xab; 32]);
        assert!(
            path.to_string_lossy().ends_with("/0.2.0-abababababab/paxos"),
            "{}",
            path.display()
        );
        assert!(is_version(&path));
        for other in ["/opt/paxos/paxos", "/opt/paxos/1/x/paxos", "/opt/paxos/1/vi", "/bin/paxos"] {
            assert!(!is_version(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn what_is_somebody_elses_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let me = fs::metadata(folder.path()).unwrap();
        let account = Account { user: me.uid(), group: me.gid() };
        let other = Account { user: me.uid() + 1, ..account };
        let path = folder.path().join("data");
        take_directory(&path, account).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("thesis.tex"), "x").unwrap();
        take_directory(&path, account).unwrap();
        assert!(take_directory(&path, other).is_err(), "there is something of another's in it");
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(take_directory(&link, account).is_err(), "a link leads somewhere");
    }

    #[test]
    fn a_link_appears_over_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("current");
        for target in ["/a", "/b"] {
            replace_link(Path::new(target), &link).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
