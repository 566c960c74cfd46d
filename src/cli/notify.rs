//! What a node tells the supervisor that started it, in the protocol of sd_notify(3): one datagram
//! for each change, to the socket that `NOTIFY_SOCKET` names.
//!
//! A node says that it is ready when it listens, and not when it has a quorum: whoever restarts
//! nodes one after another would otherwise wait for ever for the first of a cluster that is down.
//! Without the variable nothing is said, and a supervisor that does not listen keeps no node from
//! its work: that is a warning, and a wait with an end.
//!
//! The variable stays where it is. The node starts no other program that could inherit it, and the
//! unit believes the node's own process alone (`NotifyAccess=main`).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tracing::warn;

/// Names the socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// How long a supervisor whose socket is full may take to read from it.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// Whoever wants to know.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// Of the supervisor that the environment names, if it does.
    pub(super) fn from_environment() -> Notifier {
        let Some(address) = std::env::var_os(VARIABLE) else { return Notifier::default() };
        Notifier::new(&address).unwrap_or_else(|error| {
            warn!(?address, %error, "the supervisor that {VARIABLE} names cannot be told anything");
            Notifier::default()
        })
    }

    /// A path, or a name of the kernel's own after an `@`; an empty text is nobody.
    fn new(address: &OsStr) -> io::Result<Notifier> {
        let to = match address.as_bytes() {
            [] => return Ok(Notifier::default()),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::other("it is neither a path nor begins with @")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_LIMIT))?;
        Ok(Notifier { to: Some((socket, to)) })
    }

    /// What the node is about, for people who look.
    pub(super) fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", flat(text)));
    }

    /// It listens.
    pub(super) fn ready(&self, text: &str) {
        self.send(&format!("READY=1\nSTATUS={}", flat(text)));
    }

    /// It ends, because it was told to.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    fn send(&self, state: &str) {
        let Some((socket, to)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), to) {
            warn!(%error, "the supervisor that {VARIABLE} names could not be told {state:?}");
        }
    }
}

/// One line; a second one would be another word of the protocol.
fn flat(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_change_is_a_datagram_to_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.as_os_str()).unwrap();
        notifier.status("reads\nREADY=1");
        notifier.ready("listens");
        notifier.stopping();
        assert_eq!(heard(&socket), "STATUS=reads READY=1");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=listens");
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=stopping");
    }

    #[test]
    fn a_name_after_an_at_sign_is_no_path() {
        let name = format!("paxos-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::new(OsStr::new(&format!("@{name}"))).unwrap().ready("listens");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=listens");
    }

    #[test]
    fn nobody_is_told_nothing_and_a_deaf_supervisor_is_no_failure() {
        Notifier::new(OsStr::new("")).unwrap().ready("listens");
        Notifier::new(OsStr::new("/nowhere/notify")).unwrap().ready("listens");
        for odd in ["vsock:2:1234", "notify"] {
            assert!(Notifier::new(OsStr::new(odd)).is_err(), "{odd}");
        }
    }
}
