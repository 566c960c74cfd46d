//! The words of `paxos …`, as they come from a stranger's command line or in a batch.
//!
//! No line makes the parser panic. A request that was understood, spelt out in words and joined
//! into a line, is understood as the same again. What is refused is told in words that leave the
//! reader's terminal alone.

use paxos_ssh::wire::answer::render_failure;
use paxos_ssh::wire::failure::Failure;
use paxos_ssh::wire::request::{
    Format, Request, TIMEOUT_DEFAULT, parse, parse_batch_line, parse_command, parse_timeout,
};
use paxos_ssh::wire::{grammar, words};

/// Input: a line.
///
/// # Panics
/// When something does not hold.
pub fn check(data: &[u8]) {
    match parse_command(data) {
        Ok(request) => check_request(&request),
        Err((failure, format)) => check_failure(&failure, format),
    }
    if let Some(line) = parse_batch_line(data, TIMEOUT_DEFAULT) {
        match line.request {
            Ok(request) => check_request(&request),
            Err(failure) => check_failure(&failure, Format::Json),
        }
    }
    if let Err(failure) = parse_timeout(data) {
        check_failure(&failure, Format::Table);
    }
    if let Ok(cut) = words::split(data) {
        check_words(&cut);
    }
}

fn check_words(cut: &[Vec<u8>]) {
    let joined = words::join(cut.iter().map(Vec::as_slice));
    assert_eq!(words::split(&joined).as_deref(), Ok(cut), "joined, the words are others");
    let _ = grammar::asks_for_json(cut);
    match parse(cut) {
        Ok(request) => check_request(&request),
        Err(failure) => check_failure(&failure, Format::Table),
    }
}

fn check_request(request: &Request) {
    let spelt = request.to_words();
    let again = parse(&spelt).expect("a request that is spelt out is understood");
    assert_eq!(&again, request, "spelt out, it means something else");
    let line = [&[b"paxos".to_vec()][..], &spelt].concat();
    let line = words::join(line.iter().map(Vec::as_slice));
    let again = parse_command(&line).expect("a request that is spelt in a line is understood");
    assert_eq!(&again, request, "spelt in a line, it means something else");
}

fn check_failure(failure: &Failure, format: Format) {
    assert!(!failure.message.is_empty() && !failure.hint.is_empty());
    for text in [&failure.message, &failure.hint] {
        assert!(!text.contains(char::is_control), "{text:?} moves the cursor");
    }
    assert_eq!(Failure::from_text(&failure.to_text()).as_ref(), Some(failure));
    assert!(!render_failure(failure, format).is_empty());
}
