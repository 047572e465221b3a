//! Enters: records, and files that take them or do not. Leaves: what is in the files and in the counters.

use std::{env, fs, os::unix::fs::MetadataExt, path::Path, process::Command as Process, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::io::replay::BreakerState;

fn config(file: &Path, max_size: u64, keep: u32) -> AuditConfig {
    AuditConfig { file: Some(file.to_owned()), max_size, keep }
}

fn lines(path: impl AsRef<Path>) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A record with the number in it, of a length that does not depend on it.
fn note(audit: &Audit, number: u32) {
    audit.reload_failed(&Who::File, &format!("{number:08}"));
}

fn numbers(lines: &[Value]) -> Vec<u32> {
    lines.iter().map(|line| line["error"].as_str().unwrap().parse().unwrap()).collect()
}

/// Waits until `path` has so many whole lines.
fn wait_for(path: &Path, count: usize) {
    for _ in 0..1000 {
        if fs::read(path).is_ok_and(|text| text.iter().filter(|byte| **byte == b'\n').count() >= count) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} has no {count} lines", path.display());
}

#[test]
fn records_say_who_what_before_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (audit, writer) = Audit::open(&config(&path, 1 << 20, 1)).unwrap();
    let change = Change {
        experiment: Some("orders".to_owned()),
        owner: Some("team \"quoted\"\n".to_owned()),
        before: Setting::Paused(false),
        after: Setting::Paused(true),
    };
    let signal = Who::Signal { name: "SIGUSR1" };
    audit.obeyed(&signal, &Command::Pause { experiment: None }, &[change]);
    let target = audit.of_target("orders", Some("team"), "v2");
    let (from, to) = (BreakerState::Closed, BreakerState::Open);
    let books = CopyBooks::new("orders", "v2");
    target.handle_event(&books, replay::Event::Breaker { from, to });
    target.handle_event(&books, replay::Event::Interlock { is_open: false });
    audit.expired("orders", None, SystemTime::UNIX_EPOCH);
    audit.reloaded(&Who::File, &["orders".to_owned()], &[], &[]);
    audit.life(Event::Stop, &[]);
    writer.close();
    let mut lines = lines(&path);
    for line in &mut lines {
        let time = line.as_object_mut().unwrap().remove("time").unwrap();
        assert_eq!(time.as_str().unwrap().len(), "2026-11-21T12:00:00.000Z".len());
    }
    let agent = json!({ "by": "agent" });
    let file = json!({ "by": "file" });
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        json!({ "event": "pause", "who": { "by": "signal", "name": "SIGUSR1" }, "experiment": "orders",
                "owner": "team \"quoted\"\n", "before": { "paused": false }, "after": { "paused": true } }),
        json!({ "event": "breaker", "who": agent, "experiment": "orders", "owner": "team", "target": "v2",
                "before": { "breaker": "closed" }, "after": { "breaker": "open" } }),
        json!({ "event": "interlock", "who": agent, "experiment": "orders", "owner": "team", "target": "v2",
                "before": { "interlock": "proven" }, "after": { "interlock": "unproven" } }),
        json!({ "event": "expired", "who": agent, "experiment": "orders",
                "before": { "expires": "1970-01-01T00:00:00.000Z" }, "after": { "expired": true } }),
        json!({ "event": "reload", "who": file, "before": { "experiments": ["orders"] },
                "after": { "experiments": [], "changed": [] } }),
        json!({ "event": "stop", "who": agent, "after": { "version": version, "experiments": [] } }),
    ];
    assert_eq!(lines, expected);
    assert_eq!(audit.records().iter().sum::<u64>(), 6);
    assert_eq!(audit.dropped(), [0, 0]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn full_file_is_put_aside_and_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (audit, writer) = Audit::open(&config(&path, 1000, 2)).unwrap();
    for number in 0..100 {
        note(&audit, number);
    }
    writer.close();
    let mut found = Vec::new();
    for name in ["audit.log.2", "audit.log.1", "audit.log"] {
        let file = folder.path().join(name);
        assert!(fs::metadata(&file).unwrap().len() <= 1000);
        found.extend(numbers(&lines(file)));
    }
    let first = found[0];
    assert!(first > 50, "{first}");
    assert_eq!(found, (first..100).collect::<Vec<_>>());
    assert!(!folder.path().join("audit.log.3").exists());
}

#[test]
fn size_of_a_file_that_is_there_already_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    fs::write(&path, "{}\n".repeat(300)).unwrap();
    for number in 0..10 {
        let (audit, writer) = Audit::open(&config(&path, 1000, 1)).unwrap();
        note(&audit, number);
        writer.close();
    }
    assert!(fs::metadata(&path).unwrap().len() <= 1000);
    assert!(fs::read_to_string(folder.path().join("audit.log.1")).unwrap().len() <= 1000);
}

#[test]
fn nothing_is_kept_where_nothing_is_to_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (audit, writer) = Audit::open(&config(&path, 500, 0)).unwrap();
    for number in 0..100 {
        note(&audit, number);
    }
    writer.close();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(numbers(&lines(&path)).last(), Some(&99));
}

#[test]
fn file_that_was_moved_or_removed_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("audit.log"), folder.path().join("moved"));
    let (audit, writer) = Audit::open(&config(&path, 1 << 20, 1)).unwrap();
    note(&audit, 1);
    wait_for(&path, 1);
    fs::rename(&path, &moved).unwrap();
    note(&audit, 2);
    wait_for(&path, 1);
    fs::remove_file(&path).unwrap();
    note(&audit, 3);
    writer.close();
    assert_eq!((numbers(&lines(&moved)), numbers(&lines(&path))), (vec![1], vec![3]));
}

#[test]
fn what_a_device_does_not_take_is_counted() {
    let (audit, writer) = Audit::open(&config(Path::new("/dev/full"), 1000, 3)).unwrap();
    for number in 0..100 {
        note(&audit, number);
    }
    writer.close();
    assert_eq!(audit.dropped()[LossReason::Write.index()], 100);
    assert!(!Path::new("/dev/full.1").exists());
}

#[test]
fn flood_is_dropped_and_counted_and_waits_for_nothing() {
    // A pipe that nobody reads: the writer waits for good.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(Process::new("mkfifo").arg(&path).status().unwrap().success());
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (audit, writer) = Audit::open(&config(&path, 1000, 3)).unwrap();
    let records = 200_000;
    let started = std::time::Instant::now();
    for number in 0..records {
        note(&audit, number);
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    let dropped = audit.dropped()[LossReason::QueueFull.index()];
    assert!(dropped > 100_000, "{dropped}");
    // What is still queued can be written once somebody reads.
    let drain = thread::spawn(move || {
        let mut lines = io::BufRead::lines(io::BufReader::new(reader));
        let kept = u64::from(records) - dropped;
        (0..kept).map(|_| lines.next().unwrap().unwrap().len()).sum::<usize>()
    });
    writer.close();
    assert!(drain.join().unwrap() > 0);
    assert_eq!(audit.records()[Event::ReloadFailed.index()], u64::from(records));
}

const FOLDER: &str = "MIRROR_TEST_FULL_DISK";

/// The second half of the next test: runs where the folder is a disk of 16 KiB.
#[test]
fn lines_on_a_full_disk_are_whole() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let path = Path::new(&folder).join("audit.log");
    let (audit, writer) = Audit::open(&config(&path, 1 << 20, 1)).unwrap();
    for number in 0..1000 {
        note(&audit, number);
    }
    writer.close();
    let found = numbers(&lines(&path));
    let dropped = audit.dropped()[LossReason::Write.index()];
    assert!(dropped > 0);
    assert_eq!(u64::try_from(found.len()).unwrap() + dropped, 1000);
    assert_eq!(found, (0..u32::try_from(found.len()).unwrap()).collect::<Vec<_>>());
    // Room again.
    fs::remove_file(&path).unwrap();
    let (audit, writer) = Audit::open(&config(&path, 1 << 20, 1)).unwrap();
    note(&audit, 7);
    writer.close();
    assert_eq!((numbers(&lines(&path)), audit.dropped()), (vec![7], [0, 0]));
}

#[test]
fn full_disk_costs_records_and_never_half_of_one() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: mounting a small disk needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=16k tmpfs \"${FOLDER}\" && exec \"$0\" --exact {} --nocapture",
        "io::audit::tests::lines_on_a_full_disk_are_whole"
    );
    let output = Process::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

#[test]
fn file_that_cannot_be_opened_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Audit::open(&config(&folder.path().join("no/such/folder"), 1000, 1)).is_err());
    assert!(Audit::open(&config(folder.path(), 1000, 1)).is_err());
}

#[test]
fn safe_methods_are_told_from_the_first_bytes() {
    for (raw, safe) in [
        ("GET / HTTP/1.1\r\n", true),
        ("HEAD / HTTP/1.1\r\n", true),
        ("OPTIONS * HTTP/1.1\r\n", true),
        ("TRACE / HTTP/1.1\r\n", true),
        ("POST / HTTP/1.1\r\n", false),
        ("GETX / HTTP/1.1\r\n", false),
        ("get / HTTP/1.1\r\n", false),
        ("GET", false),
        ("", false),
    ] {
        assert_eq!(is_safe(raw.as_bytes()), safe, "{raw}");
    }
}
