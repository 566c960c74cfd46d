//! With what a node was started, and what it was told to take up since: so that a deployment that
//! was cut short between laying files and having their node go by them is taken up by the next.
//!
//! The checksums of everything that a node reads at its start are noted before it is started, that
//! of its keys also when it is told to take them up anew. When what lies there now has another, the
//! node goes by something else. The note lies where only whoever starts nodes can write, on hosts
//! where that is another account than the node's.
//!
//! A node whose supervisor started it once more has read what lay there then, and its note is of
//! what lay there before: it is restarted, or told, once without need.

use super::{Place, names};
use crate::transport::authority;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io;

/// What lies there and is not what the node goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outdated {
    /// Its settings.
    pub settings: bool,
    /// Its keys, certificates and bundle.
    pub keys: bool,
}

/// Two lines, each a checksum.
struct Sums {
    settings: String,
    keys: String,
}

impl Sums {
    fn now(place: &Place) -> io::Result<Sums> {
        let keys = names::KEY_FILES.map(|name| format!("{}/{name}", names::KEYS));
        Ok(Sums { settings: sum(place, &[names::SETTINGS.to_owned()])?, keys: sum(place, &keys)? })
    }

    fn noted(place: &Place) -> io::Result<Option<Sums>> {
        let Some(bytes) = place.read(names::STARTED)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        Ok(text
            .trim()
            .split_once('\n')
            .map(|(settings, keys)| Sums { settings: settings.to_owned(), keys: keys.to_owned() }))
    }

    fn write(&self, place: &Place) -> io::Result<()> {
        let text = format!("{}\n{}\n", self.settings, self.keys);
        let written = authority::write_file(&place.path(names::STARTED), text.as_bytes(), 0o600);
        written.map_err(io::Error::other)
    }
}

/// Notes what the node is about to be started with.
///
/// # Errors
/// When a file of its cannot be read, or the note not be written.
pub fn note(place: &Place) -> io::Result<()> {
    Sums::now(place)?.write(place)
}

/// Notes that the node was told to take up its keys. Of its settings there is nothing new.
///
/// # Errors
/// As [`note`].
pub fn note_keys(place: &Place) -> io::Result<()> {
    match Sums::noted(place)? {
        Some(noted) => Sums { keys: Sums::now(place)?.keys, ..noted }.write(place),
        None => Ok(()),
    }
}

/// Which files are others than the node goes by. Without a note nothing is known, and nothing is
/// done about it.
///
/// # Errors
/// When a file cannot be read.
pub fn outdated(place: &Place) -> io::Result<Outdated> {
    let Some(noted) = Sums::noted(place)? else { return Ok(Outdated::default()) };
    let now = Sums::now(place)?;
    Ok(Outdated { settings: noted.settings != now.settings, keys: noted.keys != now.keys })
}

fn sum(place: &Place, names: &[String]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for name in names {
        let bytes = place.read(name)?.unwrap_or_default();
        // Lengths, so that what one file loses and the next one gains makes a difference.
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::host::Layout;
    use crate::transport::identity;
    use std::fs;

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
        let is = |settings, keys| Outdated { settings, keys };
        assert_eq!(outdated(&place).unwrap(), is(false, false), "nothing is known of it");
        note_keys(&place).unwrap();
        assert_eq!(Sums::noted(&place).unwrap().map(|_| ()), None, "it was never started");
        note(&place).unwrap();
        assert_eq!(outdated(&place).unwrap(), is(false, false));
        let bundle = place.path(names::KEYS).join(identity::BUNDLE);
        fs::write(bundle, "epoch 2\n").unwrap();
        assert_eq!(outdated(&place).unwrap(), is(false, true));
        fs::write(place.path(names::SETTINGS), "a: 2\n").unwrap();
        assert_eq!(outdated(&place).unwrap(), is(true, true));
        note_keys(&place).unwrap();
        assert_eq!(outdated(&place).unwrap(), is(true, false), "settings want a restart");
        note(&place).unwrap();
        assert_eq!(outdated(&place).unwrap(), is(false, false));
    }
}
