//! `paxos-ctl exec`: a command on the hosts, and what came of it on each.

use super::ctl::Reply;
use super::{exit, output};
use crate::controller::deploy::Cluster;
use crate::controller::host::run::{Ran, run};
use crate::controller::wait::at_once;
use crate::wire::failure::{Code, Failure};
use crate::wire::request::Format;
use serde_json::{Value, json};

pub(super) fn exec(
    cluster: &Cluster,
    limit: Option<&str>,
    sudo: bool,
    command: &[String],
    format: Format,
) -> Result<Reply, Failure> {
    let only = limit.map(|pattern| cluster.inventory.matching(pattern)).transpose()?;
    let wanted = |name: &String| only.as_ref().is_none_or(|only| only.contains(name));
    let nodes = cluster.inventory.nodes.iter().filter(|node| wanted(&node.name));
    let nodes: Vec<_> = nodes.collect();
    let words = match command {
        // One word is a line for the shell, as with ssh.
        [line] => line.clone(),
        words => shell_words::join(words),
    };
    let results = at_once(&nodes, |node| {
        let ran = run(node.login.as_ref(), sudo, &words);
        if format == Format::Table {
            show(&node.name, &ran);
        }
        ran
    });
    let all = results.iter().all(|ran| matches!(ran, Ok(Ran { exit: Some(0), .. })));
    let exit = if all { exit::DONE } else { Code::Internal.exit() };
    let hosts: Vec<Value> = nodes.iter().zip(&results).map(|(n, ran)| told(&n.name, ran)).collect();
    Ok(Reply { exit, text: String::new(), json: json!({"ok": all, "hosts": hosts}) })
}

/// Each line with the node's name before it; lines of several hosts do not mix, for those of one
/// host come at once.
fn show(node: &str, ran: &Result<Ran, String>) {
    let named = |bytes: &[u8]| -> Vec<u8> {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.flat_map(|line| [format!("{node}: ").as_bytes(), line].concat()).collect()
    };
    match ran {
        Err(why) => output::stderr(format!("{node}: {why}\n").as_bytes()),
        Ok(ran) => {
            output::stdout(&named(&ran.stdout));
            output::stderr(&named(&ran.stderr));
            match ran.exit {
                Some(0) => {}
                Some(status) => output::stderr(format!("{node}: exit {status}\n").as_bytes()),
                None => output::stderr(format!("{node}: ended by a signal\n").as_bytes()),
            }
        }
    }
}

fn told(node: &str, ran: &Result<Ran, String>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match ran {
        Ok(ran) => json!({
            "name": node,
            "exit": ran.exit,
            "stdout": text(&ran.stdout),
            "stderr": text(&ran.stderr),
            "error": null,
        }),
        Err(why) => json!({
            "name": node, "exit": null, "stdout": "", "stderr": "", "error": why,
        }),
    }
}
