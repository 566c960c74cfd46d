//! Moving lines at the foot of a terminal: one for each host that is worked on, with what is done
//! there, for how long, and how much of an executable is on its way.
//!
//! They are on standard error, and only there where that is a terminal which can move its cursor
//! and nobody wants it otherwise (`NO_COLOR`, `TERM=dumb`). Whatever else this program writes goes
//! through [`beside`], which takes the lines away meanwhile, so that neither tears the other.
//!
//! What must never happen: a run that fails because a terminal does not take its lines.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between two looks of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// How often the lines are drawn at most; a connection that is slow is drawn on as well.
const DRAWN_PER_SECOND: u8 = 10;

/// What is assumed of a terminal that does not say.
const SIZE_DEFAULT: (u16, u16) = (24, 80);

/// Every terminal shows these; the last one is for a line where nothing is done any more.
const SPINNER: &str = r"-\|/ ";

/// A bar that is full, at its head, and empty.
const BAR: &str = "=> ";

/// The lines that are shown now, if any are.
static SHOWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

fn shown() -> MutexGuard<'static, Option<MultiProgress>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes something else to the terminal, or to what may be it.
pub(super) fn beside<T>(write: impl FnOnce() -> T) -> T {
    let lines = shown().clone();
    match lines {
        Some(lines) => lines.suspend(write),
        None => write(),
    }
}

/// Takes the lines away for good, for the program ends.
pub(super) fn take_away() {
    if let Some(lines) = shown().take() {
        let _nobody_looks = lines.clear();
        lines.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// Whether standard error is a terminal for moving lines, and somebody wants them.
pub(super) fn is_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = set("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !dumb && set("NO_COLOR").is_none()
}

/// The lines of the step in hand.
pub(super) struct Foot {
    lines: MultiProgress,
    looks: Looks,
    /// The step's own line.
    step: Option<ProgressBar>,
    /// The node that it is done for, and its words.
    of_node: Option<(String, String)>,
    /// Other nodes that are worked on.
    nodes: BTreeMap<String, ProgressBar>,
}

impl Drop for Foot {
    fn drop(&mut self) {
        self.clear();
        *shown() = None;
    }
}

impl Foot {
    /// At the foot of the terminal that standard error is.
    pub(super) fn on_terminal(names: &[String]) -> Foot {
        Foot::on(Box::<Terminal>::default(), names)
    }

    fn on(terminal: Box<dyn TermLike>, names: &[String]) -> Foot {
        let target = ProgressDrawTarget::term_like_with_hz(terminal, DRAWN_PER_SECOND);
        let lines = MultiProgress::with_draw_target(target);
        *shown() = Some(lines.clone());
        let looks = Looks::new(names);
        Foot { lines, looks, step: None, of_node: None, nodes: BTreeMap::new() }
    }

    /// Nothing is in hand.
    pub(super) fn clear(&mut self) {
        let nodes = std::mem::take(&mut self.nodes).into_values();
        for line in self.step.take().into_iter().chain(nodes) {
            line.finish_and_clear();
            self.lines.remove(&line);
        }
        self.of_node = None;
    }

    /// A step begins, and that before is over.
    pub(super) fn step(&mut self, node: Option<&str>, what: &str) {
        self.clear();
        let look = if node.is_some() { &self.looks.node } else { &self.looks.step };
        self.step = Some(self.add(look, node.unwrap_or_default(), what));
        self.of_node = node.map(|node| (node.to_owned(), what.to_owned()));
    }

    fn add(&self, look: &ProgressStyle, node: &str, what: &str) -> ProgressBar {
        let line = ProgressBar::no_length().with_style(look.clone());
        let line = self.lines.add(line.with_prefix(node.to_owned()).with_message(what.to_owned()));
        line.enable_steady_tick(TICK);
        line
    }

    /// Something begins on the host of a node.
    pub(super) fn begins(&mut self, node: &str, what: &str) {
        if let (Some(line), Some(step)) = (&self.step, self.step_of(node)) {
            line.set_message(format!("{step}: {what}"));
            return;
        }
        let look = &self.looks.node;
        if let Some(line) = self.nodes.get(node) {
            line.reset();
            line.set_style(look.clone());
            line.set_message(what.to_owned());
            line.enable_steady_tick(TICK);
        } else {
            let line = self.add(look, node, what);
            self.nodes.insert(node.to_owned(), line);
        }
    }

    /// What began there is over. Its line stays as it is until the step is over, so that those of
    /// others do not jump.
    pub(super) fn ends(&mut self, node: &str) {
        if let (Some(line), Some(step)) = (&self.step, self.step_of(node)) {
            line.set_style(self.looks.node.clone());
            line.set_message(step.to_owned());
        } else if let Some(line) = self.nodes.get(node) {
            line.finish();
        }
    }

    /// So many bytes of an executable are on their way there.
    pub(super) fn sent(&mut self, node: &str, sent: u64, total: u64) {
        let own = self.step_of(node).and(self.step.as_ref());
        let Some(line) = own.or_else(|| self.nodes.get(node)) else { return };
        if line.length() != Some(total) {
            line.set_style(self.looks.bytes.clone());
            line.set_length(total);
        }
        line.set_position(sent);
    }

    /// The words of the step, if it is done for this node.
    fn step_of(&self, node: &str) -> Option<&str> {
        let (of, what) = self.of_node.as_ref()?;
        (of == node).then_some(what)
    }
}

/// What lines look like. The first column is for how long, so that it is in its place.
struct Looks {
    step: ProgressStyle,
    node: ProgressStyle,
    bytes: ProgressStyle,
}

impl Looks {
    fn new(names: &[String]) -> Looks {
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        let look = |template: String| {
            // A template that is wrong is ours, and no reason to stop.
            let style = ProgressStyle::with_template(&template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            style.tick_chars(SPINNER).progress_chars(BAR)
        };
        let start = "{spinner:.cyan} {elapsed:>4}";
        let node = format!("{start} {{prefix:{width}.bold}}");
        let bytes = "[{wide_bar:.cyan}] {bytes}/{total_bytes}";
        Looks {
            step: look(format!("{start} {{wide_msg}}")),
            node: look(format!("{node} {{wide_msg}}")),
            bytes: look(format!("{node} {{msg}} {bytes}")),
        }
    }
}

/// The terminal that standard error is. It may be gone by now, and then nobody looks.
#[derive(Debug, Default)]
struct Terminal {
    kept: Mutex<String>,
}

impl Terminal {
    fn keep(&self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.write_fmt(text).map_err(io::Error::other)
    }

    fn size(&self) -> (u16, u16) {
        match rustix::termios::tcgetwinsize(io::stderr()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
            _ => SIZE_DEFAULT,
        }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.size().1
    }

    fn height(&self) -> u16 {
        self.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.keep(format_args!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.keep(format_args!("{text}"))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.keep(format_args!("\r\x1b[2K"))
    }

    fn flush(&self) -> io::Result<()> {
        let mut kept =
            std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        // A terminal shows `^C` where the cursor is, and behind a full line that would be in one
        // that nobody takes away.
        kept.push('\r');
        let mut terminal = io::stderr().lock();
        // Whoever draws takes an error for the end of everything, and this is none.
        let _nobody_looks = terminal.write_all(kept.as_bytes()).and_then(|()| terminal.flush());
        Ok(())
    }
}

impl Terminal {
    /// ECMA-48: the cursor moves `n` places.
    fn moved(&self, n: usize, way: char) -> io::Result<()> {
        match n {
            0 => Ok(()),
            n => self.keep(format_args!("\x1b[{n}{way}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Keeps the text of what is drawn, and shows none of it.
    #[derive(Debug, Clone, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        /// What was drawn since the last look; drawing is made to happen.
        fn drawn(&self, foot: &Foot) -> String {
            for line in foot.step.iter().chain(foot.nodes.values()) {
                line.force_draw();
            }
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    #[test]
    fn each_host_has_its_line_with_what_it_does_and_its_bytes() {
        let (paper, names) = (Paper::default(), ["n1", "node20"].map(str::to_owned));
        let mut foot = Foot::on(Box::new(paper.clone()), &names);
        foot.step(None, "send the program to n1, node20");
        foot.begins("n1", "send the program");
        foot.begins("node20", "send the program");
        foot.sent("n1", 3 << 20, 12 << 20);
        foot.sent("node20", 12 << 20, 12 << 20);
        let drawn = paper.drawn(&foot);
        assert!(drawn.contains("0s send the program to n1, node20"), "{drawn}");
        assert!(
            drawn.contains("n1     send the program [=====") && drawn.contains("=>"),
            "{drawn}"
        );
        assert!(drawn.contains(" 3.00 MiB/12.00 MiB"), "{drawn}");
        assert!(drawn.contains(" 12.00 MiB/12.00 MiB"), "{drawn}");
        foot.ends("n1");
        foot.step(Some("n1"), "restart");
        let drawn = paper.drawn(&foot);
        assert!(drawn.contains("n1     restart  "), "{drawn}");
        foot.begins("n1", "stop it");
        let drawn = paper.drawn(&foot);
        assert!(drawn.contains("n1     restart: stop it"), "{drawn}");
        assert!(!drawn.contains("node20"), "its step is over: {drawn}");
        foot.sent("nobody", 1, 2);
        foot.ends("nobody");
        let written = beside(|| 7);
        assert_eq!(written, 7);
        drop(foot);
        assert!(shown().is_none(), "what is written now is written as it is");
    }
}
