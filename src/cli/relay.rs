//! Sends a request through the first door that opens, and passes its streams on. Where that leads
//! to nothing, and nothing was shown yet, the other doors are tried.
//!
//! Where none opens, whoever reads or writes keys goes over all of them again until the time is up:
//! a cluster that is being restarted is there a second later. Whoever asks how nodes are hears at
//! once that none answers, which is what they want to know.
//!
//! Everything runs on one thread. Output is written where it arrives and blocks while its reader is
//! slow: then nothing is read from the connection either, which holds the node back without any
//! buffer of ours.

use super::{exit, output};
use crate::client::backoff::Backoff;
use crate::client::door::{AskError, ChannelEvent, Door, Talk, TalkInput};
use crate::client::first::{First, first};
use crate::wire::failure::{Code, Failure};
use crate::wire::request::{Format, Request, ValueSource, Verb};
use crate::wire::words;
use bytes::Bytes;
use output::Written;
use std::future::Future;
use std::io::Read;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// The node answers by the request's timeout; its answer then needs a little to get here.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// The least time for a node that was reached to take the command: a round trip over a slow line.
const TAKEN_LIMIT_MIN: Duration = Duration::from_secs(1);

/// The least time that another round of all doors is worth beginning with: a handshake or two.
const ROUND_MIN: Duration = Duration::from_millis(500);

/// After Ctrl-C the node gets this long to end the command by itself.
const INTERRUPT_GRACE: Duration = Duration::from_secs(1);

/// A longer value goes through standard input: command lines are limited, on the wire and in the
/// kernel.
const VALUE_IN_WORDS_BYTES_MAX: usize = 8 << 10;

/// Bytes of standard input read at once.
const STDIN_BYTES: usize = 32 << 10;

/// Pieces of standard input that wait to be sent.
const STDIN_PIECES: usize = 4;

/// What the command reads.
enum Input {
    Nothing,
    Value(Bytes),
    Stream(mpsc::Receiver<Bytes>),
}

/// How a conversation ended.
enum End {
    /// With this exit status, of the command's or our own.
    Exit(u8),
    /// Without one.
    Lost {
        reason: String,
        /// Something of it was shown already, so it cannot be had a second time.
        was_shown: bool,
    },
}

/// Asks, and answers the exit status.
pub(super) fn run(doors: &[Door], request: Request, format: Format) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(ask(doors, request)),
        Err(error) => Err(Failure::new(
            Code::Internal,
            format!("cannot start: {error}"),
            "check the limits on open files and processes",
        )),
    };
    result.unwrap_or_else(|failure| output::failure(&failure, format))
}

async fn ask(doors: &[Door], mut request: Request) -> Result<u8, Failure> {
    let value = take_value(&mut request.verb);
    let is_batch = matches!(request.verb, Verb::Batch { .. });
    let mut input = is_batch.then(|| Input::Stream(stdin_pieces()));
    let started = Instant::now();
    let timeout = request.timeout;
    let is_endless = is_batch || request.verb.is_endless();
    let mut trouble = Trouble::default();
    let mut waiting: Vec<&Door> = doors.iter().collect();
    let mut backoff = Backoff::default();
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            break;
        }
        let ways = first(waiting.iter().map(|door| door.open(left)));
        let Some(First { opened, closed }) = unless_interrupted(ways).await else {
            return trouble.interrupted();
        };
        let mut tried: Vec<usize> = closed.iter().map(|(place, _)| *place).collect();
        for (place, error) in closed {
            trouble.note(waiting[place], error, &request.verb)?;
        }
        let Some((place, opened)) = opened else {
            let wait = backoff.next_wait();
            let is_hopeless = !request.verb.wants_keys() || trouble.denied == doors.len();
            // A round that is cut short at once would only hide what was wrong in this one.
            if is_hopeless || started.elapsed() + wait + ROUND_MIN >= timeout {
                break;
            }
            if unless_interrupted(tokio::time::sleep(wait)).await.is_none() {
                return trouble.interrupted();
            }
            trouble.is_over = true;
            waiting = doors.iter().collect();
            continue;
        };
        let door = waiting[place];
        tried.push(place);
        waiting = others(waiting, &tried);
        let left = timeout.saturating_sub(started.elapsed());
        // A batch's timeout is each line's, and is not used up by finding a node.
        request.timeout = if is_endless { timeout } else { left };
        let talk = match opened.ask(&command_of(&request), left.max(TAKEN_LIMIT_MIN)).await {
            Ok(talk) => talk,
            Err(error) => {
                trouble.note(door, error, &request.verb)?;
                continue;
            }
        };
        let given = value.clone().map(Input::Value).or_else(|| input.take());
        // What has no end by itself (a batch, a log that is followed) lasts as long as its input or
        // its reader: ssh tells when the node is gone, and the user can stop it.
        let limit = (!is_endless).then_some(left + ANSWER_GRACE);
        match converse(talk, given.unwrap_or(Input::Nothing), limit).await {
            End::Exit(exit) => return Ok(exit),
            End::Lost { reason, was_shown } => {
                let reason = format!("{}: {reason}", door.name());
                if was_shown || !request.verb.is_repeatable() {
                    return Err(lost(&reason, request.verb.is_write()));
                }
                trouble.begin_anew();
                trouble.may_be_applied |= request.verb.is_write();
                trouble.reasons.push(reason);
            }
        }
    }
    Err(trouble.into_failure(doors, started.elapsed()))
}

fn command_of(request: &Request) -> Vec<u8> {
    let words = request.to_words();
    words::join(std::iter::once(&b"paxos"[..]).chain(words.iter().map(Vec::as_slice)))
}

/// None if somebody pressed Ctrl-C first, while nobody was being talked to.
async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = tokio::signal::ctrl_c() => None,
    }
}

/// The doors that were not tried yet.
fn others<'a>(doors: Vec<&'a Door>, tried: &[usize]) -> Vec<&'a Door> {
    let doors = doors.into_iter().enumerate();
    doors.filter(|(place, _)| !tried.contains(place)).map(|(_, door)| door).collect()
}

/// Takes a value that does not belong into words out of the request, to be sent as standard input.
fn take_value(verb: &mut Verb) -> Option<Bytes> {
    let Verb::Put { value: source, .. } = verb else { return None };
    let ValueSource::Given(value) = source else { return None };
    let fits = value.len() <= VALUE_IN_WORDS_BYTES_MAX
        && value != "-"
        && std::str::from_utf8(value).is_ok();
    if fits {
        return None;
    }
    let value = value.clone();
    *source = ValueSource::Stdin;
    Some(value)
}

/// What went wrong with each door so far.
#[derive(Default)]
struct Trouble {
    reasons: Vec<String>,
    denied: usize,
    may_be_applied: bool,
    /// All doors were tried. What was wrong with them is told until the next round says otherwise.
    is_over: bool,
}

impl Trouble {
    fn note(&mut self, door: &Door, error: AskError, verb: &Verb) -> Result<(), Failure> {
        let reason = format!("{}: {error}", door.name());
        self.begin_anew();
        match error {
            AskError::Unreachable(_) => {}
            AskError::Denied(_) => self.denied += 1,
            AskError::Broken(_) if verb.is_repeatable() => self.may_be_applied |= verb.is_write(),
            AskError::Broken(_) => return Err(lost(&reason, verb.is_write())),
            AskError::Unsendable(message) => {
                return Err(Failure::usage(message, "see docs: programs use the rpc subsystem"));
            }
        }
        self.reasons.push(reason);
        Ok(())
    }

    /// The first of another round; what may have happened in the one before stays so.
    fn begin_anew(&mut self) {
        if std::mem::take(&mut self.is_over) {
            self.reasons.clear();
            self.denied = 0;
        }
    }

    /// What is told then.
    fn interrupted(self) -> Result<u8, Failure> {
        match self.may_be_applied {
            true => Err(lost(&self.reasons.join("; "), true)),
            false => Ok(Code::Interrupted.exit()),
        }
    }

    fn into_failure(self, doors: &[Door], tried: Duration) -> Failure {
        let reasons = self.reasons.join("; ");
        if self.may_be_applied {
            return lost(&reasons, true);
        }
        if self.denied == doors.len() {
            return Failure::new(
                Code::Denied,
                format!("no node let this key in: {reasons}"),
                "ask for a key: paxos-ctl keys issue NAME; \
                 the node's log says what is wrong with this one",
            );
        }
        Failure::new(
            Code::NoQuorum,
            format!("no node could be reached in {:.1} s: {reasons}", tried.as_secs_f64()),
            "nothing was changed; check that a node runs, or name another with --to",
        )
    }
}

fn lost(reason: &str, is_write: bool) -> Failure {
    match is_write {
        true => Failure::new(
            Code::UnknownOutcome,
            format!("the connection was lost before the answer: {reason}"),
            "it may have happened: look before you repeat it; \
             with --request-id it can be repeated safely",
        ),
        false => Failure::new(
            Code::NoQuorum,
            format!("the connection was lost before the answer: {reason}"),
            "ask again",
        ),
    }
}

/// Passes the streams on until the command ends, the user stops it, or the time is up.
async fn converse(talk: Talk, given: Input, limit: Option<Duration>) -> End {
    let Talk { input, output: mut from } = talk;
    let interrupted = Notify::new();
    let mut feeding = std::pin::pin!(feed(input, given, &interrupted));
    let mut fed = false;
    let mut was_shown = false;
    let mut give_up = std::pin::pin!(tokio::time::sleep(limit.unwrap_or(Duration::MAX)));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            event = from.next() => match event {
                ChannelEvent::Stdout(bytes) => {
                    was_shown = true;
                    match output::stdout(&bytes) {
                        Written::Done => {}
                        Written::Unread => return End::Exit(exit::DONE),
                        Written::Failed => return End::Exit(Code::Internal.exit()),
                    }
                }
                ChannelEvent::Stderr(bytes) => {
                    was_shown = true;
                    output::stderr(&bytes);
                }
                ChannelEvent::Exit(status) => return End::Exit(exit::from_remote(status)),
                ChannelEvent::Closed(_) if is_stopping => {
                    return End::Exit(Code::Interrupted.exit());
                }
                ChannelEvent::Closed(reason) => return End::Lost { reason, was_shown },
            },
            () = &mut feeding, if !fed => fed = true,
            _ = tokio::signal::ctrl_c() => {
                if is_stopping {
                    return End::Exit(Code::Interrupted.exit());
                }
                is_stopping = true;
                interrupted.notify_one();
                let until = tokio::time::Instant::now() + INTERRUPT_GRACE;
                give_up.as_mut().reset(until);
            }
            () = &mut give_up => {
                if is_stopping {
                    return End::Exit(Code::Interrupted.exit());
                }
                let reason = "the node did not answer in time".to_owned();
                return End::Lost { reason, was_shown };
            }
        }
    }
}

/// Gives the command its input, then stays ready to interrupt it. The output tells when nobody
/// listens.
async fn feed(mut input: TalkInput, given: Input, interrupted: &Notify) {
    let giving = async {
        match given {
            Input::Nothing => {}
            Input::Value(value) => input.send(value).await?,
            Input::Stream(mut pieces) => {
                while let Some(piece) = pieces.recv().await {
                    input.send(piece).await?;
                }
            }
        }
        input.end().await
    };
    let gave = tokio::select! {
        gave = giving => gave,
        () = interrupted.notified() => {
            let _nobody_listens = input.interrupt().await;
            return;
        }
    };
    if gave.is_ok() {
        interrupted.notified().await;
        let _nobody_listens = input.interrupt().await;
    }
}

/// Standard input, piece by piece, from a thread of its own: reading it cannot be cancelled, and
/// must not keep the program from ending.
fn stdin_pieces() -> mpsc::Receiver<Bytes> {
    let (pieces, receiver) = mpsc::channel(STDIN_PIECES);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; STDIN_BYTES];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    output::stderr(
                        format!("paxos: cannot read standard input: {error}\n").as_bytes(),
                    );
                    0
                }
            };
            let piece = Bytes::copy_from_slice(&buffer[..read]);
            if read == 0 || pieces.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}
