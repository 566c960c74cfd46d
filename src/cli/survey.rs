//! Reads what the log of a stopped node holds, for the controller; see
//! [`crate::controller::recover::remains`].

use super::{exit, output};
use crate::controller::recover::remains::{Remains, VOTES_BYTES_MAX};
use crate::disk::LogOwner;
use crate::disk::log::survey;
use crate::node::settings::Settings;
use crate::paxos::record::Recovered;
use crate::wire::agent_frame::write_frame;
use crate::wire::decree::encode_vote;
use crate::wire::failure::Code;
use bytes::Bytes;
use serde_bytes::ByteBuf;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Reads the log of the node with the settings that the words name, and tells what it holds.
pub(super) fn run(words: &[OsString]) -> u8 {
    let told = match words {
        [settings] => read(Path::new(settings)),
        _ => Err("SETTINGS is needed".to_owned()),
    };
    let written = told.and_then(|remains| {
        write_frame(&mut std::io::stdout().lock(), &remains).map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => exit::DONE,
        Err(error) => {
            output::stderr(format!("{error}\n").as_bytes());
            Code::Internal.exit()
        }
    }
}

fn read(settings: &Path) -> Result<Remains, String> {
    let settings = Settings::load(settings).map_err(|error| error.to_string())?;
    let directory = settings.data_dir.join("log");
    let owner = LogOwner { cluster_name: settings.cluster.clone(), node: settings.node_id() };
    let recovered = survey(&directory, &owner).map_err(|error| error.to_string())?;
    Ok(Remains { idle: written(&directory), ..remains_of(&recovered) })
}

fn remains_of(recovered: &Recovered<Bytes>) -> Remains {
    let (mut votes, mut left_out, mut room) = (Vec::new(), Vec::new(), VOTES_BYTES_MAX);
    for vote in recovered.votes.values() {
        let bytes = encode_vote(vote);
        match room.checked_sub(bytes.len()) {
            Some(left) => {
                room = left;
                votes.push(ByteBuf::from(bytes));
            }
            None => left_out.push(vote.slot.0),
        }
    }
    let voted = recovered.votes.keys().next_back().copied();
    let learned = recovered.learned.keys().next_back().copied();
    let last = voted.max(learned).unwrap_or_default().max(recovered.chosen);
    Remains {
        cluster_id: recovered.genesis.as_ref().map(|genesis| genesis.cluster.to_string()),
        generation: recovered.generation.map(|generation| generation.0),
        fenced: recovered.fenced,
        configuration: recovered.members().map_or(0, |newest| newest.number.0),
        chosen: recovered.chosen.0,
        last: last.0,
        learned: recovered.learned.keys().map(|slot| slot.0).collect(),
        votes,
        left_out,
        idle: None,
    }
}

/// How long ago anything in the directory was written.
fn written(directory: &Path) -> Option<Duration> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let newest = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()?;
    SystemTime::now().duration_since(newest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ballot::{Ballot, Incarnation, ProposalNumber, Slot};
    use crate::paxos::message::{Entry, Payload, Vote};
    use std::sync::Arc;

    fn vote(slot: u64, bytes: usize) -> (Slot, Vote<Bytes>) {
        let payload = Payload::Command(Bytes::from(vec![1; bytes]));
        let ballot = Ballot { number: ProposalNumber::from_raw(101), incarnation: Incarnation(1) };
        let entry = Arc::new(Entry { payload, ..Entry::noop() });
        (Slot(slot), Vote { slot: Slot(slot), ballot, entry })
    }

    #[test]
    fn what_lies_above_the_chosen_prefix_is_told_and_too_much_is_named() {
        let mut recovered = Recovered { chosen: Slot(3), ..Recovered::default() };
        assert_eq!((remains_of(&recovered).chosen, remains_of(&recovered).last), (3, 3));
        recovered.votes =
            [vote(4, 10), vote(6, VOTES_BYTES_MAX), vote(7, 20)].into_iter().collect();
        recovered.learned.insert(Slot(9), Arc::new(Entry::noop()));
        let remains = remains_of(&recovered);
        assert_eq!((remains.last, remains.learned.as_slice()), (9, &[9][..]));
        assert_eq!((remains.votes.len(), remains.left_out.as_slice()), (2, &[6][..]));
    }
}
