//! With what a node was started: so that a deployment that was cut short between laying files and
//! restarting their node is taken up by the next.
//!
//! The checksum of everything that a node reads at its start is noted before it is started. When
//! what lies there now has another, the node runs with something else. The note lies where only
//! whoever starts nodes can write, on hosts where that is another account than the node's.
//!
//! A node whose supervisor started it once more has read what lay there then, and its note is of
//! what lay there before: it is restarted once without need.

use super::host::{Place, names};
use crate::transport::authority;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io;

/// Notes what the node is about to be started with.
///
/// # Errors
/// When a file of its cannot be read, or the note not be written.
pub fn note(place: &Place) -> io::Result<()> {
    let sum = sum(place)?;
    let written = authority::write_file(&place.path(names::STARTED), sum.as_bytes(), 0o600);
    written.map_err(io::Error::other)
}

/// Whether the files are others than when the node was last started. Without a note nothing is
/// known, and nothing is done about it.
///
/// # Errors
/// When a file cannot be read.
pub fn is_outdated(place: &Place) -> io::Result<bool> {
    match fs::read_to_string(place.path(names::STARTED)) {
        Ok(noted) => Ok(noted != sum(place)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sum(place: &Place) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut take = |name: &str| -> io::Result<()> {
        let bytes = match fs::read(place.path(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // Lengths, so that what one file loses and the next one gains makes a difference.
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
        Ok(())
    };
    take(names::SETTINGS)?;
    for name in names::KEY_FILES {
        take(&format!("{}/{name}", names::KEYS))?;
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::host::Layout;
    use super::*;
    use crate::transport::identity;

    #[test]
    fn another_file_than_at_the_start_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            node: "n1".to_owned(),
            directory: folder.path().to_owned(),
            listen: Vec::new(),
            layout: Layout::Own,
            supervised: false,
            login: None,
        };
        fs::create_dir(place.path(names::KEYS)).unwrap();
        fs::write(place.path(names::SETTINGS), "a: 1\n").unwrap();
        assert!(!is_outdated(&place).unwrap(), "nothing is known of a node that was never started");
        note(&place).unwrap();
        assert!(!is_outdated(&place).unwrap());
        let bundle = place.path(names::KEYS).join(identity::BUNDLE);
        for (path, text) in [(place.path(names::SETTINGS), "a: 2\n"), (bundle, "epoch 2\n")] {
            fs::write(path, text).unwrap();
            assert!(is_outdated(&place).unwrap(), "{text}");
            note(&place).unwrap();
            assert!(!is_outdated(&place).unwrap());
        }
    }
}
