//! The first moments on a host: a few lines of POSIX shell that say what machine it is, take an
//! executable in, and become the agent.
//!
//! What must never happen: half an executable at its place, or its bytes read as words.
//!
//! They run before anything of ours is there, so they use nothing that a bare Linux lacks: `sh`,
//! `uname`, `id`, `test`, `ls`, `head`, `cut`, `sha256sum`, `mkdir`, `chmod`, `mv`. An executable
//! arrives beside its place, is compared with its checksum, and appears there whole; one that is
//! there already is not sent.

use super::agent::AGENT;
use super::agent_call::Digest;
use super::child::{self, Tethered};
use super::login::{Login, SSH};
use super::pipe::{Complaints, Gathering, Inlet};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How long it may take until a host has said what it is: the way there, a bastion, a slow `sudo`.
const LANDING_LIMIT: Duration = Duration::from_secs(30);

/// How long one of the shell's small answers may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long an executable may take to arrive: fifty megabytes at a hundred kilobytes a second.
const UPLOAD_LIMIT: Duration = Duration::from_secs(600);

/// Pieces in which an executable is sent.
const PIECE_BYTES: usize = 256 << 10;

/// Said first, so that what a login shell prints before it is told apart.
const GREETING: &str = "paxos-landing 1";

/// What the host runs, as one word between single quotes: the login shell, whichever it is, only
/// has to hand it on, so there are none in it, and no exclamation marks, which some of them expand.
/// `$1` says whether to become root, `$2` is the umask, the others are executables that may be the
/// agent.
const SCRIPT: &str = r#"
become=$1; umask "$2"; shift 2
say() { printf "%s\n" "$*"; }
flat() { printf "%s" "$1" | tr "\r\n" "  "; }
run=; fault=
if [ "$become" = yes ] && [ "$(id -u)" -ne 0 ]; then
  run="sudo -n"
  if fault=$(sudo -n true 2>&1); then fault=; else fault="${fault:-sudo failed}"; fi
fi
say "paxos-landing 1"; say "$(uname -s)"; say "$(uname -m)"; say "$(id -un)"; say "$(flat "$fault")"
found=
for path in "$@"; do
  if [ -z "$found" ] && $run test -x "$path"; then found=$path; fi
done
say "$found"
while read -r word size sum path; do
  case $word in
  look)
    directory=no; log=no
    if $run test -d "$path"; then directory=yes; fi
    if [ -n "$($run ls -A "$path/log" 2>/dev/null)" ]; then log=yes; fi
    say "$directory $log" ;;
  put)
    if [ "$($run sha256sum "$path" 2>/dev/null | cut -c1-64)" = "$sum" ]; then
      say have
    else
      say send
      new="${path%/*}/.${path##*/}.new"
      if $run mkdir -p "${path%/*}" &&
        head -c "$size" | $run sh -c "cat > \"\$1\"" sh "$new" &&
        [ "$($run sha256sum "$new" | cut -c1-64)" = "$sum" ] &&
        $run chmod 755 "$new" && $run mv "$new" "$path"
      then say ok
      else
        # What is left of the executable is no word of ours.
        $run rm -f "$new"; say failed; exit 1
      fi
    fi ;;
  run) exec $run "$path" "$size" ;;
  *) exit 0 ;;
  esac
done
"#;

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Such as `Linux`.
    pub system: String,
    /// Such as `x86_64` or `aarch64`.
    pub architecture: String,
    /// Whose account it is.
    pub user: String,
}

/// Why a host could not be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

/// A host on which the shell waits for a word.
pub struct Landing {
    login: Login,
    program: Program,
    /// What machine it is.
    pub machine: Machine,
    /// The first of the executables that is there.
    pub found: Option<PathBuf>,
}

/// What to do where there is no `ssh`.
const NO_CLIENT: &str = "install the OpenSSH client, and see that it is on the PATH";

/// The `ssh` process.
pub(super) struct Program {
    child: Tethered,
    pub(super) input: Option<ChildStdin>,
    pub(super) output: Inlet,
    complaints: Complaints,
    gathering: Option<Gathering>,
    /// Whether the host has spoken; what is said before is ssh's.
    landed: bool,
}

impl Drop for Program {
    fn drop(&mut self) {
        // What it is connected to ends with its standard input; ssh itself may wait for a host that
        // is gone.
        self.input = None;
        self.child.kill();
        self.child.wait();
    }
}

impl Program {
    fn start(login: &Login, command: &str) -> Result<Program, Trouble> {
        let mut ssh = child::deaf(SSH);
        ssh.arg("-T").args(login.words_of_master()).arg(command);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ssh.spawn().map_err(|error| Trouble {
            reason: format!("cannot run {SSH}: {error}"),
            hint: NO_CLIENT.to_owned(),
        })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let child = Tethered::new(child);
        let (Some(input), Some(output), Some(errors)) = pipes else {
            let (reason, hint) = ("ssh has no pipes".to_owned(), "report this fault".to_owned());
            return Err(Trouble { reason, hint });
        };
        let (complaints, gathering) = Complaints::new(errors);
        let (output, gathering) = (Inlet::new(output), Some(gathering));
        let (input, landed) = (Some(input), false);
        Ok(Program { child, input, output, complaints, gathering, landed })
    }

    /// Ends the program unless the answer is dropped within this time: nothing else ends a write to
    /// a host that takes nothing.
    fn ends_within(&self, limit: Duration) -> SyncSender<()> {
        let (kept, dropped) = sync_channel::<()>(0);
        let number = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        std::thread::spawn(move || {
            if let (Err(RecvTimeoutError::Timeout), Some(pid)) =
                (dropped.recv_timeout(limit), number)
            {
                // Whoever holds the other end has not waited for it yet, so its number is its own.
                let _ended_already = kill_process(pid, Signal::KILL);
            }
        });
        kept
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let input = self.input.as_mut().ok_or_else(gone)?;
        input.write_all(bytes)?;
        input.flush()
    }

    /// Why it is of no use any more, in words for people.
    pub(super) fn trouble(&mut self, login: &Login, error: &io::Error) -> Trouble {
        let timed_out = error.kind() == io::ErrorKind::TimedOut;
        self.input = None;
        // Whoever talks nonsense would go on, and nobody reads it.
        if timed_out || error.kind() == io::ErrorKind::InvalidData {
            self.child.kill();
        }
        self.child.wait();
        if let Some(gathering) = self.gathering.take() {
            gathering.finish();
        }
        let said = self.complaints.text();
        match timed_out && said.is_empty() {
            true => Trouble {
                reason: "it did not answer in time".to_owned(),
                hint: format!("see whether it answers you: {} true", login.to_command()),
            },
            false => explain(login, &said, error, self.landed),
        }
    }

    fn complaint(&self) -> String {
        let text = self.complaints.text();
        text.lines().last().unwrap_or("it did not say why").to_owned()
    }
}

impl Trouble {
    /// Whether an sshd hung up before it asked who was there, as it does at random to some of those
    /// that come while many logins are under way (MaxStartups of sshd_config).
    pub fn is_crowded(&self) -> bool {
        let hung_up =
            ["Connection closed by", "Connection reset by", "kex_exchange_identification"];
        hung_up.iter().any(|words| self.reason.starts_with(&format!("{SSH_ENDED}{words}")))
    }
}

/// What stands before the last words of ssh where nothing more is known.
const SSH_ENDED: &str = "ssh ended: ";

/// What ssh complained about, and what to do about it.
fn explain(login: &Login, said: &str, error: &io::Error, landed: bool) -> Trouble {
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    // What commands on the host complain about is not ssh's word.
    let has = |words: &str| !landed && said.contains(words);
    let try_it = login.to_command();
    let (reason, hint) = if has("HOST IDENTIFICATION HAS CHANGED") {
        let offending = said.lines().find(|line| line.starts_with("Offending"));
        let offending = offending.map_or(String::new(), |line| format!(" ({})", line.trim()));
        (
            format!("its host key is not the one that known_hosts has{offending}"),
            "find out from whoever runs the host whether it was set up anew; only if so, replace \
             its line in known_hosts by the key that they give you"
                .to_owned(),
        )
    } else if has("REVOKED HOST KEY") {
        (
            "its host key is marked as revoked in known_hosts".to_owned(),
            "do not connect; find out from whoever runs the host what became of that key"
                .to_owned(),
        )
    } else if has("Host key verification failed") {
        (
            "known_hosts has no key of it".to_owned(),
            format!(
                "get its host key from whoever runs it, or log in once and compare the \
                 fingerprint: {try_it}"
            ),
        )
    } else if has("Permission denied") {
        (
            last.unwrap_or("permission denied").to_owned(),
            format!(
                "see that the user and the key are the right ones (ansible_user, \
                 ansible_ssh_private_key_file, ssh-add -l), and that this works: {try_it}"
            ),
        )
    } else if has(&format!("{}{SSH}", child::NOT_FOUND)) {
        (format!("cannot run {SSH}"), NO_CLIENT.to_owned())
    } else if has("Could not resolve hostname") {
        let hint = "mend ansible_host, or the name in ~/.ssh/config";
        (last.unwrap_or_default().to_owned(), hint.to_owned())
    } else if has("Connection refused") || has("timed out") || has("No route to host") {
        (
            last.unwrap_or_default().to_owned(),
            format!("see that the host is up and its sshd can be reached: {try_it}"),
        )
    } else {
        let reason = match last {
            Some(last) => format!("{SSH_ENDED}{last}"),
            None => format!("the connection ended: {error}"),
        };
        (reason, format!("see whether this works: {try_it}"))
    };
    Trouble { reason, hint }
}

impl Landing {
    /// Logs in and looks. `candidates` are executables that may be the agent, the best first; with
    /// `private` what is made is for the user alone.
    ///
    /// # Errors
    /// When the host cannot be reached, does not let us in, or is none of ours.
    pub fn open(login: &Login, private: bool, candidates: &[PathBuf]) -> Result<Landing, Trouble> {
        let mut command = format!("/bin/sh -c '{SCRIPT}' paxos-ctl");
        let become_root = if login.becomes_root { "yes" } else { "no" };
        let umask = if private { "077" } else { "022" };
        write!(command, " {become_root} {umask}").expect("a string takes everything");
        for path in candidates {
            let path = path.to_string_lossy();
            write!(command, " {}", shell_words::quote(&path)).expect("a string takes everything");
        }
        let mut program = Program::start(login, &command)?;
        let deadline = Instant::now() + LANDING_LIMIT;
        let mut hear = || -> io::Result<(Machine, String, String)> {
            // A login shell may print a greeting of its own before the script runs.
            while program.output.read_line(deadline)? != GREETING {}
            let mut line = || program.output.read_line(deadline);
            let machine = Machine { system: line()?, architecture: line()?, user: line()? };
            Ok((machine, line()?, line()?))
        };
        let heard = hear();
        let (machine, fault, found) = heard.map_err(|error| program.trouble(login, &error))?;
        program.landed = true;
        if !fault.is_empty() {
            let reason = format!("{} cannot become root: {}", machine.user, fault.trim());
            let hint = format!(
                "let {} use sudo without a password on that host, or log in as one who may",
                machine.user
            );
            return Err(Trouble { reason, hint });
        }
        if machine.system != "Linux" {
            let reason = format!("it runs {}, and nodes run on Linux", machine.system);
            let hint = "take the host out of the inventory".to_owned();
            return Err(Trouble { reason, hint });
        }
        let found = (!found.is_empty()).then(|| PathBuf::from(found));
        Ok(Landing { login: login.clone(), program, machine, found })
    }

    fn ask(&mut self, words: &str, limit: Duration) -> Result<String, Trouble> {
        let sent = self.program.send(format!("{words}\n").as_bytes());
        let answer = sent.and_then(|()| self.program.output.read_line(Instant::now() + limit));
        answer.map_err(|error| self.program.trouble(&self.login, &error))
    }

    /// Whether a directory is there, and whether it has a log in it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn look(&mut self, directory: &Path) -> Result<(bool, bool), Trouble> {
        let answer = self.ask(&format!("look - - {}", directory.display()), ANSWER_LIMIT)?;
        let (directory, log) = answer.split_once(' ').unwrap_or_default();
        Ok((directory == "yes", log == "yes"))
    }

    /// Puts an executable at its path unless it is there already. Says whether it was sent, and
    /// meanwhile how many bytes of how many.
    ///
    /// # Errors
    /// When it cannot be read here, or not be put there.
    pub fn put(
        &mut self,
        source: &Path,
        digest: &Digest,
        path: &Path,
        sent: impl Fn(u64, u64),
    ) -> Result<bool, Trouble> {
        let here = |error: io::Error| Trouble {
            reason: format!("cannot read {}: {error}", source.display()),
            hint: "give the path of the program with paxos_binary".to_owned(),
        };
        let mut file = File::open(source).map_err(here)?;
        let size = file.metadata().map_err(here)?.len();
        let mut header = [0; ELF_HEADER_BYTES];
        file.read_exact(&mut header).and_then(|()| file.rewind()).map_err(here)?;
        if let Some(trouble) = misfit(&header, &self.machine.architecture) {
            let reason = format!("{} {}", source.display(), trouble);
            let hint = format!(
                "give the host a program for Linux on {} with paxos_binary",
                self.machine.architecture
            );
            return Err(Trouble { reason, hint });
        }
        let words = format!("put {size} {} {}", hex(digest), path.display());
        if self.ask(&words, ANSWER_LIMIT)? == "have" {
            return Ok(false);
        }
        let deadline = Instant::now() + UPLOAD_LIMIT;
        let _ends = self.program.ends_within(UPLOAD_LIMIT);
        let mut buffer = vec![0; PIECE_BYTES];
        let mut left = size;
        while left > 0 {
            let piece = PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            file.read_exact(&mut buffer[..piece]).map_err(here)?;
            if self.program.send(&buffer[..piece]).is_err() {
                // It says below why it takes no more.
                break;
            }
            left -= piece as u64;
            sent(size - left, size);
        }
        match self.program.output.read_line(deadline) {
            Ok(line) if line == "ok" => Ok(true),
            Ok(_failed) => Err(Trouble {
                reason: format!("cannot write {}: {}", path.display(), self.program.complaint()),
                hint: "see that there is space on the host and the directory can be written"
                    .to_owned(),
            }),
            Err(error) => Err(self.program.trouble(&self.login, &error)),
        }
    }

    /// Turns the shell into the agent.
    pub(super) fn become_agent(mut self, executable: &Path) -> Result<Program, Trouble> {
        let words = format!("run {AGENT} - {}\n", executable.display());
        match self.program.send(words.as_bytes()) {
            Ok(()) => Ok(self.program),
            Err(error) => Err(self.program.trouble(&self.login, &error)),
        }
    }
}

/// So much of an executable says which machine it is for.
const ELF_HEADER_BYTES: usize = 20;

/// Machines by their names in `uname -m` and their numbers in the ELF header (`e_machine`).
const MACHINES: [(&str, u16); 6] = [
    ("x86_64", 62),
    ("aarch64", 183),
    ("riscv64", 243),
    ("armv7l", 40),
    ("i686", 3),
    ("s390x", 22),
];

/// Why an executable cannot run on such a machine, as far as its header says.
fn misfit(header: &[u8; ELF_HEADER_BYTES], architecture: &str) -> Option<String> {
    if !header.starts_with(b"\x7fELF") {
        return Some("is no program".to_owned());
    }
    let (_, wanted) = MACHINES.iter().find(|(name, _)| *name == architecture)?;
    let number = match header[5] {
        // The other order of bytes.
        2 => u16::from_be_bytes([header[18], header[19]]),
        _ => u16::from_le_bytes([header[18], header[19]]),
    };
    if number == *wanted {
        return None;
    }
    let known = MACHINES.iter().find(|(_, known)| *known == number);
    let name = known.map_or("another machine", |(name, _)| name);
    Some(format!("is for {name}, and the host is {architecture}"))
}

/// As `sha256sum` prints it.
fn hex(digest: &Digest) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login { arguments: Vec::new(), ..crate::controller::host::login::tests::login() }
    }

    #[test]
    fn no_login_shell_has_a_view_of_its_own_of_the_script() {
        assert!(!SCRIPT.contains(['\'', '!']), "single quotes enclose it, and csh expands !");
        let greeting = format!("say \"{GREETING}\"");
        assert!(SCRIPT.contains(&greeting));
    }

    #[test]
    fn a_changed_host_key_is_explained_and_never_to_be_ignored() {
        let said = "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n\
                    Offending ED25519 key in /k/known_hosts:3\n\
                    Host key verification failed.";
        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
        let trouble = explain(&login(), said, &error, false);
        assert!(trouble.reason.contains("known_hosts:3"), "{trouble:?}");
        for forbidden in ["StrictHostKeyChecking", "ssh-keygen -R", "ignore"] {
            assert!(!trouble.hint.contains(forbidden), "{trouble:?}");
        }
    }

    #[test]
    fn each_common_refusal_has_a_remedy_of_its_own() {
        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
        let cases = [
            ("Host key verification failed.", "known_hosts has no key of it", "fingerprint"),
            ("ops@db1: Permission denied (publickey).", "Permission denied", "ansible_user"),
            ("ssh: Could not resolve hostname db1: x", "resolve hostname db1", "ansible_host"),
            ("ssh: connect to host db1 port 2222: Connection refused", "refused", "is up"),
            ("ssh: 1: exec: ssh: not found", "cannot run ssh", "install the OpenSSH client"),
            ("something new", "ssh ended: something new", "-p 2222 ops@db1"),
            ("kex_exchange_identification: Connection closed by x", "ssh ended: kex", "ops@db1"),
            ("Connection closed by UNKNOWN port 65535", "ssh ended: Connection", "ops@db1"),
            ("", "the connection ended", "-p 2222 ops@db1"),
        ];
        for (said, reason, hint) in cases {
            let trouble = explain(&login(), said, &error, false);
            assert!(trouble.reason.contains(reason), "{trouble:?}");
            assert!(trouble.hint.contains(hint), "{trouble:?}");
            assert_eq!(trouble.is_crowded(), said.contains("Connection closed by"), "{trouble:?}");
        }
    }

    #[test]
    fn a_program_for_another_machine_is_not_sent() {
        let mut header = [0; ELF_HEADER_BYTES];
        assert_eq!(misfit(&header, "x86_64").as_deref(), Some("is no program"));
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 62;
        assert_eq!(misfit(&header, "x86_64"), None);
        let aarch64 = misfit(&header, "aarch64");
        assert_eq!(aarch64.as_deref(), Some("is for x86_64, and the host is aarch64"));
        assert_eq!(misfit(&header, "a machine of tomorrow"), None, "it may well run it");
        header[18] = 243;
        assert_eq!(
            misfit(&header, "s390x").as_deref(),
            Some("is for riscv64, and the host is s390x")
        );
    }

    #[test]
    fn a_checksum_is_written_as_by_everybody() {
        let mut digest = [0; 32];
        digest[..2].copy_from_slice(&[0x0a, 0xff]);
        assert_eq!(hex(&digest)[..6], *"0aff00");
    }
}
