//! The files that programs read when they start: a node's settings, its genesis, the controller's
//! state, and a client's ssh_config.
//!
//! No text makes a reader panic. What was read and can be written is read as the same again; what
//! is refused is told with the file's name.

use super::scratch;
use paxos_ssh::client::ssh_config::SshConfig;
use paxos_ssh::controller::state::{ClusterState, STATE};
use paxos_ssh::node::settings::Settings;
use paxos_ssh::wire::genesis::{decode_genesis, encode_genesis};
use std::time::Duration;

/// The cluster whose state is asked for.
const CLUSTER: &str = "c";

/// Input: which file it is (`s`, `g`, `c` or `h`), and its text.
///
/// # Panics
/// When something does not hold.
pub fn check(data: &[u8]) {
    let Some((which, text)) = data.split_first() else { return };
    match which {
        b'g' => check_genesis(text),
        b'c' => check_state(text),
        b'h' => check_ssh_config(text),
        _ => check_settings(text),
    }
}

fn check_settings(text: &[u8]) {
    const NAME: &str = "config.yaml";
    let read = scratch::with_file(NAME, text, |directory| Settings::load(&directory.join(NAME)));
    match read {
        Ok(settings) => {
            assert!(settings.id > 0 && !settings.listen.is_empty());
            let bounds = settings.election_timeout;
            assert!(Duration::from_millis(100) <= bounds.min && bounds.min <= bounds.max);
        }
        Err(error) => assert!(error.to_string().contains(NAME), "{error}"),
    }
}

fn check_genesis(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match decode_genesis(text) {
        Ok(file) => {
            let again = encode_genesis(&file).expect("a genesis that was read can be written");
            assert_eq!(decode_genesis(&again), Ok(file), "written again, it differs:\n{again}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_state(text: &[u8]) {
    let load = |text: &[u8]| {
        scratch::with_file(STATE, text, |directory| ClusterState::load(directory, CLUSTER))
    };
    match load(text) {
        Ok(None) => panic!("the state that is there is not seen"),
        Ok(Some(state)) => {
            assert_eq!(state.cluster, CLUSTER);
            for node in &state.nodes {
                let text = state.genesis_file(&node.name).expect("it was judged when it was read");
                decode_genesis(&text).expect("a genesis that was written is read");
            }
            let again = scratch::with_file(STATE, b"", |directory| {
                state.save(directory).expect("a state that was read can be written");
                ClusterState::load(directory, CLUSTER)
            });
            assert_eq!(again.ok().flatten(), Some(state), "written again, it differs");
        }
        Err(error) => assert!(error.to_string().contains(STATE), "{error}"),
    }
}

fn check_ssh_config(text: &[u8]) {
    const NAME: &str = "ssh_config";
    let read = scratch::with_file(NAME, text, |directory| SshConfig::load(&directory.join(NAME)));
    match read {
        Ok(config) => {
            for host in &config.hosts {
                assert!(!host.name.contains([' ', '*', '?', '!']), "{:?}", host.name);
            }
        }
        Err(error) => assert!(error.to_string().contains(NAME), "{error}"),
    }
}
