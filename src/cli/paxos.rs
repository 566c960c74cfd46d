//! The local program `paxos`: the same words as over ssh, sent to a node of one's choice.
//!
//! ```text
//! paxos [-F SSH_CONFIG] [--to NODE[,NODE]] VERB …     over SSH, with the keys that it names
//! paxos [--socket PATH] VERB …                        the node on this machine
//! paxos node --config FILE                            is a node
//! ```
//!
//! Words are understood here first, so that mistakes cost no connection, and so that what is sent
//! is what was meant, whatever quoting it needs.

use super::{output, relay, supervise};
use crate::client::door::Door;
use crate::client::ssh_config::SshConfig;
use crate::controller::host::local::SUPERVISED;
use crate::store::command::VALUE_BYTES_MAX;
use crate::wire::answer::Answer;
use crate::wire::build::Build;
use crate::wire::failure::{Code, Failure};
use crate::wire::grammar::asks_for_json;
use crate::wire::help;
use crate::wire::local::SOCKET_NAME;
use crate::wire::logs::LogQuery;
use crate::wire::request::{self, Format, Request, ValueSource, Verb, value_too_large};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What `paxos help` says on top when it is typed here.
const LOCAL_HELP: &str = "\
Here, on this machine:
  -F SSH_CONFIG         reach nodes over ssh as this file says (or PAXOS_SSH_CONFIG)
  --to NODE[,NODE]      ask these nodes of it, the first that can be reached (or
                        PAXOS_TO; default: all of them)
  --socket PATH         ask the node on this machine (or PAXOS_SOCKET)
  paxos node --config FILE
                        be a node
These flags come before the verb.

";

/// Which way the words say to go.
#[derive(Debug, Default, PartialEq, Eq)]
struct Way {
    ssh_config: Option<PathBuf>,
    to: Option<String>,
    socket: Option<PathBuf>,
}

/// Runs `paxos` with the whole argument list, and answers the exit status.
pub fn run(args: Vec<OsString>) -> u8 {
    let words: Vec<Vec<u8>> = args.into_iter().skip(1).map(OsStringExt::into_vec).collect();
    let format = match asks_for_json(&words) {
        true => Format::Json,
        false => Format::Table,
    };
    if words.first().is_some_and(|word| word == b"node") {
        return run_node(&words[1..]);
    }
    match prepare(words) {
        Ok(Plan::Say(answer)) => output::answer(&answer, format),
        Ok(Plan::Ask(doors, request)) => relay::run(&doors, request, format),
        Err(failure) => output::failure(&failure, format),
    }
}

/// What to do.
enum Plan {
    /// Known without asking anybody.
    Say(Answer),
    /// Ask the first node that can be reached.
    Ask(Vec<Door>, Request),
}

fn prepare(words: Vec<Vec<u8>>) -> Result<Plan, Failure> {
    if words.first().is_some_and(|word| word == b"--version" || word == b"-V") {
        return Ok(Plan::Say(version()));
    }
    let (way, words) = split_way(words)?;
    let mut request = request::parse(&words)?;
    match request.verb {
        Verb::Version => return Ok(Plan::Say(version())),
        Verb::Help(about) => {
            let text = about.map_or_else(|| LOCAL_HELP.to_owned() + &help::overview(), help::about);
            return Ok(Plan::Say(Answer::Text { name: "help", text }));
        }
        _ => {}
    }
    let way = match &request.verb {
        Verb::Logs(LogQuery { node: Some(node), .. }) => way.narrowed(node)?,
        _ => way,
    };
    let doors = doors(&way)?;
    read_value(&mut request.verb)?;
    Ok(Plan::Ask(doors, request))
}

fn version() -> Answer {
    Answer::Text { name: "version", text: Build::own().version.clone() }
}

/// Takes the flags that are ours alone from the front of the words; the environment stands in for
/// those that are not given.
fn split_way(words: Vec<Vec<u8>>) -> Result<(Way, Vec<Vec<u8>>), Failure> {
    let mut way = Way::default();
    let mut rest = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == b"--" || !word.starts_with(b"-") {
            rest.push(word);
            break;
        }
        let (name, glued) = match word.iter().position(|&byte| byte == b'=') {
            Some(at) => (word[..at].to_vec(), Some(word[at + 1..].to_vec())),
            None => (word.clone(), None),
        };
        let is_ours = matches!(&name[..], b"-F" | b"--to" | b"--socket");
        let takes_value = is_ours || matches!(&name[..], b"-o" | b"--output" | b"--timeout");
        let value = match glued {
            Some(value) => Some(value),
            None if takes_value => words.next(),
            None => None,
        };
        if !is_ours {
            rest.push(word.clone());
            // The value was taken from the words only if it was not glued on.
            rest.extend(value.filter(|_| !word.contains(&b'=')));
            continue;
        }
        let flag = String::from_utf8_lossy(&name).into_owned();
        let value = value.filter(|value| !value.is_empty()).ok_or_else(|| {
            Failure::usage(
                format!("{flag} misses its value"),
                "\"paxos help\" shows how it is used",
            )
        })?;
        let value = OsString::from_vec(value);
        match flag.as_str() {
            "-F" => way.ssh_config = Some(value.into()),
            "--to" => way.to = Some(value.to_string_lossy().into_owned()),
            _ => way.socket = Some(value.into()),
        }
    }
    rest.extend(words);
    Ok((way.or_environment(), rest))
}

impl Way {
    /// To one node of several. A socket is one node's anyway, which knows its own name.
    fn narrowed(self, node: &str) -> Result<Way, Failure> {
        match &self.to {
            Some(to) if to.split(',').all(|name| name.trim() != node) => Err(Failure::usage(
                format!("--node names {node}, which is not among those of --to"),
                "give one of the two",
            )),
            _ if self.ssh_config.is_some() => Ok(Way { to: Some(node.to_owned()), ..self }),
            _ => Ok(self),
        }
    }

    /// Flags win over the environment as a whole: `--socket` is not overruled by `PAXOS_TO`.
    fn or_environment(self) -> Way {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name| variable(name).map(PathBuf::from);
        let to = variable("PAXOS_TO").map(|value| value.to_string_lossy().into_owned());
        match &self {
            Way { socket: Some(_), .. } => self,
            Way { ssh_config: None, to: None, .. } => {
                Way { ssh_config: path("PAXOS_SSH_CONFIG"), to, socket: path("PAXOS_SOCKET") }
            }
            _ => Way {
                ssh_config: self.ssh_config.or_else(|| path("PAXOS_SSH_CONFIG")),
                to: self.to.or(to),
                socket: None,
            },
        }
    }
}

/// The ways in, best first.
fn doors(way: &Way) -> Result<Vec<Door>, Failure> {
    match way {
        Way { ssh_config: Some(path), to, .. } => nodes(path, to.as_deref()),
        Way { to: Some(_), .. } => Err(Failure::usage(
            "--to names nodes, but no ssh_config says where they are",
            "give -F FILE or set PAXOS_SSH_CONFIG; paxos-ctl ssh-config prints the file",
        )),
        Way { socket: Some(path), .. } => Ok(vec![Door::Socket(path.clone())]),
        Way { .. } => sockets_here(),
    }
}

fn nodes(path: &Path, to: Option<&str>) -> Result<Vec<Door>, Failure> {
    let bad = |error: crate::client::ssh_config::ConfigError| {
        Failure::new(Code::BadSettings, error.to_string(), "paxos-ctl ssh-config prints a good one")
    };
    let config = SshConfig::load(path).map_err(bad)?;
    let names: Vec<&str> = match to {
        Some(to) => to.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
        None => config.hosts.iter().map(|host| host.name.as_str()).collect(),
    };
    if names.is_empty() {
        let message = format!("no node is named by --to or by a Host in {}", path.display());
        return Err(Failure::new(Code::BadSettings, message, "name at least one node"));
    }
    let agent = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
    let node = |name| {
        let node = config.node(name, agent.as_deref()).map_err(bad)?;
        Ok(Door::Node(Box::new(node)))
    };
    names.into_iter().map(node).collect()
}

/// The sockets of this machine's nodes, where they are by default: any node of a cluster will do,
/// but of which cluster is not ours to guess.
fn sockets_here() -> Result<Vec<Door>, Failure> {
    let mut clusters = Vec::new();
    for root in default_roots() {
        for cluster in directories(&root) {
            let mut sockets: Vec<PathBuf> =
                std::iter::once(cluster.clone()).chain(directories(&cluster)).collect();
            sockets.iter_mut().for_each(|directory| directory.push(SOCKET_NAME));
            sockets.retain(|socket| socket.exists());
            if !sockets.is_empty() {
                clusters.push(sockets);
            }
        }
    }
    match clusters.len() {
        0 => Err(Failure::usage(
            "no node runs on this machine where one would be by default, and none is named",
            "say whom to ask: paxos -F SSH_CONFIG --to NODE VERB, or paxos --socket PATH VERB",
        )),
        1 => Ok(clusters.remove(0).into_iter().map(Door::Socket).collect()),
        _ => {
            let found: Vec<String> = clusters.iter().map(|c| c[0].display().to_string()).collect();
            Err(Failure::usage(
                "nodes of several clusters run on this machine",
                format!("name one: --socket {}", found.join(", or --socket ")),
            ))
        }
    }
}

/// Where clusters' directories are: on a host, and in the quickstart.
fn default_roots() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty());
    let state = state.map(PathBuf::from).or(home.map(|home| home.join(".local/state")));
    let mut roots = vec![PathBuf::from("/var/lib/paxos")];
    roots.extend(state.map(|state| state.join("paxos")));
    roots
}

/// The directories in a directory, in order; none if it cannot be read.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}

/// Reads the value of `put KEY -` before anybody is asked: so it can be sent again to another node,
/// and a value that is too large costs no connection.
fn read_value(verb: &mut Verb) -> Result<(), Failure> {
    let Verb::Put { value, .. } = verb else { return Ok(()) };
    if *value != ValueSource::Stdin {
        return Ok(());
    }
    let mut bytes = Vec::new();
    let limit = VALUE_BYTES_MAX as u64 + 1;
    std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(|error| {
        let message = format!("cannot read standard input: {error}");
        Failure::new(Code::Internal, message, "check what is redirected to it")
    })?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(value_too_large(&format!("at least {}", bytes.len())));
    }
    *value = ValueSource::Given(bytes.into());
    Ok(())
}

/// `paxos node --config FILE`.
fn run_node(words: &[Vec<u8>]) -> u8 {
    let supervised = words.last().is_some_and(|word| word == SUPERVISED.as_bytes());
    let words = &words[..words.len() - usize::from(supervised)];
    let config = match words {
        [flag, path] if flag == b"--config" => Some(path.clone()),
        [word] => word.strip_prefix(b"--config=").map(<[u8]>::to_vec),
        _ => None,
    };
    let Some(config) = config.filter(|path| !path.is_empty()) else {
        let failure = Failure::usage(
            "a node needs its settings",
            "write paxos node --config FILE; paxos-ctl deploy writes the file",
        );
        return output::failure(&failure, Format::Table);
    };
    if supervised && let Err(error) = supervise::end_with_supervisor() {
        let message = format!("cannot be a supervised node: {error}");
        let hint = "leave --supervised to the supervisor";
        return output::failure(&Failure::new(Code::Internal, message, hint), Format::Table);
    }
    super::daemon::run(Path::new(&OsString::from_vec(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> (Way, Vec<String>) {
        let words = crate::wire::words::split(line.as_bytes()).unwrap();
        let (way, rest) = split_way(words).unwrap();
        (way, rest.into_iter().map(|word| String::from_utf8(word).unwrap()).collect())
    }

    #[test]
    fn our_flags_are_taken_from_the_front_only() {
        let (way, rest) = split("-F f --timeout 2s --to=a,b -o json get --to k -F");
        assert_eq!(way.ssh_config.as_deref(), Some(Path::new("f")));
        assert_eq!(way.to.as_deref(), Some("a,b"));
        assert_eq!(rest, ["--timeout", "2s", "-o", "json", "get", "--to", "k", "-F"]);
        let (way, rest) = split("--socket /s --output=json status");
        assert_eq!(way, Way { socket: Some("/s".into()), ..Way::default() });
        assert_eq!(rest, ["--output=json", "status"]);
    }

    #[test]
    fn a_flag_of_ours_without_its_value_is_a_usage_error() {
        for word in ["-F", "--to", "--socket", "--to="] {
            let failure = split_way(vec![word.as_bytes().to_vec()]).unwrap_err();
            assert_eq!(failure.code, Code::Usage, "{word}");
        }
    }
}
