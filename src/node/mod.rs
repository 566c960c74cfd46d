//! The driver: one owner of a node's whole state, fed by a closed list of events.
//!
//! Nothing here is asynchronous but [`handle`], the end that clients hold. The rest runs on one
//! thread, never waits, and is the same in the simulator.

mod applied;
mod attached;
pub mod clock;
pub mod driver;
pub mod estimate;
pub mod event;
pub mod founding;
pub mod handle;
mod handout;
mod hosting;
pub mod inbox;
pub mod links;
mod measures;
mod outlook;
pub mod recorder;
pub mod reforming;
pub mod report;
mod requests;
pub mod runner;
mod session;
pub mod settings;
pub mod status;
pub mod story;
pub mod trace;
mod transfer;
pub mod world;
