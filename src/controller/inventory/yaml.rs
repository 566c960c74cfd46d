//! YAML as a tree in which every key and value knows its line, so that errors can name it.
//!
//! Nothing here knows what an inventory is. The cost against typed deserialisation: one pass more
//! over a tree of a few kilobytes; what it buys: all problems of a file in one go, each with its
//! line.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A larger inventory is a mistake: ten thousand hosts with their variables are below this.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line in its file, from 1.
    pub line: u64,
    /// What it is.
    pub value: Value,
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name; numbers and booleans as they are written.
    pub key: String,
    /// The key's line, from 1.
    pub line: u64,
    /// What stands there.
    pub node: Node,
}

/// What a YAML node can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, or `null`.
    Null,
    /// Text, a number or a boolean, as text.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// The text is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where, from 1; 0 if unknown.
    pub line: u64,
    /// What the parser says.
    pub reason: String,
}

/// Reads one document; an empty one is [`Value::Null`] on line 1.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.lines().all(|line| matches!(line.trim_start().chars().next(), None | Some('#'))) {
        return Ok(Node { line: 1, value: Value::Null });
    }
    let options = serde_saphyr::options! { with_snippet: false, no_schema: true };
    let parsed: Result<Spanned<Tree>, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(spanned) => Ok(node(spanned)),
        Err(error) => Err(SyntaxError {
            line: error.location().map_or(0, |location| location.line()),
            reason: reason(&error),
        }),
    }
}

/// In words for whoever wrote the file, and not for whoever calls the parser.
fn reason(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("\"{key}\" stands here a second time")
        }
        error => error.to_string(),
    }
}

/// What serde hands over; [`Spanned`] has to wrap each level.
enum Tree {
    Null,
    Scalar(String),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<Tree>, Spanned<Tree>)>),
}

fn node(spanned: Spanned<Tree>) -> Node {
    let line = spanned.referenced.line();
    let value = match spanned.value {
        Tree::Null => Value::Null,
        Tree::Scalar(text) => Value::Scalar(text),
        Tree::List(items) => Value::List(items.into_iter().map(node).collect()),
        Tree::Map(entries) => Value::Map(entries.into_iter().map(entry).collect()),
    };
    Node { line, value }
}

fn entry((key, value): (Spanned<Tree>, Spanned<Tree>)) -> Entry {
    let line = key.referenced.line();
    let key = match key.value {
        Tree::Scalar(text) => text,
        _ => String::new(),
    };
    Entry { key, line, node: node(value) }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Scalar(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> &[Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("{} where a mapping was meant", other.kind()),
        }
    }

    #[test]
    fn lines_of_keys_and_values_are_known() {
        let text =
            "# head\nall:\n  hosts:\n    a:\n      x: 1\n      y: [2,\n        '3']\n    b:\n";
        let root = parse(text).unwrap();
        let all = &map(&root)[0];
        assert_eq!((all.key.as_str(), all.line), ("all", 2));
        let hosts = map(&map(&all.node)[0].node);
        assert_eq!((hosts[0].key.as_str(), hosts[0].line), ("a", 4));
        assert_eq!((hosts[1].line, &hosts[1].node.value), (8, &Value::Null));
        let variables = map(&hosts[0].node);
        assert_eq!(variables[0].node, Node { line: 5, value: Value::Scalar("1".into()) });
        let Value::List(items) = &variables[1].node.value else { panic!("a list was written") };
        assert_eq!((items[1].line, &items[1].value), (7, &Value::Scalar("3".into())));
    }

    #[test]
    fn what_other_people_write_is_read() {
        let text = "a: !vault |\n  abc\nb: !unsafe '{{ x }}'\nc: &x {d: 1}\ne: *x\n1: yes\n\
                    f: 1.50\ng: 0777\nh: ~\n";
        let root = parse(text).unwrap();
        let entries = map(&root);
        let scalar = |i: usize| match &entries[i].node.value {
            Value::Scalar(text) => text.as_str(),
            other => panic!("{}", other.kind()),
        };
        assert_eq!(scalar(0), "abc\n");
        assert_eq!(scalar(1), "{{ x }}");
        assert_eq!(map(&entries[3].node)[0].key, "d");
        assert_eq!(entries[4].key, "1");
        assert_eq!(entries[7].node.value, Value::Null);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [("a: 1\nb: [1,\n", 2), ("a: 1\na: 2\n", 2), ("a: 1\n  b: 2\n", 2)] {
            let error = parse(text).expect_err(text);
            assert!(error.line.abs_diff(line) <= 1, "{text:?}: {error:?}");
            assert!(!error.reason.is_empty());
        }
        assert_eq!(parse("# only this\n").unwrap().value, Value::Null);
    }
}
