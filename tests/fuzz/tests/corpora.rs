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
