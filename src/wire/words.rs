//! One line of text to words and back, by the quoting rules of a POSIX shell.
//!
//! `ssh node paxos put k v` reaches a node as one string; a batch is one string per line. Both are
//! cut here. Words are bytes, not text, so that a key or a value may hold anything. What a shell
//! does beyond quoting (variables, wildcards, `;`, `|`, comments) means nothing here: such
//! characters stand for themselves, because nothing is ever handed to a shell.
//!
//! The cost of not using a ready-made splitter is this file; the gain is bytes instead of UTF-8,
//! and that `#` at the start of a key is a character and not the silent end of the request.

use thiserror::Error;

/// Why a line is not a row of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WordsError {
    /// A quote was opened and never closed.
    #[error("the quote {0} is opened and never closed")]
    Unclosed(char),
    /// The line ends in a backslash that escapes nothing.
    #[error("the line ends in a backslash that escapes nothing")]
    Backslash,
}

/// Cuts a line into words. Words are parted by spaces, tabs, line feeds and carriage returns; `'…'`
/// keeps everything, `"…"` keeps all but `\"`, `\\`, `\$` and `` \` ``, and a backslash elsewhere
/// keeps the byte after it.
///
/// # Errors
/// [`WordsError`] when a quote or a backslash has no end.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, WordsError> {
    let mut words = Vec::new();
    // `None` between words; `''` is a word, and an empty one.
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => words.extend(word.take()),
            b'\'' => single_quoted(&mut bytes, word.get_or_insert_default())?,
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            b'\\' => {
                let escaped = bytes.next().ok_or(WordsError::Backslash)?;
                word.get_or_insert_default().push(escaped);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(
    bytes: &mut impl Iterator<Item = u8>,
    word: &mut Vec<u8>,
) -> Result<(), WordsError> {
    for byte in bytes {
        if byte == b'\'' {
            return Ok(());
        }
        word.push(byte);
    }
    Err(WordsError::Unclosed('\''))
}

fn double_quoted(
    bytes: &mut impl Iterator<Item = u8>,
    word: &mut Vec<u8>,
) -> Result<(), WordsError> {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return Ok(()),
            b'\\' => match bytes.next() {
                Some(escaped @ (b'"' | b'\\' | b'$' | b'`')) => word.push(escaped),
                Some(other) => word.extend([b'\\', other]),
                None => break,
            },
            other => word.push(other),
        }
    }
    Err(WordsError::Unclosed('"'))
}

/// Writes words as one line that [`split`] takes apart into the same words. Words of harmless
/// characters stay as they are; all others go between single quotes.
pub fn join<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut line = Vec::new();
    for (index, word) in words.into_iter().enumerate() {
        if index > 0 {
            line.push(b' ');
        }
        quote(word, &mut line);
    }
    line
}

fn quote(word: &[u8], line: &mut Vec<u8>) {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=/,.+:@%".contains(byte);
    if !word.is_empty() && word.iter().all(harmless) {
        line.extend_from_slice(word);
        return;
    }
    line.push(b'\'');
    for &byte in word {
        match byte {
            b'\'' => line.extend_from_slice(b"'\\''"),
            other => line.push(other),
        }
    }
    line.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Result<Vec<String>, WordsError> {
        let text = |word: Vec<u8>| String::from_utf8(word).unwrap();
        split(line.as_bytes()).map(|words| words.into_iter().map(text).collect())
    }

    #[test]
    fn quotes_follow_the_shell() {
        assert_eq!(words("put  k\tv\r\n").unwrap(), ["put", "k", "v"]);
        assert_eq!(
            words(r#"a 'b c' "d \"e\" \n" f\ g"#).unwrap(),
            ["a", "b c", "d \"e\" \\n", "f g"]
        );
        assert_eq!(words("''").unwrap(), [""]);
        assert_eq!(words("a''b\"\"").unwrap(), ["ab"]);
        assert_eq!(words(" \n ").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_means_something_to_a_shell_only_is_left_alone() {
        assert_eq!(words("put #k $v;|*`~").unwrap(), ["put", "#k", "$v;|*`~"]);
    }

    #[test]
    fn what_has_no_end_is_an_error() {
        assert_eq!(words("a 'b"), Err(WordsError::Unclosed('\'')));
        assert_eq!(words("a \"b\\"), Err(WordsError::Unclosed('"')));
        assert_eq!(words("a \\"), Err(WordsError::Backslash));
    }

    proptest! {
        #[test]
        fn join_then_split_gives_the_same_words(
            words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..6),
        ) {
            let line = join(words.iter().map(Vec::as_slice));
            prop_assert_eq!(split(&line).unwrap(), words);
        }

        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _words = split(&line);
        }
    }
}
