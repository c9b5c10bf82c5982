#![no_main]
//! `offload` of `tests/src/fuzz`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| warren_tests::fuzz::fuzz("offload", input));
