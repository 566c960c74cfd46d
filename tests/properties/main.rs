//! The small things that everything rests on, against models too dumb to be wrong: quorums against
//! all subsets, ballots against pairs of numbers, codecs against what was put in, the log against a
//! list and a disk that loses its power.
//!
//! Codecs of messages, records and commands are in `tests/wire.rs`, those of calls to a store in
//! `tests/store_calls.rs`, the grammar in `tests/grammar.rs`; here is what these leave out.

mod ballots;
mod codecs;
mod log;
mod power_disk;
mod quorums;
mod replicas;
