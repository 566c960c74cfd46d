//! What a person or an application may do, as said by their certificate or by the inventory.
//!
//! The words are `admin`, `write` and `read`, the latter two optionally with a prefix:
//! `write:/app1/`. To write includes to read. A prefix ends at a path boundary: `write:/app1/` and
//! `write:/app1` both cover `/app1/x`, and neither covers `/app10`. Nothing here grants anything to
//! a node: nodes speak the protocol and have no rights in the store.

use std::fmt;
use std::str::FromStr;

/// What one word grants over the keys under a prefix. Ordered by strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    Read,
    Write,
}

/// One word, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    access: Access,
    /// `None` covers every key.
    prefix: Option<String>,
}

/// The sum of what somebody may do. Empty by default: may do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    admin: bool,
    grants: Vec<Grant>,
}

/// A word that is no right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// Not one of the known words.
    #[error("{0:?} is no right; use admin, write, read, write:PREFIX or read:PREFIX")]
    Unknown(String),
    /// `write:` with nothing behind it, which could be meant as "nothing" or as "everything".
    #[error("{0:?} has an empty prefix; write the word alone to cover every key")]
    EmptyPrefix(String),
    /// A prefix that could not be listed unambiguously where rights are written in one line.
    #[error("{0:?} holds a comma, white space or a control character; choose another prefix")]
    Unprintable(String),
    /// No word at all.
    #[error("no right is given; use admin, write, read, write:PREFIX or read:PREFIX")]
    Nothing,
}

impl Rights {
    /// All there is.
    pub fn all() -> Rights {
        Rights { admin: true, grants: Vec::new() }
    }

    /// Puts several words together.
    ///
    /// # Errors
    /// When there is no word, or one of them is no right.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Rights, RightsError> {
        let mut rights = Rights::default();
        let mut any = false;
        for word in words {
            rights.add(word)?;
            any = true;
        }
        if any { Ok(rights) } else { Err(RightsError::Nothing) }
    }

    fn add(&mut self, word: &str) -> Result<(), RightsError> {
        if word.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control()) {
            return Err(RightsError::Unprintable(word.to_owned()));
        }
        let (verb, prefix) = match word.split_once(':') {
            Some((_, "")) => return Err(RightsError::EmptyPrefix(word.to_owned())),
            Some((verb, prefix)) => (verb, Some(prefix.to_owned())),
            None => (word, None),
        };
        let access = match (verb, &prefix) {
            ("admin", None) => {
                self.admin = true;
                return Ok(());
            }
            ("write", _) => Access::Write,
            ("read", _) => Access::Read,
            _ => return Err(RightsError::Unknown(word.to_owned())),
        };
        let grant = Grant { access, prefix };
        if !self.grants.contains(&grant) {
            self.grants.push(grant);
        }
        Ok(())
    }

    /// Whether they may run the cluster: leader, members, keys; and read and write every key.
    pub fn admin(&self) -> bool {
        self.admin
    }

    /// Whether they may read this key.
    pub fn may_read(&self, key: &[u8]) -> bool {
        self.covers(Access::Read, key)
    }

    /// Whether they may write this key.
    pub fn may_write(&self, key: &[u8]) -> bool {
        self.covers(Access::Write, key)
    }

    /// Whether they may list everything under `prefix`, that is, read each key that can be there.
    pub fn may_list(&self, prefix: &[u8]) -> bool {
        let every_key_below = |grant: &Grant| match &grant.prefix {
            None => true,
            Some(granted) => {
                let granted = directory(granted);
                prefix.starts_with(granted.as_bytes())
            }
        };
        self.admin || self.grants.iter().any(every_key_below)
    }

    fn covers(&self, access: Access, key: &[u8]) -> bool {
        let grants = |grant: &Grant| {
            grant.access >= access
                && match &grant.prefix {
                    None => true,
                    Some(prefix) => {
                        key == prefix.as_bytes() || key.starts_with(directory(prefix).as_bytes())
                    }
                }
        };
        self.admin || self.grants.iter().any(grants)
    }

    /// The words again, in the order in which they were given, `admin` first.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.admin {
            words.push("admin".to_owned());
        }
        for Grant { access, prefix } in &self.grants {
            let verb = match access {
                Access::Read => "read",
                Access::Write => "write",
            };
            words.push(match prefix {
                None => verb.to_owned(),
                Some(prefix) => format!("{verb}:{prefix}"),
            });
        }
        words
    }
}

/// The prefix with its boundary: what lies under it starts with this.
fn directory(prefix: &str) -> String {
    if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") }
}

impl FromStr for Rights {
    type Err = RightsError;

    /// Words separated by commas, as on a command line.
    fn from_str(text: &str) -> Result<Rights, RightsError> {
        Rights::from_words(text.split(',').map(str::trim).filter(|word| !word.is_empty()))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(text: &str) -> Rights {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_ends_at_a_boundary() {
        for text in ["write:/app1/", "write:/app1"] {
            let rights = rights(text);
            assert!(rights.may_write(b"/app1/x"), "{text}");
            assert!(!rights.may_write(b"/app10"), "{text}");
            assert!(!rights.may_read(b"/app10/x"), "{text}");
            assert!(!rights.may_write(b"/ap"), "{text}");
            assert!(!rights.admin());
        }
    }

    #[test]
    fn writing_includes_reading_and_not_the_other_way_round() {
        assert!(rights("write:/a/").may_read(b"/a/x"));
        assert!(!rights("read:/a/").may_write(b"/a/x"));
        assert!(rights("read").may_read(b"anything") && !rights("read").may_write(b"anything"));
        assert!(rights("admin").may_write(b"anything"));
        assert!(!Rights::default().may_read(b"anything"));
    }

    #[test]
    fn listing_needs_every_key_below() {
        let rights = rights("read:/app1");
        assert!(rights.may_list(b"/app1/"));
        assert!(rights.may_list(b"/app1/x"));
        assert!(!rights.may_list(b"/app1"), "it would show /app10");
        assert!(!rights.may_list(b"/"));
        assert!(!rights.may_list(b""));
        assert!("read".parse::<Rights>().unwrap().may_list(b""));
    }

    #[test]
    fn what_is_no_right_is_refused() {
        assert!(matches!("root".parse::<Rights>(), Err(RightsError::Unknown(_))));
        assert!(matches!("admin:/x/".parse::<Rights>(), Err(RightsError::Unknown(_))));
        assert!(matches!("write:".parse::<Rights>(), Err(RightsError::EmptyPrefix(_))));
        assert!(matches!("".parse::<Rights>(), Err(RightsError::Nothing)));
        let spaced = Rights::from_words(["read:/a b"]);
        assert!(matches!(spaced, Err(RightsError::Unprintable(_))));
    }

    #[test]
    fn words_lead_back() {
        let text = "admin,write:/app1/,read";
        assert_eq!(rights(text).to_string(), text);
    }
}
