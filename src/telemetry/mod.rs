//! What a node tells about itself while it runs: log lines, numbers, and which of its loops turn.
//!
//! Nothing here decides anything, and nothing here may make the work that it watches wait: numbers
//! are atomics, log lines go to standard error (which the controller or the service manager keeps).

pub mod histogram;
pub mod logging;
pub mod metrics;
mod process;
pub mod watchdog;
