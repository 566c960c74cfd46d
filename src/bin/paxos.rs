//! `paxos`: the node, and its clients' and operators' commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(paxos_ssh::cli::main())
}
