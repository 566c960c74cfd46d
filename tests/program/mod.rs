//! The program `paxos` as a process: what it is started with, given and asked afterwards.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The program, without anything of this shell's environment that would change its way.
pub(crate) fn paxos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxos"));
    for name in ["PAXOS_TO", "PAXOS_SSH_CONFIG", "PAXOS_SOCKET", "SSH_AUTH_SOCK"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env("XDG_STATE_HOME", "/nonexistent");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn feed(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that ends without reading everything breaks this pipe, which is its right.
        scope.spawn(move || pipe.write_all(stdin));
        child.wait_with_output().unwrap()
    })
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
