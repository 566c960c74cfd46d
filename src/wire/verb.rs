//! What can be asked for, as types. Words become one of them in [`request`](super::request), and
//! they become words again in [`spelling`](super::spelling). What a verb is (a write, endless,
//! worth asking again) is said here once, and nowhere by its name.

use super::grammar::VerbSpec;
use super::logs::LogQuery;
use crate::store::command::Condition;
use bytes::Bytes;

/// How to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people; `-o table`.
    #[default]
    Table,
    /// For programs; `-o json`.
    Json,
}

/// Which reads will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// What this node has applied, without asking anybody.
    Local,
    /// At least everything acknowledged before the request arrived.
    #[default]
    Linearizable,
}

/// Where the value of a put is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// In the words.
    Given(Bytes),
    /// All of standard input, byte for byte.
    Stdin,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// The cluster as the node sees it.
    Status,
    /// In one word.
    Health,
    /// The registered nodes.
    Members,
    /// Store a value.
    Put {
        /// Where.
        key: Bytes,
        /// What.
        value: ValueSource,
        /// Only if.
        condition: Condition,
        /// Makes a retry by hand apply once.
        request_id: Option<String>,
    },
    /// Read a value.
    Get {
        /// Of which key.
        key: Bytes,
        /// Without the newline.
        raw: bool,
        /// How fresh.
        consistency: Consistency,
    },
    /// Remove a key.
    Delete {
        /// Which.
        key: Bytes,
        /// Only if.
        condition: Condition,
        /// Makes a retry by hand apply once.
        request_id: Option<String>,
    },
    /// Read many keys.
    List {
        /// What they start with; empty for all.
        prefix: Bytes,
        /// Only keys behind this one.
        after: Option<Bytes>,
        /// At most so many; none for all.
        limit: Option<u64>,
        /// Without values.
        keys_only: bool,
        /// How fresh.
        consistency: Consistency,
    },
    /// Many requests from standard input.
    Batch {
        /// How many may run at once; at least 1.
        window: usize,
    },
    /// Who leads.
    Leader,
    /// Hand leadership over, to that member or to the best-placed one.
    Transfer {
        /// A member's name or id.
        to: Option<String>,
    },
    /// Metrics as text.
    Metrics,
    /// The node's own log, or its protocol's events.
    Logs(LogQuery),
    /// How a slot was chosen.
    Trace {
        /// Which.
        slot: u64,
    },
    /// The program's version.
    Version,
    /// Raise the cluster version.
    RaiseVersion {
        /// To this one, the next.
        to: u16,
    },
    /// The trust bundle that the node goes by.
    Trust,
    /// Put that bundle into the log.
    PublishTrust,
    /// The manual: all of it in short, or one verb.
    Help(Option<&'static VerbSpec>),
}

impl Verb {
    /// Whether standard input belongs to the request.
    pub fn reads_stdin(&self) -> bool {
        matches!(self, Verb::Batch { .. } | Verb::Put { value: ValueSource::Stdin, .. })
    }

    /// Whether it goes on until the client goes away.
    pub fn is_endless(&self) -> bool {
        matches!(self, Verb::Logs(LogQuery { follow: true, .. }))
    }

    /// Its name, as in the grammar.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Status => "status",
            Verb::Health => "health",
            Verb::Members => "members",
            Verb::Put { .. } => "put",
            Verb::Get { .. } => "get",
            Verb::Delete { .. } => "delete",
            Verb::List { .. } => "list",
            Verb::Batch { .. } => "batch",
            Verb::Leader | Verb::Transfer { .. } => "leader",
            Verb::Metrics => "metrics",
            Verb::Logs(_) => "logs",
            Verb::Trace { .. } => "trace",
            Verb::Version | Verb::RaiseVersion { .. } => "version",
            Verb::Trust | Verb::PublishTrust => "trust",
            Verb::Help(_) => "help",
        }
    }

    /// Whether it can be asked again, elsewhere, without anything happening twice.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Verb::Put { request_id, .. } | Verb::Delete { request_id, .. } => request_id.is_some(),
            Verb::Batch { .. } | Verb::Transfer { .. } => false,
            _ => true,
        }
    }

    /// Whether it is about what the cluster keeps, and not about how a node is: for that it is
    /// worth waiting until a node is there.
    pub fn wants_keys(&self) -> bool {
        self.is_write() || matches!(self, Verb::Get { .. } | Verb::List { .. })
    }

    /// Whether it may change anything.
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Verb::Put { .. }
                | Verb::Delete { .. }
                | Verb::Batch { .. }
                | Verb::Transfer { .. }
                | Verb::RaiseVersion { .. }
                | Verb::PublishTrust
        )
    }
}
