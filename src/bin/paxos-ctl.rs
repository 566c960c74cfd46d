//! `paxos-ctl`: the controller. The same program as `paxos` under another name, so that either can
//! be built alone and start the other.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(paxos_ssh::cli::main())
}
