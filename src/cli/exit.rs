//! Exit statuses of both programs; the table is in `wire/failure.rs`, beside the codes that they go
//! with.

use crate::wire::failure::Code;

/// Done.
pub const DONE: u8 = 0;

/// The exit status of a command on a node, as this program's own. What does not fit, and 255, which
/// a reader would take for ssh's own failure, become "internal".
pub fn from_remote(status: u32) -> u8 {
    match u8::try_from(status) {
        Ok(255) | Err(_) => Code::Internal.exit(),
        Ok(status) => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_s_own_status_is_never_passed_on() {
        assert_eq!(from_remote(0), DONE);
        assert_eq!(from_remote(69), 69);
        assert_eq!(from_remote(255), 1);
        assert_eq!(from_remote(256), 1);
        assert!(Code::ALL.iter().all(|code| code.exit() != 255));
    }
}
