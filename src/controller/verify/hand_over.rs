//! Judging a hand-over: requests that were under way while leadership moved wait and are answered.
//! Pure functions, as in [`super::verdict`].
//!
//! A request counts only if it was sent before the leader was asked to resign, and answered after
//! the leader had said that another one leads: then it was under way in all of the moment in which
//! nobody led, which is a few milliseconds or less. All moments are of the clock of whoever asks.

use super::verdict::{Asked, Check, FAILED_SHOWN, Findings, Roster, Verdict, ms};
use std::collections::BTreeMap;
use std::time::Duration;

/// A request out of many that were sent while leadership moved. Times count from the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// When it was sent.
    pub sent: Duration,
    /// When its answer came, if it did.
    pub answered: Option<Duration>,
    /// Whether it was granted.
    pub ok: bool,
    /// The answer's text, or why there was none.
    pub text: String,
}

impl Timed {
    fn waited(&self) -> Option<Duration> {
        Some(self.answered?.saturating_sub(self.sent))
    }

    fn failed(&self) -> bool {
        !self.ok || self.answered.is_none()
    }
}

/// A leader that resigned, and requests at other nodes meanwhile.
#[derive(Debug, Clone, Default)]
pub struct HandOver {
    /// Who led before, if anybody did.
    pub before: Option<String>,
    /// Why it was not asked to resign, though others might lead: nobody could be elected.
    pub refused: Option<String>,
    /// How it was asked to resign; none where nobody was asked.
    pub resigned: Option<Asked>,
    /// When that was sent and answered; no time where nobody was asked.
    pub span: (Duration, Duration),
    /// Who leads now, if anybody does.
    pub after: Option<String>,
    /// The requests, by the node that took them.
    pub requests: BTreeMap<String, Vec<Timed>>,
    /// Nodes to which no request could be sent, and why not.
    pub unreached: BTreeMap<String, String>,
}

impl HandOver {
    /// Whether the leader was asked to resign and did.
    pub(super) fn moved(&self) -> bool {
        self.resigned.as_ref().is_some_and(Asked::done)
    }

    /// Whether doing it again would show no more: it did not come about, something speaks against
    /// the cluster already, or a request was under way while leadership moved.
    pub(super) fn is_telling(&self) -> bool {
        let mut requests = self.requests.values().flatten();
        !self.moved()
            || !self.unreached.is_empty()
            || requests.any(|request| request.failed() || self.spans(request))
    }

    /// Whether the request was under way in all of the moment in which leadership moved; any that
    /// was answered where it did not.
    fn spans(&self, request: &Timed) -> bool {
        let (begun, ended) = self.span;
        match self.resigned {
            Some(_) => request.sent <= begun && request.answered.is_some_and(|at| at >= ended),
            None => request.answered.is_some(),
        }
    }
}

/// The answer that must never be given, in small letters.
const NEVER_SAID: &str = "not the leader";

/// While leadership moves, requests wait and are answered.
pub fn no_leader(roster: &Roster, hand_over: &HandOver) -> Verdict {
    let mut findings = Findings::default();
    let mut node = roster.proposers_named();
    match (&hand_over.before, &hand_over.resigned, roster.sole_proposer()) {
        (None, ..) => findings.wrong(format!("{node}: none of them leads, so none could resign")),
        (Some(before), _, Some(only)) if before == only => findings.saw(format!(
            "{only} is the only proposer, so leadership cannot move; it was not asked to resign"
        )),
        (Some(before), Some(asked), _) => {
            node.clone_from(before);
            judge_resigning(&mut findings, before, asked, hand_over.after.as_ref());
        }
        (Some(before), None, _) => match &hand_over.refused {
            Some(why) => {
                findings.wrong(why);
                return findings.verdict(Check::NoLeader);
            }
            None => findings.wrong(format!("{before} was not asked to resign")),
        },
    }
    for (node, why) in &hand_over.unreached {
        findings.wrong(format!("{node}: no request could be sent to it: {why}"));
    }
    let mut under_way = 0;
    for (node, requests) in &hand_over.requests {
        under_way += judge_requests(&mut findings, node, requests, hand_over);
    }
    if under_way == 0 {
        findings.wrong(format!(
            "{node}: no request was under way while leadership moved, so nothing is shown"
        ));
    }
    findings.verdict(Check::NoLeader)
}

fn judge_resigning(findings: &mut Findings, before: &str, asked: &Asked, after: Option<&String>) {
    let took = ms(asked.took);
    if asked.stdout.to_lowercase().contains(NEVER_SAID)
        || asked.stderr.to_lowercase().contains(NEVER_SAID)
    {
        findings.wrong(format!("{} says \"Not the leader\"", asked.failure()));
    }
    match after {
        _ if !asked.done() => findings.wrong(asked.failure()),
        None => findings.wrong(format!("{before} resigned, and nobody leads since")),
        Some(after) if after == before => {
            findings.wrong(format!("{before} was asked to resign, and still leads"));
        }
        Some(after) => findings.saw(format!("{before} resigned; {after} leads {took} on")),
    }
}

/// Judges the requests of one node; gives how many were under way while leadership moved.
fn judge_requests(
    findings: &mut Findings,
    node: &str,
    requests: &[Timed],
    hand_over: &HandOver,
) -> usize {
    let begun = hand_over.span.0;
    let failed: Vec<&Timed> = requests.iter().filter(|request| request.failed()).collect();
    for request in failed.iter().take(FAILED_SHOWN) {
        let text = &request.text;
        let when = match request.sent.checked_sub(begun) {
            Some(after) => format!("{} after the resign", ms(after)),
            None => format!("{} before the resign", ms(begun.saturating_sub(request.sent))),
        };
        let how = match (&request.answered, text.to_lowercase().contains(NEVER_SAID)) {
            (_, true) => "is told \"Not the leader\"",
            (Some(_), false) => "is refused",
            (None, false) => "is not answered",
        };
        findings.wrong(format!("{node}: a request sent {when} {how}: {text}"));
    }
    if failed.len() > FAILED_SHOWN {
        findings.wrong(format!("{node}: {} more such requests", failed.len() - FAILED_SHOWN));
    }
    let under_way: Vec<&Timed> =
        requests.iter().filter(|request| hand_over.spans(request)).collect();
    if failed.is_empty() && !requests.is_empty() {
        let (all, count) = (requests.len(), under_way.len());
        let longest = under_way.iter().filter_map(|request| request.waited()).max();
        let waited = longest.map_or(String::new(), |longest| {
            format!("; the longest of these waited {}", ms(longest))
        });
        findings.saw(format!(
            "{node}: {all} requests answered, {count} of them under way all the while{waited}"
        ));
    }
    under_way.len()
}
