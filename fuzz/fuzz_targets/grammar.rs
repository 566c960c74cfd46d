//! Feeds `checks::grammar` from libFuzzer; what is checked stands there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::grammar::check(data));
