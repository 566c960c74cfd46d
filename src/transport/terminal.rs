//! The terminal of `ssh -t`: what a kernel's line discipline does for a shell.
//!
//! A client that got a terminal hands its keys over as they are pressed and shows what comes as it
//! is. So somebody at this end must echo, turn the return key into an end of line, hand lines on
//! when they are complete, see that ^D ends the input and ^C stops the command, and begin each line
//! of output at the left. OpenSSH asks for a terminal with a plain `ssh NODE` as well.
//!
//! Of what `stty` can change only the echo is heeded; the keys are those that every system starts
//! with.

use super::session::{Echo, Life, Pty, StdinFeed, StdinOverflow};
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

/// A line may be corrected until it is this long; what is longer is handed on in parts. Linux has
/// the same measure, and throws the rest away.
const LINE_BYTES_MAX: usize = 4096;

const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const ERASE_WORD: u8 = 0x17;
const QUIT: u8 = 0x1c;
const DELETE: u8 = 0x7f;

/// A terminal that a channel was given, before anything runs in it.
pub(super) struct Terminal {
    pub(super) pty: Pty,
    resize: watch::Sender<(u32, u32)>,
    echoes: bool,
}

impl Terminal {
    pub(super) fn new(term: String, size: (u32, u32), modes: &[(russh::Pty, u32)]) -> Terminal {
        let (resize, size) = watch::channel(size);
        let echoes = !modes.contains(&(russh::Pty::ECHO, 0));
        Terminal { pty: Pty { term, size }, resize, echoes }
    }

    pub(super) fn resize(&self, columns: u32, rows: u32) {
        self.resize.send_replace((columns, rows));
    }

    /// The keyboard of a session that runs in this terminal.
    pub(super) fn keyboard(&self, echo: Echo) -> Keyboard {
        Keyboard { editor: Editor { line: Vec::new(), echoes: self.echoes }, echo }
    }
}

/// Turns keys into a session's input.
pub(super) struct Keyboard {
    editor: Editor,
    echo: Echo,
}

impl Keyboard {
    /// Takes what was typed; hands complete lines on.
    pub(super) fn typed(
        &mut self,
        keys: &[u8],
        stdin: &StdinFeed,
        life: &Life,
    ) -> Result<(), StdinOverflow> {
        let Typed { input, echo, control } = self.editor.typed(keys);
        self.echo.show(echo.into());
        stdin.push(&input)?;
        match control {
            None => {}
            Some(Control::End) => stdin.end(),
            Some(Control::Interrupt) => life.unwant(),
        }
        Ok(())
    }

    /// The client ended its input, in the middle of a line or not.
    pub(super) fn end(&mut self, stdin: &StdinFeed) {
        let rest = std::mem::take(&mut self.editor.line);
        // Without room the reader is far behind, and the channel about to be closed for it.
        let _overflow = stdin.push(&rest);
        stdin.end();
    }
}

/// What came of some keys.
#[derive(Debug, Default, PartialEq, Eq)]
struct Typed {
    input: Vec<u8>,
    echo: Vec<u8>,
    control: Option<Control>,
}

/// Nothing that is typed behind it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    End,
    Interrupt,
}

/// One line that can still be corrected.
struct Editor {
    line: Vec<u8>,
    echoes: bool,
}

impl Editor {
    fn typed(&mut self, keys: &[u8]) -> Typed {
        let mut typed = Typed::default();
        for &key in keys {
            match key {
                INTERRUPT | QUIT => {
                    self.line.clear();
                    self.show(key, &mut typed.echo);
                    self.show(b'\n', &mut typed.echo);
                    typed.control = Some(Control::Interrupt);
                }
                // In the middle of a line it hands on what is there.
                END_OF_INPUT if self.line.is_empty() => typed.control = Some(Control::End),
                END_OF_INPUT => typed.input.append(&mut self.line),
                BACKSPACE | DELETE => self.erase(&mut typed.echo),
                KILL_LINE => {
                    while !self.line.is_empty() {
                        self.erase(&mut typed.echo);
                    }
                }
                ERASE_WORD => self.erase_word(&mut typed.echo),
                b'\r' | b'\n' => {
                    self.show(b'\n', &mut typed.echo);
                    self.line.push(b'\n');
                    typed.input.append(&mut self.line);
                }
                other => {
                    self.show(other, &mut typed.echo);
                    self.line.push(other);
                    if self.line.len() >= LINE_BYTES_MAX {
                        typed.input.append(&mut self.line);
                    }
                }
            }
            if typed.control.is_some() {
                break;
            }
        }
        typed
    }

    fn show(&self, key: u8, echo: &mut Vec<u8>) {
        match key {
            _ if !self.echoes => {}
            b'\n' | b'\t' => echo.push(key),
            control if is_control(control) => echo.extend([b'^', control ^ 0x40]),
            other => echo.push(other),
        }
    }

    /// Takes the last character back, with all its bytes.
    fn erase(&mut self, echo: &mut Vec<u8>) {
        let within = |byte: u8| byte & 0xc0 == 0x80;
        let Some(mut last) = self.line.pop() else { return };
        while within(last)
            && let Some(before) = self.line.pop()
        {
            last = before;
        }
        if self.echoes {
            let columns = if is_control(last) && last != b'\t' { 2 } else { 1 };
            echo.extend(b"\x08 \x08".repeat(columns));
        }
    }

    fn erase_word(&mut self, echo: &mut Vec<u8>) {
        let ends_blank = |line: &[u8]| line.last().is_some_and(u8::is_ascii_whitespace);
        while ends_blank(&self.line) {
            self.erase(echo);
        }
        while !self.line.is_empty() && !ends_blank(&self.line) {
            self.erase(echo);
        }
    }
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control()
}

/// Output as a terminal shows it: each line begins at the left.
pub(super) fn to_screen(bytes: Bytes) -> Bytes {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    if lines == 0 {
        return bytes;
    }
    let mut shown = BytesMut::with_capacity(bytes.len() + lines);
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        match piece.strip_suffix(b"\n") {
            Some(line) => {
                shown.extend_from_slice(line);
                shown.extend_from_slice(b"\r\n");
            }
            None => shown.extend_from_slice(piece),
        }
    }
    shown.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (String, String, Option<Control>) {
        let mut editor = Editor { line: Vec::new(), echoes: true };
        let Typed { input, echo, control } = editor.typed(keys);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(input), text(echo), control)
    }

    #[test]
    fn a_line_is_handed_on_at_its_end() {
        assert_eq!(typed(b"put"), ("".into(), "put".into(), None));
        assert_eq!(typed(b"a\rb\n"), ("a\nb\n".into(), "a\nb\n".into(), None));
    }

    #[test]
    fn end_of_input_ends_it_at_the_start_of_a_line_only() {
        assert_eq!(typed(b"a\r\x04b"), ("a\n".into(), "a\n".into(), Some(Control::End)));
        assert_eq!(typed(b"a\x04"), ("a".into(), "a".into(), None));
        assert_eq!(typed(b"a\x04\x04"), ("a".into(), "a".into(), Some(Control::End)));
    }

    #[test]
    fn an_interrupt_drops_the_line_and_what_follows() {
        let stopped = Some(Control::Interrupt);
        assert_eq!(typed(b"a\rb\x03c\r"), ("a\n".into(), "a\nb^C\n".into(), stopped));
        assert_eq!(typed(b"\x1c"), ("".into(), "^\\\n".into(), stopped));
    }

    #[test]
    fn corrections_take_characters_back() {
        let gone = "\x08 \x08";
        assert_eq!(typed(b"ab\x7fc\r"), ("ac\n".into(), format!("ab{gone}c\n"), None));
        assert_eq!(typed("é\x08\r".as_bytes()), ("\n".into(), format!("é{gone}\n"), None));
        assert_eq!(typed(b"\x01\x7f\r"), ("\n".into(), format!("^A{gone}{gone}\n"), None));
        assert_eq!(typed(b"\x7fa\r"), ("a\n".into(), "a\n".into(), None));
        assert_eq!(typed(b"ab\x15c\r").0, "c\n");
        assert_eq!(typed(b"put key \x17v\r").0, "put v\n");
    }

    #[test]
    fn a_line_without_end_is_handed_on_in_parts() {
        let (input, _, control) = typed(&[b'x'; LINE_BYTES_MAX * 2 + 1]);
        assert_eq!((input.len(), control), (LINE_BYTES_MAX * 2, None));
    }

    #[test]
    fn nothing_is_shown_where_the_client_wants_no_echo() {
        let mut editor = Editor { line: Vec::new(), echoes: false };
        let secret = editor.typed(b"sex\x7fcret\r");
        assert_eq!((secret.input, secret.echo), (b"secret\n".to_vec(), Vec::new()));
    }

    #[test]
    fn lines_of_output_begin_at_the_left() {
        let shown = |text: &'static str| to_screen(Bytes::from_static(text.as_bytes()));
        assert_eq!(shown("a\n\nb"), "a\r\n\r\nb");
        assert_eq!(shown("a"), "a");
        assert_eq!(shown(""), "");
    }
}
