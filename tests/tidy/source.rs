//! Reads source files as far as the house rules need: tokens with their lines, paths, and which
//! part is test code.
//!
//! This is a tokenizer, not a parser: it knows comments, strings, lifetimes and brackets, and
//! nothing of types or macros. What a macro builds from pieces escapes it, and so does a re-export
//! under another name; both stand out in review. In return it needs no dependency and reads any
//! edition.

use std::fs;
use std::path::Path;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A word: identifier or keyword.
    Word,
    /// A string, character or number, without its content.
    Literal,
    /// `::` or one character of punctuation.
    Mark,
}

/// The smallest piece of a source file.
#[derive(Debug, Clone)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    /// From 1.
    pub line: usize,
    /// Inside an item that only tests compile.
    pub test: bool,
}

/// A path such as `std::{fs, time::Instant}` gives two of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// The segments, from the start as it was written.
    pub path: Vec<String>,
    pub line: usize,
    pub test: bool,
    /// The module that contains it, from the crate's root.
    pub module: Vec<String>,
}

/// One text file of the project.
#[derive(Debug, Clone)]
pub struct Source {
    /// From the project's root, with forward slashes.
    pub path: String,
    pub text: String,
    /// Empty unless this is Rust.
    pub tokens: Vec<Token>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let tokens = if path.ends_with(".rs") { tokenize(text) } else { Vec::new() };
        let mut source = Source { path: path.to_string(), text: text.to_string(), tokens };
        source.mark_tests();
        source
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The folder under `src/`, if the file is in one.
    pub fn folder(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split_once('/').map(|(folder, _)| folder)
    }

    /// Where the file hangs in its crate: `src/paxos/ballot.rs` is `[paxos, ballot]`.
    fn module(&self) -> Vec<String> {
        let Some(inner) = self.path.strip_prefix("src/").and_then(|p| p.strip_suffix(".rs")) else {
            return Vec::new();
        };
        if inner.starts_with("bin/") || inner == "lib" {
            return Vec::new();
        }
        inner.split('/').filter(|part| *part != "mod").map(str::to_string).collect()
    }

    /// Every path of two segments or more, and every `use` of one.
    pub fn mentions(&self) -> Vec<Mention> {
        let mut found = Vec::new();
        let mut module = self.module();
        // Brace depths at which inline modules end.
        let mut inline = Vec::new();
        let mut depth = 0usize;
        for i in 0..self.tokens.len() {
            let token = &self.tokens[i];
            match token.text.as_str() {
                "{" => {
                    depth += 1;
                    if i >= 2 && self.is(i - 2, "mod") {
                        module.push(self.tokens[i - 1].text.clone());
                        inline.push(depth);
                    }
                }
                "}" => {
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        module.pop();
                    }
                    depth = depth.saturating_sub(1);
                }
                _ if token.kind == Kind::Word => {
                    let starts = i == 0 || !self.is(i - 1, "::") || !self.follows_word(i - 1);
                    let long = self.is(i + 1, "::");
                    let imported = i > 0 && self.is(i - 1, "use");
                    if starts && (long || imported) && !self.in_group(i) {
                        self.flatten(i, Vec::new(), &module, &mut found);
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether a word comes right before token `i`: `a::b` as against the `::b` of older editions.
    fn follows_word(&self, i: usize) -> bool {
        i > 0 && (self.tokens[i - 1].kind == Kind::Word || self.is(i - 1, ">"))
    }

    /// Whether token `i` is the start of a path inside `prefix::{ … }`, which was read already.
    fn in_group(&self, i: usize) -> bool {
        let mut open = 0usize;
        for j in (0..i).rev() {
            match self.tokens[j].text.as_str() {
                "}" => open += 1,
                "{" if open > 0 => open -= 1,
                "{" => return j > 0 && self.is(j - 1, "::"),
                // A group holds nothing but words, commas, stars and `::`.
                text if self.tokens[j].kind == Kind::Word || matches!(text, "," | "::" | "*") => {}
                _ => return false,
            }
        }
        false
    }

    /// Reads the path at token `i`; returns the index behind it.
    fn flatten(
        &self,
        mut i: usize,
        mut path: Vec<String>,
        module: &[String],
        found: &mut Vec<Mention>,
    ) -> usize {
        let Some(start) = self.tokens.get(i) else { return i };
        let (line, test) = (start.line, start.test);
        while let Some(token) = self.tokens.get(i) {
            if token.text == "{" {
                i += 1;
                while i < self.tokens.len() && !self.is(i, "}") {
                    let next = self.flatten(i, path.clone(), module, found);
                    // Past the comma, or past whatever it is that a group cannot hold.
                    i = if next == i || self.is(next, ",") { next + 1 } else { next };
                }
                return i + 1;
            }
            if token.kind != Kind::Word && token.text != "*" {
                break;
            }
            path.push(token.text.clone());
            i += 1;
            if !self.is(i, "::") {
                break;
            }
            i += 1;
        }
        if self.is(i, "as") {
            i += 2;
        }
        if !path.is_empty() {
            found.push(Mention { path, line, test, module: module.to_vec() });
        }
        i
    }

    /// Whether token `i` reads `text`.
    pub fn is(&self, i: usize, text: &str) -> bool {
        self.tokens.get(i).is_some_and(|token| token.text == text && token.kind != Kind::Literal)
    }

    /// The index of the bracket that closes the one at `open`, or of the last token.
    pub fn closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for i in open..self.tokens.len() {
            match self.tokens[i].text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth -= 1;
                    if depth == 0 {
                        return i;
                    }
                }
                _ => {}
            }
        }
        self.tokens.len().saturating_sub(1)
    }

    /// The last token of the item that starts at `i`: its `;`, the end of its braces, or, for a
    /// field, its comma.
    pub fn end_of_item(&self, mut i: usize) -> usize {
        let mut name = i;
        if self.is(i, "pub") {
            name = if self.is(i + 1, "(") { self.closing(i + 1) + 1 } else { i + 1 };
        }
        let field = self.is(name + 1, ":");
        while i < self.tokens.len() {
            match self.tokens[i].text.as_str() {
                ";" => return i,
                "," if field => return i,
                "{" => return self.closing(i),
                "(" | "[" => i = self.closing(i),
                _ => {}
            }
            i += 1;
        }
        self.tokens.len().saturating_sub(1)
    }

    /// Whether the attribute whose `[` is at `open` says that only tests compile what follows.
    fn is_test_attribute(&self, open: usize) -> bool {
        let close = self.closing(open);
        let says = |word| (open..close).any(|i| self.is(i, word));
        self.is(open + 1, "cfg") && says("test") && !says("not")
    }

    fn mark_tests(&mut self) {
        if !self.path.starts_with("src/") {
            self.mark_all_test();
            return;
        }
        let mut i = 0;
        while i < self.tokens.len() {
            if self.is(i, "#") && self.is(i + 1, "!") && self.is(i + 2, "[") {
                if self.is_test_attribute(i + 2) {
                    self.mark_all_test();
                }
            } else if self.is(i, "#") && self.is(i + 1, "[") && self.is_test_attribute(i + 1) {
                let mut item = self.closing(i + 1) + 1;
                while self.is(item, "#") {
                    item = self.closing(item + 1) + 1;
                }
                let end = self.end_of_item(item);
                for token in &mut self.tokens[i..=end] {
                    token.test = true;
                }
                i = end;
            }
            i += 1;
        }
    }

    pub fn mark_all_test(&mut self) {
        for token in &mut self.tokens {
            token.test = true;
        }
    }

    /// Names of modules in files of their own that only tests compile.
    fn test_modules(&self) -> Vec<String> {
        (0..self.tokens.len())
            .filter(|i| self.is(*i, "mod") && self.tokens[*i].test && self.is(*i + 2, ";"))
            .map(|i| self.tokens[i + 1].text.clone())
            .collect()
    }
}

fn tokenize(text: &str) -> Vec<Token> {
    let mut reader = Reader { chars: text.chars().collect(), at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(c) = reader.peek(0) {
        let (line, start) = (reader.line, reader.at);
        let kind = reader.token(c);
        if let Some(kind) = kind {
            let text = match kind {
                Kind::Literal => String::new(),
                _ => reader.chars[start..reader.at].iter().collect(),
            };
            tokens.push(Token { kind, text, line, test: false });
        }
    }
    tokens
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek(0) == Some('\n') {
                self.line += 1;
            }
            self.at += 1;
        }
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&wanted) {
            self.skip(1);
        }
    }

    /// Reads one token that starts with `c`; space and comments give none.
    fn token(&mut self, c: char) -> Option<Kind> {
        match (c, self.peek(1)) {
            (c, _) if c.is_whitespace() => {
                self.skip(1);
                None
            }
            ('/', Some('/')) => {
                self.skip_while(|c| c != '\n');
                None
            }
            ('/', Some('*')) => {
                self.block_comment();
                None
            }
            ('"', _) => Some(self.string()),
            ('\'', _) => self.quote(),
            (c, _) if c.is_ascii_digit() => {
                self.skip_while(is_word);
                if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
                    self.skip(1);
                    self.skip_while(is_word);
                }
                Some(Kind::Literal)
            }
            (c, _) if is_word(c) => Some(self.word()),
            (':', Some(':')) => {
                self.skip(2);
                Some(Kind::Mark)
            }
            _ => {
                self.skip(1);
                Some(Kind::Mark)
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.skip(2);
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.skip(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.skip(1),
            }
        }
    }

    fn string(&mut self) -> Kind {
        self.skip(1);
        while let Some(c) = self.peek(0) {
            match c {
                '\\' => self.skip(2),
                '"' => {
                    self.skip(1);
                    break;
                }
                _ => self.skip(1),
            }
        }
        Kind::Literal
    }

    /// A character, or a lifetime, which no rule looks at.
    fn quote(&mut self) -> Option<Kind> {
        if self.peek(1) == Some('\\') {
            self.skip(3);
            self.skip_while(|c| c != '\'');
            self.skip(1);
            return Some(Kind::Literal);
        }
        if self.peek(2) == Some('\'') {
            self.skip(3);
            return Some(Kind::Literal);
        }
        self.skip(1);
        self.skip_while(is_word);
        None
    }

    /// A word, or a string or character with a prefix such as `br#"…"#`.
    fn word(&mut self) -> Kind {
        let start = self.at;
        self.skip_while(is_word);
        let word: String = self.chars[start..self.at].iter().collect();
        match (word.as_str(), self.peek(0)) {
            ("b" | "c", Some('"')) => self.string(),
            ("b", Some('\'')) => self.quote().unwrap_or(Kind::Literal),
            ("r" | "br" | "cr", Some('"' | '#')) => self.raw(),
            _ => Kind::Word,
        }
    }

    /// A raw string; or a raw identifier, which reads on as its word.
    fn raw(&mut self) -> Kind {
        let mut hashes = 0;
        while self.peek(hashes) == Some('#') {
            hashes += 1;
        }
        if self.peek(hashes) != Some('"') {
            self.skip(hashes);
            self.skip_while(is_word);
            return Kind::Word;
        }
        self.skip(hashes + 1);
        while let Some(c) = self.peek(0) {
            let closes = c == '"' && (1..=hashes).all(|i| self.peek(i) == Some('#'));
            self.skip(1);
            if closes {
                self.skip(hashes);
                break;
            }
        }
        Kind::Literal
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Folders that hold what is not ours or not committed.
const SKIPPED: [&str; 6] = [".git", "target", "keys", "corpus", "artifacts", "node_modules"];

/// Larger files are data.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Every text file of the project, in order of path.
pub fn load(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    visit(root, "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let only_for_tests: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder).to_string();
            let modules = file.test_modules().into_iter();
            modules.map(move |module| format!("{folder}/{module}.rs"))
        })
        .collect();
    for file in &mut files {
        if only_for_tests.contains(&file.path) {
            file.mark_all_test();
        }
    }
    files
}

fn visit(folder: &Path, path: &str, files: &mut Vec<Source>) {
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    for entry in entries.map(|entry| entry.expect("a folder that can be listed can be read")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        // Links point out of the tree or to what is visited anyway.
        let Ok(kind) = entry.file_type() else { continue };
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            visit(&entry.path(), &path, files);
        } else if kind.is_file()
            && entry.metadata().is_ok_and(|data| data.len() <= TEXT_BYTES_MAX)
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push(Source::new(&path, &text));
        }
    }
}
