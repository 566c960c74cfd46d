//! The subsystem for programs: requests as frames, answers as frames, many at once, in any order.
//!
//! One task serves one channel: it starts what came, polls all that runs, and sends whatever is
//! ready in one piece. So a busy channel costs one wake-up and one write for many answers. The
//! cost: answers of one channel are encoded by one core.

use super::access::Access;
use super::backend::Backend;
use super::execute::Executor;
use super::{exec, finish, send};
use crate::transport::session::{Output, Stdin};
use crate::wire::answer::Answer;
use crate::wire::failure::{Code, Failure};
use crate::wire::frame::{FrameDecoder, FrameKind, put_frame};
use crate::wire::request::Format;
use crate::wire::rpc::{self, Reply, Request};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::time::Instant;

/// Requests of one channel that may run at once. More are not read, and so held back at their
/// sender.
const IN_FLIGHT_MAX: usize = 1024;

/// Bytes of requests of one channel that may run at once.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;

/// Answers that are ready go out together, up to about this many bytes.
const OUTPUT_BYTES: usize = 64 << 10;

/// An answer, and how many bytes of requests it sets free.
struct Done {
    id: u64,
    result: Result<Reply, Failure>,
    bytes: usize,
}

/// What was read and not yet started.
struct Inbox {
    decoder: FrameDecoder,
    piece: Bytes,
    ended: bool,
}

impl Inbox {
    /// The next request; none if more bytes are needed first.
    fn next(&mut self) -> Result<Option<(Request, usize)>, Failure> {
        let mut input = &self.piece[..];
        let frame = self.decoder.next(&mut input).map_err(|error| corrupt(&error));
        self.piece = self.piece.slice(self.piece.len() - input.len()..);
        match frame? {
            None => Ok(None),
            Some(frame) if frame.kind == FrameKind::Request => {
                let request = rpc::decode_request(&frame.body).map_err(|error| corrupt(&error))?;
                Ok(Some((request, frame.body.len())))
            }
            Some(frame) => Err(corrupt(&format!("a client sent a frame of kind {:?}", frame.kind))),
        }
    }
}

fn corrupt(reason: &dyn std::fmt::Display) -> Failure {
    let message = format!("the stream of requests cannot be read any further: {reason}");
    Failure::new(Code::Corrupt, message, "use a client of the same version as the node")
}

/// Serves a channel until its input ends and everything is answered.
pub(super) async fn serve<B: Backend>(
    executor: &Executor<B>,
    access: &Access,
    mut stdin: Stdin,
    output: Output,
) {
    let mut inbox = Inbox { decoder: FrameDecoder::new(), piece: Bytes::new(), ended: false };
    let mut running = FuturesUnordered::new();
    let mut running_bytes = 0;
    let mut out = BytesMut::new();
    loop {
        let has_room =
            |running: usize, bytes| running < IN_FLIGHT_MAX && bytes < IN_FLIGHT_BYTES_MAX;
        while has_room(running.len(), running_bytes) {
            match inbox.next() {
                Ok(Some((request, bytes))) => {
                    running_bytes += bytes;
                    running.push(run(executor, access, request, bytes));
                }
                Ok(None) => break,
                Err(failure) => return exec::fail(output, &failure, Format::Table).await,
            }
        }
        while out.len() < OUTPUT_BYTES
            && let Some(Some(done)) = running.next().now_or_never()
        {
            running_bytes -= done.bytes;
            put_answer(&mut out, &done);
        }
        if !out.is_empty() {
            if send(&output, out.split().freeze()).await.is_err() {
                return;
            }
            continue;
        }
        if inbox.ended && running.is_empty() {
            return finish(output, 0).await;
        }
        let wants_input = !inbox.ended && has_room(running.len(), running_bytes);
        // Without a limit: a client may keep its channel open and say nothing; when it is gone,
        // this ends.
        tokio::select! {
            biased;
            () = output.gone() => return finish(output, Code::Interrupted.exit()).await,
            Some(done) = running.next(), if !running.is_empty() => {
                running_bytes -= done.bytes;
                put_answer(&mut out, &done);
            }
            piece = stdin.next(), if wants_input => match piece {
                Some(piece) => inbox.piece = piece,
                None => inbox.ended = true,
            },
        }
    }
}

async fn run<B: Backend>(
    executor: &Executor<B>,
    access: &Access,
    request: Request,
    bytes: usize,
) -> Done {
    let Request { id, timeout, call } = request;
    let result = match call.into_verb() {
        Ok(verb) => executor.run(access, verb, Instant::now() + timeout).await,
        Err(failure) => Err(failure),
    };
    Done { id, result: result.map(reply), bytes }
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Written { revision, .. } => Reply::Written { revision },
        Answer::Value { record, .. } => Reply::Value {
            value: record.value.unwrap_or_default(),
            revision: record.revision,
            create_revision: record.create_revision,
            version: record.version,
        },
        Answer::Listed(page) => Reply::Listed(page),
        other => unreachable!("no call has the answer {other:?}"),
    }
}

fn put_answer(out: &mut BytesMut, done: &Done) {
    let mut body = Vec::new();
    rpc::encode_answer(done.id, done.result.as_ref(), &mut body);
    put_frame(out, FrameKind::Answer, &body);
}
