//! What `paxos status` and `paxos members` say, as types with the JSON field names of the contract.
//!
//! The node fills them, the controller and other programs read them; the table for people is made
//! from the very same values, so that the two never differ. Fields may be added; none changes its
//! meaning.

use serde::{Deserialize, Serialize};

/// An id as JSON can hold it: text, because many readers keep integers exactly only up to 2⁵³, and
/// because a field that is a number for some values only breaks whoever compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonId(pub u64);

impl Serialize for JsonId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JsonId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<JsonId, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(JsonId).map_err(serde::de::Error::custom)
    }
}

/// The ballot that a node goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BallotReport {
    /// counter × 100 + proposer.
    pub number: JsonId,
    /// The how-manieth attempt to lead.
    pub counter: u64,
    /// Whose.
    pub proposer: u8,
}

/// An acceptor that this node does not reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnreachableMember {
    /// Its name.
    pub name: String,
    /// Since when nothing was heard; none if never.
    pub since_seconds: Option<f64>,
    /// Why, in the transport's words.
    pub error: Option<String>,
}

/// Who must agree, and who can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuorumReport {
    /// Acceptors that must promise.
    pub phase1: u64,
    /// Acceptors that must accept.
    pub phase2: u64,
    /// How many there are.
    pub acceptors: u64,
    /// How many of them this node reaches, itself included.
    pub reachable: u64,
    /// The others.
    pub unreachable_members: Vec<UnreachableMember>,
}

/// One member as the node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: JsonId,
    /// Among proposer, acceptor and learner; empty for a client.
    pub roles: Vec<String>,
    /// `host:port`.
    pub address: String,
    /// up, suspect, down or unknown.
    pub state: String,
    /// Smoothed round trip.
    pub rtt_seconds: Option<f64>,
    /// How far it knows the log to be chosen, as it last told.
    pub chosen_slot: Option<u64>,
    /// How far it has applied the log; members tell this of themselves only.
    pub applied_slot: Option<u64>,
    /// How long ago it was last heard.
    pub last_heard_seconds: Option<f64>,
}

/// A loop of the node's process that stands still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StallReport {
    /// Its name, as in the metrics.
    #[serde(rename = "loop")]
    pub name: String,
    /// For how long.
    pub for_seconds: f64,
    /// What it does meanwhile.
    pub what: String,
}

/// The trust bundle that a node goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleReport {
    /// Its epoch.
    pub epoch: u64,
    /// How many lines of it revoke something.
    pub revocations: u64,
    /// Why what lies in the node's keys directory is not in use; none if it is.
    pub problem: Option<String>,
    /// Epoch of the newest one in the log that this node believes; none before there is one.
    #[serde(default)]
    pub in_log: Option<u64>,
}

/// A certificate of a node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// Its serial.
    pub serial: JsonId,
    /// Until it runs out; negative since it did.
    pub remaining_seconds: i64,
}

/// What a node proves itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatesReport {
    /// To those who dial it.
    pub host: CertificateReport,
    /// To those it dials.
    pub peer: CertificateReport,
}

/// What `paxos health` says: to people the one word, to programs all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// healthy, degraded or no_quorum.
    pub health: String,
    /// Why it is not healthy.
    pub why: String,
    /// Loops that stand still; empty when all turn.
    pub stalled: Vec<StallReport>,
}

/// Everything that `paxos status` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's identity, 32 hexadecimal digits; none before genesis.
    pub cluster_id: Option<String>,
    /// This node's name.
    pub node: String,
    /// This node's id.
    pub id: JsonId,
    /// Among proposer, acceptor and learner.
    pub roles: Vec<String>,
    /// leader, follower, candidate, acceptor, learner or client.
    pub state: String,
    /// The leader's name, if one is known.
    pub leader: Option<String>,
    /// The highest ballot known.
    pub ballot: BallotReport,
    /// The end of the chosen prefix.
    pub chosen_slot: u64,
    /// The end of what is applied.
    pub applied_slot: u64,
    /// The store's revision; none on a node that keeps no store.
    pub revision: Option<u64>,
    /// Who must agree.
    pub quorum: QuorumReport,
    /// Every member.
    pub members: Vec<MemberReport>,
    /// healthy, degraded or no_quorum.
    pub health: String,
    /// Why it is not healthy.
    pub why: String,
    /// What to do about it.
    pub next: String,
    /// Loops that stand still; empty when all turn.
    #[serde(default)]
    pub stalled: Vec<StallReport>,
    /// What it believes; none by a node of an older version.
    #[serde(default)]
    pub bundle: Option<BundleReport>,
    /// What it proves itself with; none by a node of an older version.
    #[serde(default)]
    pub certificates: Option<CertificatesReport>,
    /// How old what the node says of the cluster is; more than a moment only if its thread is
    /// stuck.
    #[serde(default)]
    pub age_seconds: f64,
    /// Since the process started.
    pub uptime_seconds: f64,
    /// The program's version.
    pub version: String,
    /// The version that the cluster is at; none on a node that keeps no store.
    #[serde(default)]
    pub cluster_version: Option<u16>,
    /// The oldest and the newest cluster version that the program runs.
    #[serde(default)]
    pub cluster_versions: (u16, u16),
}

/// A status older than this is shown with its age; the node's thread renews it a hundred times a
/// second.
const OLD_SECONDS: f64 = 1.0;

/// The exit status that goes with a health: 0 healthy, 2 degraded, 69 no quorum.
pub fn status_exit(health: &str) -> u8 {
    match health {
        "healthy" => 0,
        "no_quorum" => super::failure::Code::NoQuorum.exit(),
        _ => 2,
    }
}

/// The exit status of `paxos health`: 0 while requests are served.
pub fn health_exit(health: &str) -> u8 {
    match health {
        "no_quorum" => super::failure::Code::NoQuorum.exit(),
        _ => 0,
    }
}

impl StatusReport {
    /// For people.
    pub fn to_table(&self) -> String {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let q = &self.quorum;
        let mut rows = vec![
            ("cluster", format!("{} (id {})", self.cluster, or_dash(&self.cluster_id))),
            ("node", format!("{} (id {}), {}", self.node, self.id.0, roles(&self.roles))),
            ("state", self.state.clone()),
            ("leader", self.leader.clone().unwrap_or_else(|| "none known".to_owned())),
            (
                "ballot",
                format!(
                    "{} (attempt {} of proposer {})",
                    self.ballot.number.0, self.ballot.counter, self.ballot.proposer
                ),
            ),
            (
                "slots",
                format!(
                    "chosen {}, applied {}, {}",
                    self.chosen_slot,
                    self.applied_slot,
                    self.revision.map_or("no store here".to_owned(), |r| format!("revision {r}"))
                ),
            ),
            (
                "quorum",
                format!(
                    "{} of {} acceptors reachable; phase 1 needs {}, phase 2 needs {}",
                    q.reachable, q.acceptors, q.phase1, q.phase2
                ),
            ),
            ("uptime", format!("{}, version {}", span(self.uptime_seconds), self.version)),
            ("health", self.health.clone()),
        ];
        if let (Some(bundle), Some(certificates)) = (&self.bundle, &self.certificates) {
            let at = rows.len() - 2;
            rows.insert(at, ("keys", keys(bundle, certificates)));
        }
        if !self.why.is_empty() {
            rows.push(("why", self.why.clone()));
        }
        if !self.next.is_empty() {
            rows.push(("next", self.next.clone()));
        }
        for stall in &self.stalled {
            let StallReport { name, for_seconds, what } = stall;
            rows.push(("stalled", format!("{name} for {}: {what}", span(*for_seconds))));
        }
        if self.age_seconds >= OLD_SECONDS {
            let age = span(self.age_seconds);
            rows.push(("as of", format!("{age} ago: the node's thread says nothing newer")));
        }
        let mut text = String::new();
        for (name, value) in rows {
            text.push_str(&format!("{name:<9}{}\n", value.replace('\n', "\n         ")));
        }
        for member in &q.unreachable_members {
            let since = member.since_seconds.map_or("never heard".to_owned(), |seconds| {
                format!("silent for {}", span(seconds))
            });
            let error = member.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            text.push_str(&format!("{:<9}{} {since}{error}\n", "missing", member.name));
        }
        text.push('\n');
        text.push_str(&members_table(&self.members));
        text
    }
}

fn keys(bundle: &BundleReport, certificates: &CertificatesReport) -> String {
    let BundleReport { epoch, revocations, .. } = bundle;
    let revocations = match revocations {
        0 => "nothing revoked".to_owned(),
        1 => "1 revocation".to_owned(),
        many => format!("{many} revocations"),
    };
    let left = certificates.host.remaining_seconds.min(certificates.peer.remaining_seconds);
    let time = span(left.unsigned_abs() as f64);
    let end = match left > 0 {
        true => format!("run out in {time}"),
        false => format!("ran out {time} ago"),
    };
    format!("bundle epoch {epoch}, {revocations}; its own certificates {end}")
}

/// The members for people.
pub fn members_table(members: &[MemberReport]) -> String {
    let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let rows = members.iter().map(|member| {
        [
            member.name.clone(),
            member.id.0.to_string(),
            roles(&member.roles),
            member.address.clone(),
            member.state.clone(),
            optional(member.rtt_seconds.map(span)),
            optional(member.chosen_slot.map(|slot| slot.to_string())),
            optional(member.last_heard_seconds.map(|seconds| format!("{} ago", span(seconds)))),
        ]
    });
    table(["NAME", "ID", "ROLES", "ADDRESS", "STATE", "RTT", "CHOSEN", "HEARD"], rows)
}

/// Columns wide enough for what is in them, parted by two blanks, no blanks at the ends of lines.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn roles(roles: &[String]) -> String {
    match roles.is_empty() {
        true => "client".to_owned(),
        false => roles.join(","),
    }
}

/// A span of time in two units at most, as a person would say it.
fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match seconds {
        s if s < 0.001 => format!("{:.0}us", s * 1e6),
        s if s < 1.0 => format!("{:.1}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1}s"),
        s if s < 3600.0 => format!("{minutes}m{:02}s", whole % 60),
        s if s < 86_400.0 => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> StatusReport {
        let member = |name: &str, id: u64, state: &str| MemberReport {
            name: name.to_owned(),
            id: JsonId(id),
            roles: vec!["proposer".into(), "acceptor".into(), "learner".into()],
            address: format!("127.0.0.1:710{id}"),
            state: state.to_owned(),
            rtt_seconds: (id == 2).then_some(0.000_180),
            chosen_slot: Some(121),
            applied_slot: (id == 1).then_some(120),
            last_heard_seconds: Some(if state == "up" { 0.02 } else { 73.0 }),
        };
        StatusReport {
            cluster: "local".into(),
            cluster_id: Some("00000000000000000000000000abcdef".into()),
            node: "node1".into(),
            id: JsonId(1),
            roles: vec!["proposer".into(), "acceptor".into(), "learner".into()],
            state: "leader".into(),
            leader: Some("node1".into()),
            ballot: BallotReport { number: JsonId(301), counter: 3, proposer: 1 },
            chosen_slot: 121,
            applied_slot: 120,
            revision: Some(57),
            quorum: QuorumReport {
                phase1: 2,
                phase2: 2,
                acceptors: 3,
                reachable: 2,
                unreachable_members: vec![UnreachableMember {
                    name: "node3".into(),
                    since_seconds: Some(73.0),
                    error: Some("connection refused".into()),
                }],
            },
            members: vec![
                member("node1", 1, "up"),
                member("node2", 2, "up"),
                member("node3", 3, "down"),
            ],
            health: "degraded".into(),
            why: "node3 cannot be reached".into(),
            next: "start node3".into(),
            stalled: Vec::new(),
            bundle: None,
            certificates: None,
            age_seconds: 0.01,
            uptime_seconds: 3725.0,
            version: "0.1.0".into(),
            cluster_version: Some(1),
            cluster_versions: (1, 1),
        }
    }

    #[test]
    fn the_table_is_readable() {
        let expected = "\
cluster  local (id 00000000000000000000000000abcdef)
node     node1 (id 1), proposer,acceptor,learner
state    leader
leader   node1
ballot   301 (attempt 3 of proposer 1)
slots    chosen 121, applied 120, revision 57
quorum   2 of 3 acceptors reachable; phase 1 needs 2, phase 2 needs 2
uptime   1h02m, version 0.1.0
health   degraded
why      node3 cannot be reached
next     start node3
missing  node3 silent for 1m13s: connection refused

NAME   ID  ROLES                      ADDRESS         STATE  RTT    CHOSEN  HEARD
node1  1   proposer,acceptor,learner  127.0.0.1:7101  up     -      121     20.0ms ago
node2  2   proposer,acceptor,learner  127.0.0.1:7102  up     180us  121     20.0ms ago
node3  3   proposer,acceptor,learner  127.0.0.1:7103  down   -      121     1m13s ago
";
        assert_eq!(sample().to_table(), expected);
    }

    #[test]
    fn keys_are_told_and_older_nodes_tell_nothing_of_them() {
        let mut report = sample();
        let life = |serial, remaining_seconds| CertificateReport {
            serial: JsonId(serial),
            remaining_seconds,
        };
        report.bundle =
            Some(BundleReport { epoch: 3, revocations: 1, problem: None, in_log: Some(3) });
        report.certificates =
            Some(CertificatesReport { host: life(7, 7_000_000), peer: life(8, 90_000) });
        let table = report.to_table();
        let shown = "keys     bundle epoch 3, 1 revocation; its own certificates run out in 1d01h\n\
                     uptime ";
        assert!(table.contains(shown), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["bundle"]["epoch"], 3);
        assert_eq!(json["certificates"]["peer"]["serial"], "8");
        let mut older = json;
        older.as_object_mut().unwrap().retain(|field, _| field != "bundle");
        assert!(serde_json::from_value::<StatusReport>(older).unwrap().bundle.is_none());
        report.certificates = Some(CertificatesReport { host: life(7, -60), peer: life(8, 9) });
        assert!(report.to_table().contains("ran out 1m00s ago"), "{}", report.to_table());
    }

    #[test]
    fn what_stands_still_is_listed_and_an_old_status_says_so() {
        let mut report = sample();
        assert!(serde_json::to_string(&report).unwrap().contains("\"stalled\":[],"));
        let what = "taking in a peer's message".to_owned();
        report.stalled.push(StallReport { name: "node".into(), for_seconds: 12.5, what });
        report.age_seconds = 12.5;
        let json = serde_json::to_value(&report).unwrap();
        let told = serde_json::json!([
            {"loop": "node", "for_seconds": 12.5, "what": "taking in a peer's message"}
        ]);
        assert_eq!(json["stalled"], told);
        let shown = "\
next     start node3
stalled  node for 12.5s: taking in a peer's message
as of    12.5s ago: the node's thread says nothing newer
missing  node3 silent for 1m13s: connection refused
";
        assert!(report.to_table().contains(shown), "{}", report.to_table());
        let mut older = json;
        older.as_object_mut().unwrap().retain(|field, _| field != "stalled");
        assert!(serde_json::from_value::<StatusReport>(older).unwrap().stalled.is_empty());
    }

    #[test]
    fn json_comes_back_and_ids_are_text() {
        let mut report = sample();
        report.id = JsonId(u64::MAX);
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"id\":\"18446744073709551615\""), "{json}");
        assert!(json.contains("\"id\":\"2\","), "{json}");
        assert!(json.contains("\"number\":\"301\""), "{json}");
        assert_eq!(serde_json::from_str::<StatusReport>(&json).unwrap(), report);
    }

    #[test]
    fn exit_statuses_follow_health() {
        assert_eq!(["healthy", "degraded", "no_quorum"].map(status_exit), [0, 2, 69]);
        assert_eq!(["healthy", "degraded", "no_quorum"].map(health_exit), [0, 0, 69]);
    }
}
