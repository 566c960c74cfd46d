//! Three ways to ask a cluster: by the library, by the program `paxos`, and over the stock `ssh`.

use super::record::Asked;
use bytes::Bytes;
use paxos_ssh::client::cluster::Cluster;
use paxos_ssh::client::ssh_config::{Node, SshConfig};
use paxos_ssh::store::command::Condition;
use paxos_ssh::wire::failure::Code;
use paxos_ssh::wire::request::Consistency;
use paxos_ssh::wire::rpc::{Call, Reply};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// What one try may take: longer than an election, and than a login over a bastion that is busy.
const TRY_LIMIT: Duration = Duration::from_secs(5);

/// One request.
pub struct Request {
    pub key: String,
    /// What it asks; what it tells is filled in.
    pub asked: Asked,
    /// The same for every try.
    pub id: String,
}

/// What came of one try: an answer, or why there is none.
pub type Told = Result<Asked, String>;

/// A way to the cluster.
pub trait Way: Send {
    /// Asks once.
    fn ask(&mut self, request: &Request) -> Told;

    /// Begins anew, with the keys that lie there now; over another node if this way has one only.
    fn turn_away(&mut self);
}

/// By the library: one connection, to another node when it is gone.
pub struct Library {
    runtime: Arc<Runtime>,
    config: PathBuf,
    nodes: Vec<String>,
    client: Option<Cluster<Node>>,
}

impl Library {
    pub fn new(runtime: Arc<Runtime>, config: PathBuf, nodes: Vec<String>) -> Library {
        Library { runtime, config, nodes, client: None }
    }

    fn connect(&self) -> Result<Cluster<Node>, String> {
        let config = SshConfig::load(&self.config).map_err(|error| error.to_string())?;
        let node = |name: &String| config.node(name, None).map_err(|error| error.to_string());
        Ok(Cluster::new(self.nodes.iter().map(node).collect::<Result<_, _>>()?))
    }
}

impl Way for Library {
    fn ask(&mut self, request: &Request) -> Told {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        let client = self.client.insert(client);
        match (self.runtime.block_on(client.call(call(request), TRY_LIMIT)), &request.asked) {
            (Ok(Reply::Value { value, .. }), Asked::Get { .. }) => {
                Ok(Asked::Get { found: Some(String::from_utf8_lossy(&value).into_owned()) })
            }
            (Ok(Reply::Written { .. }), asked) => Ok(told(asked, true)),
            (Ok(reply), _) => panic!("it was answered with {reply:?}"),
            (Err(failure), Asked::Get { .. }) if failure.code == Code::NotFound => {
                Ok(Asked::Get { found: None })
            }
            (Err(failure), Asked::PutIf { .. }) if failure.code == Code::ConditionFailed => {
                Ok(told(&request.asked, false))
            }
            (Err(failure), _) => Err(failure.message),
        }
    }

    fn turn_away(&mut self) {
        self.client = None;
        self.nodes.rotate_left(1);
    }
}

fn call(request: &Request) -> Call {
    let key = Bytes::from(request.key.clone());
    let put = |value: &String, condition| Call::Put {
        key: key.clone(),
        value: Bytes::from(value.clone()),
        condition,
        request_id: Some(request.id.clone()),
    };
    match &request.asked {
        Asked::Get { .. } => Call::Get { key, consistency: Consistency::Linearizable },
        Asked::Put { value } => put(value, Condition::Always),
        Asked::PutIf { holds: None, value, .. } => put(value, Condition::Absent),
        Asked::PutIf { holds: Some(holds), value, .. } => {
            put(value, Condition::Value(Bytes::from(holds.clone())))
        }
    }
}

/// The words of a request, as in a shell or a batch.
fn words(request: &Request) -> Vec<String> {
    let key = &request.key;
    let line = match &request.asked {
        Asked::Get { .. } => format!("get {key}"),
        Asked::Put { value } => format!("put {key} {value} --request-id {}", request.id),
        Asked::PutIf { holds: None, value, .. } => {
            format!("put {key} {value} --request-id {} --if-absent", request.id)
        }
        Asked::PutIf { holds: Some(holds), value, .. } => {
            format!("put {key} {value} --request-id {} --if-value {holds}", request.id)
        }
    };
    line.split(' ').map(str::to_owned).collect()
}

fn told(asked: &Asked, done: bool) -> Asked {
    match asked.clone() {
        Asked::PutIf { holds, value, .. } => Asked::PutIf { holds, value, told: Some(done) },
        asked => asked,
    }
}

/// What a JSON object says about a request.
fn judge(asked: &Asked, answer: &str) -> Told {
    let json: serde_json::Value =
        serde_json::from_str(answer).map_err(|_| format!("it was answered with {answer:?}"))?;
    match (json["error"]["code"].as_str(), asked) {
        (None, Asked::Get { .. }) if json["ok"] == true => {
            Ok(Asked::Get { found: json["value"].as_str().map(str::to_owned) })
        }
        (None, asked) if json["ok"] == true => Ok(told(asked, true)),
        (Some("not_found"), Asked::Get { .. }) => Ok(Asked::Get { found: None }),
        (Some("condition_failed"), Asked::PutIf { .. }) => Ok(told(asked, false)),
        _ => Err(json["error"]["message"].as_str().unwrap_or(answer).to_owned()),
    }
}

/// By the program: a login for each request, at whichever node takes it.
pub struct Program {
    pub config: PathBuf,
    pub nodes: Vec<String>,
}

impl Way for Program {
    fn ask(&mut self, request: &Request) -> Told {
        let mut program = Command::new(env!("CARGO_BIN_EXE_paxos"));
        program.env_remove("SSH_AUTH_SOCK").arg("-F").arg(&self.config);
        program.args(["--to", &self.nodes.join(",")]).args(words(request)).args(["-o", "json"]);
        program.args(["--timeout", &format!("{}s", TRY_LIMIT.as_secs())]);
        let ran = program.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        judge(&request.asked, &String::from_utf8_lossy(&ran.stdout))
    }

    fn turn_away(&mut self) {}
}

/// Over `ssh NODE paxos batch`, for as long as that lasts.
pub struct Session {
    config: PathBuf,
    nodes: Vec<String>,
    open: Option<Open>,
}

struct Open {
    ssh: Child,
    lines: Option<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Session {
    pub fn new(config: PathBuf, nodes: Vec<String>) -> Session {
        Session { config, nodes, open: None }
    }
}

impl Open {
    fn start(config: &PathBuf, node: &str) -> Result<Open, String> {
        let mut ssh = Command::new("ssh");
        ssh.env_remove("SSH_AUTH_SOCK").arg("-F").arg(config);
        // A node that is cut off says nothing any more.
        ssh.args(["-o", "ConnectTimeout=5", "-o", "BatchMode=yes"]);
        ssh.args(["-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=2"]);
        ssh.args([node, "paxos", "batch", "--timeout", &format!("{}s", TRY_LIMIT.as_secs())]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut ssh = ssh.spawn().map_err(|error| format!("cannot run ssh: {error}"))?;
        let stdin = ssh.stdin.take().expect("it was piped");
        let stdout = ssh.stdout.take().expect("it was piped");
        Ok(Open { ssh, lines: Some((stdin, BufReader::new(stdout).lines())) })
    }

    fn ask(&mut self, line: &str) -> Option<String> {
        let (stdin, stdout) = self.lines.as_mut()?;
        stdin.write_all(format!("{line}\n").as_bytes()).ok()?;
        stdin.flush().ok()?;
        stdout.next()?.ok()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Without its input it ends by itself, if anybody is there.
        self.lines = None;
        let _ended_already = self.ssh.kill();
        let _it_is_our_child = self.ssh.wait();
    }
}

impl Way for Session {
    fn ask(&mut self, request: &Request) -> Told {
        let node = &self.nodes[0];
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::start(&self.config, node)?,
        };
        let answer = open.ask(&words(request).join(" "));
        let answer = answer.ok_or_else(|| format!("the session at {node} ended"))?;
        self.open = Some(open);
        judge(&request.asked, &answer)
    }

    fn turn_away(&mut self) {
        self.open = None;
        self.nodes.rotate_left(1);
    }
}
