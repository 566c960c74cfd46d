//! A Multi-Paxos coordination service whose only transport is SSH.
//!
//! This page is the map. It says in which order to read the modules, who may import whom, and what
//! you will not find where. The protocol itself is explained in `docs/protocol.md`, and why things
//! are as they are in `docs/decisions/`.
//!
//! # Reading order
//!
//! 1. [`paxos`]: the protocol. Begin with `ballot`, `quorum` and `message`, then the three roles
//!    (`acceptor`, `proposer`, `learner`), `election`, and last `replica`, which puts them
//!    together. `effects` says what the protocol wants done, and in which order.
//! 2. [`store`]: the replicated state machine: keys with revisions, and the sessions that make a
//!    retried command apply once.
//! 3. [`wire`]: bytes to types and back: frames, messages, records, commands, and the words in
//!    which clients ask. The only serialisation there is.
//! 4. [`disk`]: the log that makes promises durable, its recovery, and doubles of it that lose and
//!    tear what was not synced.
//! 5. [`transport`]: SSH: who somebody is, the server that listens, the links that dial.
//! 6. [`node`]: the driver. It feeds events to the protocol and carries out what comes back. One
//!    thread owns all state.
//! 7. [`api`]: what a client of a node reaches: `ssh node paxos get k`, batches, the local socket.
//! 8. [`client`]: the client that dials nodes and tries again.
//! 9. [`controller`]: from an inventory to running nodes: keys, plan, steps.
//! 10. [`cli`]: words on a command line, output, exit codes. Both executables are one call into it.
//!
//! [`planted`] holds the mistakes that the simulator must find; it is empty in every program.
//! [`telemetry`] (logging and metrics) is used from [`disk`] upwards.
//!
//! # Arrows
//!
//! A module imports those that it points to, directly or along the way, and no others. The table in
//! `tests/tidy.rs` is the rule; this is its picture.
//!
//! ```text
//!                          cli
//!          ┌────────────────┼──────────────┐
//!          ▼                ▼              ▼
//!         api           controller ────▶ client
//!          │                │              │
//!          ▼                │              │
//!         node              │              │
//!        ┌─┴────────┐       │              │
//!        ▼          ▼       ▼              │
//!       disk      transport ◀──────────────┘
//!        └────┬─────┘
//!             ▼
//!            wire
//!             ▼
//!           store
//!             ▼
//!           paxos            (telemetry: beside them, imports nothing)
//! ```
//!
//! # A write, from the client to the disk and back
//!
//! `api` reads the words, asks whether the principal may, and hands the operation to `node`. The
//! driver gives it a session and a sequence number and proposes it; a node that does not lead
//! forwards it. The leader's proposer puts it into a run of slots; one frame goes to every
//! acceptor, the leader's own included. Each acceptor's vote is a record in its log, and leaves
//! once that record is durable. A quorum of votes makes the slot chosen, at the leader first. Every
//! learner applies chosen slots in order. The node that holds the request answers from its own copy
//! or, if it keeps none, from what a learner tells it.
//!
//! # What is absent
//!
//! * Nothing under [`paxos`] or [`store`] knows what time it is, draws a random number, touches a
//!   file or a socket, starts a thread, waits, or walks a hashed map. The same input gives the same
//!   output, in production, in simulation and in a model checker.
//! * No role of the protocol calls another. They share messages, and nothing else.
//! * No promise and no vote can be sent before its record is durable: such a message is a
//!   [`paxos::message::Pledge`], and there is no way to put one among the messages that leave at
//!   once.
//! * No quorum system exists whose quorums may miss each other, and no configuration without a
//!   proposer and a learner: the types cannot be built.
//! * No file, flag or rumour says who votes. The log does.
//! * No vote counts because of a node's name alone: it counts in the life of the log that the
//!   configuration names, so a node that lost its disk cannot vote twice.
//! * No assertion is off in release, and none is about what a peer sent: that is data, and is
//!   refused, counted and reported.
//! * Nothing but [`wire`] turns types into bytes, and nothing without a version number is written
//!   or sent.
//! * Nothing but [`transport`] knows that the network is SSH, and nothing above it asks for keys,
//!   certificates or addresses to decide who somebody is.
//! * No safety rests on the transport. It may drop, repeat and reorder.
//! * No answer to a client is "I am not the leader": a request waits or is passed on until its
//!   deadline.
//! * No queue is without a bound, and no retry without a limit or a deadline.
//! * No failed sync is tried again. The process ends, and the log is read anew.
//! * No wall clock decides anything about data. Replicated time is carried by entries.
//! * There is no `unsafe` code, no second SSH implementation, and no TLS.

#[macro_use]
pub mod planted;

pub mod api;
pub mod cli;
pub mod client;
pub mod controller;
pub mod disk;
pub mod node;
pub mod paxos;
pub mod store;
pub mod telemetry;
pub mod transport;
pub mod wire;
