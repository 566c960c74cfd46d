//! How people and programs see what a run does.

use super::output;
use crate::wire::request::Format;

/// Tells of the steps of one run.
pub(super) struct Speaker {
    format: Format,
}

impl Speaker {
    pub(super) fn new(format: Format) -> Speaker {
        Speaker { format }
    }

    /// Whom it tells.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// A step begins.
    pub(super) fn step(&mut self, what: &str) {
        if self.format == Format::Table {
            output::stdout(format!("- {what}\n").as_bytes());
        }
    }
}
