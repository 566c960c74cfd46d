//! One session of a client: `ssh node paxos VERB …`, from its bytes to its exit status.

use super::access::Access;
use super::backend::Backend;
use super::execute::Executor;
use super::{batch, complain, finish, list, logs, rpc, send};
use crate::store::command::VALUE_BYTES_MAX;
use crate::transport::RPC_SUBSYSTEM;
use crate::transport::identity::Principal;
use crate::transport::session::{ExecRequest, ExecSession, Gone, Output, Stdin};
use crate::wire::answer::render_failure;
use crate::wire::failure::{Code, Failure};
use crate::wire::help;
use crate::wire::request::{
    Format, Request, ValueSource, Verb, check_value_length, parse_command, value_too_large,
};
use bytes::{Bytes, BytesMut};
use std::time::{Duration, Instant};

/// A client that announces a value on standard input and then sends nothing for this long is cut
/// off. The request's own timeout starts when the value is complete.
const STDIN_STALL_MAX: Duration = Duration::from_secs(60);

/// Serves a session to its end.
pub(super) async fn serve<B: Backend>(executor: &Executor<B>, session: ExecSession) {
    let access = Access::of(&session.principal);
    let ExecSession { request, stdin, output, .. } = session;
    match forced(&session.principal).unwrap_or(request) {
        ExecRequest::Exec(line) => serve_command(executor, &access, &line, stdin, output).await,
        ExecRequest::Shell => {
            let _gone = complain(&output, Bytes::from_static(help::no_shell().as_bytes())).await;
            finish(output, Code::Usage.exit()).await;
        }
        ExecRequest::Subsystem(name) if name == RPC_SUBSYSTEM => {
            rpc::serve(executor, &access, stdin, output).await;
        }
        ExecRequest::Subsystem(name) => {
            let message = format!("there is no subsystem \"{name}\" here");
            let hint = format!("programs use {RPC_SUBSYSTEM}, people use: ssh NODE paxos status");
            fail(output, &Failure::usage(message, hint), Format::Table).await;
        }
    }
}

/// A certificate's force-command takes the place of whatever was asked for, as with OpenSSH.
fn forced(principal: &Principal) -> Option<ExecRequest> {
    match principal {
        Principal::Person { force_command: Some(command), .. } => {
            Some(ExecRequest::Exec(command.clone().into_bytes()))
        }
        _ => None,
    }
}

async fn serve_command<B: Backend>(
    executor: &Executor<B>,
    access: &Access,
    line: &[u8],
    stdin: Stdin,
    output: Output,
) {
    let (request, format) = match parse_command(line) {
        Ok(request) => {
            let format = request.format.unwrap_or_default();
            (request, format)
        }
        Err((failure, format)) => return fail(output, &failure, format).await,
    };
    if let Verb::Batch { window } = request.verb {
        return batch::serve(executor, access, window, request.timeout, stdin, output).await;
    }
    let ended = tokio::select! {
        biased;
        () = output.gone() => Ok(Code::Interrupted.exit()),
        ended = serve_one(executor, access, request, format, stdin, &output) => ended,
    };
    match ended {
        Ok(exit) => finish(output, exit).await,
        Err(Gone) => {
            tracing::debug!(principal = access.name(), "the client left before its answer");
        }
    }
}

/// Runs one request and sends its answer; the exit status is left to the caller.
async fn serve_one<B: Backend>(
    executor: &Executor<B>,
    access: &Access,
    request: Request,
    format: Format,
    stdin: Stdin,
    output: &Output,
) -> Result<u8, Gone> {
    let Request { mut verb, timeout, .. } = request;
    match read_value(&mut verb, stdin).await {
        Ok(()) => {}
        Err(failure) => return answer_failure(output, &failure, format).await,
    }
    let started = Instant::now();
    let deadline = started + timeout;
    if matches!(verb, Verb::List { .. }) {
        let opened = list::open(executor, access, verb, deadline).await;
        executor.count("list", started, opened.as_ref().err());
        return match opened {
            Ok(listing) => match listing.stream(format, output).await? {
                Ok(()) => Ok(0),
                // What was shown is no whole list; with JSON it is not even a whole object.
                Err(failure) => answer_failure(output, &failure, Format::Table).await,
            },
            Err(failure) => answer_failure(output, &failure, format).await,
        };
    }
    if let Verb::Logs(query) = verb {
        let served = logs::serve(executor, access, &query, format, deadline, output).await?;
        executor.count("logs", started, served.as_ref().err());
        return match served {
            Ok(()) => Ok(0),
            Err(failure) => answer_failure(output, &failure, format).await,
        };
    }
    match executor.run(access, verb, deadline).await {
        Ok(answer) => {
            send(output, answer.render(format)).await?;
            Ok(answer.exit())
        }
        Err(failure) => answer_failure(output, &failure, format).await,
    }
}

/// Puts all of standard input in the place of `put KEY -`'s value. Others' standard input is
/// dropped, and with it what the client may send there.
async fn read_value(verb: &mut Verb, mut stdin: Stdin) -> Result<(), Failure> {
    let Verb::Put { value, .. } = verb else { return Ok(()) };
    if *value != ValueSource::Stdin {
        return Ok(());
    }
    let mut bytes = BytesMut::new();
    loop {
        match tokio::time::timeout(STDIN_STALL_MAX, stdin.next()).await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => break,
            Err(_stalled) => {
                let seconds = STDIN_STALL_MAX.as_secs();
                return Err(Failure::usage(
                    format!("nothing came on standard input for {seconds} s; nothing was written"),
                    "end the input (Ctrl-D), or give the value as a word",
                ));
            }
        }
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(value_too_large(&format!("at least {}", bytes.len())));
        }
    }
    check_value_length(bytes.len())?;
    *value = ValueSource::Given(bytes.freeze());
    Ok(())
}

/// Says why not: JSON to standard output, text to standard error.
async fn answer_failure(output: &Output, failure: &Failure, format: Format) -> Result<u8, Gone> {
    let text = render_failure(failure, format);
    match format {
        Format::Json => send(output, text).await?,
        Format::Table => complain(output, text).await?,
    }
    Ok(failure.code.exit())
}

/// Says why not, and ends the session.
pub(super) async fn fail(output: Output, failure: &Failure, format: Format) {
    if let Ok(exit) = answer_failure(&output, failure, format).await {
        finish(output, exit).await;
    }
}
