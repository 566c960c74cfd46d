//! Log lines: to standard error, in text or JSON, as loud as `PAXOS_LOG` says.

use std::io::IsTerminal;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Names the environment variable with the filter, in the syntax of `RUST_LOG`:
/// `info`, or `warn,paxos_ssh::transport=debug`.
pub const FILTER_VARIABLE: &str = "PAXOS_LOG";

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error(
        "{FILTER_VARIABLE}=\"{filter}\" is no log filter ({reason}); try {FILTER_VARIABLE}=info"
    )]
    Filter {
        /// As given.
        filter: String,
        /// What the parser said.
        reason: String,
    },
    /// Somebody set it up before.
    #[error("logging is set up already; set it up once, at the start of the program")]
    Twice,
}

/// Sets logging up for the whole process. `default_filter` holds where `PAXOS_LOG` is not set.
///
/// # Errors
/// When `PAXOS_LOG` does not parse, or on the second call.
pub fn init(format: LogFormat, default_filter: &str) -> Result<(), LoggingError> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| default_filter.to_owned());
    let filter = parse_filter(&filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let done = match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    done.map_err(|_| LoggingError::Twice)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(filter).map_err(|error| LoggingError::Filter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        assert!(parse_filter("warn,paxos_ssh::node=debug").is_ok());
        let error = parse_filter("paxos=loud").unwrap_err().to_string();
        assert!(error.starts_with("PAXOS_LOG=\"paxos=loud\" is no log filter"), "{error}");
    }
}
