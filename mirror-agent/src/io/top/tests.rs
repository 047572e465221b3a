//! Enters: invented readings. Leaves: pages that fit, tell the essential, and hold nothing that a terminal obeys.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    frame::{Chosen, Line, Page, Size, Style},
    reading::{Reading, Readings},
};

/// What a hostile request may have left in a report.
const HOSTILE: &str = "GET /\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}";

fn reading(seen: u64, dropped: u64, paused: bool) -> Reading {
    let state = json!({
        "version": "0.1.0", "uptimeSeconds": 100.0 + seen as f64, "paused": false,
        "capture": {
            "interfaces": 2, "guardPercent": null, "framesCaptured": seen * 3, "framesDropped": 0,
            "requests": {
                "seen": seen, "pending": 0, "mirrored": seen - dropped, "skipped": 0, "dropped": dropped, "lost": 0,
                "reasons": { "skipped": {}, "dropped": { "queue_full": dropped }, "lost": {} },
            },
        },
        "experiments": (0..30).map(|number| json!({
            "name": format!("orders-{number}"), "owner": null, "expires": "never", "expired": false, "percent": 10.0,
            "paused": paused, "comparisons": { "equal": seen }, "verdict": "not_enough_data",
            "targets": [{
                "name": "v2", "url": "http://v2:8080", "queued": 3, "inFlight": 4, "breaker": "half_open",
                "interlock": "proven", "replays": { "answered": seen },
                "copies": {
                    "copies": seen, "pending": 0, "mirrored": seen - dropped, "skipped": 0, "dropped": dropped,
                    "reasons": { "skipped": {}, "dropped": { "queue_full": dropped }, "lost": {} },
                },
            }],
        })).collect::<Vec<_>>(),
    });
    let figure = |point: f64| json!({ "point": point, "low": null, "high": null });
    let times = |of: &str, p50: f64| json!({ "of": of, "phase": "last_byte", "count": 5, "p50": figure(p50), "p95": figure(0.02), "p99": figure(0.03) });
    let report = json!({ "experiments": [{
        "name": "orders-0",
        "targets": [{
            "target": "v2", "results": { "equal": 90, "noise": 0, "divergent": 10, "incomparable": 0 },
            "times": [times("live", 0.0012), times("shadow", 0.0024)],
            "verdict": { "state": "fail", "reasons": ["divergence", HOSTILE] },
            "clusters": (0..50).map(|_| json!({
                "certainty": "certain", "count": 10, "rate": figure(0.1), "endpoint": HOSTILE, "paths": [HOSTILE],
            })).collect::<Vec<_>>(),
        }],
    }] });
    Reading::One(Box::new(serde_json::from_value(state).unwrap()), report)
}

fn readings() -> Readings {
    let (mut readings, start) = (Readings::default(), Instant::now());
    readings.push(reading(100, 0, false), start);
    readings.push(reading(300, 10, false), start + Duration::from_secs(2));
    readings
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{}\n", line.text)).collect()
}

#[test]
fn page_tells_rates_reasons_and_differences() {
    let page = text(&Page::default().lines(&readings(), Size::UNBOUNDED));
    for told in [
        "frames 300/s > requests 100/s > mirrored 95/s > compared 3000/s",
        "dropped 5.0/s (queue_full 5.0/s)",
        "seen 300 = mirrored 290 + skipped 0 + dropped 10 + lost 0 + pending 0",
        "orders-0/v2          running    95/s  5.0/s     3     4 half_open proven    wait",
        "service time: live p50 1.2 ms p99 30.0 ms; shadow p50 2.4 ms p99 30.0 ms",
        "verdict: fail: divergence",
        "compared: equal 90, noise 0, divergent 10, incomparable 0",
    ] {
        assert!(page.contains(told), "{told} is not in\n{page}");
    }
}

#[test]
fn no_page_is_larger_than_the_screen_or_holds_what_a_terminal_obeys() {
    for (columns, rows) in [(80, 24), (200, 60), (40, 10), (10, 3), (1, 1)] {
        let pages = [
            Page::default(),
            Page { is_help: true, ..Page::default() },
            Page { trouble: Some(HOSTILE.to_owned()), ..Page::default() },
            Page { said: Some(HOSTILE.to_owned()), ..Page::default() },
            Page {
                asking: Some(Chosen { experiment: HOSTILE.to_owned(), is_paused: true }),
                ..Page::default()
            },
        ];
        for page in pages {
            for readings in [Readings::default(), readings()] {
                let lines = page.lines(&readings, Size { columns, rows });
                assert!(lines.len() <= rows, "{} lines of {rows}", lines.len());
                for Line { text, .. } in lines {
                    assert!(text.chars().count() <= columns, "{columns}: {text}");
                    assert!(
                        !text.chars().any(|symbol| symbol.is_control() || symbol == '\u{202e}'),
                        "{text:?}"
                    );
                }
            }
        }
    }
    assert!(!text(&Page::default().lines(&readings(), Size::UNBOUNDED)).contains('\u{1b}'));
}

#[test]
fn what_is_chosen_stays_in_sight_and_within_the_list() {
    let (mut page, readings) = (Page::default(), readings());
    let size = Size { columns: 80, rows: 24 };
    let selected = |page: &Page| {
        let lines = page.lines(&readings, size);
        let line = lines.into_iter().find(|line| line.style == Style::Selected).unwrap();
        line.text.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(selected(&page), "orders-0/v2");
    page.select(&readings, -1);
    assert_eq!(selected(&page), "orders-0/v2");
    for _ in 0..50 {
        page.select(&readings, 1);
    }
    assert_eq!(selected(&page), "orders-29/v2");
    assert_eq!(page.chosen(&readings), Some(Chosen { experiment: "orders-29".to_owned(), is_paused: false }));
}

#[test]
fn agent_that_has_begun_anew_has_no_rates_yet() {
    let mut readings = readings();
    readings.push(reading(5, 0, true), Instant::now());
    let page = text(&Page::default().lines(&readings, Size::UNBOUNDED));
    assert!(page.contains("frames - > requests - > mirrored - > compared -"), "{page}");
    assert!(page.contains("paused"), "{page}");
}

#[test]
fn what_is_missing_is_told_below() {
    let page = Page { trouble: Some("no agent listens".to_owned()), ..Page::default() };
    let lines = page.lines(&readings(), Size { columns: 80, rows: 24 });
    let last = lines.last().unwrap();
    assert!(
        last.text.starts_with("no answer since 0s: no agent listens") && last.style == Style::Alarm,
        "{last:?}"
    );
    let asking = Chosen { experiment: "orders-0".to_owned(), is_paused: false };
    let page = Page { asking: Some(asking), ..page };
    assert_eq!(
        page.lines(&readings(), Size { columns: 80, rows: 24 }).last().unwrap().text,
        "pause orders-0? y/n"
    );
}

#[test]
fn fleet_has_a_line_for_each_agent() {
    let agent = |node: &str, seen: u64| {
        json!({
            "addresses": ["10.0.0.1:9479"], "trouble": null, "seconds": 0.1, "uptimeSeconds": 60.0, "paused": false,
            "agent": { "instance": format!("{node:0>16}"), "node": node, "pod": null, "version": "0.1.0" },
            "capture": {
                "interfaces": 1, "framesCaptured": seen, "framesDropped": 0,
                "requests": { "seen": seen, "pending": 0, "mirrored": seen, "skipped": 0, "dropped": 0, "lost": 0 },
            },
            "queued": 0, "inFlight": 2, "verdict": "pass",
        })
    };
    let view = |seen: u64| {
        let mut dead = agent("x", 0);
        dead["trouble"] = json!({ "problem": "timeout", "text": "no answer within 2 s" });
        dead["agent"] = json!(null);
        dead["addresses"] = json!(["10.0.0.9:9479"]);
        let both = agent("a", 2 * seen)["capture"].clone();
        Reading::Fleet(Box::new(serde_json::from_value(json!({
            "format": 1, "asked": "2026-11-21T20:00:00Z", "known": 3, "answered": 2,
            "agents": [agent("node-a", seen), agent("node-b", seen), dead], "capture": both,
            "experiments": [{
                "name": "orders", "owner": null, "agents": 2, "paused": 0, "compared_by": 2, "left_out": [],
                "comparisons": { "equal": seen }, "has_gate": true, "has_control": false, "state": "not_enough_data",
                "judged": "pass", "missing": [format!("10.0.0.9:9479: timeout, {HOSTILE}")], "rules": [], "arrays": [],
                "targets": [{
                    "target": "v2", "copies": { "copies": 1, "pending": 0, "mirrored": 1, "skipped": 0, "dropped": 0 },
                    "queued": 0, "in_flight": 0, "breakers": {}, "interlocks": {}, "replays": {}, "kept": [],
                    "verdict": { "state": "pass", "reasons": [] },
                }],
            }],
        })).unwrap()))
    };
    let (mut readings, start) = (Readings::default(), Instant::now());
    readings.push(view(100), start);
    readings.push(view(300), start + Duration::from_secs(2));
    let page = text(&Page::default().lines(&readings, Size::UNBOUNDED));
    for told in [
        "fleet: 2 of 3 agents answered",
        "requests 200/s",
        "node-a 10.0.0.1:9479         0.1.0     1m 0s      100/s   100/s    0/s     2 pass",
        "10.0.0.9:9479                timeout: no answer within 2 s",
        "missing: 10.0.0.9:9479: timeout",
        "verdict: pass",
    ] {
        assert!(page.contains(told), "{told} is not in\n{page}");
    }
    assert_eq!(Page::default().chosen(&readings), None);
}
