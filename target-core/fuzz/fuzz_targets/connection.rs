//! Any bytes as a connection's life. The body is the test suite's, so that both stay one: the first byte says whether
//! it begins with a login, and with which keys.
#![no_main]

#[path = "../../tests/hostile/storm.rs"]
mod storm;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| storm::storm(bytes));
