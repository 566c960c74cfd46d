//! Requests that wait for their outcome, at the node that took them in.
//!
//! This is where the promise "never 'not the leader'" is kept: a request stays here, is proposed
//! again whenever another leader appears or too much time passes, and leaves only with its outcome
//! or at its deadline. Proposing twice is harmless because a write keeps its session and sequence
//! number.
//!
//! A request that was never handed to anybody by its deadline was certainly not applied; one that
//! was may have been. The two are told apart here and nowhere else.

use super::event::{Read, RequestError, Write};
use crate::paxos::ballot::Slot;
use crate::paxos::depths::Depth;
use std::collections::BTreeMap;
use std::time::Duration;

/// Writes that may wait at one node. Half of a session's window, so that one slow request does not
/// stop the others; at 1 ms a write this is four million requests a second's worth of latency
/// hiding.
pub const WRITES_WAITING_MAX: usize = 4096;

/// Bytes of writes that may wait at one node.
pub const WRITES_WAITING_BYTES_MAX: usize = 64 << 20;

/// Reads that may wait at one node; each is a few dozen bytes.
pub const READS_WAITING_MAX: usize = 16 * 1024;

/// A write on its way.
pub(super) struct WaitingWrite {
    pub(super) write: Write,
    /// Its number in the node's session, once one is open.
    pub(super) sequence: Option<u64>,
    /// How often it was handed to a leader and not given back.
    pub(super) handed_out: u32,
    /// When it was handed out last.
    pub(super) tried: Option<Duration>,
    /// When it was handed out first, under whatever number.
    pub(super) first_tried: Option<Duration>,
}

/// Reads that share one question to the leader.
pub(super) struct WaitingReads {
    pub(super) reads: Vec<Read>,
    pub(super) tried: Option<Duration>,
    /// Apply this far, then answer.
    pub(super) index: Option<Slot>,
}

/// See the module's documentation.
pub(super) struct Requests {
    /// Tokens travel, and answers may come late: those to an earlier life of this process must fit
    /// no question of this one.
    next_token: u64,
    pub(super) writes: BTreeMap<u64, WaitingWrite>,
    write_bytes: usize,
    by_sequence: BTreeMap<u64, u64>,
    /// Arrived since the last question was asked.
    pub(super) new_reads: Vec<Read>,
    pub(super) read_groups: BTreeMap<u64, WaitingReads>,
    reads: usize,
}

fn weight(write: &Write) -> usize {
    use crate::store::command::Operation;
    match &write.operation {
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Delete { key, .. } => key.len(),
        Operation::PublishBundle { signed, .. } => signed.len(),
        Operation::OpenSession { .. }
        | Operation::CloseSession
        | Operation::RaiseVersion { .. } => 0,
    }
}

impl Requests {
    /// Nothing waits. Tokens count up from somewhere near `base`, which is drawn at random.
    pub(super) fn new(base: u64) -> Requests {
        Requests {
            // Room to count up.
            next_token: base >> 1,
            writes: BTreeMap::new(),
            write_bytes: 0,
            by_sequence: BTreeMap::new(),
            new_reads: Vec::new(),
            read_groups: BTreeMap::new(),
            reads: 0,
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Requests that wait.
    pub(super) fn pending(&self) -> usize {
        self.writes.len() + self.reads
    }

    /// How deep its queues are.
    pub(super) fn depths(&self) -> [Depth; 3] {
        [
            Depth::new("writes waiting", self.writes.len(), WRITES_WAITING_MAX),
            Depth::new("bytes of writes waiting", self.write_bytes, WRITES_WAITING_BYTES_MAX),
            Depth::new("reads waiting", self.reads, READS_WAITING_MAX),
        ]
    }

    /// Takes a write in, or answers that there are too many.
    pub(super) fn push_write(&mut self, write: Write) -> Option<u64> {
        let bytes = weight(&write);
        if self.writes.len() >= WRITES_WAITING_MAX
            || self.write_bytes + bytes > WRITES_WAITING_BYTES_MAX
        {
            (write.reply)(Err(RequestError::Busy(format!(
                "{} writes wait at this node already; nothing was applied, try again shortly",
                self.writes.len()
            ))));
            return None;
        }
        self.write_bytes += bytes;
        let token = self.token();
        let (sequence, tried, first_tried) = (None, None, None);
        let waiting = WaitingWrite { write, sequence, handed_out: 0, tried, first_tried };
        self.writes.insert(token, waiting);
        Some(token)
    }

    /// Takes a read in, or answers that there are too many.
    pub(super) fn push_read(&mut self, read: Read) {
        if self.reads >= READS_WAITING_MAX {
            (read.reply)(Err(RequestError::Busy(format!(
                "{} reads wait at this node already; try again shortly",
                self.reads
            ))));
            return;
        }
        self.reads += 1;
        self.new_reads.push(read);
    }

    /// Puts the reads that arrived since the last call under one question; answers its token.
    pub(super) fn group_reads(&mut self) -> Option<u64> {
        if self.new_reads.is_empty() {
            return None;
        }
        let token = self.token();
        let reads = std::mem::take(&mut self.new_reads);
        self.read_groups.insert(token, WaitingReads { reads, tried: None, index: None });
        Some(token)
    }

    /// Notes the number under which a write goes.
    pub(super) fn number(&mut self, token: u64, sequence: u64) {
        if let Some(waiting) = self.writes.get_mut(&token) {
            waiting.sequence = Some(sequence);
            self.by_sequence.insert(sequence, token);
        }
    }

    /// Whether anybody was handed any of the writes that wait.
    pub(super) fn is_any_handed_out(&self) -> bool {
        self.writes.values().any(|waiting| waiting.handed_out > 0)
    }

    /// Lets all writes go that somebody was handed; the caller answers them.
    pub(super) fn take_handed_out(&mut self) -> Vec<WaitingWrite> {
        let handed_out = self.writes.iter().filter(|(_, waiting)| waiting.handed_out > 0);
        let tokens: Vec<u64> = handed_out.map(|(token, _)| *token).collect();
        tokens.into_iter().filter_map(|token| self.take_write(token)).collect()
    }

    /// Takes the numbers back. It is for the caller to know that nothing was executed under them,
    /// and nothing will be.
    pub(super) fn unnumber(&mut self) {
        self.by_sequence.clear();
        for waiting in self.writes.values_mut() {
            waiting.sequence = None;
            waiting.tried = None;
        }
    }

    /// The numbers under which writes wait, in order.
    pub(super) fn numbered(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_sequence.keys().copied()
    }

    /// The write that goes under this number.
    pub(super) fn by_sequence(&self, sequence: u64) -> Option<u64> {
        self.by_sequence.get(&sequence).copied()
    }

    /// Lets a write go; the caller answers it.
    pub(super) fn take_write(&mut self, token: u64) -> Option<WaitingWrite> {
        let waiting = self.writes.remove(&token)?;
        self.write_bytes -= weight(&waiting.write);
        if let Some(sequence) = waiting.sequence {
            self.by_sequence.remove(&sequence);
        }
        Some(waiting)
    }

    /// The log holds a copy of the write and refused it for now. Another copy may be on its way, so
    /// it was handed out all the same.
    pub(super) fn refused(&mut self, token: u64) {
        if let Some(waiting) = self.writes.get_mut(&token) {
            waiting.tried = None;
        }
    }

    /// A request was handed to nobody after all: there was no leader to give it to, or no room.
    pub(super) fn returned(&mut self, token: u64) {
        if let Some(waiting) = self.writes.get_mut(&token) {
            waiting.handed_out = waiting.handed_out.saturating_sub(1);
            waiting.tried = None;
            if waiting.handed_out == 0 {
                waiting.first_tried = None;
            }
        } else if let Some(group) = self.read_groups.get_mut(&token) {
            group.tried = None;
        }
    }

    /// Answers the reads whose index is applied; says how many.
    pub(super) fn serve_reads(&mut self, applied: Slot) -> usize {
        let before = self.reads;
        let ready = |group: &WaitingReads| {
            group.index.is_some_and(|index| index <= applied || planted!(ReadBeforeApplied))
        };
        let tokens: Vec<u64> =
            self.read_groups.iter().filter(|(_, g)| ready(g)).map(|(token, _)| *token).collect();
        for token in tokens {
            if let Some(group) = self.read_groups.remove(&token) {
                self.reads -= group.reads.len();
                for read in group.reads {
                    (read.reply)(Ok(()));
                }
            }
        }
        before - self.reads
    }

    /// Writes whose time is up.
    pub(super) fn overdue_writes(&mut self, now: Duration) -> Vec<WaitingWrite> {
        let late = |w: &WaitingWrite| w.write.deadline <= now;
        let tokens: Vec<u64> =
            self.writes.iter().filter(|(_, w)| late(w)).map(|(token, _)| *token).collect();
        tokens.into_iter().filter_map(|token| self.take_write(token)).collect()
    }

    /// Reads whose time is up.
    pub(super) fn overdue_reads(&mut self, now: Duration) -> Vec<Read> {
        let mut late = Vec::new();
        let mut keep = |reads: &mut Vec<Read>| {
            for at in (0..reads.len()).rev() {
                if reads[at].deadline <= now {
                    late.push(reads.swap_remove(at));
                }
            }
        };
        keep(&mut self.new_reads);
        self.read_groups.values_mut().for_each(|group| keep(&mut group.reads));
        self.read_groups.retain(|_, group| !group.reads.is_empty());
        self.reads -= late.len();
        late
    }

    /// Everything that should be tried (again) now: what nobody holds, and what was handed out
    /// before `stale`.
    pub(super) fn due(&self, stale: Duration) -> (Vec<u64>, Vec<u64>) {
        let due = |tried: Option<Duration>| tried.is_none_or(|tried| tried <= stale);
        let writes = self.writes.iter().filter(|(_, w)| due(w.tried)).map(|(token, _)| *token);
        let open = self.read_groups.iter().filter(|(_, g)| g.index.is_none() && due(g.tried));
        (writes.collect(), open.map(|(token, _)| *token).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of_a_read(requests: &mut Requests) -> u64 {
        requests.push_read(Read { deadline: Duration::ZERO, reply: Box::new(|_| ()) });
        requests.group_reads().expect("a read waits")
    }

    /// Or the leader's answer to a question of a process that died would confirm a read of the
    /// process that came after it, with an index from before that read was asked.
    #[test]
    fn no_token_is_one_of_an_earlier_life() {
        let (mut first, mut second) = (Requests::new(1 << 40), Requests::new(1 << 50));
        let before: Vec<u64> = (0..100).map(|_| token_of_a_read(&mut first)).collect();
        assert!((0..100).all(|_| !before.contains(&token_of_a_read(&mut second))));
    }
}
