//! How a host with root is laid out: an account of its own for the nodes, versions side by side,
//! and `paxos` on everybody's PATH.
//!
//! | path | what |
//! |---|---|
//! | `/opt/paxos/VERSION-SUM/paxos` | an executable, as it was sent |
//! | `/opt/paxos/current` | a link to the version that runs, replaced whole |
//! | `/usr/local/bin/paxos` | a link to the current one |
//! | `/etc/paxos/CLUSTER.yaml` | the node's settings |
//! | `/var/lib/paxos/CLUSTER/` | log, keys, socket and output, of the account `paxos` alone |
//!
//! An old version stays where it is until the cluster is destroyed, so that going back is a link.

use super::agent_call::Digest;
use super::host::{Layout, Place};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where versions of the program lie.
pub const VERSIONS: &str = "/opt/paxos";

/// The link to the one that runs.
pub const CURRENT: &str = "/opt/paxos/current";

/// Where settings lie.
pub const SETTINGS: &str = "/etc/paxos";

/// The program on everybody's PATH.
pub const PROGRAM: &str = "/usr/local/bin/paxos";

/// Whose processes and files nodes are.
pub const ACCOUNT: &str = "paxos";

/// How many characters of the checksum tell one build of a version from another.
const SUM_CHARS: usize = 12;

/// Where an executable of this checksum lies.
pub fn version_path(digest: &Digest) -> PathBuf {
    let mut name = format!("{}-", env!("CARGO_PKG_VERSION"));
    for byte in &digest[..SUM_CHARS / 2] {
        write!(name, "{byte:02x}").expect("a string takes everything");
    }
    Path::new(VERSIONS).join(name).join("paxos")
}

/// The numbers of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
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
    command.args(["--system", "--user-group", "--no-create-home", "--home-dir", "/var/lib/paxos"]);
    let output = command.args(["--shell", "/usr/sbin/nologin", ACCOUNT]).output()?;
    account().ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        io::Error::other(format!("the account {ACCOUNT} cannot be made: {said}"))
    })
}

/// Gives a file, or a directory with all that is in it, to the account of the nodes.
///
/// # Errors
/// When it cannot be given away, or not be looked at. Links are not followed.
pub fn give(path: &Path, account: Account) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    chown(path, Some(account.user), Some(account.group))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), account)?;
        }
    }
    Ok(())
}

/// Makes an executable below [`VERSIONS`] the current one.
///
/// # Errors
/// When a link cannot be made, or somebody else's file is where ours should be.
pub fn adopt(executable: &Path) -> io::Result<()> {
    let version = executable.parent().unwrap_or(executable);
    replace_link(version, Path::new(CURRENT))?;
    let target = Path::new(CURRENT).join("paxos");
    let program = Path::new(PROGRAM);
    match fs::read_link(program) {
        Ok(found) if found == target => Ok(()),
        Ok(_other) => Err(io::Error::other(format!("{PROGRAM} is a link to something else"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(program.parent().unwrap_or(program))?;
            replace_link(&target, program)
        }
        Err(_no_link) => Err(io::Error::other(format!("{PROGRAM} is somebody else's program"))),
    }
}

/// A link appears whole, over an older one.
fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let mut new = link.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &new)?;
    fs::rename(&new, link)
}

/// Takes away what belongs to no cluster any more, once the last one is gone.
///
/// # Errors
/// When something of ours cannot be removed.
pub fn remove_shared() -> io::Result<()> {
    let is_settings = |entry: &fs::DirEntry| {
        entry.path().extension().is_some_and(|extension| extension == "yaml")
    };
    if let Ok(entries) = fs::read_dir(SETTINGS)
        && entries.flatten().any(|entry| is_settings(&entry))
    {
        return Ok(());
    }
    let ours = fs::read_link(PROGRAM).is_ok_and(|target| target.starts_with(CURRENT));
    if ours {
        fs::remove_file(PROGRAM)?;
    }
    if Path::new(VERSIONS).exists() {
        fs::remove_dir_all(VERSIONS)?;
    }
    for directory in [SETTINGS, "/var/lib/paxos"] {
        // Whatever else lies there is somebody's.
        let _not_empty = fs::remove_dir(directory);
    }
    Ok(())
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

    #[test]
    fn versions_of_the_program_are_told_from_others() {
        let path = version_path(&[0xab; 32]);
        assert!(path.to_string_lossy().ends_with("-abababababab/paxos"), "{}", path.display());
        assert!(is_version(&path));
        for other in ["/opt/paxos/paxos", "/opt/paxos/1/x/paxos", "/opt/paxos/1/vi", "/bin/paxos"] {
            assert!(!is_version(Path::new(other)), "{other}");
        }
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
