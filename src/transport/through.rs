//! The bytes of a connection, whichever way they go: a socket of ours, or a program's standard
//! input and output, as with OpenSSH's ProxyCommand.
//!
//! A program is started without a shell, and ends with the connection.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// One or the other.
pub(super) enum Way {
    Dialled(TcpStream),
    Through(Box<Through>),
}

/// A program that is a connection.
pub(super) struct Through {
    /// Killed when it is dropped.
    _child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Through {
    /// Starts the program, with the host for `%h` and the port for `%p`. What it complains about is
    /// not shown: a link that is dialled again and again would fill a terminal.
    pub(super) fn start(words: &[String], host: &str, port: u16) -> io::Result<Through> {
        let filled = |word: &String| fill(word, host, port);
        let mut words = words.iter().map(filled);
        let nothing = || io::Error::new(io::ErrorKind::InvalidInput, "no program is named");
        let mut command = Command::new(words.next().ok_or_else(nothing)?);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Through { _child: child, input, output }),
            _ => Err(io::Error::other("the program has no pipes")),
        }
    }
}

/// `%h`, `%p` and `%%`, as OpenSSH has them.
fn fill(word: &str, host: &str, port: u16) -> String {
    let mut filled = String::new();
    let mut chars = word.chars();
    while let Some(char) = chars.next() {
        match char {
            '%' => match chars.next() {
                Some('h') => filled.push_str(host),
                Some('p') => filled.push_str(&port.to_string()),
                Some('%') => filled.push('%'),
                Some(other) => filled.extend(['%', other]),
                None => filled.push('%'),
            },
            char => filled.push(char),
        }
    }
    filled
}

impl Way {
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Way::Dialled(stream) => stream.set_nodelay(true),
            Way::Through(_) => Ok(()),
        }
    }
}

impl AsyncRead for Way {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Way::Dialled(stream) => Pin::new(stream).poll_read(cx, buf),
            Way::Through(through) => Pin::new(&mut through.output).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Way {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Way::Dialled(stream) => Pin::new(stream).poll_write(cx, bytes),
            Way::Through(through) => Pin::new(&mut through.input).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Way::Dialled(stream) => Pin::new(stream).poll_flush(cx),
            Way::Through(through) => Pin::new(&mut through.input).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Way::Dialled(stream) => Pin::new(stream).poll_shutdown(cx),
            Way::Through(through) => Pin::new(&mut through.input).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn words_are_filled_in_as_by_openssh() {
        assert_eq!(fill("%h:%p", "db1", 22), "db1:22");
        assert_eq!(fill("100%% %C %", "db1", 22), "100% %C %");
    }

    #[tokio::test]
    async fn a_program_is_a_connection() {
        let words = ["sh", "-c", "echo $0 $1; exec cat", "%h", "%p"].map(str::to_owned);
        let mut way = Way::Through(Box::new(Through::start(&words, "db1", 7022).unwrap()));
        let mut said = [0; 9];
        way.read_exact(&mut said).await.unwrap();
        assert_eq!(said, *b"db1 7022\n");
        way.write_all(b"back").await.unwrap();
        let mut said = [0; 4];
        way.read_exact(&mut said).await.unwrap();
        assert_eq!(said, *b"back");
    }
}
