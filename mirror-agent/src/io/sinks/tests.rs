//! Enters: records. Leaves: whether sinks write them, count them, and keep nobody waiting.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{CLOSING_TIME, SinkBooks, SinkError, SinkLedger, Sinks, Written, queue, try_sink};
use crate::{
    io::{
        config::{SinkConfig, SinkPlace, SinkTake},
        evidence::{Record, tests::record},
    },
    pipeline::reason::ComparisonResult::{self, Divergent, Equal},
};

fn file(name: &str, take: SinkTake, path: &Path, max_size: u64) -> SinkConfig {
    let to = SinkPlace::File { path: path.to_owned(), max_size, keep: 2 };
    SinkConfig { name: name.to_owned(), take, to }
}

fn made(exchange: &str, result: ComparisonResult) -> Arc<Record> {
    Arc::new(record(exchange, "s3cret", result))
}

/// Written, dropped, failed.
fn counts(books: &SinkBooks) -> [u64; 3] {
    books.counts()
}

#[test]
fn each_sink_takes_what_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let (all, divergent) = (folder.path().join("all"), folder.path().join("divergent"));
    let ledger = SinkLedger::default();
    let configs = [
        file("all", SinkTake::All, &all, 1 << 20),
        file("divergent", SinkTake::Divergent, &divergent, 1 << 20),
    ];
    let sinks = Sinks::open(&configs, "orders", &ledger).unwrap();
    assert!(sinks.want(Equal) && sinks.want(Divergent));
    for (exchange, result) in [("1", Equal), ("2", Divergent), ("3", Equal)] {
        sinks.take(&made(exchange, result), result);
    }
    let books = ledger.books();
    drop(sinks);

    let exchanges = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let values = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        values.map(|value| value["exchange"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (exchanges(&all), exchanges(&divergent)),
        (vec!["1".into(), "2".into(), "3".into()], vec!["2".into()])
    );
    assert_eq!((counts(&books[0]), counts(&books[1])), ([3, 0, 0], [1, 0, 0]));
    drop(books);
    assert!(ledger.books().is_empty());
    let none = Sinks::open(&configs[1..], "orders", &ledger).unwrap();
    assert!(!none.want(Equal) && none.want(Divergent));
}

#[test]
fn files_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exchanges.jsonl");
    let ledger = SinkLedger::default();
    let sinks = Sinks::open(&[file("a", SinkTake::All, &path, 20_000)], "orders", &ledger).unwrap();
    for number in 0..100 {
        sinks.take(&made(&number.to_string(), Equal), Equal);
    }
    drop(sinks);
    let sizes: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size <= 20_000), "{sizes:?}");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let configs = [file("a", SinkTake::All, Path::new("/nonexistent/folder/file"), 100)];
    let error = Sinks::open(&configs, "orders", &SinkLedger::default()).unwrap_err();
    assert!(matches!(&error, SinkError::File { sink, .. } if sink == "a"), "{error}");
}

#[test]
fn a_pipe_that_nobody_reads_is_an_error_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let (done_tx, done) = std::sync::mpsc::channel();
    let config = file("pipe", SinkTake::All, &path, 100);
    // Should it wait, it does so for ever, on a thread of its own.
    std::thread::spawn(move || done_tx.send(try_sink(&config)).unwrap());
    let error = done.recv_timeout(Duration::from_secs(5)).unwrap().unwrap_err();
    assert!(matches!(error, SinkError::File { .. }), "{error}");
}

#[test]
fn a_file_has_one_sink_however_it_is_spelled() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("a"), folder.path().join("b"));
    let sink = |path: &Path| file("s", SinkTake::All, path, 100);
    fs::create_dir(folder.path().join("f")).unwrap();
    fs::write(&path, "").unwrap();
    let (link, hard) = (folder.path().join("link"), folder.path().join("hard"));
    std::os::unix::fs::symlink("a", &link).unwrap();
    fs::hard_link(&path, &hard).unwrap();
    for spelling in [&link, &hard, &folder.path().join("f/../a")] {
        let mut written = Written::default();
        written.claim(&sink(&path)).unwrap();
        let error = written.claim(&sink(spelling)).unwrap_err();
        let SinkError::Shared { other: of, .. } = &error else { panic!("{error}") };
        assert_eq!(*of, path);
        written.claim(&sink(&other)).unwrap();
        let mut of_others = Written::of([spelling.clone(), folder.path().join("missing")]);
        assert!(matches!(of_others.claim(&sink(&path)), Err(SinkError::Shared { .. })), "{spelling:?}");
        of_others.claim(&sink(&other)).unwrap();
    }
    // One that is not there yet is told by where it would be, and nothing is made.
    let missing = folder.path().join("c");
    let mut written = Written::default();
    written.note(&sink(&missing)).unwrap();
    written.note(&sink(&folder.path().join("d"))).unwrap();
    for spelling in [missing.clone(), folder.path().join("f/../c")] {
        let error = written.note(&sink(&spelling)).unwrap_err();
        assert!(matches!(&error, SinkError::Shared { other, .. } if *other == missing), "{error}");
    }
    assert!(!missing.exists());
    // What is never begun anew may have several.
    let mut written = Written::of(["/dev/null".into()]);
    written.claim(&sink(Path::new("/dev/null"))).unwrap();
}

#[test]
fn a_full_disk_is_counted_and_a_sink_that_hangs_keeps_nobody_waiting() {
    let ledger = SinkLedger::default();
    let configs = [file("full", SinkTake::All, Path::new("/dev/full"), 100)];
    let sinks = Sinks::open(&configs, "orders", &ledger).unwrap();
    for number in 0..10 {
        sinks.take(&made(&number.to_string(), Equal), Equal);
    }
    let books = ledger.books();
    drop(sinks);
    assert_eq!(counts(&books[0]), [0, 0, 10]);

    // A pipe that nobody reads takes 64 KiB, and then nothing.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let sinks = Sinks::open(&[file("pipe", SinkTake::All, &path, 100)], "orders", &ledger).unwrap();
    let record = made("1", Equal);
    let begun = Instant::now();
    let total = queue::RECORDS * 3;
    for _ in 0..total {
        sinks.take(&record, Equal);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let books = ledger.books().pop().unwrap();
    let [_, dropped, _] = counts(&books);
    assert!(dropped >= u64::try_from(queue::RECORDS).unwrap(), "{dropped}");
    // Only now somebody reads.
    let drain = std::thread::spawn(move || {
        let (mut reader, mut taken) = (reader, vec![0; 1 << 16]);
        while !taken.starts_with(b"END") {
            let count = std::io::Read::read(&mut reader, &mut taken).unwrap();
            if taken[..count].ends_with(b"END\n") {
                break;
            }
        }
    });
    let until = Instant::now() + Duration::from_secs(120);
    while counts(&books).iter().sum::<u64>() < u64::try_from(total).unwrap() {
        assert!(Instant::now() < until, "{:?}", counts(&books));
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(sinks);
    assert_eq!(counts(&books)[2], 0);
    fs::write(&path, b"END\n").unwrap();
    drain.join().unwrap();
}

#[test]
fn a_sink_that_hangs_does_not_keep_the_agent_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let sinks =
        Sinks::open(&[file("pipe", SinkTake::All, &path, 100)], "orders", &SinkLedger::default()).unwrap();
    let record = made("1", Equal);
    (0..1000).for_each(|_| sinks.take(&record, Equal));
    let begun = Instant::now();
    drop(sinks);
    assert!(begun.elapsed() < CLOSING_TIME * 5, "{:?}", begun.elapsed());
}

#[test]
#[cfg(not(feature = "kafka"))]
fn kafka_is_refused_where_its_client_is_not_built_in() {
    let to = SinkPlace::Kafka {
        brokers: vec!["k:1".to_owned()],
        topics: crate::io::config::KafkaTopics::Joined("t".to_owned()),
    };
    let configs = [SinkConfig { name: "k".to_owned(), take: SinkTake::All, to }];
    let error = Sinks::open(&configs, "orders", &SinkLedger::default()).unwrap_err();
    assert!(error.to_string().contains("--features kafka"), "{error}");
}
