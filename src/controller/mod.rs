//! From an inventory to a running cluster, and through its life.
//!
//! * [`yaml`], [`groups`], [`inventory`] read what somebody wants (`access`: how to get there,
//!   `addresses`: where nodes listen, `people`: whose plain keys are let in); [`problem`] says what
//!   is wrong with it, [`init`] writes a first one.
//! * [`keys`] reads keys and [`issuer`] makes them, [`issued`] lists and revokes them, [`delivery`]
//!   has the nodes take them up, `publish` puts the bundle into the log as well, [`newest`] tells
//!   an old copy of the keys, [`rotate`]
//!   replaces an authority ([`authorities`] are its keys), [`rotate_node`] the key of a node,
//!   [`renewal`] all certificates of a kind;
//!   [`state`] remembers that a cluster was formed.
//! * [`host`] is the seam to where nodes run: [`local`] is this machine, [`remote`] a host over its
//!   sshd, [`everywhere`] both, [`process`] whose process is whose. [`systemd`] runs a node as a
//!   [unit](mod@unit) where it runs the host.
//! * [`observe`] asks nodes, [`membership`] is who they say they are.
//! * [`plan`] makes a plan of facts, with an [`obstacle`] where something stands in its way;
//!   [`deploy`] gathers the ones and carries out the other.
//! * [`upgrade`] has the cluster run another [`program`].
//! * [`watch`] is whoever looks on while hosts are worked on.
//! * [`child`] is a program that works for this one while somebody may press Ctrl-C.
//! * [`lock`] keeps two controllers apart, `exclusive` takes it everywhere; [`journal`] notes what
//!   a run did, `resume` goes on with one; `started` is what a node was started with.
//! * [`preflight`] checks hosts before a deployment, or after one: [`examine`] is what it asks of
//!   them, [`probe`] what they look at, [`trial_login`] how they reach each other; [`check`] and
//!   [`check_links`] judge.
//! * [`operate`] is the rest of a cluster's life, [`overview`] what its status looks like, [`logs`]
//!   what all nodes say as one story, [`destroy`] its end.
//! * [`verify`] runs the eight checks of the roles, over [`streams`] of requests and commands;
//!   [`verdict`], [`hand_over`] and [`traces`] judge what was seen, the last of these what nodes
//!   [`recorded`].
//!
//! What must hold: facts are gathered without a change; a genesis is given once in a cluster's
//! life; what an inventory leaves out is not taken away; no process and no file that is somebody
//! else's is touched.

mod access;
mod addresses;
pub mod agent;
pub mod agent_call;
pub mod authorities;
pub mod check;
pub mod check_links;
pub mod child;
pub mod delivery;
pub mod deploy;
pub mod destroy;
mod drift;
pub mod everywhere;
pub mod examine;
mod exclusive;
pub mod facts;
mod gate;
mod gather;
pub mod groups;
pub mod hand_over;
pub mod host;
pub mod init;
pub mod inventory;
pub mod issued;
pub mod issuer;
pub mod journal;
pub mod keys;
pub mod landing;
mod limit;
pub mod local;
pub mod lock;
pub mod login;
pub mod logs;
pub mod membership;
pub mod newest;
pub mod observe;
pub mod obstacle;
mod openssh;
pub mod operate;
pub mod overview;
mod people;
mod pipe;
pub mod plan;
mod ports;
pub mod preflight;
pub mod probe;
pub mod problem;
pub mod process;
pub mod program;
mod publish;
pub mod recorded;
pub mod recover;
pub mod remains;
pub mod remote;
pub mod renewal;
pub mod resume;
pub mod rotate;
pub mod rotate_node;
pub mod run;
pub mod settings;
pub mod signers;
pub mod started;
pub mod state;
pub mod streams;
pub mod survivors;
pub mod system;
pub mod systemd;
pub mod traces;
pub mod trial_login;
pub mod unit;
pub mod upgrade;
pub mod verdict;
pub mod verify;
pub mod wait;
pub mod watch;
pub mod yaml;

use crate::wire::failure::{Code, Failure};

/// A failure of an error whose last part says what to do next.
fn told(code: Code, text: &str) -> Failure {
    Failure::told(code, text, "see the message; nothing more is known")
}

fn keys_failure(error: keys::KeysError) -> Failure {
    told(error.code(), &error.to_string())
}

fn host_failure(error: host::HostError) -> Failure {
    let hint = error.hint.clone();
    Failure::new(Code::Internal, error.to_string(), hint)
}
