//! What is typed at a terminal: two programs in one executable, told apart by its name.
//!
//! Whatever happens, a program ends with one of the exit statuses of the contract, and never with
//! 255, which is ssh's own.

pub mod ctl;
mod ctl_audit;
mod ctl_check;
mod ctl_deploy;
mod ctl_diagnose;
mod ctl_exec;
mod ctl_keys;
mod ctl_life;
mod ctl_logs;
mod ctl_recover;
mod ctl_rotate;
pub mod daemon;
pub mod exit;
mod foot;
mod hidden;
mod interrupt;
mod notify;
pub mod output;
mod passphrase;
pub mod paxos;
mod plan;
mod progress;
mod relay;
mod supervise;
mod survey;

use std::ffi::OsString;
use std::path::Path;

/// Runs the program whose name the process was started under: `paxos-ctl…` is the controller,
/// anything else is `paxos`. Answers the exit status.
pub fn main() -> u8 {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(exit) = hidden::run(&args) {
        return exit;
    }
    let is_controller = args.first().is_some_and(|name| {
        let name = Path::new(name).file_name().unwrap_or(name.as_os_str());
        name.to_string_lossy().starts_with("paxos-ctl")
    });
    match is_controller {
        true => ctl::run(args),
        false => paxos::run(args),
    }
}
