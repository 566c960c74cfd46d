//! An authority is replaced while the cluster runs: verifiers learn first, signers switch second,
//! verifiers forget last.
//!
//! ```text
//! learning     all nodes believe the old and the new authority; the old one signs
//! switched     the new one signs: every node and person has a certificate of it
//! forgetting   nodes forget the old one, one at a time, the leader last
//! ```
//!
//! Where a rotation stands is in the bundle beside the keys (see
//! [`authorities`](super::authorities)), and how far its nodes are is asked of them. So whoever has
//! the keys goes on with it, by doing what is done at each stage again. No stage begins before
//! every node of the inventory holds what the one before brings, unless somebody names those that
//! are left out. The way back is open until the first node forgets.
//!
//! Before anything is forgotten a new login is made at each node that runs, which counts only if
//! the new authority vouches for both sides of it. How nodes recognise each other is proven by the
//! first of them that forgets: its connections of the old authority are cut, and the next node is
//! left as it is until leader and node have heard of each other over new ones.
//!
//! What must never happen: a node forgets an authority that another one still needs to be let in;
//! two nodes are cut off at once.

use super::authorities::Phase;
use super::certified::Certified;
use super::delivery::{Delivered, Reached, key_in, not_all};
use super::issuer::Issuer;
use crate::controller::deploy::{Cluster, Progress};
use crate::controller::inventory::NodeSpec;
use crate::controller::keys_failure;
use crate::controller::observe::{ASK_LIMIT, Answer, Asker, leader};
use crate::controller::wait::{at_once, until};
use crate::transport::bundle::AuthorityRole;
use crate::wire::failure::{Code, Failure};
use crate::wire::report::StatusReport;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// How long nodes may take to dial each other again, on a busy machine: a few handshakes, and the
/// waits between them.
const HEARD_LIMIT: Duration = Duration::from_secs(30);

/// How long a read may take that shows a quorum before anything is forgotten: a few elections, at a
/// time when nothing else is under way.
const QUORUM_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at them.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How far a rotation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// All nodes believe the new authority.
    Learned,
    /// It signs.
    Switched,
    /// The old one is forgotten.
    Done,
}

/// A rotation that came to its goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Which authority.
    pub role: AuthorityRole,
    /// Where it stands now.
    pub phase: Phase,
    /// Those who have another certificate now, and whose copies of the old one are worthless once
    /// the old authority is forgotten.
    pub people: Vec<String>,
    /// How far each node is.
    pub delivered: Vec<Delivered>,
}

impl Cluster {
    /// Replaces the authority of `role` by a new one, as far as `goal`. Goes on with that where it
    /// was begun.
    ///
    /// # Errors
    /// When another rotation is under way or somebody else is at work; and when a node was not
    /// brought as far as the stage needs: then it stands where it stands, and
    /// [`Cluster::resume_keys`] goes on with it.
    pub fn rotate_keys(
        &self,
        role: AuthorityRole,
        goal: Goal,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Rotated, Failure> {
        self.named(left_out)?;
        let mut issuer = self.issuer()?;
        let under_way = issuer.keys().rotating().map_err(keys_failure)?;
        if let Some((other, phase)) = under_way
            && phase != Phase::Dropping
            && (other != role || phase == Phase::Returning)
        {
            let message = format!("the {other} authority is being replaced already");
            let hint = "go on with that: paxos-ctl keys resume; or back: paxos-ctl keys rollback";
            return Err(Failure::new(Code::BadSettings, message, hint));
        }
        issuer.must_be_able_to_rotate(role).map_err(keys_failure)?;
        let _exclusive = self.exclusive("keys rotate")?;
        self.must_be_newest(issuer.keys())?;
        match under_way {
            None => {}
            // Some nodes may believe it still, and nobody signs with it.
            Some((dropped, Phase::Dropping)) => {
                self.rotate_on(&mut issuer, dropped, Goal::Done, left_out, say)?;
            }
            Some(_) => {
                say(&format!("go on with the {role} authority that was made before"))?;
                return self.rotate_on(&mut issuer, role, goal, left_out, say);
            }
        }
        say(&format!("make a new {role} authority"))?;
        issuer.begin_rotation(role).map_err(keys_failure)?;
        self.rotate_on(&mut issuer, role, goal, left_out, say)
    }

    /// Goes on with the rotation that is under way, as far as `goal`; none if there is none.
    ///
    /// # Errors
    /// As [`Cluster::rotate_keys`].
    pub(super) fn go_on_rotating(
        &self,
        issuer: &mut Issuer,
        goal: Goal,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Option<Rotated>, Failure> {
        let Some((role, _)) = issuer.keys().rotating().map_err(keys_failure)? else {
            return Ok(None);
        };
        self.must_be_newest(issuer.keys())?;
        self.rotate_on(issuer, role, goal, left_out, say).map(Some)
    }

    /// Goes back to the authority of before.
    ///
    /// # Errors
    /// When no rotation is under way, or a node may have forgotten that authority already; and as
    /// [`Cluster::rotate_keys`].
    pub fn roll_back_keys(
        &self,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Rotated, Failure> {
        self.named(left_out)?;
        let mut issuer = self.issuer()?;
        if issuer.keys().rotating().map_err(keys_failure)?.is_some() {
            issuer.must_be_able(&[AuthorityRole::Root]).map_err(keys_failure)?;
        }
        let _exclusive = self.exclusive("keys rollback")?;
        self.must_be_newest(issuer.keys())?;
        let Some((role, phase)) = issuer.keys().rotating().map_err(keys_failure)? else {
            let message = "no authority is being replaced, so there is nothing to go back from";
            let hint = "paxos-ctl keys rotate replaces one";
            return Err(Failure::new(Code::NotFound, message, hint));
        };
        match phase {
            Phase::Learning | Phase::Switched => {
                say(&format!("go back to the {role} authority of before"))?;
                issuer.go_back(role).map_err(keys_failure)?;
            }
            Phase::Forgetting => {
                let message =
                    format!("nodes may have forgotten the {role} authority of before already");
                let hint = "go on: paxos-ctl keys resume; then rotate it again, if need be";
                return Err(Failure::new(Code::BadSettings, message, hint));
            }
            // On the way back already.
            Phase::Returning | Phase::Dropping | Phase::Settled => {}
        }
        self.rotate_on(&mut issuer, role, Goal::Done, left_out, say)
    }

    fn rotate_on(
        &self,
        issuer: &mut Issuer,
        role: AuthorityRole,
        goal: Goal,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<Rotated, Failure> {
        let mut people = Vec::new();
        loop {
            let phase = issuer.keys().phase(role).map_err(keys_failure)?;
            let certified = self.certify_outdated(issuer, say)?;
            people.extend(certified.people.iter().cloned());
            // No connection was made with a root key, so none is cut.
            let cuts = role != AuthorityRole::Root;
            if cuts && matches!(phase, Phase::Forgetting | Phase::Dropping) {
                // Whoever was not certified anew would be cut off.
                match (role, phase) {
                    (_, Phase::Dropping) => {}
                    (AuthorityRole::Operator, _) => certified.must_be_all(left_out)?,
                    _ => certified.must_be_all_nodes(left_out)?,
                }
                self.forget_in_turn(issuer, role, left_out, say)?;
            }
            let delivered = self.deliver_keys(issuer.keys(), left_out, say);
            let delivered = delivered.map_err(|failure| certified.beside(failure))?;
            certified.must_be_all(left_out)?;
            let is_there = matches!(
                (goal, phase),
                (Goal::Learned, Phase::Learning | Phase::Switched)
                    | (Goal::Switched, Phase::Switched)
            );
            if is_there {
                return Ok(Rotated { role, phase, people, delivered });
            }
            match phase {
                Phase::Learning => {
                    say(&format!("have the new {role} authority sign"))?;
                    issuer.switch(role).map_err(keys_failure)?;
                }
                Phase::Switched | Phase::Returning => {
                    say("make a new login at every node that runs")?;
                    self.prove(issuer, role, &delivered)?;
                    say(&format!("take the {role} authority that does not sign out"))?;
                    issuer.forget(role).map_err(keys_failure)?;
                }
                Phase::Forgetting | Phase::Dropping | Phase::Settled => {
                    say(&format!("keep the key of one {role} authority"))?;
                    issuer.settle(role).map_err(keys_failure)?;
                    let phase = Phase::Settled;
                    return Ok(Rotated { role, phase, people, delivered });
                }
            }
        }
    }

    /// Certifies whom the authority that signs now did not: nodes, the operator and other people.
    pub(super) fn certify_outdated(
        &self,
        issuer: &Issuer,
        say: Progress<'_>,
    ) -> Result<Certified, Failure> {
        let now = SystemTime::now();
        let nodes = self.named(&[])?;
        let mut certified = Certified::default();
        for (node, found) in nodes.iter().zip(at_once(&nodes, |node| self.look_at_keys(node))) {
            let found = match found.and_then(|found| Ok(key_in(&found, node)?.map(str::to_owned))) {
                Ok(found) => found,
                Err(error) => {
                    certified.miss(error);
                    continue;
                }
            };
            // Nobody believes what is revoked, whoever vouches for it.
            let Some(line) = found.filter(|line| !issuer.keys().is_revoked(line)) else { continue };
            let is_new = issuer.ensure_node(&node.name, node.id, &line, now);
            if certified.signed_node(is_new)? == Some(true) {
                say(&format!("{}: certified anew", node.name))?;
            }
        }
        certified.people = certified.signed(issuer.recertify_people(now))?.unwrap_or_default();
        for name in &certified.people {
            say(&format!("{name}: certified anew"))?;
        }
        if certified.signed(issuer.ensure_operator(now))? == Some(true) {
            say("issue the operator's certificate")?;
        }
        Ok(certified)
    }

    /// A new login at each node that runs, as the operator, that believes the one host authority;
    /// and one of them serves a read, which takes a quorum: without one there is nobody to tell
    /// whether what is forgotten next was needed.
    fn prove(
        &self,
        issuer: &Issuer,
        role: AuthorityRole,
        delivered: &[Delivered],
    ) -> Result<(), Failure> {
        const GO_ON: &str = "mend it, and go on: paxos-ctl keys resume; or back: paxos-ctl keys \
                             rollback";
        let running = self.running(delivered)?;
        if running.is_empty() {
            return Ok(());
        }
        let asker = self.strict_asker(issuer)?;
        let answers = asker.ask(&running, ASK_LIMIT);
        let refused =
            answers.iter().find_map(|(node, answer)| Some((node, answer.as_ref().err()?)));
        if let Some((node, why)) = refused {
            let message = format!(
                "{node} was not logged in to with the {role} authority that signs: {why}; \
                 nothing was forgotten"
            );
            return Err(Failure::new(Code::Internal, message, GO_ON));
        }
        self.prove_links(issuer.keys(), &running, &running).map_err(|why| {
            Failure::new(Code::Internal, format!("{why}; nothing was forgotten"), GO_ON)
        })?;
        // What nodes say of a leader may be of a moment ago.
        let leads = leader(&answers);
        let node = running.iter().find(|node| leads.as_ref() == Some(&node.name));
        let node = node.unwrap_or(&running[0]);
        let command = format!("paxos list --limit 1 --timeout {}ms", QUORUM_LIMIT.as_millis());
        asker.tell(node, &command, QUORUM_LIMIT).map_err(|why| {
            let message = format!(
                "the cluster does not serve, so nothing was forgotten; asked for a key, {} said: \
                 {why}",
                node.name
            );
            Failure::new(Code::NoQuorum, message, GO_ON)
        })
    }

    pub(super) fn strict_asker(&self, issuer: &Issuer) -> Result<Asker, Failure> {
        let asker = Asker::new(issuer.keys(), &self.inventory.cluster)?;
        Ok(match issuer.keys().current(AuthorityRole::Host) {
            Some(authority) => asker.believing_only(authority.clone()),
            None => asker,
        })
    }

    fn running(&self, delivered: &[Delivered]) -> Result<Vec<&NodeSpec>, Failure> {
        let running = delivered.iter().filter(|one| one.reached == Reached::Active);
        running.map(|one| self.known(&one.node)).collect()
    }

    /// Has one node after the other forget what the bundle does not name any more, the leader last.
    fn forget_in_turn(
        &self,
        issuer: &Issuer,
        role: AuthorityRole,
        left_out: &[String],
        say: Progress<'_>,
    ) -> Result<(), Failure> {
        let asker = self.strict_asker(issuer)?;
        let mut nodes = self.named(&[])?;
        nodes.retain(|node| !left_out.contains(&node.name));
        let answers = asker.ask(&nodes, ASK_LIMIT);
        let leader = leader(&answers);
        if leader.is_none() && issuer.keys().phase(role).map_err(keys_failure)? == Phase::Dropping {
            // Without a quorum there is nothing to keep, and what did not sign cuts off nobody.
            return Ok(());
        }
        nodes.sort_by_key(|node| leader.as_ref() == Some(&node.name));
        let epoch = issuer.keys().bundle().epoch;
        for node in &nodes {
            let goes_by = |status: &StatusReport| status.bundle.as_ref().map(|bundle| bundle.epoch);
            let told = answers.get(&node.name).and_then(|answer| answer.as_ref().ok());
            if told.and_then(goes_by) == Some(epoch) {
                continue;
            }
            say(&format!("{}: forget the other {role} authority", node.name))?;
            // One that was told, and does not say so, may be cut off now: it is to be the only one.
            let reached = self
                .deliver_to(issuer.keys(), node)
                .map_err(|error| not_all(epoch, &[(error.to_string(), error.hint)]))?;
            if reached == Reached::Active {
                // It has cut what it does not believe any more by the time it says that it goes by
                // the bundle; what was heard before proves nothing.
                self.wait_heard(&asker, node, &nodes, Instant::now())?;
            }
        }
        Ok(())
    }

    /// Waits until a node and every other one that answers have heard of each other since a moment.
    pub(super) fn wait_heard(
        &self,
        asker: &Asker,
        node: &NodeSpec,
        nodes: &[&NodeSpec],
        since: Instant,
    ) -> Result<(), Failure> {
        let mut deaf = None;
        let look = || -> Result<Option<()>, Failure> {
            deaf = unheard_since(since, &node.name, || asker.ask(nodes, ASK_LIMIT));
            Ok(deaf.is_none().then_some(()))
        };
        if until(HEARD_LIMIT, LOOK_EVERY, look)?.is_some() {
            return Ok(());
        }
        let message = format!(
            "after {} forgot an authority, {} for {HEARD_LIMIT:?}; the nodes after it were left as \
             they are",
            node.name,
            deaf.unwrap_or_default()
        );
        let hint = "see paxos-ctl status and paxos-ctl logs; go on with: paxos-ctl keys resume";
        Err(Failure::new(Code::Internal, message, hint))
    }
}

/// Who has not heard of whom since a moment, by what nodes answer now.
fn unheard_since(
    since: Instant,
    node: &str,
    ask: impl FnOnce() -> BTreeMap<String, Answer>,
) -> Option<String> {
    // Before they are asked: each answers for a moment after this one.
    let within = since.elapsed();
    unheard(&ask(), node, within)
}

/// Who has not heard of whom within this time: `node` of the leader, or the leader of it; of a
/// leader, that goes for each other that answers. Two that do not lead have little to say to each
/// other.
fn unheard(answers: &BTreeMap<String, Answer>, node: &str, within: Duration) -> Option<String> {
    let hears = |status: &StatusReport, whom: &str| {
        let member = status.members.iter().find(|member| member.name == whom);
        let heard = member.and_then(|member| member.last_heard_seconds);
        // Who is no member is heard by nobody, and needs not be.
        member.is_none() || heard.is_some_and(|seconds| seconds < within.as_secs_f64())
    };
    let own = match answers.get(node) {
        Some(Ok(status)) => status,
        Some(Err(why)) => return Some(format!("it did not answer: {why}")),
        None => return Some("it did not answer".to_owned()),
    };
    let Some(leader) = leader(answers) else { return Some("nobody leads".to_owned()) };
    if let Some(Err(why)) = answers.get(&leader) {
        return Some(format!("{leader}, which leads, did not answer: {why}"));
    }
    let concerned = |name: &str| name != node && (leader == node || leader == name);
    let others = answers.iter().filter(|(name, _)| concerned(name));
    let mut answering = others.filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)));
    answering.find_map(|(name, status)| match (hears(own, name), hears(status, node)) {
        (true, true) => None,
        (false, _) => Some(format!("it has not heard of {name}")),
        (true, false) => Some(format!("{name} has not heard of it")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::report::tests::sample;

    /// Three nodes that were all heard this long ago, of which n1 leads.
    fn answers(seconds: f64) -> BTreeMap<String, Answer> {
        let names = ["n1", "n2", "n3"];
        let answer = |name: &str| {
            let mut status = sample();
            status.leader = Some("n1".to_owned());
            let one = status.members[0].clone();
            status.members = Vec::new();
            for other in names.iter().filter(|other| **other != name) {
                let mut member = one.clone();
                member.name = (*other).to_owned();
                member.last_heard_seconds = Some(seconds);
                status.members.push(member);
            }
            (name.to_owned(), Ok(status))
        };
        names.into_iter().map(answer).collect()
    }

    fn forget(answers: &mut BTreeMap<String, Answer>, at: &str, of: &str) {
        let Some(Ok(status)) = answers.get_mut(at) else { panic!("{at} answers") };
        for member in status.members.iter_mut().filter(|member| member.name == of) {
            member.last_heard_seconds = None;
        }
    }

    #[test]
    fn the_leader_and_a_node_must_have_heard_of_each_other_since() {
        let second = Duration::from_secs(1);
        let all = answers(0.5);
        for node in ["n1", "n2", "n3"] {
            assert_eq!(unheard(&all, node, second), None);
            assert!(unheard(&answers(1.5), node, second).is_some(), "before the moment");
        }
        let deaf = |at: &str, of: &str, node: &str| {
            let mut answers = answers(0.5);
            forget(&mut answers, at, of);
            unheard(&answers, node, second)
        };
        assert_eq!(deaf("n2", "n1", "n2").as_deref(), Some("it has not heard of n1"));
        assert_eq!(deaf("n1", "n2", "n2").as_deref(), Some("n1 has not heard of it"));
        assert_eq!(deaf("n3", "n1", "n1").as_deref(), Some("n3 has not heard of it"));
        assert_eq!(deaf("n2", "n3", "n2"), None, "neither leads");
        let mut gone = answers(0.5);
        gone.insert("n1".to_owned(), Err("it is gone".to_owned()));
        let why = unheard(&gone, "n2", second);
        assert_eq!(why.as_deref(), Some("n1, which leads, did not answer: it is gone"));
        let mut lost = answers(0.5);
        lost.insert("n2".to_owned(), Err("it is gone".to_owned()));
        assert_eq!(unheard(&lost, "n1", second), None, "who does not answer is not waited for");
        assert_eq!(unheard(&lost, "n2", second).as_deref(), Some("it did not answer: it is gone"));
    }
    #[test]
    fn what_was_heard_before_proves_nothing_however_long_the_asking_takes() {
        let since = Instant::now();
        let slow = |seconds: f64| {
            move || {
                let answers = answers(seconds);
                // Longer than it is since they were heard.
                while since.elapsed().as_secs_f64() < 2.0 * seconds {
                    std::hint::spin_loop();
                }
                answers
            }
        };
        assert!(unheard_since(since, "n2", slow(0.02)).is_some());
        while since.elapsed().as_secs_f64() < 0.1 {
            std::hint::spin_loop();
        }
        assert_eq!(unheard_since(since, "n2", slow(0.02)), None);
    }
}
