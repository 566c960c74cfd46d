//! From an inventory to a running cluster, and through its life.
//!
//! * [`inventory`] is what somebody wants, [`keys`] whom nodes believe; [`state`] remembers that a
//!   cluster was formed.
//! * [`host`] is where nodes run: this machine, or one that is reached over its sshd.
//! * [`observe`] asks nodes, [`membership`] is who they say they are.
//! * [`plan`] makes a plan of [`facts`], with an [`obstacle`] where something stands in its way;
//!   `gather` has the facts, `drift` tells where the running cluster is another than the wanted
//!   one, and [`deploy`] carries the plan out.
//! * [`upgrade`] has the cluster run another [`program`]; `gate` lets the next node be restarted.
//! * [`check`] judges hosts before a deployment, [`verify`] what the roles of a cluster do.
//! * [`operate`] is the rest of a cluster's life, [`overview`] what its status looks like, [`logs`]
//!   what all nodes say as one story, [`recover`] its life after a loss, [`destroy`] its end.
//! * `exclusive` keeps other controllers away, [`journal`] notes what a run did, [`resume`] goes on
//!   with one, [`watch`] looks on meanwhile, [`wait`] waits for what can be looked at.
//!
//! What must hold: facts are gathered without a change; a genesis is given once in a cluster's
//! life; what an inventory leaves out is not taken away; no process and no file that is somebody
//! else's is touched.

pub mod check;
pub mod deploy;
pub mod destroy;
mod drift;
mod exclusive;
pub mod facts;
mod gate;
mod gather;
pub mod host;
pub mod inventory;
pub mod journal;
pub mod keys;
pub mod logs;
pub mod membership;
pub mod observe;
pub mod obstacle;
pub mod operate;
pub mod overview;
pub mod plan;
pub mod program;
pub mod recover;
pub mod resume;
pub mod state;
pub mod upgrade;
pub mod verify;
pub mod wait;
pub mod watch;

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
