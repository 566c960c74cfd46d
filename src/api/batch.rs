//! `paxos batch`: requests line by line, answers line by line, in the order of the lines.
//!
//! Up to `window` lines run at once. Memory is bounded whatever comes: by the window, by the bytes
//! of the lines in it, and by the longest line. Answers hold references into the store until they
//! are written, and become text one by one.

use super::access::Access;
use super::backend::Backend;
use super::execute::Executor;
use super::{finish, send};
use crate::transport::session::{Gone, Output, Stdin};
use crate::wire::answer::{Answer, LineId, write_line};
use crate::wire::failure::{Code, Failure};
use crate::wire::request::{self, BatchLine, LINE_BYTES_MAX};
use futures::StreamExt;
use futures::stream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of lines that may run at once, however wide the window. A node serves many batches.
const WINDOW_BYTES_MAX: usize = 8 << 20;

/// Permits are counted in pieces of this size, because there are fewer of them than bytes.
const PERMIT_BYTES: usize = 1024;

/// Answers that are ready go out together, up to about this many bytes.
const OUTPUT_BYTES: usize = 64 << 10;

/// How many ready answers are taken at a time.
const READY_MAX: usize = 128;

/// Serves a batch to the end of its input.
pub(super) async fn serve<B: Backend>(
    executor: &Executor<B>,
    access: &Access,
    window: usize,
    timeout: Duration,
    stdin: Stdin,
    output: Output,
) {
    let started = Instant::now();
    let served = tokio::select! {
        biased;
        () = output.gone() => None,
        served = run(executor, access, window, timeout, stdin, &output) => Some(served),
    };
    executor.count("batch", started, None);
    match served {
        Some(Ok(())) => finish(output, 0).await,
        Some(Err(Gone)) => {}
        None => finish(output, Code::Interrupted.exit()).await,
    }
}

async fn run<B: Backend>(
    executor: &Executor<B>,
    access: &Access,
    window: usize,
    timeout: Duration,
    stdin: Stdin,
    output: &Output,
) -> Result<(), Gone> {
    let room = Arc::new(Semaphore::new(WINDOW_BYTES_MAX / PERMIT_BYTES));
    let jobs = stream::unfold((Lines::new(stdin), room), |(mut lines, room)| async move {
        let job = lines.next_job(timeout).await?;
        let admitted = job.admitted(Arc::clone(&room)).await;
        Some((admitted, (lines, room)))
    });
    let answers = jobs
        .map(|(job, room)| async move {
            let answer = job.run(executor, access).await;
            drop(room);
            answer
        })
        .buffered(window)
        .ready_chunks(READY_MAX);
    let mut answers = std::pin::pin!(answers);
    let mut out = Vec::new();
    while let Some(ready) = answers.next().await {
        for (id, result) in ready {
            write_line(&mut out, Some(&id), result.as_ref());
            if out.len() >= OUTPUT_BYTES {
                send(output, std::mem::take(&mut out).into()).await?;
            }
        }
        if !out.is_empty() {
            send(output, std::mem::take(&mut out).into()).await?;
        }
    }
    Ok(())
}

/// One line that wants an answer.
struct Job {
    id: LineId,
    request: Result<request::Request, Failure>,
    bytes: usize,
}

impl Job {
    /// None for lines that want no answer.
    fn new(line: Line, timeout: Duration) -> Option<Job> {
        let number = LineId::Number(line.number);
        let bytes = line.bytes.len();
        if line.is_cut {
            let id = request::split_id(&line.bytes).ok().and_then(|(id, _)| id);
            let id = id.map_or(number, LineId::Given);
            let message = format!("the line has more than {LINE_BYTES_MAX} bytes");
            let hint = "put values of that size one by one: paxos put KEY - < FILE";
            return Some(Job {
                id,
                request: Err(Failure::new(Code::TooLarge, message, hint)),
                bytes,
            });
        }
        let BatchLine { id, request } = request::parse_batch_line(&line.bytes, timeout)?;
        Some(Job { id: id.map_or(number, LineId::Given), request, bytes })
    }

    /// Waits until there is room for the line among those that run.
    async fn admitted(self, room: Arc<Semaphore>) -> (Job, OwnedSemaphorePermit) {
        let permits = self.bytes.div_ceil(PERMIT_BYTES).max(1);
        let permits = u32::try_from(permits).expect("lines are bounded");
        // The lines before it end by their deadlines, and their answers are taken or given up.
        let permit = room.acquire_many_owned(permits).await;
        (self, permit.expect("nobody closes the semaphore"))
    }

    async fn run<B: Backend>(
        self,
        executor: &Executor<B>,
        access: &Access,
    ) -> (LineId, Result<Answer, Failure>) {
        let result = match self.request {
            Ok(request) => {
                let deadline = Instant::now() + request.timeout;
                executor.run(access, request.verb, deadline).await
            }
            Err(failure) => Err(failure),
        };
        (self.id, result)
    }
}

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// From 1.
    number: u64,
    /// Without the line feed; the beginning only, if it was too long.
    bytes: Vec<u8>,
    is_cut: bool,
}

/// Cuts input into lines, and long lines off.
struct Lines {
    stdin: Stdin,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that belong to lines already given.
    given: usize,
    /// Where to look for the next line feed; no byte is looked at twice.
    searched: usize,
    number: u64,
    ended: bool,
}

/// Of a line that is too long this much is kept: enough for its ID.
const HEAD_BYTES: usize = 256;

impl Lines {
    fn new(stdin: Stdin) -> Lines {
        Lines { stdin, buffer: Vec::new(), given: 0, searched: 0, number: 0, ended: false }
    }

    /// The next line that wants an answer.
    async fn next_job(&mut self, timeout: Duration) -> Option<Job> {
        loop {
            let line = self.next().await?;
            if let Some(job) = Job::new(line, timeout) {
                return Some(job);
            }
        }
    }

    /// The next line; a last one without a line feed counts.
    async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.cut() {
                return Some(line);
            }
            if self.buffer.len() - self.given > LINE_BYTES_MAX {
                return Some(self.skip().await);
            }
            if self.ended {
                let rest = self.buffer.split_off(self.given);
                self.buffer.clear();
                (self.given, self.searched) = (0, 0);
                return (!rest.is_empty()).then(|| self.line(rest, false));
            }
            self.fill().await;
        }
    }

    fn line(&mut self, bytes: Vec<u8>, is_cut: bool) -> Line {
        self.number += 1;
        Line { number: self.number, bytes, is_cut }
    }

    /// The first whole line in the buffer.
    fn cut(&mut self) -> Option<Line> {
        let found = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(end) = found.map(|at| self.searched + at) else {
            self.searched = self.buffer.len();
            return None;
        };
        let is_cut = end - self.given > LINE_BYTES_MAX;
        let kept = if is_cut { self.given + HEAD_BYTES } else { end };
        let bytes = self.buffer[self.given..kept].to_vec();
        self.given = end + 1;
        self.searched = self.given;
        Some(self.line(bytes, is_cut))
    }

    async fn fill(&mut self) {
        self.buffer.drain(..self.given);
        self.searched -= self.given;
        self.given = 0;
        // A client may pause between two lines as long as it likes; when it is gone, input ends.
        match self.stdin.next().await {
            Some(piece) => self.buffer.extend_from_slice(&piece),
            None => self.ended = true,
        }
    }

    /// Keeps the beginning of a line that is too long, and throws the rest of it away as it comes.
    async fn skip(&mut self) -> Line {
        let head = self.buffer[self.given..self.given + HEAD_BYTES].to_vec();
        self.buffer.clear();
        (self.given, self.searched) = (0, 0);
        while let Some(piece) = self.stdin.next().await {
            if let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
                self.buffer.extend_from_slice(&piece[end + 1..]);
                return self.line(head, true);
            }
        }
        self.ended = true;
        self.line(head, true)
    }
}
