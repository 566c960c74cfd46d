//! The node's own socket: `paxos status` on the machine itself, without keys and without a network.
//!
//! Only root and the user that runs the node get through: the file's mode is 0600, and the kernel
//! is asked who is at the other end. Whoever gets through may do everything, because they could
//! read the node's files just as well. It works when every certificate has expired and every peer
//! is gone.

use crate::telemetry::watchdog::{Beat, Watched, Work};
use crate::transport::identity::Principal;
use crate::transport::server::Sessions;
use crate::transport::session::{ExecRequest, ExecSession, OutputEvent};
use crate::wire::local::{
    HEADER_BYTES, PieceKind, SOCKET_NAME, SocketPath, parse_piece_header, piece_header,
};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Local programs at once; each is somebody's terminal or script on this machine.
const CONNECTIONS_MAX: usize = 64;

/// How long a program may take to say what it wants.
const COMMAND_WAIT_MAX: Duration = Duration::from_secs(10);

/// Accepting fails when file descriptors run out; trying again at once would only burn the
/// processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A program that takes nothing of its answer for this long is taken for gone, as a client over ssh
/// is.
const WRITE_WAIT_MAX: Duration = super::OUTPUT_STALL_MAX;

/// The longest time that the accept loop may be about one program, or find no place for the next.
const TURN_MAX: Duration = Duration::from_secs(5);

/// How the accept loop is watched.
pub fn watched() -> Watched {
    Watched {
        name: "local-socket".to_owned(),
        limit: TURN_MAX,
        next: "end some of the programs that use the node's socket (`lsof paxos.sock` names them), \
               or come in over ssh",
    }
}

/// Why there is no local socket.
#[derive(Debug, Error)]
#[error(
    "cannot open the local socket {path} ({doing}): {source}; check the directory's owner, and \
     that no other node uses it"
)]
pub struct LocalError {
    path: PathBuf,
    doing: &'static str,
    source: io::Error,
}

/// A socket that is bound and not yet served.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Binds `paxos.sock` in the node's data directory, taking the place of one that a dead process
    /// left. The caller holds the directory's lock, so it cannot be a living one's.
    ///
    /// # Errors
    /// When the directory does not let us.
    pub fn bind(data_dir: &Path) -> Result<LocalSocket, LocalError> {
        let path = data_dir.join(SOCKET_NAME);
        // Bound under another name first, so that it never stands there with a wider mode.
        let fresh = data_dir.join(format!("{SOCKET_NAME}.new"));
        let failed = |doing| {
            let path = path.clone();
            move |source| LocalError { path, doing, source }
        };
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing an old one")(error));
            }
            _ => {}
        }
        let address = SocketPath::new(&fresh).map_err(failed("opening its directory"))?;
        let listener = UnixListener::bind(address.path()).map_err(failed("binding"))?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
            .map_err(failed("setting its mode"))?;
        std::fs::rename(&fresh, &path).map_err(failed("putting it in its place"))?;
        Ok(LocalSocket { listener, path })
    }

    /// Serves until it is dropped.
    pub async fn serve(self, sessions: Arc<dyn Sessions>, beat: Beat) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            beat.busy(Work::Crowded);
            let permit = Arc::clone(&room).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            // Nobody may ever come.
            beat.idle();
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    beat.busy(Work::Admitting);
                    let sessions = Arc::clone(&sessions);
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, sessions.as_ref()).await {
                            tracing::debug!(%error, "a local conversation ended early");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    beat.busy(Work::Pausing);
                    tracing::warn!(%error, "cannot accept on the local socket; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // A socket that nobody serves makes programs wait; one that is missing makes them say so.
        let _already_gone = std::fs::remove_file(&self.path);
    }
}

/// Whether that user may use the socket.
fn is_welcome(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

async fn converse(stream: UnixStream, sessions: &dyn Sessions) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if !is_welcome(user) {
        tracing::warn!(user, "refused on the local socket: neither root nor the node's owner");
        return Ok(());
    }
    let (mut from, mut to) = stream.into_split();
    let first = tokio::time::timeout(COMMAND_WAIT_MAX, read_piece(&mut from)).await;
    let Ok(Some((PieceKind::Command, command))) = first.map_err(io::Error::from)? else {
        return Err(invalid("the first piece is no command"));
    };
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let request = ExecRequest::Exec(command);
    let (session, mut far) = ExecSession::detached(Principal::Local, nowhere, request);
    sessions.start(session);
    let (input, mut output) = far.streams();
    // Without a limit: a program may pause for as long as it likes, and the kernel tells its end.
    let give = async {
        loop {
            match read_piece(&mut from).await? {
                Some((PieceKind::Stdin, bytes)) => input.push(&bytes).await,
                Some((PieceKind::StdinEnd, _)) => input.end(),
                Some((PieceKind::Interrupt, _)) => input.interrupt(),
                Some((kind, _)) => return Err(invalid(&format!("a program sent {kind:?}"))),
                // The program is gone: so is whoever wants the answer.
                None => return Ok(()),
            }
        }
    };
    let take = async {
        while let Some(event) = output.next().await {
            let written = tokio::time::timeout(WRITE_WAIT_MAX, write_event(&mut to, event));
            if written.await.map_err(io::Error::from)?? {
                return to.shutdown().await;
            }
        }
        Ok(())
    };
    tokio::select! {
        given = give => given,
        taken = take => taken,
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The next piece; none at the end of the stream.
async fn read_piece(from: &mut OwnedReadHalf) -> io::Result<Option<(PieceKind, Vec<u8>)>> {
    let mut header = [0; HEADER_BYTES];
    match from.read_exact(&mut header).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (kind, length) = parse_piece_header(header).map_err(|error| invalid(&error.to_string()))?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some((kind, bytes)))
}

/// Writes one thing to the program; answers whether it was the last.
async fn write_event(to: &mut OwnedWriteHalf, event: OutputEvent) -> io::Result<bool> {
    let (kind, bytes, is_last) = match event {
        OutputEvent::Stdout(bytes) => (PieceKind::Stdout, bytes, false),
        OutputEvent::Stderr(bytes) => (PieceKind::Stderr, bytes, false),
        OutputEvent::Exit(exit) => {
            let exit = u8::try_from(exit).unwrap_or(1);
            (PieceKind::Exit, vec![exit].into(), true)
        }
    };
    to.write_all(&piece_header(kind, bytes.len())).await?;
    to.write_all(&bytes).await?;
    Ok(is_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_owner_are_welcome() {
        let me = rustix::process::geteuid().as_raw();
        assert!(is_welcome(0) && is_welcome(me));
        assert!(!is_welcome(me + 1));
    }
}
