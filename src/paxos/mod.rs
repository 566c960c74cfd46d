//! The protocol: pure, single-threaded, and the same in production and in simulation.
//!
//! Nothing under this module knows what time it is, draws a random number from outside its own
//! seeded state, touches a file or a socket, or iterates a hash map. What goes in is a message, a
//! tick or a request; what comes out is an [`effects::Effects`].

pub mod acceptor;
pub mod ballot;
mod catch_up;
pub mod configuration;
pub mod depths;
mod dispatch;
pub mod effects;
pub mod election;
mod forward;
mod found;
pub mod handover;
pub mod learner;
pub mod message;
mod outbox;
pub mod proposer;
pub mod quorum;
mod reads;
pub mod record;
pub mod reform;
pub mod replica;
pub mod timing;
pub mod witness;
