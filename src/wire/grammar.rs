//! The words of `paxos …`: which verbs there are, what each takes, and how words are sorted into
//! flags and operands. Help texts are made from this same table (`wire/help.rs`), typed requests in
//! `wire/request.rs`.
//!
//! It is written by hand and not with clap because it also runs inside a node, on words from
//! strangers: it must never end the process, never print, and say things that only we know (what
//! ssh does to quotes). The cost is about as much code as clap's definitions would be.

use super::failure::Failure;

/// A flag.
#[derive(Debug, PartialEq, Eq)]
pub struct FlagSpec {
    /// With its two dashes.
    pub long: &'static str,
    /// With its dash, where there is one.
    pub short: Option<&'static str>,
    /// What its value is called in help; none for a switch.
    pub value: Option<&'static str>,
    /// What it does, in a line.
    pub summary: &'static str,
}

/// A verb.
#[derive(Debug, PartialEq, Eq)]
pub struct VerbSpec {
    /// The word.
    pub name: &'static str,
    /// Its operands, one row for each form.
    pub forms: &'static [&'static str],
    /// What it does, in a line.
    pub summary: &'static str,
    /// Its own flags; [`COMMON_FLAGS`] come on top.
    pub flags: &'static [FlagSpec],
    /// The fewest and the most operands.
    pub operands: (usize, usize),
    /// A line or more on what is not obvious; may be empty.
    pub details: &'static str,
}

const fn switch(long: &'static str, summary: &'static str) -> FlagSpec {
    FlagSpec { long, short: None, value: None, summary }
}

const fn option(long: &'static str, value: &'static str, summary: &'static str) -> FlagSpec {
    FlagSpec { long, short: None, value: Some(value), summary }
}

const CONSISTENCY: FlagSpec = option(
    "--consistency",
    "local|linearizable",
    "local answers at once from this node, perhaps stale (default: linearizable)",
);
const IF_VALUE: FlagSpec = option("--if-value", "V", "only if the key holds exactly V");
const IF_REVISION: FlagSpec = option(
    "--if-revision",
    "N",
    "only if the key was last changed at revision N (0: if it does not exist)",
);
const REQUEST_ID: FlagSpec = option(
    "--request-id",
    "ID",
    "safe to retry by hand: one ID is applied once, and answered the same",
);

/// Flags that every verb takes, before or after it.
pub const COMMON_FLAGS: &[FlagSpec] = &[
    FlagSpec {
        long: "--timeout",
        short: None,
        value: Some("DURATION"),
        summary: "give up after this long, as 5s, 500ms or plain seconds (default: 5s)",
    },
    FlagSpec {
        long: "--output",
        short: Some("-o"),
        value: Some("FORMAT"),
        summary: "table for people (the default) or json for programs",
    },
    switch("--json", "the same as -o json"),
    FlagSpec { long: "--help", short: Some("-h"), value: None, summary: "explain, and do nothing" },
];

/// Every verb, in the order of help.
pub const VERBS: &[VerbSpec] = &[
    VerbSpec {
        name: "status",
        forms: &[""],
        summary: "what this node knows of the cluster, why, and what to do next",
        flags: &[],
        operands: (0, 0),
        details: "Answers from local knowledge, also without a quorum.\n\
                  Exit status: 0 healthy, 2 degraded, 69 no quorum.",
    },
    VerbSpec {
        name: "health",
        forms: &[""],
        summary: "one word: healthy, degraded or no_quorum",
        flags: &[],
        operands: (0, 0),
        details: "Exit status: 0 while requests are served, also when degraded; 69 without\n\
                  a quorum.",
    },
    VerbSpec {
        name: "members",
        forms: &[""],
        summary: "the registered nodes, their roles and addresses",
        flags: &[],
        operands: (0, 0),
        details: "",
    },
    VerbSpec {
        name: "put",
        forms: &["KEY VALUE", "KEY -"],
        summary: "store a value; with - the value is standard input, byte for byte",
        flags: &[
            switch("--if-absent", "only if the key does not exist"),
            IF_VALUE,
            IF_REVISION,
            REQUEST_ID,
        ],
        operands: (2, 2),
        details: "A key holds 1 to 4096 bytes, a value at most 1 MiB.",
    },
    VerbSpec {
        name: "get",
        forms: &["KEY"],
        summary: "print a value and a newline",
        flags: &[switch("--raw", "without the newline: the exact bytes"), CONSISTENCY],
        operands: (1, 1),
        details: "Exit status 3 if there is no such key.",
    },
    VerbSpec {
        name: "delete",
        forms: &["KEY"],
        summary: "remove a key",
        flags: &[IF_VALUE, IF_REVISION, REQUEST_ID],
        operands: (1, 1),
        details: "Exit status 3 if there is no such key.",
    },
    VerbSpec {
        name: "list",
        forms: &["[PREFIX]"],
        summary: "keys that start with PREFIX, in order, with their values",
        flags: &[
            option("--limit", "N", "at most N keys"),
            option("--after", "KEY", "only keys behind KEY: go on where a limit cut"),
            switch("--keys-only", "without values"),
            CONSISTENCY,
        ],
        operands: (0, 1),
        details: "Takes the right to read PREFIX. Table rows are KEY, a tab, VALUE; control\n\
                  characters are escaped there, and exact in JSON.",
    },
    VerbSpec {
        name: "batch",
        forms: &["< FILE"],
        summary: "one request per line of standard input, one JSON object per answer",
        flags: &[option("--window", "N", "run up to N requests at once (default: 1)")],
        operands: (0, 0),
        details: "A line holds the words of a verb, after @ID if you like: @7 put k 'two words'.\n\
                  Blank lines and lines that start with # are skipped. Answers come in the order\n\
                  of the lines, each with its \"id\" (the ID, or the line's number). Lines that\n\
                  run at once may take effect in any order. Exit status 0 if every line was\n\
                  answered.",
    },
    VerbSpec {
        name: "leader",
        forms: &["", "transfer [NODE]", "resign"],
        summary: "name the leader, or hand leadership over",
        flags: &[],
        operands: (0, 2),
        details: "transfer and resign need an admin's key; without NODE the best-placed node\n\
                  is taken.",
    },
    VerbSpec {
        name: "metrics",
        forms: &[""],
        summary: "this node's metrics in the OpenMetrics text format",
        flags: &[],
        operands: (0, 0),
        details: "",
    },
    VerbSpec {
        name: "logs",
        forms: &[""],
        summary: "the last lines of this node's own log, or what it said and heard",
        flags: &[
            option("--lines", "N", "how many (default: 100)"),
            switch("--protocol", "the protocol's events instead: each message and decision"),
            option("--grep", "TEXT", "only lines that hold TEXT, in large or small letters"),
            FlagSpec {
                long: "--follow",
                short: Some("-f"),
                value: None,
                summary: "go on with what comes, until Ctrl-C",
            },
            option("--node", "NAME", "of that node, if several can be asked"),
        ],
        operands: (0, 0),
        details: "Needs an admin's key. Events of the protocol come from a ring in the node's\n\
                  memory, the newest 32768 of them, and not from a file; with -o json each is\n\
                  an object on a line of its own. What a node sent as a promise or an\n\
                  acceptance is durable there. Times are UTC by the node's own clock.",
    },
    VerbSpec {
        name: "trace",
        forms: &["SLOT"],
        summary: "how a slot was chosen: who proposed, who voted, who knew when",
        flags: &[],
        operands: (1, 1),
        details: "Needs an admin's key. Asks all members for what they recorded and shows it in\n\
                  order of time, by their clocks. Exit status 3 if no member recorded anything\n\
                  of the slot, or it is older than what they keep.",
    },
    VerbSpec {
        name: "version",
        forms: &["", "raise N"],
        summary: "the program's version, or raise the cluster's to the next",
        flags: &[],
        operands: (0, 2),
        details: "raise needs an admin's key and cannot be undone: programs that do not know the\n\
                  new version end. paxos-ctl upgrade --raise asks all members first whether they\n\
                  know it.",
    },
    VerbSpec {
        name: "trust",
        forms: &["", "publish"],
        summary: "the trust bundle that the node goes by, or put it into the cluster's log",
        flags: &[],
        operands: (0, 1),
        details: "The bundle names the authorities that are believed and what is revoked; it is\n\
                  followed by the root key's signature. publish needs an admin's key: every node\n\
                  takes up what is newer than its own and rightly signed. paxos-ctl does it after\n\
                  every change of keys.",
    },
    VerbSpec {
        name: "help",
        forms: &["[VERB]"],
        summary: "this text, or more about a verb",
        flags: &[],
        operands: (0, 1),
        details: "",
    },
];

/// Verbs that the design names and this version does not have. Whoever types one made no mistake.
const VERBS_TO_COME: [&str; 8] =
    ["config", "elect", "lease", "lock", "snapshot", "top", "txn", "watch"];

/// The verb of that name.
pub fn verb(name: &[u8]) -> Option<&'static VerbSpec> {
    VERBS.iter().find(|spec| spec.name.as_bytes() == name)
}

/// Words sorted, and nothing yet understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Sorted {
    /// The verb; none if there was no word that is not a flag.
    pub verb: Option<&'static VerbSpec>,
    /// Flags in the order given, each at most once, with the value if it takes one.
    pub flags: Vec<(&'static FlagSpec, Vec<u8>)>,
    /// What is left: the verb's operands.
    pub operands: Vec<Vec<u8>>,
}

impl Sorted {
    /// Whether the switch or option was given.
    pub fn has(&self, long: &str) -> bool {
        self.value(long).is_some()
    }

    /// The value given with an option; empty for a switch.
    pub fn value(&self, long: &str) -> Option<&[u8]> {
        self.flags.iter().find(|(spec, _)| spec.long == long).map(|(_, value)| value.as_slice())
    }
}

/// Sorts words (without the leading `paxos`) into verb, flags and operands.
///
/// # Errors
/// `usage` for an unknown verb or flag, a flag given twice, a value missing or not wanted, and for
/// fewer or more operands than the verb takes.
pub fn sort(words: &[Vec<u8>]) -> Result<Sorted, Failure> {
    let mut sorted = Sorted { verb: None, flags: Vec::new(), operands: Vec::new() };
    let mut words = words.iter();
    let mut flags_ended = false;
    while let Some(word) = words.next() {
        let is_flag = !flags_ended && word.len() > 1 && word[0] == b'-';
        if is_flag && word == b"--" {
            flags_ended = true;
        } else if is_flag {
            let (spec, glued) = find_flag(sorted.verb, word)?;
            let value = flag_value(spec, glued, &mut words)?;
            if sorted.has(spec.long) {
                return Err(Failure::usage(
                    format!("{} is given twice", spec.long),
                    "give it once",
                ));
            }
            sorted.flags.push((spec, value));
        } else if sorted.verb.is_none() {
            sorted.verb = Some(verb(word).ok_or_else(|| unknown_verb(word))?);
        } else {
            sorted.operands.push(word.clone());
        }
    }
    if let Some(spec) = sorted.verb
        && !sorted.has("--help")
    {
        check_operands(spec, &sorted.operands)?;
    }
    Ok(sorted)
}

/// Whether the words ask for JSON, told without understanding them: so that an error about the
/// words can itself be JSON.
pub fn asks_for_json(words: &[Vec<u8>]) -> bool {
    let flags = || words.iter().map(Vec::as_slice).take_while(|word| *word != b"--");
    let pairs = flags().zip(flags().skip(1));
    flags().any(|word| matches!(word, b"--json" | b"-ojson" | b"-o=json" | b"--output=json"))
        || pairs
            .into_iter()
            .any(|(flag, value)| matches!(flag, b"-o" | b"--output") && value == b"json")
}

/// The flag that a word names, and the value glued to it by `=` or, for a short one, by nothing.
fn find_flag<'w>(
    verb: Option<&'static VerbSpec>,
    word: &'w [u8],
) -> Result<(&'static FlagSpec, Option<&'w [u8]>), Failure> {
    let known = || verb.map_or(&[][..], |verb| verb.flags).iter().chain(COMMON_FLAGS);
    let (name, value) = match word.iter().position(|&byte| byte == b'=') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    for spec in known() {
        let short = spec.short.map(str::as_bytes);
        if spec.long.as_bytes() == name || short == Some(name) {
            return Ok((spec, value));
        }
        if let (Some(short), Some(_)) = (short, spec.value)
            && let Some(rest) = word.strip_prefix(short)
        {
            return Ok((spec, Some(rest)));
        }
    }
    let of = verb.map_or(String::new(), |verb| format!(" of {}", verb.name));
    let name = printable(name);
    let hint = misplaced_flag(verb, &name).unwrap_or_else(|| {
        let dashes = "a key or value that starts with - goes behind --, as in: put -- KEY -1";
        match nearest(&name, known().map(|spec| spec.long)) {
            Some(near) => format!("did you mean {near}? If it is no flag: {dashes}"),
            None => dashes.to_owned(),
        }
    });
    Err(Failure::usage(format!("{name} is no flag{of}"), hint))
}

/// What to say of a flag that exists, but not here.
fn misplaced_flag(verb: Option<&'static VerbSpec>, name: &str) -> Option<String> {
    if verb.is_some_and(|verb| verb.name == "list") && name == "--prefix" {
        return Some("the prefix is a plain word, as in: list PREFIX".to_owned());
    }
    if name.starts_with("-F") || matches!(name, "--to" | "--socket") {
        let verb = verb.map_or("VERB", |verb| verb.name);
        return Some(format!(
            "-F, --to and --socket are the local program's and go before the verb, as in: \
             paxos -F SSH_CONFIG --to NODE {verb}"
        ));
    }
    None
}

fn flag_value<'w>(
    spec: &'static FlagSpec,
    glued: Option<&[u8]>,
    words: &mut impl Iterator<Item = &'w Vec<u8>>,
) -> Result<Vec<u8>, Failure> {
    match (spec.value, glued) {
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(Failure::usage(
            format!("{} takes no value", spec.long),
            "leave out = and the value",
        )),
        (Some(_), Some(value)) => Ok(value.to_vec()),
        (Some(name), None) => words.next().cloned().ok_or_else(|| {
            let long = spec.long;
            Failure::usage(format!("{long} misses its value"), format!("write {long} {name}"))
        }),
    }
}

fn check_operands(spec: &VerbSpec, operands: &[Vec<u8>]) -> Result<(), Failure> {
    let (fewest, most) = spec.operands;
    let forms = forms(spec).join(" or ");
    if operands.len() < fewest {
        return Err(Failure::usage(
            format!(
                "{} misses {}",
                spec.name,
                if fewest == 1 { "its operand" } else { "operands" }
            ),
            format!("write {forms}"),
        ));
    }
    if operands.len() > most {
        let message = match &operands[most..] {
            [extra] => format!("{} got a word too many, \"{}\"", spec.name, printable(extra)),
            extra => format!(
                "{} got {} words too many, from \"{}\" on",
                spec.name,
                extra.len(),
                printable(&extra[0])
            ),
        };
        return Err(Failure::usage(message, format!("write {forms}. {}", quotes_hint(spec))));
    }
    Ok(())
}

/// What to say to somebody whose quotes got lost: ssh joins its words by blanks, and the far end
/// cuts anew.
fn quotes_hint(spec: &VerbSpec) -> String {
    let plain = "Quotes do not survive ssh: \
                 your own shell takes them off and the far end cuts the line at blanks again. \
                 Quote twice";
    match spec.name {
        "put" => format!("{plain}, as in \"'two words'\", or pipe the value into: put KEY -"),
        _ => format!("{plain}, as in \"'two words'\""),
    }
}

/// The verb's forms, each as a line to type.
pub fn forms(spec: &VerbSpec) -> Vec<String> {
    let line = |operands: &&str| format!("paxos {} {operands}", spec.name).trim_end().to_owned();
    spec.forms.iter().map(line).collect()
}

fn unknown_verb(word: &[u8]) -> Failure {
    let word = printable(word);
    if VERBS_TO_COME.contains(&word.as_str()) {
        let message = format!("\"{word}\" is not in this version");
        return Failure::usage(message, "\"paxos help\" lists the verbs that are");
    }
    let hint = match nearest(&word, VERBS.iter().map(|spec| spec.name)) {
        Some(near) => format!("did you mean {near}? \"paxos help\" lists the verbs"),
        None if word == "node" => {
            "\"paxos node\" runs a node and is typed on its own machine".to_owned()
        }
        None => "\"paxos help\" lists the verbs".to_owned(),
    };
    Failure::usage(format!("there is no verb \"{word}\""), hint)
}

/// The candidate most like `word`, if any is like it at all.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // 0.75 lets one slip pass in a word of four letters and none of the unrelated verbs.
    const LIKENESS_MIN: f64 = 0.75;
    // Nobody mistypes into something much longer; comparing costs the product of the lengths.
    const WORD_CHARS_MAX: usize = 32;
    if word.chars().count() > WORD_CHARS_MAX {
        return None;
    }
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// A word as it may stand in a message: short, and without bytes that move a terminal's cursor.
pub fn printable(word: &[u8]) -> String {
    // Enough to recognise what was typed; a message is one line.
    const CHARS_MAX: usize = 40;
    let text = String::from_utf8_lossy(word);
    let mut shown: String = text.chars().take(CHARS_MAX).flat_map(escaped).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The character itself, or its escape if it would not show.
pub fn escaped(character: char) -> impl Iterator<Item = char> {
    let (plain, escape) = match character.is_control() {
        true => (None, Some(character.escape_default())),
        false => (Some(character), None),
    };
    plain.into_iter().chain(escape.into_iter().flatten())
}
