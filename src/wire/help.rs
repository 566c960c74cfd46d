//! The manual, made from the table of the grammar so that it cannot say anything else.

use super::grammar::{COMMON_FLAGS, FlagSpec, VERBS, VerbSpec, forms};
use std::fmt::Write;

/// What `paxos help` says before the list of verbs.
const INTRODUCTION: &str = "\
paxos reads and writes the cluster's keys and shows how the cluster is.

Examples:
  paxos status
  paxos put greeting hello
  paxos get greeting
  echo '{\"a\": 1}' | paxos put config -
";

const CLOSING: &str = "\
Words that start with - are flags; -- ends them. Over plain ssh write
\"ssh NODE paxos VERB ...\"; ssh takes quotes off, so quote twice or use -.
Exit status: 0 done, 1 internal error, 2 degraded (status), 3 no (not found,
condition failed), 64 wrong usage or too large, 65 damaged data, 69 no quorum
(certainly not applied), 74 outcome unknown (perhaps applied), 75 busy,
77 denied, 78 bad settings, 130 interrupted.
";

/// All verbs, a line each.
pub fn overview() -> String {
    let mut text = String::from(INTRODUCTION);
    text.push_str("\nVerbs:\n");
    for spec in VERBS {
        line(&mut text, spec.name, spec.summary);
    }
    text.push_str("\nFlags of every verb:\n");
    flags(&mut text, COMMON_FLAGS);
    text.push_str("\n\"paxos help VERB\" tells more.\n\n");
    text.push_str(CLOSING);
    text
}

/// One verb.
pub fn about(spec: &VerbSpec) -> String {
    let mut text = format!("{}: {}\n\n", spec.name, spec.summary);
    for form in forms(spec) {
        let (words, redirection) = form.split_once(" <").unwrap_or((&form, ""));
        let flags = if spec.flags.is_empty() { "" } else { " [FLAGS]" };
        let _ = match redirection {
            "" => writeln!(text, "  {words}{flags}"),
            file => writeln!(text, "  {words}{flags} <{file}"),
        };
    }
    if !spec.details.is_empty() {
        let _ = write!(text, "\n{}\n", spec.details);
    }
    if !spec.flags.is_empty() {
        text.push_str("\nFlags:\n");
        flags(&mut text, spec.flags);
    }
    text.push_str("\nFlags of every verb:\n");
    flags(&mut text, COMMON_FLAGS);
    text
}

/// What somebody hears who asks for a shell.
pub fn no_shell() -> &'static str {
    "There is no shell here. Give a command: ssh NODE paxos status\n\
     All commands: ssh NODE paxos help\n"
}

fn flags(text: &mut String, specs: &[FlagSpec]) {
    for spec in specs {
        let short = spec.short.map(|short| format!("{short}, ")).unwrap_or_default();
        let value = spec.value.map(|value| format!(" {value}")).unwrap_or_default();
        let name = format!("{short}{}{value}", spec.long);
        line(text, &name, spec.summary);
    }
}

/// A name and what it is, in two columns; a name too long for its column gets a line of its own.
fn line(text: &mut String, name: &str, summary: &str) {
    const NAME_WIDTH: usize = 20;
    let _ = match name.len() <= NAME_WIDTH {
        true => writeln!(text, "  {name:NAME_WIDTH$}  {summary}"),
        false => writeln!(text, "  {name}\n  {:NAME_WIDTH$}  {summary}", ""),
    };
}
