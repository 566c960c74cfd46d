//! Agreement: no two nodes learn different entries for one slot, and each learns every slot once,
//! in order.
//!
//! Source: Lamport, "Paxos Made Simple" (2001), §2.1: only a single value is chosen, and a process
//! never learns that a value has been chosen unless it has been; §2.3 on learners.
//!
//! A node's entries are read off the records that it appends: "chosen up to here" is about the
//! values that its log holds by then. So this compares values, slot by slot, and not only what
//! became of stores.

use super::{EntryDigest, Machine, violated};
use bytes::Bytes;
use paxos_ssh::paxos::ballot::Slot;
use paxos_ssh::paxos::message::Entry;
use std::collections::BTreeMap;
use std::sync::Arc;

type Held = (EntryDigest, Arc<Entry<Bytes>>);

/// See the module's documentation.
#[derive(Default)]
pub struct Agreement {
    /// What the first node that learned a slot learned, and which node that was.
    learned: BTreeMap<Slot, (EntryDigest, Machine)>,
    nodes: BTreeMap<Machine, Node>,
}

/// A log as the process sees it, and as it would be after a crash.
#[derive(Default)]
struct Node {
    live: Values,
    durable: Values,
}

#[derive(Default, Clone)]
struct Values {
    /// The last value that the log was given for a slot not known chosen.
    holds: BTreeMap<Slot, Held>,
    chosen: Slot,
}

impl Values {
    /// Everything up to `up_to` is chosen: answers what is new of it.
    fn choose(&mut self, up_to: Slot) -> BTreeMap<Slot, Held> {
        self.chosen = self.chosen.max(up_to);
        let above = self.holds.split_off(&up_to.next());
        std::mem::replace(&mut self.holds, above)
    }
}

impl Agreement {
    /// The process starts anew, from what is durable.
    pub fn started(&mut self, machine: Machine) {
        let node = self.nodes.entry(machine).or_default();
        node.live = node.durable.clone();
    }

    /// The machine's disk forgot.
    pub fn forgot(&mut self, machine: Machine) {
        self.nodes.remove(&machine);
    }

    /// A record of the machine's log gives `slot` this value.
    pub fn holds(
        &mut self,
        machine: Machine,
        slot: Slot,
        digest: EntryDigest,
        entry: &Arc<Entry<Bytes>>,
    ) {
        let live = &mut self.nodes.entry(machine).or_default().live;
        if slot > live.chosen {
            live.holds.insert(slot, (digest, Arc::clone(entry)));
        }
    }

    /// That record is durable.
    pub fn holds_durably(&mut self, machine: Machine, slot: Slot, entry: &Arc<Entry<Bytes>>) {
        let durable = &mut self.nodes.entry(machine).or_default().durable;
        if slot > durable.chosen {
            durable.holds.insert(slot, (super::entry_digest(entry), Arc::clone(entry)));
        }
    }

    /// What the machine says is chosen is durable.
    pub fn learned_durably(&mut self, machine: Machine, up_to: Slot) {
        self.nodes.entry(machine).or_default().durable.choose(up_to);
    }

    /// The machine says that everything up to `up_to` is chosen. Answers what is new of it.
    pub fn learned(
        &mut self,
        machine: Machine,
        up_to: Slot,
    ) -> Vec<(Slot, EntryDigest, Arc<Entry<Bytes>>)> {
        let live = &mut self.nodes.entry(machine).or_default().live;
        let before = live.chosen;
        if up_to < before {
            violated("agreement", &format!("{machine} knows {before} chosen, then only {up_to}"));
        }
        let mut news = Vec::new();
        for (slot, (digest, entry)) in live.choose(up_to) {
            let (known, first) = *self.learned.entry(slot).or_insert((digest, machine));
            if known != digest {
                violated(
                    "agreement",
                    &format!("{machine} and {first} learned different entries for slot {slot}"),
                );
            }
            news.push((slot, digest, entry));
        }
        if news.len() as u64 != up_to.0 - before.0 {
            let what = format!("{machine} says {before} to {up_to} is chosen, and has gaps there");
            violated("agreement", &what);
        }
        news
    }
}
