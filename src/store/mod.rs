//! The replicated state machine: what every node with a store computes from the chosen log.
//!
//! [`Store::apply`](machine::Store::apply) takes the chosen slots in order and is a function of
//! nothing else: no clock (time comes with the entries), no randomness, no order of a hash map. Two
//! stores that applied the same slots are equal, byte for byte, and
//! [`digest`](machine::Store::digest) shows it when they are not.
//!
//! Everything replicated is in the [`Engine`](engine::Engine), under spaces of its own: keys,
//! sessions, outcomes, request ids, time. A snapshot of the engine is therefore a snapshot of the
//! store.

pub mod command;
mod digest;
mod draft;
pub mod engine;
pub mod machine;
mod rows;
pub mod sessions;
pub mod view;

pub use machine::Store;
pub use view::{KeyValue, View};
