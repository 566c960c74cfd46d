//! Commands that gather at a node which does not lead, on their way to whoever does.

use super::ballot::NodeId;
use super::depths::Depth;
use super::effects::Effects;
use super::message::{Statement, Value};
use super::replica::Replica;

/// Commands that one step may gather for the leader before they are sent.
pub(super) const FORWARD_ENTRIES_MAX: usize = 1024;

/// Bytes of commands in one message to the leader; a larger command travels alone. Far below the
/// longest frame, which nobody would take.
const FORWARD_BYTES_MAX: usize = 1 << 20;

impl<V: Value> Replica<V> {
    /// Sends them, in messages of a bounded size: one that is too large would be refused, and would
    /// come to the same size each time that it is tried again.
    pub(super) fn send_forwards(&mut self, effects: &mut Effects<V>) {
        let mut forwards = std::mem::take(&mut self.forwards).into_iter().peekable();
        let Some(to) = self.passes_on_to().filter(|to| *to != self.id) else { return };
        while let Some(first) = forwards.next() {
            let mut bytes = first.weight();
            let mut commands = vec![first];
            while let Some(next) = forwards.next_if(|next| {
                bytes += next.weight();
                bytes <= FORWARD_BYTES_MAX
            }) {
                commands.push(next);
            }
            effects.say(to, Statement::Forward { commands, hops: 0 });
        }
    }

    /// To whom requests go from here: the leader, this node included, or who hears the leader when
    /// this node does not.
    pub fn passes_on_to(&self) -> Option<NodeId> {
        let heard = self.election.leader().map(|(leader, _)| leader);
        self.is_leading().then_some(self.id).or(heard).or(self.election.relay())
    }

    pub(super) fn forwards_depth(&self) -> Depth {
        Depth::new("commands for the leader", self.forwards.len(), FORWARD_ENTRIES_MAX)
    }
}
