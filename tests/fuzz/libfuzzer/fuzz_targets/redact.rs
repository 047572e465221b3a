//! Enters: what libFuzzer makes up. Leaves: a crash where the target `redact` fails.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mirror_fuzz::run("redact", bytes));
