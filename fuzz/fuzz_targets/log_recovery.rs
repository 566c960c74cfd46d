//! Feeds `checks::log_recovery` from libFuzzer; what is checked stands there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::log_recovery::check(data));
