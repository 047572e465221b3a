//! Enters: the inputs kept in `corpus`. Leaves: the same verdict that a fuzzer would give, without one.

use std::{fs, panic, path::Path};

use mirror_fuzz::TARGETS;

#[test]
fn inputs_that_are_kept_hold() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut failed = Vec::new();
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "nothing is kept for {}", target.name);
        for file in files {
            let bytes = fs::read(&file).unwrap();
            if panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                failed.push(file);
            }
        }
    }
    assert!(failed.is_empty(), "these fail: {failed:#?}");
}

#[test]
fn shortest_inputs_hold() {
    for target in TARGETS {
        (target.run)(b"");
        for first in 0..=u8::MAX {
            (target.run)(&[first]);
            (target.run)(&[first, first, !first, first, 0, 0xff, first]);
        }
    }
}

#[test]
fn no_answer_is_paired_with_another_request_whatever_is_lost() {
    let seed = std::env::var("MIRROR_PAIRING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    for round in 0..4_000_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round << 20);
        let mut byte = || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.to_be_bytes()[0]
        };
        let mut bytes: Vec<u8> = (0..600).map(|_| byte()).collect();
        bytes[0] = 0x80;
        let run = panic::catch_unwind(|| mirror_fuzz::run("pipeline", &bytes));
        assert!(run.is_ok(), "round {round} of seed {seed}");
    }
}
