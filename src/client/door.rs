//! One way in, one command through it: to a node over SSH, or to the node on this machine by its
//! socket.
//!
//! Both look alike from here on: input goes in, output and an exit status come out. What matters to
//! whoever retries is told apart in [`AskError`]: whether the command was certainly never heard.

use super::ssh_config::Node;
use crate::transport::client::{self, ChannelError, ChannelReceiver, ChannelSender, DialError};
use crate::transport::settings::Settings;
use crate::wire::local::{
    HEADER_BYTES, PIECE_BYTES_MAX, PieceKind, SocketPath, parse_piece_header, piece_header,
};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

pub use crate::transport::client::{ChannelEvent, ChannelGone};

/// Pieces of output that wait for the reader; the node waits meanwhile.
const PIECES_WAITING: usize = 8;

/// A way in.
#[derive(Clone)]
pub enum Door {
    /// Over SSH.
    Node(Box<Node>),
    /// The socket of the node on this machine.
    Socket(PathBuf),
}

/// A way that was gone: somebody is there, and can be asked.
pub enum Opened {
    /// Over SSH.
    Node(Box<client::Connection>),
    /// The socket at this path.
    Socket(PathBuf, UnixStream),
}

/// Why a command was not taken.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody was reached, or nobody that could be trusted: the command was never heard.
    #[error("{0}")]
    Unreachable(String),
    /// The node does not let us in: the command was never heard.
    #[error("{0}")]
    Denied(String),
    /// The connection broke when the command may have been heard already.
    #[error("{0}")]
    Broken(String),
    /// The command cannot be sent this way.
    #[error("{0}")]
    Unsendable(String),
}

/// A command under way.
pub struct Talk {
    /// Towards the node.
    pub input: TalkInput,
    /// From the node.
    pub output: TalkOutput,
}

/// Standard input of the command.
pub enum TalkInput {
    /// Over SSH.
    Ssh(ChannelSender),
    /// Over the socket.
    Socket(OwnedWriteHalf),
}

/// What the command says.
pub enum TalkOutput {
    /// Over SSH; the connection lives as long as this.
    Ssh(ChannelReceiver, Box<client::Connection>),
    /// Over the socket, whose reader is a task of its own so that waiting can be cancelled.
    Socket(mpsc::Receiver<ChannelEvent>),
}

impl Door {
    /// What to call it in messages.
    pub fn name(&self) -> String {
        match self {
            Door::Node(node) => node.name.clone(),
            Door::Socket(path) => path.display().to_string(),
        }
    }

    /// Goes the way to the node, within `limit`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`AskError::Unreachable`] or [`AskError::Denied`].
    pub async fn open(&self, limit: Duration) -> Result<Opened, AskError> {
        match self {
            Door::Node(node) => Ok(Opened::Node(Box::new(dial(node, limit).await?))),
            Door::Socket(path) => {
                let opened = tokio::time::timeout(limit, open_socket(path)).await;
                let stream = opened.unwrap_or_else(|_| {
                    let path = path.display();
                    let message = format!("{path} did not take the connection in {limit:?}");
                    Err(AskError::Unreachable(message))
                })?;
                Ok(Opened::Socket(path.clone(), stream))
            }
        }
    }

    /// Goes the way to the node, and sends a command line; `limit` bounds the way, not the command.
    ///
    /// # Errors
    /// [`AskError`] says whether it may have been heard.
    pub async fn ask(&self, command: &[u8], limit: Duration) -> Result<Talk, AskError> {
        self.open(limit).await?.ask(command, limit).await
    }
}

impl Opened {
    /// Sends a command line; `limit` bounds how long it may take until somebody has it.
    ///
    /// # Errors
    /// [`AskError`] says whether it may have been heard.
    pub async fn ask(self, command: &[u8], limit: Duration) -> Result<Talk, AskError> {
        match self {
            Opened::Node(connection) => ask_node(*connection, command, limit).await,
            Opened::Socket(path, stream) => {
                let asked = tokio::time::timeout(limit, ask_socket(&path, stream, command)).await;
                asked.unwrap_or_else(|_| {
                    let path = path.display();
                    let message = format!("{path} did not take the command in {limit:?}");
                    Err(AskError::Broken(message))
                })
            }
        }
    }
}

async fn dial(node: &Node, limit: Duration) -> Result<client::Connection, AskError> {
    let mut settings = Settings::default();
    settings.dial_timeout = settings.dial_timeout.min(limit);
    let dialled = client::dial(&node.endpoint, &node.identity, &settings).await;
    dialled.map_err(|error| match error {
        DialError::Denied { .. } => AskError::Denied(error.to_string()),
        other => AskError::Unreachable(other.to_string()),
    })
}

async fn ask_node(
    connection: client::Connection,
    command: &[u8],
    limit: Duration,
) -> Result<Talk, AskError> {
    let command = std::str::from_utf8(command).map_err(|_| {
        AskError::Unsendable(
            "an ssh command line holds text only; a key that is not UTF-8 takes the rpc subsystem"
                .to_owned(),
        )
    })?;
    let opened = tokio::time::timeout(limit, connection.exec(command)).await;
    let channel = match opened {
        Ok(Ok(channel)) => channel,
        Ok(Err(error @ ChannelError::Refused { .. })) => {
            return Err(AskError::Unreachable(error.to_string()));
        }
        Ok(Err(error @ ChannelError::Gone { .. })) => {
            return Err(AskError::Broken(error.to_string()));
        }
        Err(_elapsed) => {
            connection.cut();
            return Err(AskError::Broken(format!("it did not take the command within {limit:?}")));
        }
    };
    let output = TalkOutput::Ssh(channel.receiver, Box::new(connection));
    Ok(Talk { input: TalkInput::Ssh(channel.sender), output })
}

async fn open_socket(path: &Path) -> Result<UnixStream, AskError> {
    let unreachable = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "; is the node running? Without -F and --to the node on this machine is asked"
            }
            io::ErrorKind::PermissionDenied => "; only root and the node's owner may use it",
            _ => "",
        };
        AskError::Unreachable(format!("cannot use the socket {}: {error}{hint}", path.display()))
    };
    let address = SocketPath::new(path).map_err(unreachable)?;
    UnixStream::connect(address.path()).await.map_err(unreachable)
}

async fn ask_socket(path: &Path, stream: UnixStream, command: &[u8]) -> Result<Talk, AskError> {
    if command.len() > PIECE_BYTES_MAX {
        let message = format!("the command has {} bytes, over {PIECE_BYTES_MAX}", command.len());
        return Err(AskError::Unsendable(message));
    }
    let (from, mut to) = stream.into_split();
    let broken = |error: io::Error| {
        AskError::Broken(format!("the socket {} broke: {error}", path.display()))
    };
    write_piece(&mut to, PieceKind::Command, command).await.map_err(broken)?;
    let (events, output) = mpsc::channel(PIECES_WAITING);
    tokio::spawn(read_pieces(from, events));
    Ok(Talk { input: TalkInput::Socket(to), output: TalkOutput::Socket(output) })
}

async fn write_piece(to: &mut OwnedWriteHalf, kind: PieceKind, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&piece_header(kind, bytes.len())).await?;
    to.write_all(bytes).await
}

/// Reads until the exit status, the end, or until nobody wants it any more.
async fn read_pieces(mut from: OwnedReadHalf, events: mpsc::Sender<ChannelEvent>) {
    loop {
        let event = read_event(&mut from)
            .await
            .unwrap_or_else(|error| ChannelEvent::Closed(format!("the socket broke: {error}")));
        let is_last = matches!(event, ChannelEvent::Exit(_) | ChannelEvent::Closed(_));
        if events.send(event).await.is_err() || is_last {
            return;
        }
    }
}

async fn read_event(from: &mut OwnedReadHalf) -> io::Result<ChannelEvent> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header).await?;
    let (kind, length) = parse_piece_header(header).map_err(|error| invalid(error.to_string()))?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    match (kind, &bytes[..]) {
        (PieceKind::Stdout, _) => Ok(ChannelEvent::Stdout(bytes.into())),
        (PieceKind::Stderr, _) => Ok(ChannelEvent::Stderr(bytes.into())),
        (PieceKind::Exit, &[exit]) => Ok(ChannelEvent::Exit(u32::from(exit))),
        (kind, _) => Err(invalid(format!("the node sent {kind:?}"))),
    }
}

impl TalkInput {
    /// Sends input; waits while the node takes it too slowly.
    ///
    /// # Errors
    /// When the node does not take any more; its output tells why.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), ChannelGone> {
        match self {
            TalkInput::Ssh(sender) => sender.send(bytes).await,
            TalkInput::Socket(to) => {
                for piece in bytes.chunks(PIECE_BYTES_MAX) {
                    write_piece(to, PieceKind::Stdin, piece).await.map_err(|_| ChannelGone)?;
                }
                Ok(())
            }
        }
    }

    /// Ends the input.
    ///
    /// # Errors
    /// As [`TalkInput::send`].
    pub async fn end(&mut self) -> Result<(), ChannelGone> {
        match self {
            TalkInput::Ssh(sender) => sender.eof().await,
            TalkInput::Socket(to) => {
                write_piece(to, PieceKind::StdinEnd, &[]).await.map_err(|_| ChannelGone)
            }
        }
    }

    /// Asks the command to stop.
    ///
    /// # Errors
    /// As [`TalkInput::send`].
    pub async fn interrupt(&mut self) -> Result<(), ChannelGone> {
        match self {
            TalkInput::Ssh(sender) => sender.interrupt().await,
            TalkInput::Socket(to) => {
                write_piece(to, PieceKind::Interrupt, &[]).await.map_err(|_| ChannelGone)
            }
        }
    }
}

impl TalkOutput {
    /// What comes next. Cancelling is safe.
    pub async fn next(&mut self) -> ChannelEvent {
        match self {
            TalkOutput::Ssh(receiver, _connection) => receiver.next().await,
            TalkOutput::Socket(events) => {
                let ended = || ChannelEvent::Closed("the node closed the socket".to_owned());
                events.recv().await.unwrap_or_else(ended)
            }
        }
    }
}
