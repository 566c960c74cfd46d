//! `paxos-ctl logs`: the last lines that nodes wrote, node by node; or, with `-f` and with
//! `--protocol`, what all of them say as one story.
//!
//! What is followed has no end, so with `-o json` it is one object a line rather than one object.

use super::ctl::Reply;
use super::{exit, output};
use crate::controller::deploy::Cluster;
use crate::controller::logs::{Body, Ended, NodeLine, Shown, Wish};
use crate::wire::event::Columns;
use crate::wire::failure::{Code, Failure};
use crate::wire::logs::{LOG_LINES_MAX, LogQuery};
use crate::wire::request::Format;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Lines of each log that are shown when nobody says.
const LOG_LINES: usize = 50;

#[derive(Args)]
pub(super) struct LogArgs {
    /// How many of each
    #[arg(short = 'n', long, default_value_t = LOG_LINES,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new()
              .range(1..=LOG_LINES_MAX as u64))]
    lines: usize,
    /// The protocol's events of all nodes, in order of time
    #[arg(long)]
    protocol: bool,
    /// Only lines that hold this text, in large or small letters
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Goes on with what comes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only of this node; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) node: Vec<String>,
}

pub(super) fn logs(
    cluster: &Cluster,
    names: &[String],
    args: &LogArgs,
    format: Format,
) -> Result<Reply, Failure> {
    let LogArgs { lines, protocol, grep, follow, .. } = args;
    let query = LogQuery {
        lines: *lines,
        protocol: *protocol,
        follow: *follow,
        grep: grep.clone(),
        node: None,
    };
    match (query.follow, query.protocol) {
        (true, _) => followed(cluster, names, &query, format),
        (false, true) => events(cluster, names, &query, format),
        (false, false) => files(cluster, names, &query),
    }
}

fn files(cluster: &Cluster, names: &[String], query: &LogQuery) -> Result<Reply, Failure> {
    // What is looked for may lie further back than the last lines.
    let read = if query.grep.is_some() { usize::MAX } else { query.lines };
    let mut logs = cluster.logs(names, read)?;
    for (_, lines) in &mut logs {
        lines.retain(|line| query.wants(line));
        lines.drain(..lines.len().saturating_sub(query.lines));
    }
    let single = logs.len() == 1;
    let mut text = String::new();
    for (node, lines) in &logs {
        if !single {
            text.push_str(&format!("==> {node} <==\n"));
        }
        lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    let logs: Vec<Value> =
        logs.iter().map(|(node, lines)| json!({"name": node, "lines": lines})).collect();
    Ok(Reply { exit: exit::DONE, text, json: json!({"ok": true, "nodes": logs}) })
}

/// How lines look.
struct Look {
    format: Format,
    columns: Columns,
    node_width: usize,
}

impl Look {
    fn new(cluster: &Cluster, format: Format) -> Look {
        let names = || cluster.inventory.nodes.iter().map(|node| node.name.as_str());
        let node_width = names().map(|name| name.chars().count()).max().unwrap_or(0);
        Look { format, columns: Columns::for_names(names()), node_width }
    }

    /// With a newline.
    fn line(&self, line: &NodeLine) -> String {
        let (node, width) = (&line.node, self.node_width);
        match (&line.body, self.format) {
            (Body::Event(event), Format::Table) => event.to_line(self.columns),
            (Body::Event(event), Format::Json) => event.to_json(),
            (Body::Line(text), Format::Table) => format!("{node:width$}  {text}\n"),
            (Body::Line(text), Format::Json) => {
                format!("{}\n", json!({"node": node, "line": text}))
            }
        }
    }
}

/// Of all nodes, as they come.
fn followed(
    cluster: &Cluster,
    names: &[String],
    query: &LogQuery,
    format: Format,
) -> Result<Reply, Failure> {
    let look = Look::new(cluster, format);
    let mut failed = false;
    let mut show = |shown: Shown| match shown {
        Shown::Trouble(text) => {
            output::stderr(format!("paxos-ctl: {text}\n").as_bytes());
            true
        }
        Shown::Line(line) => {
            let text = look.line(&line);
            let written = match query.wants(&text) {
                true => output::stdout(text.as_bytes()),
                false => output::Written::Done,
            };
            failed |= written == output::Written::Failed;
            written == output::Written::Done
        }
    };
    let ended = cluster.merged_logs(names, wish(query, query.lines), &mut show)?;
    let exit = match ended {
        Ended::Interrupted => Code::Interrupted.exit(),
        Ended::Unread if failed => Code::Internal.exit(),
        Ended::Unread | Ended::Done => exit::DONE,
    };
    Ok(Reply { exit, text: String::new(), json: Value::Null })
}

/// The last events of all nodes, in order.
fn events(
    cluster: &Cluster,
    names: &[String],
    query: &LogQuery,
    format: Format,
) -> Result<Reply, Failure> {
    let look = Look::new(cluster, format);
    let (mut lines, mut troubles) = (Vec::new(), Vec::new());
    let mut show = |shown: Shown| {
        match shown {
            Shown::Line(line) if query.wants(&look.line(&line)) => lines.push(line),
            Shown::Line(_) => {}
            Shown::Trouble(text) => troubles.push(text),
        }
        true
    };
    let read = if query.grep.is_some() { LOG_LINES_MAX } else { query.lines };
    let ended = cluster.merged_logs(names, wish(query, read), &mut show)?;
    if ended == Ended::Interrupted {
        let message = "the nodes were not heard to the end";
        return Err(Failure::new(Code::Interrupted, message, "ask again"));
    }
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for line in &lines {
        *left.entry(line.node.clone()).or_default() += 1;
    }
    lines.retain(|line| {
        let left = left.entry(line.node.clone()).or_default();
        *left = left.saturating_sub(1);
        *left < query.lines
    });
    for trouble in &troubles {
        output::stderr(format!("paxos-ctl: {trouble}\n").as_bytes());
    }
    let text = lines.iter().map(|line| look.line(line)).collect();
    let event = |line: &NodeLine| match &line.body {
        Body::Event(event) => Some(json!(event)),
        Body::Line(_) => None,
    };
    let events: Vec<Value> = lines.iter().filter_map(event).collect();
    let json = json!({"ok": true, "events": events, "unreachable": troubles});
    Ok(Reply { exit: exit::DONE, text, json })
}

fn wish(query: &LogQuery, lines: usize) -> Wish {
    Wish { lines, protocol: query.protocol, follow: query.follow }
}
