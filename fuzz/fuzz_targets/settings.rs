//! Feeds `checks::settings` from libFuzzer; what is checked stands there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::settings::check(data));
