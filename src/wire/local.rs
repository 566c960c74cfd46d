//! What the local program and the node say to each other over the node's own socket, and how to
//! reach that socket.
//!
//! The same conversation as on an SSH exec channel, without SSH: the command line first, then
//! standard input one way, standard output, standard error and the exit status the other way. Who
//! may is decided by the socket's file mode and the peer's user id, not by anything said here.
//!
//! ```text
//! u8 kind | u32 big-endian: length | bytes
//! ```

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The file's name in a node's data directory.
pub const SOCKET_NAME: &str = "paxos.sock";

/// Bytes before a piece.
pub const HEADER_BYTES: usize = 5;

/// Most bytes of a piece: the longest command line, and more than any piece of a stream.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// The command line, as ssh would send it. The first piece, and only the first.
    Command,
    /// Standard input.
    Stdin,
    /// Its end.
    StdinEnd,
    /// Stop, as by Ctrl-C.
    Interrupt,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The exit status, one byte. The last piece.
    Exit,
}

/// Why a header is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PieceError {
    /// A kind that this version does not know.
    #[error("kind {0} of a piece on the local socket is unknown; use the node's own paxos program")]
    Kind(u8),
    /// Longer than allowed.
    #[error(
        "a piece of {0} bytes on the local socket is over {PIECE_BYTES_MAX}; send less at once"
    )]
    Oversized(u32),
}

impl PieceKind {
    const ALL: [PieceKind; 7] = [
        PieceKind::Command,
        PieceKind::Stdin,
        PieceKind::StdinEnd,
        PieceKind::Interrupt,
        PieceKind::Stdout,
        PieceKind::Stderr,
        PieceKind::Exit,
    ];

    fn code(self) -> u8 {
        match self {
            PieceKind::Command => 1,
            PieceKind::Stdin => 2,
            PieceKind::StdinEnd => 3,
            PieceKind::Interrupt => 4,
            PieceKind::Stdout => 17,
            PieceKind::Stderr => 18,
            PieceKind::Exit => 19,
        }
    }
}

/// The header of a piece with that many bytes.
///
/// # Panics
/// Above [`PIECE_BYTES_MAX`]: whoever sends cuts first.
pub fn piece_header(kind: PieceKind, bytes: usize) -> [u8; HEADER_BYTES] {
    assert!(bytes <= PIECE_BYTES_MAX, "a piece of {bytes} bytes was not cut");
    let length = u32::try_from(bytes).expect("the limit is below");
    let [a, b, c, d] = length.to_be_bytes();
    [kind.code(), a, b, c, d]
}

/// Reads a header: the kind, and how many bytes follow.
///
/// # Errors
/// [`PieceError`]; the stream cannot be read any further.
pub fn parse_piece_header(header: [u8; HEADER_BYTES]) -> Result<(PieceKind, usize), PieceError> {
    let [code, a, b, c, d] = header;
    let length = u32::from_be_bytes([a, b, c, d]);
    let known = PieceKind::ALL.into_iter().find(|kind| kind.code() == code);
    let kind = known.ok_or(PieceError::Kind(code))?;
    match usize::try_from(length) {
        Ok(bytes) if bytes <= PIECE_BYTES_MAX => Ok((kind, bytes)),
        _ => Err(PieceError::Oversized(length)),
    }
}

/// A socket's path, short enough for the kernel.
///
/// The address of a Unix socket holds 107 bytes, and a data directory may be deeper than that. Then
/// the directory is opened and named by its descriptor; keep this value until bind or connect is
/// done.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl SocketPath {
    /// Prepares the path.
    ///
    /// # Errors
    /// When the path is long and its directory cannot be opened.
    pub fn new(path: &Path) -> std::io::Result<SocketPath> {
        const ADDRESS_BYTES_MAX: usize = 107;
        if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return Ok(SocketPath { path: path.to_owned(), _directory: None });
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "the socket's path names no file in a directory",
            ));
        };
        let directory = File::open(directory)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(SocketPath { path, _directory: Some(directory) })
    }

    /// What to bind or connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        for kind in PieceKind::ALL {
            let header = piece_header(kind, 70_000);
            assert_eq!(parse_piece_header(header), Ok((kind, 70_000)));
        }
        assert_eq!(piece_header(PieceKind::Exit, 1), [19, 0, 0, 0, 1]);
    }

    #[test]
    fn bad_headers_are_refused() {
        assert_eq!(parse_piece_header([0, 0, 0, 0, 1]), Err(PieceError::Kind(0)));
        let oversized = parse_piece_header([2, 0, 0x10, 0, 1]);
        assert_eq!(oversized, Err(PieceError::Oversized((1 << 20) + 1)));
    }

    #[test]
    fn a_long_path_is_reached_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let path = SocketPath::new(&deep.join(SOCKET_NAME)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(path.path()).unwrap();
        assert!(deep.join(SOCKET_NAME).exists());
        let path = SocketPath::new(&deep.join(SOCKET_NAME)).unwrap();
        std::os::unix::net::UnixStream::connect(path.path()).unwrap();
    }
}
