//! The Rust client: how a program reaches a cluster's nodes.
//!
//! * [`ssh_config`] reads which nodes there are, from the same file that the stock ssh uses.
//! * [`door`] is one way in: a node over SSH, or the socket of the node on this machine. Through a
//!   door goes one command and its streams, as `ssh node paxos …` does.
//! * [`rpc`] keeps one connection with many requests under way; [`cluster`] spreads calls over
//!   nodes and repeats what may be repeated; [`backoff`] says how long to wait in between.
//! * [`first`](mod@first) takes the first of several nodes that can be reached.
//!
//! What must hold: a write is sent again only when it was certainly not applied, or when it carries
//! a request id under which the cluster applies it once. Nothing is retried without a bound in
//! time.

pub mod backoff;
pub mod cluster;
pub mod door;
pub mod first;
pub mod rpc;
pub mod ssh_config;
