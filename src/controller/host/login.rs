//! Whom to knock at, and how: the words for the stock `ssh` program.
//!
//! What is said here comes first on the command line, and with OpenSSH the first value of an option
//! counts: an inventory that switches the check of host keys off, as many do, does not get its way.
//! Everything else is left to the operator's own configuration.

use super::child::deaf;
use rand::RngExt;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

/// The program; found on the PATH.
pub const SSH: &str = "ssh";

/// What is the same for every login, and why.
const ALWAYS: [&str; 10] = [
    // A host is known, or it is not talked to. Nobody is asked in the middle of a run.
    "StrictHostKeyChecking=yes",
    "BatchMode=yes",
    // A host that goes away later is noticed after 15 s.
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    // Nothing of the operator's goes to the host but this connection.
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    // A connection ends with this program, and what runs there is what this program says.
    "ControlPersist=no",
    "RemoteCommand=none",
];

/// A host that is gone is noticed. This comes behind the inventory's own words, which may allow for
/// more, where the way is long or a bastion busy.
const PATIENCE: &str = "ConnectTimeout=5";

/// How to reach a host's own sshd.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Login {
    /// Its name or address, or an alias of the operator's `~/.ssh/config`.
    pub host: String,
    /// Its sshd's port, where the inventory gives one.
    pub port: Option<u16>,
    /// Whose account, where the inventory gives one.
    pub user: Option<String>,
    /// With which key, where the inventory gives one.
    pub key: Option<PathBuf>,
    /// What else the inventory says to ssh.
    pub arguments: Vec<String>,
    /// Whether to become root there, by `sudo` without a password.
    pub becomes_root: bool,
}

impl Login {
    /// The words for `ssh` up to and with the host.
    pub fn words(&self) -> Vec<OsString> {
        self.words_with(&[])
    }

    /// As [`Login::words`], for a connection that others may share: each login more would be one
    /// more at a bastion, whose sshd turns some away when ten come at once.
    pub fn words_of_master(&self) -> Vec<OsString> {
        match control_path() {
            Some(path) => self.words_with(&["-o", "ControlMaster=auto", "-o", &path]),
            None => self.words(),
        }
    }

    /// As [`Login::words`], with words of ours before the host.
    pub fn words_with(&self, ours: &[&str]) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        for option in ALWAYS {
            words.extend(["-o".into(), option.into()]);
        }
        words.extend(ours.iter().map(OsString::from));
        words.extend(self.arguments.iter().map(OsString::from));
        words.extend(["-o".into(), PATIENCE.into()]);
        if let Some(port) = self.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(user) = &self.user {
            words.extend(["-l".into(), user.into()]);
        }
        if let Some(key) = &self.key {
            words.extend(["-i".into(), key.into()]);
        }
        words.extend(["--".into(), self.host.clone().into()]);
        words
    }

    /// What a person would type to see for themselves; it asks about a key that is not known, no
    /// matter what the inventory says to ssh.
    pub fn to_command(&self) -> String {
        let mut words = [SSH, "-o", "StrictHostKeyChecking=ask"].map(str::to_owned).to_vec();
        words.extend(self.arguments.iter().cloned());
        words.extend(self.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        let user = self.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
        let key = self.key.iter().map(|key| key.display().to_string());
        words.extend(key.flat_map(|key| ["-i".to_owned(), key]));
        words.push(format!("{user}{}", self.host));
        shell_words::join(words)
    }

    /// A ProxyCommand that reaches `%h:%p` from the host itself.
    pub fn proxy_command(&self) -> Vec<String> {
        self.forwarding(&["-W", "%h:%p"])
    }

    /// As [`Login::proxy_command`], over the connection that this program has there, if it has one.
    pub fn shared_proxy_command(&self) -> Vec<String> {
        match control_path() {
            Some(path) => {
                // Nothing of ssh's own, or it would stand between `%C` and its meaning.
                let path = path.replace("%C", "%%C");
                self.forwarding(&["-o", "ControlMaster=no", "-o", &path, "-W", "%h:%p"])
            }
            None => self.proxy_command(),
        }
    }

    fn forwarding(&self, ours: &[&str]) -> Vec<String> {
        let words = self.words_with(ours);
        let words = words.iter().map(|word| word.to_string_lossy().into_owned());
        let no_forwardings = |word: &String| word == "ClearAllForwardings=yes";
        let mut all: Vec<String> = std::iter::once(SSH.to_owned()).chain(words).collect();
        // It would take away what -W asks for.
        if let Some(place) = all.iter().position(no_forwardings) {
            all.drain(place - 1..=place);
        }
        all
    }

    /// Whether the operator's configuration or the inventory leads to the host by way of another;
    /// then what runs on it is reached that way, too. Asks `ssh -G`, once in the life of this
    /// program.
    ///
    /// # Errors
    /// What ssh says when it does not understand its words, or that it is not there.
    pub fn is_behind_another(&self) -> Result<bool, String> {
        static KNOWN: LazyLock<Mutex<HashMap<Login, Result<bool, String>>>> =
            LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().expect("no holder of this lock panics");
        known.entry(self.clone()).or_insert_with(|| self.ask_the_way()).clone()
    }

    fn ask_the_way(&self) -> Result<bool, String> {
        let asked = deaf(SSH).arg("-G").args(self.words()).output();
        let output = asked.map_err(|error| format!("cannot run {SSH}: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let leads = |line: &str| {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            matches!(name, "proxyjump" | "proxycommand") && value != "none"
        };
        Ok(text.lines().any(leads))
    }
}

/// Where connections are shared, for this program alone.
static CONTROL: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = runtime.filter(|path| path.is_absolute()).unwrap_or_else(std::env::temp_dir);
    let directory = base.join(format!("paxos-ctl-{:016x}", rand::rng().random::<u64>()));
    // A socket's name has room for a hundred characters, with ssh's own additions. Without a place
    // each connection is made by itself.
    let fits = directory.as_os_str().len() + CONTROL_NAME_CHARS <= CONTROL_PATH_CHARS_MAX;
    let made = fits && DirBuilder::new().mode(0o700).create(&directory).is_ok();
    made.then_some(directory)
});

/// `/`, a hash in hexadecimal, and what ssh adds while the socket comes into being.
const CONTROL_NAME_CHARS: usize = 1 + 40 + 17;

/// What a socket's name may be long, without the zero at its end.
const CONTROL_PATH_CHARS_MAX: usize = 107;

fn control_path() -> Option<String> {
    let directory = CONTROL.as_ref()?.to_str()?;
    Some(format!("ControlPath={directory}/%C"))
}

/// Removes the place where connections were shared.
pub fn forget_shared() {
    if let Some(Some(directory)) = LazyLock::get(&CONTROL) {
        let _gone_already = std::fs::remove_dir_all(directory);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::controller) fn login() -> Login {
        Login {
            host: "db1".to_owned(),
            port: Some(2222),
            user: Some("ops".to_owned()),
            key: None,
            arguments: ["-o", "StrictHostKeyChecking=no"].map(str::to_owned).into(),
            becomes_root: true,
        }
    }

    fn asked(login: &Login) -> String {
        let output = std::process::Command::new(SSH).arg("-G").args(login.words()).output();
        let output = output.expect("ssh is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("ssh -G prints text")
    }

    #[test]
    fn an_inventory_cannot_switch_the_check_of_host_keys_off() {
        let text = asked(&login());
        let strict = text.lines().any(|line| line == "stricthostkeychecking true");
        assert!(strict, "{text}");
        assert!(text.contains("port 2222") && text.contains("user ops"), "{text}");
    }

    #[test]
    fn a_host_whose_name_looks_like_an_option_is_a_host() {
        let login = Login { host: "-oProxyCommand=touch x".to_owned(), ..login() };
        assert_eq!(login.words().iter().rev().nth(1).map(|word| word == "--"), Some(true));
        assert_eq!(login.is_behind_another().ok(), None, "ssh takes no such name");
    }

    #[test]
    fn whoever_stands_behind_a_bastion_is_known_by_what_ssh_says() {
        assert_eq!(login().is_behind_another(), Ok(false));
        let arguments = ["-J", "bastion"].map(str::to_owned).into();
        assert_eq!(Login { arguments, ..login() }.is_behind_another(), Ok(true));
        let words = login().proxy_command().join(" ");
        assert!(words.contains("-W %h:%p") && !words.contains("ClearAllForwardings"), "{words}");
    }
}
