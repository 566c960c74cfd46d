//! What the fuzzer checks, as functions of bytes: one file each, and no fuzzer in them.
//!
//! `fuzz_targets/` feeds them from libFuzzer; `tests/fuzz_inputs.rs` feeds them the committed
//! inputs, on stable and without cargo-fuzz. Each panics when something does not hold, and must do
//! the same with the same bytes, or nobody could repeat what was found.

pub mod certificate;
pub mod frame;
pub mod grammar;
pub mod input;
pub mod inventory;
pub mod log_recovery;
pub mod memory_files;
pub mod message;
pub mod raw_log;
pub mod scratch;
pub mod settings;

/// What a target does with an input.
pub type Check = fn(&[u8]);

/// Every target's name and check.
pub const ALL: [(&str, Check); 7] = [
    ("certificate", certificate::check),
    ("frame", frame::check),
    ("grammar", grammar::check),
    ("inventory", inventory::check),
    ("log_recovery", log_recovery::check),
    ("message", message::check),
    ("settings", settings::check),
];
